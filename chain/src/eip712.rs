//! EIP-712 hashes of offers, which are their ids, and of what else is signed, and the signatures over them. Pure.

use std::borrow::Cow;

use alloy::{
    dyn_abi::TypedData,
    primitives::{Signature, U256},
    sol_types::{Eip712Domain, SolStruct, SolValue},
};
use common::{
    agreement::{ArtifactUpdate, DealChange, Receipt},
    ids::{Address, DealId, OfferHash},
    offer::{DeveloperOffer, ProviderOffer},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::convert::{inward, outward};

/// Name in the market's EIP-712 domain.
pub const DOMAIN_NAME: &str = "Wharfage Market";
/// Version in the market's EIP-712 domain.
pub const DOMAIN_VERSION: &str = "1";

/// The structs once more, with the base types that EIP-712 knows: the contract's artifact names its own value types
/// (`Region`) in them. A property test holds the hashes against the contract's.
mod terms {
    alloy::sol! {
        #[derive(serde::Serialize)]
        struct ProviderOffer {
            address provider;
            address agent;
            address payout;
            bytes8 region;
            uint32 milliCpu;
            uint32 memoryMib;
            uint64 features;
            uint64 pricePerVcpuEpoch;
            uint64 pricePerGibEpoch;
            uint32 maxEpochs;
            uint64 validUntil;
            uint64 nonce;
            string endpoint;
        }

        #[derive(serde::Serialize)]
        struct DeveloperOffer {
            address developer;
            bytes32 artifact;
            bytes32 manifest;
            uint32 milliCpu;
            uint32 memoryMib;
            uint64 features;
            bytes8[] regions;
            uint16 minReplicas;
            uint16 replicas;
            uint64 maxPricePerEpoch;
            uint32 epochs;
            uint32 prepaidEpochs;
            uint64 validUntil;
            uint64 nonce;
            address matcher;
            uint64 matcherFee;
            address[] allow;
            address[] deny;
            string artifactUrl;
        }

        #[derive(serde::Serialize)]
        struct DealChange {
            bytes32 dealId;
            uint32 sequence;
            uint32 endEpoch;
            uint32 milliCpu;
            uint32 memoryMib;
            uint64 pricePerEpoch;
            uint64 validUntil;
        }

        #[derive(serde::Serialize)]
        struct ArtifactUpdate {
            bytes32 developerOffer;
            uint32 version;
            bytes32 artifact;
            bytes32 manifest;
            uint64 validUntil;
            string artifactUrl;
        }

        struct Receipt {
            bytes32 dealId;
            uint64 sequence;
            bytes32 content;
        }
    }
}

/// What binds a signature to one market on one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OfferDomain {
    /// Chain id, as in EIP-155.
    pub chain_id: u64,
    /// The Market contract.
    pub market: Address,
}

impl OfferDomain {
    /// The id of a provider offer: what the provider signs.
    pub fn provider_offer_hash(&self, offer: &ProviderOffer) -> OfferHash {
        OfferHash(provider_terms(offer).eip712_signing_hash(&self.separator()).0)
    }

    /// The id of a developer offer: what the developer signs.
    pub fn developer_offer_hash(&self, offer: &DeveloperOffer) -> OfferHash {
        OfferHash(developer_terms(offer).eip712_signing_hash(&self.separator()).0)
    }

    /// What developer and provider sign to change a deal.
    pub fn deal_change_hash(&self, change: &DealChange) -> [u8; 32] {
        change_terms(change).eip712_signing_hash(&self.separator()).0
    }

    /// What a developer signs to replace an artifact.
    pub fn artifact_update_hash(&self, update: &ArtifactUpdate) -> [u8; 32] {
        update_terms(update).eip712_signing_hash(&self.separator()).0
    }

    /// What an agent signs of an execution.
    pub fn receipt_hash(&self, receipt: &Receipt) -> [u8; 32] {
        receipt_terms(receipt).eip712_signing_hash(&self.separator()).0
    }

    /// The document for `eth_signTypedData_v4`. Integers of the message are decimal strings, since wallets read JSON
    /// numbers as doubles.
    pub fn typed_data(&self, offer: &DeveloperOffer) -> Value {
        self.document(&developer_terms(offer))
    }

    /// The document for `eth_signTypedData_v4` of a provider offer.
    pub fn provider_typed_data(&self, offer: &ProviderOffer) -> Value {
        self.document(&provider_terms(offer))
    }

    /// The document for `eth_signTypedData_v4` of a change of a deal.
    pub fn deal_change_typed_data(&self, change: &DealChange) -> Value {
        self.document(&change_terms(change))
    }

    /// The document for `eth_signTypedData_v4` of an update of an artifact.
    pub fn artifact_update_typed_data(&self, update: &ArtifactUpdate) -> Value {
        self.document(&update_terms(update))
    }

    fn separator(&self) -> Eip712Domain {
        domain(DOMAIN_NAME, DOMAIN_VERSION, self.chain_id, self.market)
    }

    fn document<S: SolStruct + Serialize>(&self, terms: &S) -> Value {
        let typed = TypedData::from_struct(terms, Some(self.separator()));
        json!({
            "types": typed.resolver,
            "primaryType": typed.primary_type,
            "domain": {
                "name": DOMAIN_NAME,
                "version": DOMAIN_VERSION,
                "chainId": self.chain_id,
                "verifyingContract": self.market,
            },
            "message": numbers_as_text(typed.message),
        })
    }
}

pub(crate) fn domain(name: &str, version: &str, chain_id: u64, contract: Address) -> Eip712Domain {
    Eip712Domain {
        name: Some(Cow::Owned(name.to_owned())),
        version: Some(Cow::Owned(version.to_owned())),
        chain_id: Some(U256::from(chain_id)),
        verifying_contract: Some(outward::address(contract)),
        salt: None,
    }
}

fn numbers_as_text(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Array(items) => items.into_iter().map(numbers_as_text).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, numbers_as_text(value))).collect(),
        other => other,
    }
}

fn provider_terms(offer: &ProviderOffer) -> terms::ProviderOffer {
    terms::ProviderOffer {
        provider: outward::address(offer.provider),
        agent: outward::address(offer.agent),
        payout: outward::address(offer.payout),
        region: offer.region.to_bytes().into(),
        milliCpu: offer.capacity.milli_cpu,
        memoryMib: offer.capacity.memory_mib,
        features: offer.features.0,
        pricePerVcpuEpoch: offer.prices.per_vcpu_epoch.get(),
        pricePerGibEpoch: offer.prices.per_gib_epoch.get(),
        maxEpochs: offer.max_epochs,
        validUntil: offer.valid_until,
        nonce: offer.nonce,
        endpoint: offer.endpoint.clone(),
    }
}

fn developer_terms(offer: &DeveloperOffer) -> terms::DeveloperOffer {
    terms::DeveloperOffer {
        developer: outward::address(offer.developer),
        artifact: offer.artifact.0.into(),
        manifest: offer.manifest.0.into(),
        milliCpu: offer.size.milli_cpu,
        memoryMib: offer.size.memory_mib,
        features: offer.features.0,
        regions: offer.regions.iter().map(|region| region.to_bytes().into()).collect(),
        minReplicas: offer.min_replicas,
        replicas: offer.replicas,
        maxPricePerEpoch: offer.max_price_per_epoch.get(),
        epochs: offer.epochs,
        prepaidEpochs: offer.prepaid_epochs,
        validUntil: offer.valid_until,
        nonce: offer.nonce,
        matcher: outward::address(offer.matcher),
        matcherFee: offer.matcher_fee.get(),
        allow: outward::addresses(&offer.allow),
        deny: outward::addresses(&offer.deny),
        artifactUrl: offer.artifact_url.clone(),
    }
}

fn change_terms(change: &DealChange) -> terms::DealChange {
    terms::DealChange {
        dealId: change.deal_id.0.into(),
        sequence: change.sequence,
        endEpoch: change.end_epoch.0,
        milliCpu: change.size.milli_cpu,
        memoryMib: change.size.memory_mib,
        pricePerEpoch: change.price_per_epoch.get(),
        validUntil: change.valid_until,
    }
}

fn update_terms(update: &ArtifactUpdate) -> terms::ArtifactUpdate {
    terms::ArtifactUpdate {
        developerOffer: update.developer_offer.0.into(),
        version: update.version,
        artifact: update.artifact.0.into(),
        manifest: update.manifest.0.into(),
        validUntil: update.valid_until,
        artifactUrl: update.artifact_url.clone(),
    }
}

fn receipt_terms(receipt: &Receipt) -> terms::Receipt {
    terms::Receipt { dealId: receipt.deal_id.0.into(), sequence: receipt.sequence, content: receipt.content.0.into() }
}

/// The id of the deal that `provider` would have under this developer offer.
pub fn deal_id(developer_offer: OfferHash, provider: Address) -> DealId {
    let encoded = (outward::word(developer_offer.0), outward::address(provider)).abi_encode();
    DealId(keccak256(&encoded))
}

/// Who made this signature of 65 bytes: r, s, and v of 27 or 28; `None` when nobody can have.
///
/// Like on the chain, other values of v are refused, and so is the larger `s`: everyone could make it from the other one.
pub fn recover(hash: OfferHash, signature: &[u8]) -> Option<Address> {
    signature.last().filter(|v| matches!(v, 27 | 28))?;
    let signature = Signature::from_raw(signature).ok().filter(|signature| signature.normalize_s().is_none())?;
    let signer = signature.recover_address_from_prehash(&outward::word(hash.0)).ok()?;
    Some(inward::address(signer))
}

/// The short form (ERC-2098) of `signature` where it is `signer`'s own over `hash`: 64 bytes, which cost less gas. A contract's
/// signature is left as it is, since nobody knows what the contract makes of it.
pub fn compact(hash: OfferHash, signer: Address, signature: &[u8]) -> Vec<u8> {
    let short = || {
        let (v, rest) = signature.split_last()?;
        let mut short = rest.to_vec();
        *short.get_mut(32)? |= v.checked_sub(27)?.checked_shl(7)?;
        Some(short)
    };
    if recover(hash, signature) == Some(signer) { short() } else { None }.unwrap_or_else(|| signature.to_vec())
}

/// Keccak-256.
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    alloy::primitives::keccak256(bytes).0
}
