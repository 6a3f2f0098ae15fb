//! What an indexer must list of a market's history, row by row as the events are read: nothing of it is kept.

use common::{
    event::{BlockRef, MarketBlock, MarketEvent, PlacedEvent},
    ids::{Address, DealId},
    money::Atoms,
    state::{MarketState, StateError},
};
use indexer::{
    projection::{payments::PaymentKind, rows::OpenedAt},
    view::{AttestationView, Cursor, Logged, PaymentView},
};
use serde_json::Value;

use super::{Book, answers::value};

/// Payments of an event at most; a cursor counts them through.
const PARTS: u64 = 2;

/// A list that grows with the market's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum History {
    Payments,
    Attestations,
}

/// Place of a row: height, log index, and which of the event's rows it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct RowKey {
    pub(in super::super) block: u64,
    log_index: u64,
    part: u64,
}

/// A row that must be there.
#[derive(Debug, Clone)]
pub(in super::super) struct Row {
    pub(in super::super) key: RowKey,
    pub(in super::super) item: Value,
}

/// What one block adds to the lists.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Rows {
    payments: Vec<Row>,
    attestations: Vec<Row>,
}

impl History {
    pub(in super::super) const ALL: [Self; 2] = [Self::Payments, Self::Attestations];

    pub(in super::super) const fn path(self) -> &'static str {
        match self {
            Self::Payments => "/v1/payments",
            Self::Attestations => "/v1/attestations",
        }
    }

    pub(in super::super) const fn what(self) -> &'static str {
        match self {
            Self::Payments => "payment",
            Self::Attestations => "attestation",
        }
    }

    /// What a block adds to this list.
    pub(in super::super) fn of(self, rows: &Rows) -> &[Row] {
        match self {
            Self::Payments => &rows.payments,
            Self::Attestations => &rows.attestations,
        }
    }

    /// Where a served row says that it stands.
    pub(in super::super) fn key(self, item: &Value) -> Option<RowKey> {
        let number = |name: &str| item.get(name).and_then(Value::as_u64);
        let part = match self {
            Self::Payments => number("part")?,
            Self::Attestations => 0,
        };
        Some(RowKey { block: number("blockNumber")?, log_index: number("logIndex")?, part })
    }

    /// The cursor that goes on after a row.
    pub(in super::super) fn cursor(self, key: RowKey) -> Cursor {
        let log_index = match self {
            Self::Payments => key.log_index.saturating_mul(PARTS).saturating_add(key.part),
            Self::Attestations => key.log_index,
        };
        Cursor(OpenedAt { block: key.block, log_index })
    }
}

impl std::fmt::Display for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.block, self.log_index, self.part)
    }
}

impl Book {
    /// Adds a block's events in their order, and says what they add to the lists.
    pub(in super::super) fn apply_with_rows(&mut self, block: &MarketBlock) -> Result<Rows, StateError> {
        let mut rows = Rows::default();
        for placed in &block.events {
            let bond = placed.event.deal_id().and_then(|id| self.state.deals.get(&id)).map(|known| known.deal.bond);
            self.apply(placed)?;
            let logged = logged(block.block, placed);
            let moved = movements(&self.state, &placed.event, bond.unwrap_or_default());
            let moved = moved.into_iter().filter(|movement| movement.amount > Atoms::ZERO);
            for (part, movement) in (0_u8..).zip(moved) {
                let key = RowKey { block: logged.block_number, log_index: logged.log_index, part: part.into() };
                let item = value(&movement.view(logged, part, placed.event.deal_id()));
                rows.payments.push(Row { key, item });
            }
            rows.attestations.extend(attestation(logged, &placed.event));
        }
        self.state.as_of = Some(block.block);
        Ok(rows)
    }
}

const fn logged(block: BlockRef, placed: &PlacedEvent) -> Logged {
    Logged {
        block_number: block.number,
        block_hash: block.hash,
        timestamp: block.timestamp,
        log_index: placed.log_index,
        tx_hash: placed.tx_hash,
    }
}

fn attestation(logged: Logged, event: &MarketEvent) -> Option<Row> {
    let MarketEvent::Attested { agent, epoch, receipt_root, rolling_hash } = *event else { return None };
    let view = AttestationView { agent, epoch, receipt_root, rolling_hash, logged };
    let key = RowKey { block: logged.block_number, log_index: logged.log_index, part: 0 };
    Some(Row { key, item: value(&view) })
}

/// Money that went from one purpose or account to another.
#[derive(Debug, Clone, Copy)]
struct Movement {
    kind: PaymentKind,
    from: Address,
    to: Address,
    amount: Atoms,
}

impl Movement {
    const fn view(self, logged: Logged, part: u8, deal_id: Option<DealId>) -> PaymentView {
        let Self { kind, from, to, amount } = self;
        PaymentView { logged, part, kind, from, to, amount, deal_id }
    }
}

/// What an event moved, in the order in which it is listed; what is 0 did not move. `state` is that after the event,
/// `bond` what its deal was bonded with before.
fn movements(state: &MarketState, event: &MarketEvent, bond: Atoms) -> Vec<Movement> {
    let moved = |kind, from, to, amount| Movement { kind, from, to, amount };
    match event {
        MarketEvent::Deposited { account, from, amount } => {
            vec![moved(PaymentKind::Deposit, *from, *account, *amount)]
        }
        MarketEvent::Withdrawn { account, to, amount } => vec![moved(PaymentKind::Withdrawal, *account, *to, *amount)],
        MarketEvent::MatcherPaid { developer_offer, matcher, amount } => {
            let developer = state.developer_offers.get(developer_offer).map(|known| known.offer.developer);
            developer
                .map(|developer| moved(PaymentKind::MatcherFee, developer, *matcher, *amount))
                .into_iter()
                .collect()
        }
        event => of_deal(state, event, bond),
    }
}

fn of_deal(state: &MarketState, event: &MarketEvent, bond: Atoms) -> Vec<Movement> {
    let Some(deal) = event.deal_id().and_then(|id| state.deals.get(&id)).map(|known| &known.deal) else {
        return Vec::new();
    };
    let (developer, provider) = (deal.developer, deal.provider);
    let moved = |kind, from, to, amount| Movement { kind, from, to, amount };
    let lock = |from, amount| moved(PaymentKind::Lock, from, developer, amount);
    let refund = |amount| moved(PaymentKind::Refund, developer, developer, amount);
    let bonded = |kind, amount| moved(kind, provider, provider, amount);
    match *event {
        MarketEvent::DealOpened(ref opened) => {
            vec![lock(developer, opened.locked), bonded(PaymentKind::Bond, deal.bond)]
        }
        MarketEvent::DealFunded { from, amount, .. } => vec![lock(from, amount)],
        MarketEvent::DealSettled { paid, topped_up, .. } => {
            let payout = state.provider_offers.get(&deal.provider_offer).map_or(provider, |host| host.offer.payout);
            vec![moved(PaymentKind::Hosting, developer, payout, paid), lock(developer, topped_up)]
        }
        MarketEvent::DealRefunded { refunded, .. } | MarketEvent::DealEnding { refunded, .. } => vec![refund(refunded)],
        MarketEvent::DealEnded { refunded, bond_to, bond, .. } => {
            let back = if bond_to == provider { PaymentKind::BondReturn } else { PaymentKind::BondForfeit };
            vec![refund(refunded), moved(back, provider, bond_to, bond)]
        }
        MarketEvent::DealChanged(ref changed) => {
            let more = changed.bond.checked_sub(bond).unwrap_or_default();
            let less = bond.checked_sub(changed.bond).unwrap_or_default();
            vec![bonded(PaymentKind::Bond, more), bonded(PaymentKind::BondReturn, less)]
        }
        _ => Vec::new(),
    }
}
