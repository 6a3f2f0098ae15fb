//! Movements of money, noted while events are applied, for people who follow the money.

use common::{ids::Address, money::Atoms};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::OpenedAt;

/// What a movement of money is for, which says where the money was and where it is then.
///
/// An account's free balance is the sum of what the first row gives it, less the sum of what the second takes:
///
/// | free balance of | kinds |
/// |---|---|
/// | `to` grows | `deposit`, `hosting`, `refund`, `bond_return`, `bond_forfeit`, `matcher_fee` |
/// | `from` shrinks | `withdrawal`, `lock`, `bond`, `matcher_fee` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentKind {
    /// From a wallet into a free balance.
    Deposit,
    /// From a free balance to a wallet.
    Withdrawal,
    /// From a free balance into the lock of a deal; `to` is the deal's developer.
    Lock,
    /// From a deal's lock to the free balance of its provider's payout account, for epochs that were hosted.
    Hosting,
    /// From a deal's lock back to the free balance of its developer.
    Refund,
    /// From a provider's free balance into the bond of a deal.
    Bond,
    /// From a deal's bond back to the provider's free balance.
    BondReturn,
    /// From a deal's bond to somebody else's free balance: the provider failed.
    BondForfeit,
    /// From a developer's free balance to that of the matcher who placed its offer.
    MatcherFee,
}

impl PaymentKind {
    /// All kinds with their names, each at the place that is its number in the database: new ones come last.
    pub(crate) const NAMES: [(&'static str, Self); 9] = [
        ("deposit", Self::Deposit),
        ("withdrawal", Self::Withdrawal),
        ("lock", Self::Lock),
        ("hosting", Self::Hosting),
        ("refund", Self::Refund),
        ("bond", Self::Bond),
        ("bond_return", Self::BondReturn),
        ("bond_forfeit", Self::BondForfeit),
        ("matcher_fee", Self::MatcherFee),
    ];

    /// Its number in the database: its place among [`Self::NAMES`].
    pub(crate) const fn number(self) -> i64 {
        self as i64
    }

    /// The kind with this number.
    pub(crate) fn numbered(number: i64) -> Option<Self> {
        Self::NAMES.get(usize::try_from(number).ok()?).map(|(_, kind)| *kind)
    }

    /// Kinds of events that such a movement comes with.
    pub(crate) const fn logged_as(self) -> &'static [&'static str] {
        match self {
            Self::Deposit => &["deposited"],
            Self::Withdrawal => &["withdrawn"],
            Self::Lock => &["deal_opened", "deal_funded", "deal_settled"],
            Self::Hosting => &["deal_settled"],
            Self::Refund => &["deal_refunded", "deal_ending", "deal_ended"],
            Self::Bond => &["deal_opened", "deal_changed"],
            Self::BondReturn => &["deal_changed", "deal_ended"],
            Self::BondForfeit => &["deal_ended"],
            Self::MatcherFee => &["matcher_paid"],
        }
    }
}

/// One movement of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// Its event.
    pub at: OpenedAt,
    /// 0 for the first movement of the event, 1 for the second; there are no more.
    pub part: u8,
    /// What it is for.
    pub kind: PaymentKind,
    /// Whose money it was.
    pub from: Address,
    /// Whose it is then, or for whom it is held.
    pub to: Address,
    /// More than 0.
    pub amount: Atoms,
}

/// Payments that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Payments {
    noted: Vec<Payment>,
    at: Option<OpenedAt>,
}

impl Payments {
    /// What is noted from now on belongs to the event at `place`.
    pub(super) const fn at(&mut self, place: OpenedAt) {
        self.at = Some(place);
    }

    /// Nothing is noted where nothing moved.
    pub(super) fn note(&mut self, kind: PaymentKind, (from, to): (Address, Address), amount: Atoms) {
        let Some(at) = self.at.filter(|_| amount > Atoms::ZERO) else { return };
        let part = u8::from(self.noted.last().is_some_and(|last| last.at == at));
        self.noted.push(Payment { at, part, kind, from, to, amount });
    }

    /// Whether the event at `place` moved money from or to `account`.
    pub(super) fn have_moved(&self, place: OpenedAt, account: Address) -> bool {
        let of_event = self.noted.iter().rev().take_while(|payment| payment.at == place);
        of_event.into_iter().any(|payment| payment.from == account || payment.to == account)
    }

    pub(super) fn take(&mut self) -> Vec<Payment> {
        std::mem::take(&mut self.noted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_numbers_and_named_as_in_json() {
        for (name, kind) in PaymentKind::NAMES {
            assert_eq!(PaymentKind::numbered(kind.number()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
        }
        assert_eq!((PaymentKind::numbered(-1), PaymentKind::numbered(9)), (None, None));
    }
}
