//! Why the contract passed over a fill that looked feasible: because of what others did between the block that it was
//! planned on and its own transaction (a race, which several matchers on one market cannot avoid), or because the rules
//! here are not the contract's (which must never be).
//!
//! The account's own transactions before it are no excuse: they were planned with it.

use std::collections::BTreeMap;

use common::{
    event::{MarketEvent, Reason},
    ids::{Address, OfferHash},
};
use matching::snapshot::PendingFill;

use crate::store::FillOutcome;

/// What others did meanwhile.
pub(crate) struct Meanwhile<'a> {
    /// Their events; none where even the block that was planned on is not the chain's any more.
    pub(crate) events: Option<Vec<&'a MarketEvent>>,
    /// Who owns the offers in question.
    pub(crate) owners: BTreeMap<OfferHash, Address>,
}

impl Meanwhile<'_> {
    /// Calls every refusal by its name.
    pub(crate) fn judge(&self, outcomes: &mut BTreeMap<PendingFill, FillOutcome>) {
        for (fill, outcome) in outcomes.iter_mut() {
            if let FillOutcome::Refused(reason) = *outcome
                && self.explains(*fill, reason)
            {
                *outcome = FillOutcome::Raced(reason);
            }
        }
        // A match as a whole lacks the hosts that were lost in races.
        let lost: Vec<OfferHash> = outcomes
            .iter()
            .filter(|(_, outcome)| matches!(outcome, FillOutcome::Raced(_)))
            .map(|(fill, _)| fill.developer_offer)
            .collect();
        for (fill, outcome) in outcomes.iter_mut() {
            if *outcome == FillOutcome::Refused(Reason::TooFewReplicas) && lost.contains(&fill.developer_offer) {
                *outcome = FillOutcome::Raced(Reason::TooFewReplicas);
            }
        }
    }

    fn explains(&self, fill: PendingFill, reason: Reason) -> bool {
        match reason {
            // Accounts with keys were checked when their offers were taken in; contracts may change their minds and leave
            // no event. And time always passes.
            Reason::DeveloperSignatureInvalid
            | Reason::ProviderSignatureInvalid
            | Reason::DeveloperOfferExpired
            | Reason::ProviderOfferExpired
            | Reason::TermOver => true,
            _ => match &self.events {
                Some(events) => events.iter().any(|event| self.is_cause(event, fill, reason)),
                None => true,
            },
        }
    }

    /// Whether the event can be what made a feasible fill infeasible.
    fn is_cause(&self, event: &MarketEvent, fill: PendingFill, reason: Reason) -> bool {
        let owner = |offer: OfferHash| self.owners.get(&offer).copied();
        let (developer, provider) = (owner(fill.developer_offer), owner(fill.provider_offer));
        match reason {
            Reason::DeveloperOfferCancelled => is_cancelled(event, fill.developer_offer),
            Reason::ProviderOfferCancelled => is_cancelled(event, fill.provider_offer),
            Reason::DeveloperNonceTooLow => is_floor_of(event, developer),
            Reason::ProviderNonceTooLow => is_floor_of(event, provider),
            Reason::ReplicasFull | Reason::AlreadyHosting => {
                matches!(event, MarketEvent::DealOpened(opened) if opened.developer_offer == fill.developer_offer)
            }
            Reason::CpuExceedsFree | Reason::MemoryExceedsFree => match event {
                MarketEvent::DealOpened(opened) => opened.provider_offer == fill.provider_offer,
                MarketEvent::DealChanged(_) => true,
                _ => false,
            },
            Reason::FundsTooLow => takes_money_of(event, developer),
            Reason::BondTooLow => takes_money_of(event, provider),
            Reason::TooFewReplicas => matches!(event, MarketEvent::DealEnding { .. } | MarketEvent::DealEnded { .. }),
            _ => false,
        }
    }
}

fn is_cancelled(event: &MarketEvent, offer: OfferHash) -> bool {
    matches!(event, MarketEvent::OfferCancelled { offer_hash, .. } if *offer_hash == offer)
}

fn is_floor_of(event: &MarketEvent, account: Option<Address>) -> bool {
    matches!(event, MarketEvent::NonceFloorRaised { owner, .. } if Some(*owner) == account)
}

/// Whether an account may have less free money after this. Events of deals do not name the parties: any of them may be it.
fn takes_money_of(event: &MarketEvent, account: Option<Address>) -> bool {
    match event {
        MarketEvent::Withdrawn { account: from, .. } | MarketEvent::DealFunded { from, .. } => Some(*from) == account,
        MarketEvent::DealOpened(_) | MarketEvent::DealSettled { .. } | MarketEvent::DealChanged(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use common::{deal::EndCause, epoch::Epoch, event::DealOpened, ids::DealId, money::Atoms};
    use matching::samples::{account, hash};

    use super::*;

    const FILL: (usize, usize) = (1, 1);

    fn fill((developer, provider): (usize, usize)) -> PendingFill {
        PendingFill { developer_offer: hash(1, developer), provider_offer: hash(2, provider) }
    }

    fn judged(events: Option<&[MarketEvent]>, refused: &[(PendingFill, Reason)]) -> Vec<FillOutcome> {
        let owners = BTreeMap::from([(hash(1, 1), account(1)), (hash(2, 1), account(10))]);
        let events = events.map(|events| events.iter().collect());
        let mut outcomes = refused.iter().map(|(fill, reason)| (*fill, FillOutcome::Refused(*reason))).collect();
        Meanwhile { events, owners }.judge(&mut outcomes);
        outcomes.into_values().collect()
    }

    fn opened((developer, provider): (usize, usize)) -> MarketEvent {
        MarketEvent::DealOpened(Box::new(DealOpened {
            deal_id: DealId([1; 32]),
            developer_offer: hash(1, developer),
            provider_offer: hash(2, provider),
            price_per_epoch: Atoms::ZERO,
            start_epoch: Epoch(1),
            end_epoch: Epoch(2),
            locked: Atoms::ZERO,
        }))
    }

    #[test]
    fn only_an_event_that_can_be_the_cause_makes_it_a_race() {
        let withdrawn =
            |number| MarketEvent::Withdrawn { account: account(number), to: account(number), amount: Atoms::ZERO };
        let cancelled = |offer_hash| MarketEvent::OfferCancelled { owner: account(1), offer_hash };
        let floor = |number| MarketEvent::NonceFloorRaised { owner: account(number), floor: 2 };
        let ended = MarketEvent::DealEnded {
            deal_id: DealId([1; 32]),
            cause: EndCause::DeveloperCancelled,
            refunded: Atoms::ZERO,
            bond_to: account(10),
            bond: Atoms::ZERO,
        };
        for (reason, cause, other) in [
            (Reason::DeveloperOfferCancelled, cancelled(hash(1, 1)), cancelled(hash(1, 2))),
            (Reason::ProviderOfferCancelled, cancelled(hash(2, 1)), cancelled(hash(1, 1))),
            (Reason::DeveloperNonceTooLow, floor(1), floor(10)),
            (Reason::ProviderNonceTooLow, floor(10), floor(1)),
            (Reason::ReplicasFull, opened((1, 2)), opened((2, 1))),
            (Reason::AlreadyHosting, opened((1, 1)), opened((2, 1))),
            (Reason::CpuExceedsFree, opened((2, 1)), opened((1, 2))),
            (Reason::MemoryExceedsFree, opened((2, 1)), withdrawn(10)),
            (Reason::FundsTooLow, withdrawn(1), withdrawn(10)),
            (Reason::BondTooLow, withdrawn(10), withdrawn(1)),
            (Reason::TooFewReplicas, ended, opened((1, 1))),
        ] {
            let refused = [(fill(FILL), reason)];
            assert_eq!(judged(Some(&[other.clone(), cause]), &refused), [FillOutcome::Raced(reason)]);
            assert_eq!(judged(Some(&[other]), &refused), [FillOutcome::Refused(reason)]);
            assert_eq!(judged(None, &refused), [FillOutcome::Raced(reason)], "the chain was reorganized");
        }
    }

    #[test]
    fn what_never_changes_is_no_race_and_time_is() {
        for reason in [Reason::PriceAboveMaximum, Reason::RegionMismatch, Reason::MatcherNotNamed] {
            assert_eq!(judged(Some(&[opened(FILL)]), &[(fill(FILL), reason)]), [FillOutcome::Refused(reason)]);
        }
        let expired = Reason::DeveloperOfferExpired;
        assert_eq!(judged(Some(&[]), &[(fill(FILL), expired)]), [FillOutcome::Raced(expired)]);
    }

    #[test]
    fn a_match_that_lost_hosts_in_races_has_lost_one_itself() {
        let whole = PendingFill { developer_offer: hash(1, 1), provider_offer: OfferHash::ZERO };
        let refused = [(fill(FILL), Reason::CpuExceedsFree), (whole, Reason::TooFewReplicas)];
        let (taken, too_few) = (FillOutcome::Raced(Reason::CpuExceedsFree), FillOutcome::Raced(Reason::TooFewReplicas));
        assert_eq!(judged(Some(&[opened((2, 1))]), &refused), [too_few, taken]);
    }
}
