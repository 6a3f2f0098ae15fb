//! Identifiers. Text form everywhere (JSON, logs, databases): lower-case hex with `0x`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// A text that is not the hex form of the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name} must be 0x and {digits} hex digits, got {text:?}")]
pub struct InvalidId {
    name: &'static str,
    digits: usize,
    text: String,
}

macro_rules! id {
    ($(#[doc = $doc:literal])* $name:ident, $len:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// All bytes zero.
            pub const ZERO: Self = Self([0; $len]);

            /// The bytes, most significant first.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Whether all bytes are zero.
            pub fn is_zero(&self) -> bool {
                *self == Self::ZERO
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(hex::Buffer::<$len, true>::new().format(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Takes either case; the `0x` is required.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId {
                    name: stringify!($name),
                    digits: $len * 2,
                    // A stranger's text is echoed, but not a whole megabyte of it.
                    text: text.chars().take(80).collect(),
                };
                let digits = text.strip_prefix("0x").ok_or_else(invalid)?;
                let mut bytes = [0; $len];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| invalid())?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                let bytes = bytes.try_into().map_err(|_| InvalidId {
                    name: stringify!($name),
                    digits: $len * 2,
                    text: hex::encode_prefixed(bytes.get(..40).unwrap_or(bytes)),
                })?;
                Ok(Self(bytes))
            }
        }

        crate::schema::text!($name, concat!($($doc),*).trim(), format!("^0x[0-9a-f]{{{}}}$", $len * 2));

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(hex::Buffer::<$len, true>::new().format(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(/// EIP-712 hash of a provider offer or of a developer offer.
    OfferHash, 32);
id!(/// `keccak256(abi.encode(developerOfferHash, provider))`: one replica of one offer at one provider.
    DealId, 32);
id!(/// SHA-256 digest of an artifact or of a manifest.
    Digest, 32);
id!(/// Hash of a transaction.
    TxHash, 32);
id!(/// Hash of a block.
    BlockHash, 32);
id!(/// Keccak-256 commitment to receipts.
    ReceiptRoot, 32);
id!(/// Account on the chain.
    Address, 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_is_lower_case() {
        let address: Address = "0xABcdEF0000000000000000000000000000000001".parse().unwrap();
        assert_eq!(address.to_string(), "0xabcdef0000000000000000000000000000000001");
        let json = serde_json::to_string(&address).unwrap();
        assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
    }

    #[test]
    fn wrong_text_names_what_was_expected() {
        for text in ["", "0x12", "abcdef0000000000000000000000000000000001", "0xzz"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("Address must be 0x and 40 hex digits"), "{error}");
        }
    }
}
