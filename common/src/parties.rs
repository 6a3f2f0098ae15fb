//! Whom an event concerns: the one definition behind every list and every stream of one account's events.
//!
//! An event concerns the accounts that it names itself, and those behind what it names by an id:
//!
//! | event | accounts |
//! |---|---|
//! | `deposited`, `withdrawn` | both sides of the transfer |
//! | `provider_offer_opened` | provider, agent and payout account of the offer |
//! | `developer_offer_opened` | the developer, and the one matcher that the offer admits |
//! | `offer_cancelled`, `nonce_floor_raised` | the owner |
//! | `attested` | the agent |
//! | `matcher_paid` | the matcher, and the developer who pays it |
//! | `artifact_updated` | the developer of the offer |
//! | events of a deal | its developer, its provider and its agent |
//! | `deal_settled`, where something was paid | besides, the payout account |
//! | `deal_funded` | besides, who paid |
//! | `deal_ended`, where there was a bond | besides, who got it |
//!
//! A list of allowed or denied providers makes nobody a party. Matches and fills that were passed over, and the switch of the
//! market, concern nobody: anybody can have them logged about any offer. A claim that was passed over belongs to its deal
//! once that is open.

use crate::{
    event::MarketEvent,
    ids::{Address, DealId, OfferHash},
    money::Atoms,
};

/// The three sides of a deal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DealParties {
    /// Who pays.
    pub developer: Address,
    /// Who hosts.
    pub provider: Address,
    /// Whose attestations count.
    pub agent: Address,
}

/// Who stands behind what an event names by an id, as the chain knew it right after the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behind {
    /// The deal of [`MarketEvent::deal_id`], if it was open.
    pub deal: Option<DealParties>,
    /// The payout account of that deal; only asked for where [`MarketEvent::pays_out`].
    pub payout: Option<Address>,
    /// The developer of [`MarketEvent::developers_offer`].
    pub developer: Option<Address>,
}

impl MarketEvent {
    /// The deal that the event belongs to.
    pub const fn deal_id(&self) -> Option<DealId> {
        match self {
            Self::DealOpened(opened) => Some(opened.deal_id),
            Self::DealChanged(changed) => Some(changed.deal_id),
            Self::DealFunded { deal_id, .. }
            | Self::DealSettled { deal_id, .. }
            | Self::DealUnfunded { deal_id, .. }
            | Self::DealRefunded { deal_id, .. }
            | Self::DealEnding { deal_id, .. }
            | Self::DealEnded { deal_id, .. }
            | Self::ClaimSkipped { deal_id, .. } => Some(*deal_id),
            _ => None,
        }
    }

    /// The developer offer whose developer the event concerns; the chain knows it.
    pub const fn developers_offer(&self) -> Option<OfferHash> {
        match self {
            Self::ArtifactUpdated { developer_offer, .. } | Self::MatcherPaid { developer_offer, .. } => {
                Some(*developer_offer)
            }
            _ => None,
        }
    }

    /// Whether money goes to the payout account of the event's deal.
    pub fn pays_out(&self) -> bool {
        matches!(self, Self::DealSettled { paid, .. } if *paid > Atoms::ZERO)
    }

    /// The accounts that the event itself names as parties.
    pub fn parties(&self) -> impl Iterator<Item = Address> + use<> {
        let named = match self {
            Self::Deposited { account, from: other, .. } | Self::Withdrawn { account, to: other, .. } => {
                [Some(*account), Some(*other), None]
            }
            Self::ProviderOfferOpened { offer, .. } => [Some(offer.provider), Some(offer.agent), Some(offer.payout)],
            Self::DeveloperOfferOpened { offer, .. } => {
                [Some(offer.developer), Some(offer.matcher).filter(|matcher| !matcher.is_zero()), None]
            }
            Self::OfferCancelled { owner: account, .. }
            | Self::NonceFloorRaised { owner: account, .. }
            | Self::MatcherPaid { matcher: account, .. }
            | Self::DealFunded { from: account, .. }
            | Self::Attested { agent: account, .. } => [Some(*account), None, None],
            Self::DealEnded { bond_to, bond, .. } => [Some(*bond_to).filter(|_| *bond > Atoms::ZERO), None, None],
            _ => [None; 3],
        };
        named.into_iter().flatten()
    }

    /// Whether the event concerns `account`.
    pub fn concerns(&self, account: Address, behind: &Behind) -> bool {
        let of_deal = |deal: DealParties| [deal.developer, deal.provider, deal.agent].contains(&account);
        self.parties().any(|party| party == account)
            || behind.deal.is_some_and(of_deal)
            || behind.payout.is_some_and(|payout| self.pays_out() && payout == account)
            || behind.developer == Some(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Epoch;

    fn account(n: u8) -> Address {
        Address([n; 20])
    }

    #[test]
    fn a_settlement_concerns_the_payout_account_where_it_pays() {
        let deal = DealParties { developer: account(1), provider: account(2), agent: account(3) };
        let behind = Behind { deal: Some(deal), payout: Some(account(4)), developer: None };
        let settled = |paid: u64| MarketEvent::DealSettled {
            deal_id: DealId::ZERO,
            paid: Atoms::new(paid).unwrap(),
            topped_up: Atoms::ZERO,
            settled_until: Epoch(1),
        };
        let concerned =
            |event: &MarketEvent| (1..6).filter(|n| event.concerns(account(*n), &behind)).collect::<Vec<_>>();
        assert_eq!(concerned(&settled(5)), [1, 2, 3, 4]);
        assert_eq!(concerned(&settled(0)), [1, 2, 3]);
        let ended = |bond: u64| MarketEvent::DealEnded {
            deal_id: DealId::ZERO,
            cause: crate::deal::EndCause::TermOver,
            refunded: Atoms::ZERO,
            bond_to: account(5),
            bond: Atoms::new(bond).unwrap(),
        };
        assert_eq!((concerned(&ended(1)), concerned(&ended(0))), (vec![1, 2, 3, 5], vec![1, 2, 3]));
    }

    #[test]
    fn nobody_is_a_party_of_the_switch_and_no_matcher_is_one() {
        let behind = Behind::default();
        assert!(!MarketEvent::MatchingPaused { paused: true }.concerns(Address::ZERO, &behind));
        let paid =
            MarketEvent::MatcherPaid { developer_offer: OfferHash::ZERO, matcher: account(1), amount: Atoms::ZERO };
        assert_eq!(paid.developers_offer(), Some(OfferHash::ZERO));
        let behind = Behind { developer: Some(account(2)), ..behind };
        assert_eq!([1, 2, 3].map(|n| paid.concerns(account(n), &behind)), [true, true, false]);
    }
}
