//! Logs of the market into domain events.

use std::sync::LazyLock;

use alloy::{
    primitives::{B256, Bloom, BloomInput},
    sol_types::{SolEvent, SolEventInterface},
};
use common::{
    epoch::Epoch,
    event::{DealChanged, DealOpened, MarketEvent, PlacedEvent},
    ids::{BlockHash, DealId, Digest, OfferHash, ReceiptRoot, TxHash},
    resources::Resources,
};
use contracts::Market::{self, MarketEvents};

use crate::{
    convert::{ConvertError, inward},
    eip712::OfferDomain,
    error::ChainError,
    logs::RawLog,
};

/// Every event of the market: its topic, and the bits that it sets in a block's bloom.
pub(crate) static TOPICS: LazyLock<Vec<(B256, Bloom)>> = LazyLock::new(|| {
    let topics = MarketEvents::SELECTORS.iter().map(|topic| B256::from(*topic));
    topics.map(|topic| (topic, Bloom::from(BloomInput::Raw(topic.as_slice())))).collect()
});

/// A decoded log.
pub(crate) struct Decoded {
    pub(crate) placed: PlacedEvent,
    /// Whether it opens an offer that the domain cannot hold exactly.
    pub(crate) inexact: bool,
}

/// Decodes a log of the market of `domain`; `None` for events that the interface does not have.
pub(crate) fn log(domain: &OfferDomain, log: &RawLog) -> Result<Option<Decoded>, ChainError> {
    let unplaced = || ChainError::invalid_answer("eth_getLogs", "a log without its place on the chain");
    let block = log.block_number.ok_or_else(unplaced)?.to();
    let log_index = log.log_index.ok_or_else(unplaced)?.to();
    let block_hash = log.block_hash.ok_or_else(unplaced)?;
    let tx_hash = log.transaction_hash.ok_or_else(unplaced)?;
    let Some(name) = log.topics.first().and_then(event_name) else { return Ok(None) };
    let invalid = |detail: String| ChainError::InvalidEvent { block, log_index, event: name, detail };
    let decoded = MarketEvents::decode_raw_log(&log.topics, &log.data)
        .map_err(|error| invalid(error.to_string().chars().take(200).collect()))?;
    let (event, inexact) = event(domain, decoded).map_err(|error| invalid(error.to_string()))?;
    let placed = PlacedEvent {
        block_number: block,
        block_hash: BlockHash(block_hash.0),
        log_index,
        tx_hash: TxHash(tx_hash.0),
        event,
    };
    Ok(Some(Decoded { placed, inexact }))
}

fn event_name(topic: &B256) -> Option<&'static str> {
    // The signature up to its parenthesis.
    let signature = match *topic {
        Market::Deposited::SIGNATURE_HASH => Market::Deposited::SIGNATURE,
        Market::Withdrawn::SIGNATURE_HASH => Market::Withdrawn::SIGNATURE,
        Market::ProviderOfferOpened::SIGNATURE_HASH => Market::ProviderOfferOpened::SIGNATURE,
        Market::DeveloperOfferOpened::SIGNATURE_HASH => Market::DeveloperOfferOpened::SIGNATURE,
        Market::OfferCancelled::SIGNATURE_HASH => Market::OfferCancelled::SIGNATURE,
        Market::NonceFloorRaised::SIGNATURE_HASH => Market::NonceFloorRaised::SIGNATURE,
        Market::DealOpened::SIGNATURE_HASH => Market::DealOpened::SIGNATURE,
        Market::ArtifactUpdated::SIGNATURE_HASH => Market::ArtifactUpdated::SIGNATURE,
        Market::MatcherPaid::SIGNATURE_HASH => Market::MatcherPaid::SIGNATURE,
        Market::MatchSkipped::SIGNATURE_HASH => Market::MatchSkipped::SIGNATURE,
        Market::FillSkipped::SIGNATURE_HASH => Market::FillSkipped::SIGNATURE,
        Market::MatchingPaused::SIGNATURE_HASH => Market::MatchingPaused::SIGNATURE,
        Market::DealFunded::SIGNATURE_HASH => Market::DealFunded::SIGNATURE,
        Market::DealSettled::SIGNATURE_HASH => Market::DealSettled::SIGNATURE,
        Market::DealUnfunded::SIGNATURE_HASH => Market::DealUnfunded::SIGNATURE,
        Market::DealChanged::SIGNATURE_HASH => Market::DealChanged::SIGNATURE,
        Market::DealRefunded::SIGNATURE_HASH => Market::DealRefunded::SIGNATURE,
        Market::DealEnding::SIGNATURE_HASH => Market::DealEnding::SIGNATURE,
        Market::DealEnded::SIGNATURE_HASH => Market::DealEnded::SIGNATURE,
        Market::ClaimSkipped::SIGNATURE_HASH => Market::ClaimSkipped::SIGNATURE,
        Market::Attested::SIGNATURE_HASH => Market::Attested::SIGNATURE,
        _ => return None,
    };
    signature.split('(').next()
}

fn event(domain: &OfferDomain, event: MarketEvents) -> Result<(MarketEvent, bool), ConvertError> {
    let event = match event {
        MarketEvents::ProviderOfferOpened(e) => {
            let offer_hash = OfferHash(e.offerHash.0);
            let known = inward::provider_offer(domain, offer_hash, &e.offer)?;
            let event = MarketEvent::ProviderOfferOpened { offer_hash, offer: Box::new(known.offer) };
            return Ok((event, !known.exact));
        }
        MarketEvents::DeveloperOfferOpened(e) => {
            let offer_hash = OfferHash(e.offerHash.0);
            let known = inward::developer_offer(domain, offer_hash, &e.offer);
            let event = MarketEvent::DeveloperOfferOpened { offer_hash, offer: Box::new(known.offer) };
            return Ok((event, !known.exact));
        }
        MarketEvents::Deposited(e) => MarketEvent::Deposited {
            account: inward::address(e.account),
            from: inward::address(e.from),
            amount: inward::wide_atoms("amount", e.amount)?,
        },
        MarketEvents::Withdrawn(e) => MarketEvent::Withdrawn {
            account: inward::address(e.account),
            to: inward::address(e.to),
            amount: inward::wide_atoms("amount", e.amount)?,
        },
        MarketEvents::OfferCancelled(e) => {
            MarketEvent::OfferCancelled { owner: inward::address(e.owner), offer_hash: OfferHash(e.offerHash.0) }
        }
        MarketEvents::NonceFloorRaised(e) => {
            MarketEvent::NonceFloorRaised { owner: inward::address(e.owner), floor: e.floor }
        }
        MarketEvents::ArtifactUpdated(e) => MarketEvent::ArtifactUpdated {
            developer_offer: OfferHash(e.developerOffer.0),
            version: e.version,
            artifact: Digest(e.artifact.0),
            manifest: Digest(e.manifest.0),
            artifact_url: e.artifactUrl,
        },
        MarketEvents::MatcherPaid(e) => MarketEvent::MatcherPaid {
            developer_offer: OfferHash(e.developerOffer.0),
            matcher: inward::address(e.matcher),
            amount: inward::wide_atoms("amount", e.amount)?,
        },
        MarketEvents::MatchSkipped(e) => MarketEvent::MatchSkipped {
            developer_offer: OfferHash(e.developerOffer.0),
            reason: inward::reason(e.reason)?,
        },
        MarketEvents::FillSkipped(e) => MarketEvent::FillSkipped {
            developer_offer: OfferHash(e.developerOffer.0),
            provider_offer: OfferHash(e.providerOffer.0),
            reason: inward::reason(e.reason)?,
        },
        MarketEvents::MatchingPaused(e) => MarketEvent::MatchingPaused { paused: e.paused },
        MarketEvents::Attested(e) => MarketEvent::Attested {
            agent: inward::address(e.agent),
            epoch: Epoch(e.epoch),
            receipt_root: ReceiptRoot(e.receiptRoot.0),
            rolling_hash: ReceiptRoot(e.rollingHash.0),
        },
        other => deal_event(other)?,
    };
    Ok((event, false))
}

fn deal_event(event: MarketEvents) -> Result<MarketEvent, ConvertError> {
    Ok(match event {
        MarketEvents::DealOpened(e) => MarketEvent::DealOpened(Box::new(DealOpened {
            deal_id: DealId(e.dealId.0),
            developer_offer: OfferHash(e.developerOffer.0),
            provider_offer: OfferHash(e.providerOffer.0),
            price_per_epoch: inward::capped(e.pricePerEpoch),
            start_epoch: Epoch(e.startEpoch),
            end_epoch: Epoch(e.endEpoch),
            locked: inward::atoms("locked", e.locked)?,
        })),
        MarketEvents::DealFunded(e) => MarketEvent::DealFunded {
            deal_id: DealId(e.dealId.0),
            from: inward::address(e.from),
            amount: inward::atoms("amount", e.amount)?,
            paid_until: Epoch(e.paidUntil),
        },
        MarketEvents::DealSettled(e) => MarketEvent::DealSettled {
            deal_id: DealId(e.dealId.0),
            paid: inward::atoms("paid", e.paid)?,
            topped_up: inward::atoms("toppedUp", e.toppedUp)?,
            settled_until: Epoch(e.settledUntil),
        },
        MarketEvents::DealChanged(e) => MarketEvent::DealChanged(Box::new(DealChanged {
            deal_id: DealId(e.dealId.0),
            sequence: e.sequence,
            from: Epoch(e.from),
            end_epoch: Epoch(e.endEpoch),
            price_per_epoch: inward::capped(e.pricePerEpoch),
            size: Resources { milli_cpu: e.milliCpu, memory_mib: e.memoryMib },
            bond: inward::atoms("bond", e.bond)?,
            paid_until: Epoch(e.paidUntil),
        })),
        MarketEvents::DealRefunded(e) => MarketEvent::DealRefunded {
            deal_id: DealId(e.dealId.0),
            refunded: inward::atoms("refunded", e.refunded)?,
            paid_until: Epoch(e.paidUntil),
        },
        MarketEvents::DealUnfunded(e) => {
            MarketEvent::DealUnfunded { deal_id: DealId(e.dealId.0), since: Epoch(e.since) }
        }
        MarketEvents::DealEnding(e) => MarketEvent::DealEnding {
            deal_id: DealId(e.dealId.0),
            cause: inward::cause(e.cause)?,
            end_epoch: Epoch(e.endEpoch),
            refunded: inward::atoms("refunded", e.refunded)?,
        },
        MarketEvents::DealEnded(e) => MarketEvent::DealEnded {
            deal_id: DealId(e.dealId.0),
            cause: inward::cause(e.cause)?,
            refunded: inward::atoms("refunded", e.refunded)?,
            bond_to: inward::address(e.bondTo),
            bond: inward::atoms("bond", e.bond)?,
        },
        MarketEvents::ClaimSkipped(e) => {
            MarketEvent::ClaimSkipped { deal_id: DealId(e.dealId.0), reason: inward::reason(e.reason)? }
        }
        // The others are handled by `event`.
        _ => return Err(ConvertError::UnknownName { field: "event" }),
    })
}
