//! Movements of money: noted when events are projected, listed with their transactions.

use common::ids::{Address, DealId};

use super::{
    Snapshot,
    accounts::{Accounts, NUMBER_OF},
    bulk::table,
    convert::{atoms, big, key, parse, unsigned},
    db::{Statement, Value},
    error::StoreError,
    history::LoggedRecord,
    lists::Listed,
};
use crate::{
    kind,
    projection::{
        payments::{Payment, PaymentKind},
        rows::OpenedAt,
    },
    view::{Cursor, Order, Part, PaymentView},
};

table!(
    TABLE, "payments",
    block_number Big Fixed, log_index Big Fixed, part Big Fixed, kind Big Fixed, from_account Big Fixed,
    to_account Big Fixed, amount Big Fixed,
);

/// Values of all columns. The accounts were learnt before.
pub(super) fn encoded(payments: &[Payment], accounts: &Accounts) -> Result<Vec<Value>, StoreError> {
    let mut values: Vec<Value> = Vec::with_capacity(payments.len().saturating_mul(TABLE.columns.len()));
    for payment in payments {
        values.extend([
            big("block number", payment.at.block)?.into(),
            big("log index", payment.at.log_index)?.into(),
            i64::from(payment.part).into(),
            payment.kind.number().into(),
            accounts.number_of(payment.from)?.into(),
            accounts.number_of(payment.to)?.into(),
            payment.amount.to_i64().into(),
        ]);
    }
    Ok(values)
}

/// Which payments; what is not named does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PaymentFilter {
    /// What they are for.
    pub kind: Option<PaymentKind>,
    /// The deal that they are about.
    pub deal: Option<DealId>,
    /// Whose money it was or is.
    pub account: Option<Address>,
}

#[derive(sqlx::FromRow)]
struct PaymentRecord {
    #[sqlx(flatten)]
    logged: LoggedRecord,
    part: i64,
    payment_kind: i64,
    from_account: String,
    to_account: String,
    amount: i64,
    deal_id: Option<String>,
}

impl PaymentRecord {
    fn into_view(self) -> Result<PaymentView, StoreError> {
        Ok(PaymentView {
            logged: self.logged.into_domain()?,
            part: unsigned("payments.part", self.part)?,
            kind: PaymentKind::numbered(self.payment_kind)
                .ok_or_else(|| StoreError::corrupt("payments.kind", self.payment_kind))?,
            from: parse("accounts.account", &self.from_account)?,
            to: parse("accounts.account", &self.to_account)?,
            amount: atoms("payments.amount", self.amount)?,
            deal_id: self.deal_id.map(|deal| parse("events.deal_id", &deal)).transpose()?,
        })
    }
}

const COLUMNS: &str = "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, p.part,
       p.kind AS payment_kind, p.amount, e.deal_id,
       (SELECT account FROM accounts WHERE number = p.from_account) AS from_account,
       (SELECT account FROM accounts WHERE number = p.to_account) AS to_account
     FROM ";
const ALL: &str = "payments p
     JOIN events e ON e.block_number = p.block_number AND e.log_index = p.log_index
     JOIN blocks b ON b.number = p.block_number
     WHERE 1 = 1";
/// Looked up where they are; SQLite takes `CROSS JOIN` as the order to follow, and would else walk along all payments.
const AT_PLACES: &str = "places CROSS JOIN payments p
     JOIN events e ON e.block_number = p.block_number AND e.log_index = p.log_index
     JOIN blocks b ON b.number = p.block_number
     WHERE p.block_number = places.block_number AND p.log_index = places.log_index AND p.part = places.part";

/// An event has at most two payments; a cursor counts them through.
const PARTS: u64 = 2;

impl Snapshot {
    /// What moved money.
    pub async fn payments(&mut self, filter: PaymentFilter, part: Part) -> Result<Listed<PaymentView>, StoreError> {
        let found: Vec<PaymentRecord> = self.read.fetch_all(listing(filter, part)?).await?;
        let mut items = found.into_iter().map(PaymentRecord::into_view).collect::<Result<Vec<_>, _>>()?;
        let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(place_of);
        Ok(Listed { items, next })
    }
}

/// A page of payments, and one more.
pub(super) fn listing(filter: PaymentFilter, part: Part) -> Result<Statement, StoreError> {
    let mut query = Statement::new("");
    match (filter.deal, filter.account, filter.kind) {
        (None, Some(account), kind) => {
            query.push("WITH places (block_number, log_index, part) AS (");
            side(&mut query, "p.from_account = ", account, kind, part)?;
            query.push(" UNION ALL ");
            side(&mut query, "p.to_account <> p.from_account AND p.to_account = ", account, kind, part)?;
            query.push(") ").push(COLUMNS).push(AT_PLACES);
        }
        (None, None, Some(kind)) => {
            query.push("WITH places (block_number, log_index, part) AS (");
            for (at, event) in kind.logged_as().iter().enumerate() {
                query.push(if at == 0 { "" } else { " UNION ALL " });
                of_events(&mut query, event, kind, part)?;
            }
            query.push(") ").push(COLUMNS).push(AT_PLACES);
        }
        (deal, account, kind) => {
            query.push(COLUMNS).push(ALL);
            if let Some(deal) = deal {
                of_deal(&mut query, deal, account, kind);
            }
        }
    }
    narrow(&mut query, part)?;
    Ok(query)
}

/// Only what is about a deal, whose events are indexed.
fn of_deal(query: &mut Statement, deal: DealId, account: Option<Address>, kind: Option<PaymentKind>) {
    query.push(" AND e.deal_key = ").push_bind(key(deal.as_bytes()));
    query.push(" AND e.deal_id = ").push_bind(deal.to_string());
    if let Some(kind) = kind {
        query.push(" AND p.kind = ").push_bind(kind.number());
    }
    if let Some(account) = account {
        query.push(" AND (p.from_account = ").push(NUMBER_OF).push_bind(account.to_string());
        query.push(") OR p.to_account = ").push(NUMBER_OF).push_bind(account.to_string()).push("))");
    }
}

/// As many payments of a kind as a page needs, from the index of one kind of events that they come with. An event has one
/// of a kind at most.
fn of_events(query: &mut Statement, event: &str, kind: PaymentKind, part: Part) -> Result<(), StoreError> {
    query.push("SELECT * FROM (SELECT p.block_number, p.log_index, p.part FROM events e CROSS JOIN payments p");
    query.push(" WHERE p.block_number = e.block_number AND p.log_index = e.log_index AND p.kind = ");
    query.push_bind(kind.number()).push(" AND e.kind = ").push_bind(kind::number(event));
    let (until, direction) = match part.order {
        Order::Asc => (">=", "ASC"),
        Order::Desc => ("<=", "DESC"),
    };
    if let Some(Cursor(after)) = part.after {
        query.push(format_args!(" AND (e.block_number, e.log_index) {until} ("));
        query.push_bind(big("cursor", after.block)?).push(", ");
        query.push_bind(big("cursor", after.log_index.checked_div(PARTS).unwrap_or_default())?).push(")");
        beyond(query, part)?;
    }
    query.push(format_args!(" ORDER BY e.block_number {direction}, e.log_index {direction} LIMIT "));
    query.push_bind(i64::from(part.limit).saturating_add(1)).push(") AS of_events");
    Ok(())
}

/// As much of one account's payments as a page needs, from the index of one of the two sides.
fn side(
    query: &mut Statement,
    is: &'static str,
    account: Address,
    kind: Option<PaymentKind>,
    part: Part,
) -> Result<(), StoreError> {
    query.push("SELECT * FROM (SELECT p.block_number, p.log_index, p.part FROM payments p WHERE ").push(is);
    query.push(NUMBER_OF).push_bind(account.to_string()).push(")");
    if let Some(kind) = kind {
        query.push(" AND p.kind = ").push_bind(kind.number());
    }
    narrow(query, part)?;
    query.push(") AS side");
    Ok(())
}

/// Where a payment stands in its list.
pub(crate) fn place_of(payment: &PaymentView) -> Cursor {
    let log_index = payment.logged.log_index.saturating_mul(PARTS).saturating_add(payment.part.into());
    Cursor(OpenedAt { block: payment.logged.block_number, log_index })
}

/// Only what follows the cursor.
fn beyond(query: &mut Statement, part: Part) -> Result<(), StoreError> {
    let beyond = match part.order {
        Order::Asc => ">",
        Order::Desc => "<",
    };
    if let Some(Cursor(after)) = part.after {
        let (log_index, of_event) = (after.log_index.checked_div(PARTS), after.log_index.checked_rem(PARTS));
        query.push(format_args!(" AND (p.block_number, p.log_index, p.part) {beyond} ("));
        query.push_bind(big("cursor", after.block)?).push(", ");
        query.push_bind(big("cursor", log_index.unwrap_or_default())?).push(", ");
        query.push_bind(big("cursor", of_event.unwrap_or_default())?).push(")");
    }
    Ok(())
}

fn narrow(query: &mut Statement, part: Part) -> Result<(), StoreError> {
    beyond(query, part)?;
    let direction = match part.order {
        Order::Asc => "ASC",
        Order::Desc => "DESC",
    };
    query
        .push(format_args!(" ORDER BY p.block_number {direction}, p.log_index {direction}, p.part {direction} LIMIT "));
    query.push_bind(i64::from(part.limit).saturating_add(1));
    Ok(())
}
