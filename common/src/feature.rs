//! Features: host capabilities that a provider switches on and a worker imports, as a bit set of 64.
//!
//! A bit's meaning is fixed for ever; new capabilities take the next free bit.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Names by bit, lowest first. Interfaces that every agent links (`wasi:http` in, `wasi:cli`, `wasi:io`, clocks,
/// random) are no features: they cannot be missing.
pub const FEATURES: [&str; 8] = [
    "wasi:http/outgoing-handler",
    "wasi:config",
    "wasi:keyvalue",
    "wasi:logging",
    "wasi:filesystem",
    "wasi:sockets",
    "wasi:blobstore",
    "wasi:messaging",
];

/// A set of features. Bits that this version knows no name for are kept: they may be required by a newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FeatureSet(pub u64);

/// A name that stands for no feature.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown feature {name:?}: known are {}", FEATURES.join(", "))]
pub struct UnknownFeature {
    name: String,
}

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self(0);

    /// The set of one named feature.
    pub fn named(name: &str) -> Result<Self, UnknownFeature> {
        let unknown = || UnknownFeature { name: name.chars().take(60).collect() };
        if let Some(bit) = name.strip_prefix("bit:") {
            return bit.parse::<u32>().ok().and_then(|bit| 1_u64.checked_shl(bit)).map(Self).ok_or_else(unknown);
        }
        let bit = FEATURES.iter().position(|known| *known == name).ok_or_else(unknown)?;
        Ok(Self(u32::try_from(bit).ok().and_then(|bit| 1_u64.checked_shl(bit)).unwrap_or_default()))
    }

    /// All features of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every feature of `required` is in `self`.
    pub const fn contains(self, required: Self) -> bool {
        required.0 & !self.0 == 0
    }

    /// What of `self` is not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Sets of one feature each, lowest bit first.
    pub fn each(self) -> impl Iterator<Item = Self> {
        self.bits().filter_map(|bit| 1_u64.checked_shl(bit).map(Self))
    }

    fn bits(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |bit| self.0.checked_shr(*bit).is_some_and(|bits| bits & 1 == 1))
    }

    /// Names, lowest bit first; `bit:N` where this version knows none.
    pub fn names(self) -> Vec<String> {
        self.bits()
            .map(|bit| FEATURES.get(bit as usize).map_or_else(|| format!("bit:{bit}"), |name| (*name).to_owned()))
            .collect()
    }
}

impl fmt::Debug for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl JsonSchema for FeatureSet {
    fn schema_name() -> Cow<'static, str> {
        "FeatureSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Names of host features, lowest bit first; `bit:N` where this version knows none.",
            "type": "array",
            "items": { "type": "string" },
        })
    }
}

impl Serialize for FeatureSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.names().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FeatureSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().try_fold(Self::EMPTY, |set, name| {
            Self::named(name).map(|feature| set.union(feature)).map_err(D::Error::custom)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_round_trip() {
        for bits in [0, 1, 0b101, u64::MAX] {
            let json = serde_json::to_string(&FeatureSet(bits)).unwrap();
            assert_eq!(serde_json::from_str::<FeatureSet>(&json).unwrap(), FeatureSet(bits));
        }
        assert_eq!(FeatureSet(0b100).names(), ["wasi:keyvalue"]);
        assert!(FeatureSet(0b101).each().eq([FeatureSet(1), FeatureSet(0b100)]));
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        for name in ["gpu", "bit:64", "bit:x"] {
            let error = FeatureSet::named(name).unwrap_err().to_string();
            assert!(error.contains("wasi:keyvalue"), "{error}");
        }
    }
}
