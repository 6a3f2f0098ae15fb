//! Between the domain and the contract's types. Outward nothing can fail. Inward, what can fail says so, and offers are
//! *lossy*: anyone may put garbage on the chain, and an offer with a region that is none, or text that is no UTF-8, still
//! has deals and money that must be accounted for. Such an offer keeps everything that money and capacity depend on, and
//! is closed (`valid_until` 0) so that nothing is ever matched with it; [`inward::provider_offer`] tells.

use thiserror::Error;

/// A value of the contract that the domain has no place for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConvertError {
    /// An amount above what money can be.
    #[error("{field} is {value} atoms, above the limit of 9223372036854775807")]
    AmountTooLarge { field: &'static str, value: String },
    /// An enum's number that this version knows no name for.
    #[error("{field} has an unknown value")]
    UnknownName { field: &'static str },
}

pub(crate) mod outward {
    use alloy::primitives::{Address as AlloyAddress, B256};
    use common::{
        agreement::{ArtifactUpdate, DealChange, Receipt},
        deal::DealRef,
        ids::Address,
        offer::{DeveloperOffer, ProviderOffer},
    };
    use contracts::Market;

    pub(crate) fn address(address: Address) -> AlloyAddress {
        AlloyAddress::from(address.0)
    }

    pub(crate) fn addresses(addresses: &[Address]) -> Vec<AlloyAddress> {
        addresses.iter().copied().map(self::address).collect()
    }

    pub(crate) fn word(bytes: [u8; 32]) -> B256 {
        B256::from(bytes)
    }

    pub(crate) fn deal_ref(deal: &DealRef) -> Market::DealRef {
        Market::DealRef {
            developerOffer: word(deal.developer_offer.0),
            provider: address(deal.provider),
            providerOffer: word(deal.provider_offer.0),
        }
    }

    pub(crate) fn provider_offer(offer: &ProviderOffer) -> Market::ProviderOffer {
        Market::ProviderOffer {
            provider: address(offer.provider),
            agent: address(offer.agent),
            payout: address(offer.payout),
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

    pub(crate) fn developer_offer(offer: &DeveloperOffer) -> Market::DeveloperOffer {
        Market::DeveloperOffer {
            developer: address(offer.developer),
            artifact: word(offer.artifact.0),
            manifest: word(offer.manifest.0),
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
            matcher: address(offer.matcher),
            matcherFee: offer.matcher_fee.get(),
            allow: addresses(&offer.allow),
            deny: addresses(&offer.deny),
            artifactUrl: offer.artifact_url.clone(),
        }
    }

    pub(crate) fn deal_change(change: &DealChange) -> Market::DealChange {
        Market::DealChange {
            dealId: word(change.deal_id.0),
            sequence: change.sequence,
            endEpoch: change.end_epoch.0,
            milliCpu: change.size.milli_cpu,
            memoryMib: change.size.memory_mib,
            pricePerEpoch: change.price_per_epoch.get(),
            validUntil: change.valid_until,
        }
    }

    pub(crate) fn artifact_update(update: &ArtifactUpdate) -> Market::ArtifactUpdate {
        Market::ArtifactUpdate {
            developerOffer: word(update.developer_offer.0),
            version: update.version,
            artifact: word(update.artifact.0),
            manifest: word(update.manifest.0),
            validUntil: update.valid_until,
            artifactUrl: update.artifact_url.clone(),
        }
    }

    pub(crate) fn receipt(receipt: &Receipt) -> Market::Receipt {
        Market::Receipt {
            dealId: word(receipt.deal_id.0),
            sequence: receipt.sequence,
            content: word(receipt.content.0),
        }
    }
}

pub(crate) mod inward {
    use alloy::primitives::{Address as AlloyAddress, U256};
    use common::{
        deal::{Deal, DealState, EndCause, OldPrice},
        epoch::Epoch,
        event::Reason,
        feature::FeatureSet,
        ids::{Address, DealId, Digest, OfferHash},
        money::Atoms,
        offer::{DeveloperOffer, ProviderOffer},
        region::Region,
        resources::{Prices, Resources},
    };
    use contracts::Market;

    use super::ConvertError;
    use crate::eip712::OfferDomain;

    /// An offer as far as the domain can hold it.
    pub(crate) struct Known<T> {
        pub(crate) offer: T,
        /// Whether `offer` is what the chain has: its hash is the id. If not, it is closed.
        pub(crate) exact: bool,
    }

    pub(crate) fn address(address: AlloyAddress) -> Address {
        Address(address.into_array())
    }

    pub(crate) fn atoms(field: &'static str, value: u64) -> Result<Atoms, ConvertError> {
        Atoms::new(value).map_err(|_| ConvertError::AmountTooLarge { field, value: value.to_string() })
    }

    pub(crate) fn wide_atoms(field: &'static str, value: U256) -> Result<Atoms, ConvertError> {
        let narrow = u64::try_from(value).ok().and_then(|value| Atoms::new(value).ok());
        narrow.ok_or_else(|| ConvertError::AmountTooLarge { field, value: value.to_string() })
    }

    /// For prices: above the limit nobody can pay them, whatever they are exactly.
    pub(crate) fn capped(value: u64) -> Atoms {
        Atoms::new(value).unwrap_or(Atoms::MAX)
    }

    /// Enums are plain numbers in the bindings.
    pub(crate) fn reason(number: u8) -> Result<Reason, ConvertError> {
        Reason::ALL.get(usize::from(number)).copied().ok_or(ConvertError::UnknownName { field: "reason" })
    }

    pub(crate) fn cause(number: u8) -> Result<EndCause, ConvertError> {
        known_cause(number)?.ok_or(ConvertError::UnknownName { field: "cause" })
    }

    fn known_cause(number: u8) -> Result<Option<EndCause>, ConvertError> {
        Ok(Some(match number {
            0 => return Ok(None),
            1 => EndCause::TermOver,
            2 => EndCause::DeveloperCancelled,
            3 => EndCause::ProviderLeft,
            4 => EndCause::ProviderEvicted,
            5 => EndCause::Unfunded,
            6 => EndCause::ProviderSlashed,
            _ => return Err(ConvertError::UnknownName { field: "cause" }),
        }))
    }

    /// `None` for a deal that never was. The contract does not keep where it started.
    pub(crate) fn deal(start: Epoch, view: &Market::DealView) -> Result<Option<Deal>, ConvertError> {
        let state = match view.state {
            0 => return Ok(None),
            1 => DealState::Active,
            2 => DealState::Ending,
            3 => DealState::Ended,
            _ => return Err(ConvertError::UnknownName { field: "state" }),
        };
        Ok(Some(Deal {
            id: DealId(view.dealId.0),
            developer_offer: OfferHash(view.developerOffer.0),
            provider_offer: OfferHash(view.providerOffer.0),
            developer: address(view.developer),
            provider: address(view.provider),
            agent: address(view.agent),
            size: Resources { milli_cpu: view.milliCpu, memory_mib: view.memoryMib },
            price_per_epoch: capped(view.pricePerEpoch),
            old_price: (view.changes != 0)
                .then(|| OldPrice { until: Epoch(view.priceFrom), per_epoch: capped(view.oldPricePerEpoch) }),
            changes: view.changes,
            start_epoch: start,
            end_epoch: Epoch(view.endEpoch),
            settled_until: Epoch(view.settledUntil),
            paid_until: Epoch(view.paidUntil),
            locked: atoms("locked", view.locked)?,
            bond: atoms("bond", view.bond)?,
            unfunded_since: Some(view.unfundedSince).filter(|since| *since != 0).map(Epoch),
            state,
            cause: known_cause(view.cause)?,
        }))
    }

    /// Takes whatever the chain has.
    pub(crate) fn provider_offer(
        domain: &OfferDomain,
        hash: OfferHash,
        terms: &Market::ProviderOffer,
    ) -> Result<Known<ProviderOffer>, ConvertError> {
        let mut offer = ProviderOffer {
            provider: address(terms.provider),
            agent: address(terms.agent),
            payout: address(terms.payout),
            region: nearest_region(terms.region.0)?,
            capacity: Resources { milli_cpu: terms.milliCpu, memory_mib: terms.memoryMib },
            features: FeatureSet(terms.features),
            prices: Prices {
                per_vcpu_epoch: capped(terms.pricePerVcpuEpoch),
                per_gib_epoch: capped(terms.pricePerGibEpoch),
            },
            max_epochs: terms.maxEpochs,
            valid_until: terms.validUntil,
            nonce: terms.nonce,
            endpoint: terms.endpoint.clone(),
        };
        let exact = domain.provider_offer_hash(&offer) == hash;
        if !exact {
            offer.valid_until = 0;
        }
        Ok(Known { offer, exact })
    }

    /// Takes whatever the chain has.
    pub(crate) fn developer_offer(
        domain: &OfferDomain,
        hash: OfferHash,
        terms: &Market::DeveloperOffer,
    ) -> Known<DeveloperOffer> {
        let mut offer = DeveloperOffer {
            developer: address(terms.developer),
            artifact: Digest(terms.artifact.0),
            manifest: Digest(terms.manifest.0),
            size: Resources { milli_cpu: terms.milliCpu, memory_mib: terms.memoryMib },
            features: FeatureSet(terms.features),
            regions: terms.regions.iter().filter_map(|bytes| Region::from_bytes(bytes.0).ok()).collect(),
            min_replicas: terms.minReplicas,
            replicas: terms.replicas,
            max_price_per_epoch: capped(terms.maxPricePerEpoch),
            epochs: terms.epochs,
            prepaid_epochs: terms.prepaidEpochs,
            valid_until: terms.validUntil,
            nonce: terms.nonce,
            matcher: address(terms.matcher),
            matcher_fee: capped(terms.matcherFee),
            allow: terms.allow.iter().copied().map(address).collect(),
            deny: terms.deny.iter().copied().map(address).collect(),
            artifact_url: terms.artifactUrl.clone(),
        };
        let exact = domain.developer_offer_hash(&offer) == hash;
        if !exact {
            offer.valid_until = 0;
        }
        Known { offer, exact }
    }

    /// The place that the bytes name, or the longest part of them that is one, or Oceania: only a closed offer has
    /// another place than its bytes say.
    fn nearest_region(bytes: [u8; 8]) -> Result<Region, ConvertError> {
        let prefix = |length: usize| {
            let mut part = [0; 8];
            part.iter_mut().zip(bytes).take(length).for_each(|(to, from)| *to = from);
            part
        };
        let candidates = [8, 7, 6, 5, 4, 2].into_iter().map(prefix).chain([*b"oc\0\0\0\0\0\0"]);
        let mut places = candidates.filter_map(|bytes| Region::from_bytes(bytes).ok());
        places.next().ok_or(ConvertError::UnknownName { field: "region" })
    }
}
