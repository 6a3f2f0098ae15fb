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

const FOUND: &str = "SELECT e.block_number, b.hash AS block_hash, b.timestamp, e.log_index, e.tx_hash, p.part,
       p.kind AS payment_kind, p.amount, e.deal_id,
       (SELECT account FROM accounts WHERE number = p.from_account) AS from_account,
       (SELECT account FROM accounts WHERE number = p.to_account) AS to_account
     FROM payments p
     JOIN events e ON e.block_number = p.block_number AND e.log_index = p.log_index
     JOIN blocks b ON b.number = p.block_number
     WHERE 1 = 1";

/// An event has at most two payments; a cursor counts them through.
const PARTS: u64 = 2;

impl Snapshot {
    /// What moved money.
    pub async fn payments(&mut self, filter: PaymentFilter, part: Part) -> Result<Listed<PaymentView>, StoreError> {
        let mut query = Statement::new(FOUND);
        if let Some(kind) = filter.kind {
            query.push(" AND p.kind = ").push_bind(kind.number());
        }
        match (filter.deal, filter.account) {
            (Some(deal), account) => {
                // The events of a deal are indexed.
                query.push(" AND e.deal_key = ").push_bind(key(deal.as_bytes()));
                query.push(" AND e.deal_id = ").push_bind(deal.to_string());
                if let Some(account) = account {
                    query.push(" AND (p.from_account = ").push(NUMBER_OF).push_bind(account.to_string());
                    query.push(") OR p.to_account = ").push(NUMBER_OF).push_bind(account.to_string()).push("))");
                }
            }
            (None, Some(account)) => {
                query.push(" AND (p.block_number, p.log_index, p.part) IN (");
                side(&mut query, "p.from_account = ", account, filter.kind, part)?;
                query.push(" UNION ALL ");
                side(&mut query, "p.to_account <> p.from_account AND p.to_account = ", account, filter.kind, part)?;
                query.push(")");
            }
            (None, None) => {
                if let Some(kind) = filter.kind {
                    // So are the events of a kind.
                    query.push(" AND e.kind IN (").push_list(kind.logged_as().iter().map(|name| kind::number(name)));
                    query.push(")");
                }
            }
        }
        narrow(&mut query, part)?;
        let found: Vec<PaymentRecord> = self.read.fetch_all(query).await?;
        let mut items = found.into_iter().map(PaymentRecord::into_view).collect::<Result<Vec<_>, _>>()?;
        let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(place_of);
        Ok(Listed { items, next })
    }
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

fn narrow(query: &mut Statement, part: Part) -> Result<(), StoreError> {
    let (beyond, direction) = match part.order {
        Order::Asc => (">", "ASC"),
        Order::Desc => ("<", "DESC"),
    };
    if let Some(Cursor(after)) = part.after {
        let (log_index, of_event) = (after.log_index.checked_div(PARTS), after.log_index.checked_rem(PARTS));
        query.push(format_args!(" AND (p.block_number, p.log_index, p.part) {beyond} ("));
        query.push_bind(big("cursor", after.block)?).push(", ");
        query.push_bind(big("cursor", log_index.unwrap_or_default())?).push(", ");
        query.push_bind(big("cursor", of_event.unwrap_or_default())?).push(")");
    }
    query
        .push(format_args!(" ORDER BY p.block_number {direction}, p.log_index {direction}, p.part {direction} LIMIT "));
    query.push_bind(i64::from(part.limit).saturating_add(1));
    Ok(())
}
