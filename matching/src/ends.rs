//! Deals that anybody may end: their provider is gone, their term is over, or nobody pays. The contract has the last
//! word; a deal that it does not let go yet is tried again in the next epoch.

use std::collections::BTreeSet;

use common::{
    deal::{Deal, DealState},
    epoch::Epoch,
    ids::DealId,
    market::MarketTerms,
    state::MarketState,
};

/// How a deal can be ended now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its provider missed too many epochs in a row.
    Evict(DealId),
    /// It is over and settled, or was unfunded for too long.
    Close(DealId),
}

impl Due {
    /// The deal.
    pub const fn deal(self) -> DealId {
        match self {
            Self::Evict(deal) | Self::Close(deal) => deal,
        }
    }
}

/// Deals that can be ended in `epoch`, in order of their ids. Reads all of them; [`crate::market::Market::due`] reads
/// those whose time has come.
pub fn due(state: &MarketState, terms: &MarketTerms, epoch: Epoch) -> Vec<Due> {
    state.deals.values().filter_map(|known| check(state, terms, epoch, &known.deal).ok()).collect()
}

/// How a deal can be ended in `epoch`; or else the first epoch in which it may be, whatever happens that does not change
/// the deal itself and takes no attestation back. `epoch` itself where something else can bring it about at any time.
pub(crate) fn check(state: &MarketState, terms: &MarketTerms, epoch: Epoch, deal: &Deal) -> Result<Due, Epoch> {
    if deal.state == DealState::Ended {
        Err(Epoch(u32::MAX))
    } else if is_evictable(state, terms, epoch, deal) {
        Ok(Due::Evict(deal.id))
    } else if is_over(state, terms, epoch, deal) || is_given_up(state, terms, epoch, deal) {
        Ok(Due::Close(deal.id))
    } else {
        let eviction = next_eviction(state, terms, epoch, deal);
        let over = deal.end_epoch;
        let next = [Some(over), given_up_from(terms, deal), eviction].into_iter().flatten().min();
        Err(next.map_or(epoch, |next| next.max(epoch)))
    }
}

/// Before this epoch too few are missed in a row; none where that can no longer come.
fn next_eviction(state: &MarketState, terms: &MarketTerms, epoch: Epoch, deal: &Deal) -> Option<Epoch> {
    let billed_until = billed_until(deal);
    let first = deal.start_epoch.plus(terms.evict_after_missed);
    let until = epoch.minus(terms.attestation_window).min(billed_until);
    let attested = state.attested.get(&deal.agent);
    let last = attested.and_then(|attested| {
        attested.range(until.minus(terms.evict_after_missed)..until).next_back().map(|last| last.plus(1))
    });
    let until = match last {
        Some(missed_from) if until >= first => missed_from.plus(terms.evict_after_missed),
        _ => first,
    };
    (until <= billed_until).then(|| until.plus(terms.attestation_window))
}

/// First epoch of which nothing will be billed.
fn billed_until(deal: &Deal) -> Epoch {
    deal.unfunded_since.map_or(deal.end_epoch, |since| since.min(deal.end_epoch))
}

/// First epoch in which it may have been unfunded for too long.
fn given_up_from(terms: &MarketTerms, deal: &Deal) -> Option<Epoch> {
    let since = deal.unfunded_since.or_else(|| (deal.paid_until < deal.end_epoch).then_some(deal.paid_until))?;
    Some(since.plus(terms.grace_epochs.max(terms.attestation_window)))
}

/// The first of `from..until` that the deal's agent has not attested.
fn first_missing(state: &MarketState, deal: &Deal, from: Epoch, until: Epoch) -> Option<Epoch> {
    let none = BTreeSet::new();
    let attested = state.attested.get(&deal.agent).unwrap_or(&none);
    // Walks the attested ones only as long as they follow each other.
    let mut next = from;
    for epoch in attested.range(from..) {
        if *epoch != next {
            break;
        }
        next = next.plus(1);
    }
    (next < until).then_some(next)
}

fn is_evictable(state: &MarketState, terms: &MarketTerms, epoch: Epoch, deal: &Deal) -> bool {
    // Epochs before this one can no longer be attested.
    let closed_before = epoch.minus(terms.attestation_window);
    let until = closed_before.min(billed_until(deal));
    if until < deal.start_epoch.plus(terms.evict_after_missed) {
        return false;
    }
    let from = until.minus(terms.evict_after_missed);
    state.attested.get(&deal.agent).is_none_or(|attested| attested.range(from..until).next().is_none())
}

/// The term is over, and nothing can be attested any more or everything is.
fn is_over(state: &MarketState, terms: &MarketTerms, epoch: Epoch, deal: &Deal) -> bool {
    epoch >= terms.closable_from(deal.end_epoch)
        || (epoch >= deal.end_epoch && first_missing(state, deal, deal.settled_until, deal.end_epoch).is_none())
}

/// The money ended longer ago than the period of grace, and what was served before can no longer be attested.
fn is_given_up(state: &MarketState, terms: &MarketTerms, epoch: Epoch, deal: &Deal) -> bool {
    // Where nobody has settled it since, the contract has not noticed yet; closing does.
    let can_pay = || state.free_balance(deal.developer) >= deal.price_per_epoch;
    given_up_from(terms, deal).is_some_and(|from| epoch >= from) && (deal.unfunded_since.is_some() || !can_pay())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use common::{
        event::{DealOpened, MarketEvent, PlacedEvent},
        ids::{Address, BlockHash, TxHash},
    };

    use super::*;
    use crate::samples::{account, atoms, developer_offer, hash, provider_offer, terms};

    const DEAL: DealId = DealId([9; 32]);

    /// A deal of the epochs 10 to 29 with 3 of them paid ahead, and the attested epochs.
    fn market(attested: impl IntoIterator<Item = u32>, developer_has: u64) -> MarketState {
        let opened = DealOpened {
            deal_id: DEAL,
            developer_offer: hash(1, 0),
            provider_offer: hash(2, 0),
            price_per_epoch: atoms(100),
            start_epoch: Epoch(10),
            end_epoch: Epoch(30),
            locked: atoms(300),
        };
        let deposit =
            |to: Address, amount: u64| MarketEvent::Deposited { account: to, from: to, amount: atoms(amount) };
        let events = [
            deposit(account(1), 300 + developer_has),
            deposit(account(10), 200),
            MarketEvent::DeveloperOfferOpened { offer_hash: hash(1, 0), offer: Box::new(developer_offer()) },
            MarketEvent::ProviderOfferOpened { offer_hash: hash(2, 0), offer: Box::new(provider_offer(10, 100)) },
            MarketEvent::DealOpened(Box::new(opened)),
        ];
        let mut state = MarketState::new(&terms());
        for event in events {
            let (block_hash, tx_hash) = (BlockHash::ZERO, TxHash::ZERO);
            state.apply(&PlacedEvent { block_number: 1, block_hash, log_index: 0, tx_hash, event }).unwrap();
        }
        state.attested.insert(account(60), attested.into_iter().map(Epoch).collect());
        state
    }

    fn due_in(state: &MarketState, epoch: u32) -> Vec<Due> {
        due(state, &terms(), Epoch(epoch))
    }

    #[test]
    fn three_missed_epochs_that_can_no_longer_be_attested_evict() {
        let silent = market([], 10_000);
        assert_eq!(due_in(&silent, 14), []);
        // Epochs 10, 11 and 12 are closed in epoch 15.
        assert_eq!(due_in(&silent, 15), [Due::Evict(DEAL)]);
        assert_eq!(due_in(&market([12], 10_000), 15), []);
        assert_eq!(due_in(&market([12], 10_000), 18), [Due::Evict(DEAL)]);
    }

    #[test]
    fn a_served_term_closes_at_its_end_and_a_gap_waits_for_the_window() {
        assert_eq!(due_in(&market(10..30, 10_000), 29), []);
        assert_eq!(due_in(&market(10..30, 10_000), 30), [Due::Close(DEAL)]);
        let gap = market((10..30).filter(|epoch| *epoch != 20), 10_000);
        assert_eq!(due_in(&gap, 31), []);
        assert_eq!(due_in(&gap, 32), [Due::Close(DEAL)]);
    }

    #[test]
    fn a_deal_that_nobody_pays_closes_after_grace_recorded_or_not() {
        let mut poor = market(10..30, 50);
        assert_eq!(due_in(&poor, 15), []);
        assert_eq!(due_in(&poor, 16), [Due::Close(DEAL)]);
        poor.deals.get_mut(&DEAL).unwrap().deal.unfunded_since = Some(Epoch(13));
        assert_eq!(due_in(&poor, 15), []);
        assert_eq!(due_in(&poor, 16), [Due::Close(DEAL)]);
    }

    #[test]
    fn an_ended_deal_is_left_alone() {
        let mut state = market([], 0);
        state.deals.get_mut(&DEAL).unwrap().deal.state = DealState::Ended;
        assert_eq!(due_in(&state, 99), []);
    }
}
