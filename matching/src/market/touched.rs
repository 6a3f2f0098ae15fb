//! What events touch: the single entries of a market's state, each of which can be remembered and put back.

use common::{
    deal::Deal,
    epoch::Epoch,
    event::{DealOpened, MarketEvent},
    ids::{Address, DealId, OfferHash},
    money::Atoms,
    resources::Resources,
    state::{ArtifactVersion, KnownDeal, KnownDeveloperOffer, KnownProviderOffer, MarketState},
};

use crate::ledger::Placement;

/// One entry, in the order in which the engine is told of them: what is void before the offers, these before the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touched {
    /// Whether new matches are stopped.
    Paused,
    NonceFloor(Address),
    Cancelled(Address, OfferHash),
    /// The terms of a provider offer.
    Supply(OfferHash),
    /// The terms of a developer offer.
    Demand(OfferHash),
    Account(Address),
    /// What deals hold of a provider offer.
    Used(OfferHash),
    /// Whether a provider hosts or has hosted a replica.
    Host(OfferHash, Address),
    /// How much of a developer offer is placed.
    Placement(OfferHash),
    /// The rest is nothing that the engine wants to know.
    Deal(DealId),
    Attested(Address, Epoch),
    Artifact(OfferHash),
}

/// An entry as it was, with `None` where there was none.
#[derive(Debug)]
pub(super) enum Before {
    Paused(bool),
    NonceFloor(Option<u64>),
    Cancelled(bool),
    Supply(Option<Box<KnownProviderOffer>>),
    Demand(Option<Box<KnownDeveloperOffer>>),
    Account(Option<Atoms>),
    Used(Resources),
    Placement(Placement),
    Deal(Option<Box<KnownDeal>>),
    Attested(bool),
    Artifact(Option<Box<ArtifactVersion>>),
    /// It follows from the others.
    Derived,
}

impl Before {
    pub(super) fn of(state: &MarketState, touched: Touched) -> Self {
        let demand = |hash| state.developer_offers.get(&hash);
        match touched {
            Touched::Paused => Self::Paused(state.matching_paused),
            Touched::NonceFloor(owner) => Self::NonceFloor(state.nonce_floors.get(&owner).copied()),
            Touched::Cancelled(owner, offer) => Self::Cancelled(state.cancelled.contains(&(owner, offer))),
            Touched::Supply(hash) => Self::Supply(state.provider_offers.get(&hash).cloned().map(Box::new)),
            Touched::Demand(hash) => Self::Demand(demand(hash).cloned().map(Box::new)),
            Touched::Account(account) => Self::Account(state.free.get(&account).copied()),
            Touched::Used(hash) => Self::Used(used(state, hash)),
            Touched::Placement(hash) => Self::Placement(placement(state, hash)),
            Touched::Host(..) => Self::Derived,
            Touched::Deal(id) => Self::Deal(state.deals.get(&id).cloned().map(Box::new)),
            Touched::Attested(agent, epoch) => {
                Self::Attested(state.attested.get(&agent).is_some_and(|epochs| epochs.contains(&epoch)))
            }
            Touched::Artifact(hash) => {
                Self::Artifact(demand(hash).and_then(|known| known.updated.clone()).map(Box::new))
            }
        }
    }

    /// Makes the entry what it was.
    pub(super) fn restore(self, state: &mut MarketState, touched: Touched) {
        match (touched, self) {
            (Touched::Paused, Self::Paused(paused)) => state.matching_paused = paused,
            (Touched::NonceFloor(owner), Self::NonceFloor(floor)) => put(&mut state.nonce_floors, owner, floor),
            (Touched::Cancelled(owner, offer), Self::Cancelled(false)) => _ = state.cancelled.remove(&(owner, offer)),
            (Touched::Supply(hash), Self::Supply(known)) => {
                put(&mut state.provider_offers, hash, known.map(|known| *known));
            }
            (Touched::Demand(hash), Self::Demand(known)) => {
                put(&mut state.developer_offers, hash, known.map(|known| *known));
            }
            (Touched::Account(account), Self::Account(free)) => put(&mut state.free, account, free),
            (Touched::Used(hash), Self::Used(used)) => {
                state.provider_offers.get_mut(&hash).into_iter().for_each(|known| known.used = used);
            }
            (Touched::Placement(hash), Self::Placement(placement)) => {
                if let Some(known) = state.developer_offers.get_mut(&hash) {
                    (known.live_replicas, known.end_epoch) = (placement.live_replicas, placement.end_epoch);
                }
            }
            (Touched::Deal(id), Self::Deal(known)) => put(&mut state.deals, id, known.map(|known| *known)),
            (Touched::Attested(agent, epoch), Self::Attested(false)) => {
                let epochs = state.attested.get_mut(&agent);
                let is_empty = epochs.is_some_and(|epochs| epochs.remove(&epoch) && epochs.is_empty());
                if is_empty {
                    state.attested.remove(&agent);
                }
            }
            (Touched::Artifact(hash), Self::Artifact(updated)) => {
                let updated = updated.map(|updated| *updated);
                state.developer_offers.get_mut(&hash).into_iter().for_each(|known| known.updated.clone_from(&updated));
            }
            // As it was, or it follows from the others.
            _ => (),
        }
    }
}

fn put<K: Ord, V>(map: &mut std::collections::BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

/// What deals hold of a provider offer.
pub(super) fn used(state: &MarketState, supply: OfferHash) -> Resources {
    state.provider_offers.get(&supply).map(|known| known.used).unwrap_or_default()
}

/// How much of a developer offer is placed.
pub(super) fn placement(state: &MarketState, demand: OfferHash) -> Placement {
    state.developer_offers.get(&demand).map(Placement::of).unwrap_or_default()
}

/// Everything that the event will change.
pub(crate) fn touched(event: &MarketEvent, state: &MarketState) -> Vec<Touched> {
    let developer = |offer| state.developer_offers.get(offer).map(|known| known.offer.developer);
    match event {
        MarketEvent::Deposited { account, .. } | MarketEvent::Withdrawn { account, .. } => {
            vec![Touched::Account(*account)]
        }
        MarketEvent::ProviderOfferOpened { offer_hash, .. } => {
            vec![Touched::Supply(*offer_hash), Touched::Used(*offer_hash)]
        }
        MarketEvent::DeveloperOfferOpened { offer_hash, .. } => {
            vec![Touched::Demand(*offer_hash), Touched::Placement(*offer_hash)]
        }
        MarketEvent::OfferCancelled { owner, offer_hash } => vec![Touched::Cancelled(*owner, *offer_hash)],
        MarketEvent::NonceFloorRaised { owner, .. } => vec![Touched::NonceFloor(*owner)],
        MarketEvent::MatchingPaused { .. } => vec![Touched::Paused],
        MarketEvent::MatcherPaid { developer_offer, matcher, .. } => {
            [Some(*matcher), developer(developer_offer)].into_iter().flatten().map(Touched::Account).collect()
        }
        MarketEvent::Attested { agent, epoch, .. } => vec![Touched::Attested(*agent, *epoch)],
        MarketEvent::ArtifactUpdated { developer_offer, .. } => vec![Touched::Artifact(*developer_offer)],
        MarketEvent::DealOpened(opened) => touched_by_opening(opened, state),
        MarketEvent::DealFunded { deal_id, from, .. } => vec![Touched::Account(*from), Touched::Deal(*deal_id)],
        event => touched_of_deal(event, state),
    }
}

fn touched_by_opening(opened: &DealOpened, state: &MarketState) -> Vec<Touched> {
    let (demand, supply) = (opened.developer_offer, opened.provider_offer);
    let developer = state.developer_offers.get(&demand).map(|known| known.offer.developer);
    let provider = state.provider_offers.get(&supply).map(|known| known.offer.provider);
    let accounts = [developer, provider].into_iter().flatten().map(Touched::Account);
    let host = provider.map(|provider| Touched::Host(demand, provider));
    let rest = [Touched::Used(supply), Touched::Placement(demand), Touched::Deal(opened.deal_id)];
    accounts.chain(host).chain(rest).collect()
}

fn touched_of_deal(event: &MarketEvent, state: &MarketState) -> Vec<Touched> {
    let of = |id: &DealId, others: &dyn Fn(&Deal) -> Vec<Touched>| {
        let Some(known) = state.deals.get(id) else { return Vec::new() };
        let mut touched = others(&known.deal);
        touched.push(Touched::Deal(*id));
        touched
    };
    match event {
        MarketEvent::DealSettled { deal_id, .. } => of(deal_id, &|deal| {
            let payout = state.provider_offers.get(&deal.provider_offer).map(|known| known.offer.payout);
            [Some(deal.developer), payout].into_iter().flatten().map(Touched::Account).collect()
        }),
        MarketEvent::DealUnfunded { deal_id, .. } => of(deal_id, &|_| Vec::new()),
        MarketEvent::DealRefunded { deal_id, .. } | MarketEvent::DealEnding { deal_id, .. } => {
            of(deal_id, &|deal| vec![Touched::Account(deal.developer)])
        }
        MarketEvent::DealChanged(changed) => {
            of(&changed.deal_id, &|deal| vec![Touched::Used(deal.provider_offer), Touched::Account(deal.provider)])
        }
        MarketEvent::DealEnded { deal_id, bond_to, .. } => of(deal_id, &|deal| {
            vec![
                Touched::Account(deal.developer),
                Touched::Account(*bond_to),
                Touched::Used(deal.provider_offer),
                Touched::Placement(deal.developer_offer),
            ]
        }),
        _ => Vec::new(),
    }
}
