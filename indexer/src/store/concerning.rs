//! The events that concern one account, found by indexes, whether there are none or millions of others.
//!
//! No table names all accounts of all events: that would be several rows for each. Instead places where such events can be
//! are gathered from all tables that name the account, in order and no more than are needed: payments, mentions,
//! attestations, offers, and the events of its deals. What is found there is then judged by the one definition,
//! [`common::parties`], as the stream judges it.
//!
//! The events of a deal are in order, those of all deals of an account together are not. They are looked through a window of
//! blocks at a time, and the windows grow until the page is full: the index is asked once for each deal and window.

use std::collections::BTreeSet;

use common::ids::Address;

use super::{
    Snapshot,
    accounts::NUMBER_OF,
    convert::{key, unsigned},
    db::Statement,
    error::StoreError,
    feed,
    lists::{EventFilter, Listed, between, event_place, listed, narrow},
};
use crate::{
    kind,
    projection::rows::OpenedAt,
    view::{Cursor, EventView, Order, Part},
};

/// Most places that are gathered at once.
const MOST_PLACES: u32 = 2_048;
/// Blocks of the first window.
const FIRST_WINDOW: u64 = 4_096;
/// How much larger the next window is: after seven, all heights that there will ever be are covered.
const GROWTH: u64 = 16;
/// An event moves money twice at most.
const PAYMENTS_PER_EVENT: u32 = 2;

/// Tables that name an account beside the place of an event, in the order of an index.
const NAMED: [Named; 6] = [
    Named::new("payments", "from_account", true, PAYMENTS_PER_EVENT),
    // Money that only changes its purpose is found by the one above.
    Named::new("payments", "to_account <> from_account AND to_account", true, PAYMENTS_PER_EVENT),
    Named::new("mentions", "account", true, 1),
    Named::new("attestations", "agent", false, 1),
    Named { place: OPENED, ..Named::new("provider_offers", "provider", false, 1) },
    Named { place: OPENED, ..Named::new("developer_offers", "developer", false, 1) },
];

const OPENED: [&str; 2] = ["opened_block", "opened_log_index"];

/// Sides of a deal.
const ROLES: [&str; 3] = ["developer", "provider", "agent"];

/// A table that names an account.
#[derive(Clone, Copy)]
struct Named {
    table: &'static str,
    condition: &'static str,
    /// Whether it has the account's number instead of its name.
    by_number: bool,
    /// Rows of an event at most.
    rows: u32,
    place: [&'static str; 2],
}

impl Named {
    const fn new(table: &'static str, condition: &'static str, by_number: bool, rows: u32) -> Self {
        Self { table, condition, by_number, rows, place: ["block_number", "log_index"] }
    }

    fn statement(self, account: Address, filter: EventFilter, part: Part) -> Result<Statement, StoreError> {
        let [block, log_index] = self.place;
        let mut query = Statement::new("SELECT ");
        query.push(format_args!("{block}, {log_index} FROM {} WHERE {} = ", self.table, self.condition));
        if self.by_number {
            query.push(NUMBER_OF).push_bind(account.to_string()).push(")");
        } else {
            query.push_bind(account.to_string());
        }
        between(&mut query, block, filter);
        // One more is read than asked for, as everywhere.
        let limit = part.limit.saturating_add(1).saturating_mul(self.rows);
        narrow(&mut query, self.place, Part { limit, ..part })?;
        Ok(query)
    }
}

/// Statements of all tables that name the account.
pub(super) fn named(account: Address, filter: EventFilter, part: Part) -> Result<Vec<Statement>, StoreError> {
    NAMED.into_iter().map(|named| named.statement(account, filter, part)).collect()
}

/// Where the first deal was opened in which the account has `role`.
pub(super) fn first_deal(role: &str, account: Address) -> Statement {
    let mut query = Statement::new("SELECT opened_block FROM deals WHERE ");
    query.push(role).push(" = ").push_bind(account.to_string());
    query.push(" ORDER BY opened_block, opened_log_index LIMIT 1");
    query
}

/// Events of deals in which the account has `role`, of the blocks that `filter` names.
pub(super) fn of_deals(role: &str, account: Address, filter: EventFilter, part: Part) -> Result<Statement, StoreError> {
    // The event that opened a deal has the number by which its other events are found; two deals may share one.
    let mut query = Statement::new(
        "SELECT DISTINCT e.block_number, e.log_index FROM deals d
         CROSS JOIN events o CROSS JOIN events e
         WHERE o.block_number = d.opened_block AND o.log_index = d.opened_log_index AND e.deal_key = o.deal_key AND d.",
    );
    query.push(role).push(" = ").push_bind(account.to_string());
    if let Some(to) = filter.to_block {
        query.push(" AND d.opened_block <= ").push_bind(i64::try_from(to).unwrap_or(i64::MAX));
    }
    between(&mut query, "e.block_number", filter);
    narrow(&mut query, ["e.block_number", "e.log_index"], part)?;
    Ok(query)
}

/// Events of one deal.
pub(super) fn of_deal(deal: common::ids::DealId, filter: EventFilter, part: Part) -> Result<Statement, StoreError> {
    let mut query = Statement::new("SELECT block_number, log_index FROM events WHERE deal_key = ");
    query.push_bind(key(deal.as_bytes())).push(" AND deal_id = ").push_bind(deal.to_string());
    between(&mut query, "block_number", filter);
    narrow(&mut query, ["block_number", "log_index"], part)?;
    Ok(query)
}

/// Places in the order of a list, each once.
struct Places {
    found: BTreeSet<OpenedAt>,
    order: Order,
}

impl Places {
    /// The first ones.
    fn first(self, count: usize) -> Vec<OpenedAt> {
        match self.order {
            Order::Asc => self.found.into_iter().take(count).collect(),
            Order::Desc => self.found.into_iter().rev().take(count).collect(),
        }
    }
}

impl Snapshot {
    /// What happened that concerns `account`.
    pub(super) async fn events_concerning(
        &mut self,
        account: Address,
        filter: EventFilter,
        part: Part,
    ) -> Result<Listed<EventView>, StoreError> {
        let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
        let (mut found, mut next) = (Vec::new(), part);
        loop {
            let places = self.places(account, filter, next).await?;
            let is_last = places.len() <= usize::try_from(next.limit).unwrap_or(usize::MAX);
            let Some(last) = places.last().copied() else { break };
            let mut happened = self.happened(feed::at(&places)?).await?;
            happened.retain(|happened| filter.lets(&happened.event) && happened.concerns(account));
            happened.sort_by_key(|happened| event_place(&happened.event));
            if part.order == Order::Desc {
                happened.reverse();
            }
            found.extend(happened.into_iter().map(|happened| happened.event));
            if is_last || found.len() > limit {
                break;
            }
            // Many places, few of them wanted: larger steps.
            next = Part { after: Some(Cursor(last)), limit: next.limit.saturating_mul(2).min(MOST_PLACES), ..part };
        }
        Ok(listed(found, part, event_place))
    }

    /// The first places after the cursor where events that concern `account` can be, one more than a part has.
    async fn places(&mut self, account: Address, filter: EventFilter, part: Part) -> Result<Vec<OpenedAt>, StoreError> {
        let mut places = Places { found: BTreeSet::new(), order: part.order };
        if let Some(deal) = filter.deal {
            self.gather(of_deal(deal, filter, part)?, &mut places).await?;
        } else {
            for query in named(account, filter, part)? {
                self.gather(query, &mut places).await?;
            }
            for role in ROLES {
                self.gather_of_deals(role, account, filter, part, &mut places).await?;
            }
        }
        Ok(places.first(usize::try_from(part.limit).unwrap_or(usize::MAX).saturating_add(1)))
    }

    /// Adds places; returns how many rows had them.
    async fn gather(&mut self, query: Statement, places: &mut Places) -> Result<usize, StoreError> {
        let found: Vec<(i64, i64)> = self.read.fetch_all(query).await?;
        for (block, log_index) in &found {
            let block = unsigned("block_number", *block)?;
            places.found.insert(OpenedAt { block, log_index: unsigned("log_index", *log_index)? });
        }
        Ok(found.len())
    }

    async fn gather_of_deals(
        &mut self,
        role: &'static str,
        account: Address,
        filter: EventFilter,
        part: Part,
        places: &mut Places,
    ) -> Result<(), StoreError> {
        let first: Option<(i64,)> = self.read.fetch_optional(first_deal(role, account)).await?;
        let (Some((first,)), Some(last)) = (first, self.block().map(|block| block.number)) else { return Ok(()) };
        let after = part.after.map(|Cursor(place)| place.block);
        let (mut lowest, mut highest): (u64, u64) = (unsigned("deals.opened_block", first)?, last);
        lowest = lowest.max(filter.from_block.unwrap_or_default());
        highest = highest.min(filter.to_block.unwrap_or(u64::MAX));
        match part.order {
            Order::Asc => lowest = lowest.max(after.unwrap_or_default()),
            Order::Desc => highest = highest.min(after.unwrap_or(u64::MAX)),
        }
        let (mut width, wanted) = (FIRST_WINDOW, usize::try_from(part.limit).unwrap_or(usize::MAX));
        let mut rows = 0_usize;
        while lowest <= highest && rows <= wanted {
            let window = match part.order {
                Order::Asc => (lowest, highest.min(lowest.saturating_add(width))),
                Order::Desc => (lowest.max(highest.saturating_sub(width)), highest),
            };
            let filter = EventFilter { from_block: Some(window.0), to_block: Some(window.1), ..filter };
            rows = rows.saturating_add(self.gather(of_deals(role, account, filter, part)?, places).await?);
            match (part.order, window.0.checked_sub(1)) {
                (Order::Asc, _) => lowest = window.1.saturating_add(1),
                (Order::Desc, Some(below)) => highest = below,
                (Order::Desc, None) => break,
            }
            width = width.saturating_mul(GROWTH);
        }
        Ok(())
    }
}

impl EventFilter {
    /// Whether an event of the right blocks is of the right kind and deal.
    fn lets(&self, event: &EventView) -> bool {
        self.kind.is_none_or(|kind| kind == kind::of(&event.event))
            && self.deal.is_none_or(|deal| event.event.deal_id() == Some(deal))
    }
}
