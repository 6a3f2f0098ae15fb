//! Consistent answers about many things, in the order in which the chain logged them, a page at a time.

use common::{
    deal::DealState,
    ids::{Address, DealId, OfferHash},
    region::Region,
};

use super::{
    Snapshot,
    convert::{big, key, word},
    db::Statement,
    error::StoreError,
    views::{DEALS, DEVELOPER_OFFERS, EVENTS, EVENTS_AT_PLACES, PROVIDER_OFFERS},
};
use crate::{
    kind,
    projection::rows::OpenedAt,
    view::{Cursor, DealView, Deployment, DeveloperOfferView, EventView, Order, Part, ProviderOfferView},
};

/// A part of a list, and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// In the order that was asked for.
    pub items: Vec<T>,
    /// None at the end of the list.
    pub next: Option<Cursor>,
}

/// Which deals; what is not named does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DealFilter {
    /// Where they stand.
    pub state: Option<DealState>,
    /// Who hosts.
    pub provider: Option<Address>,
    /// Who pays.
    pub developer: Option<Address>,
    /// Whose attestations count.
    pub agent: Option<Address>,
    /// The demand they serve.
    pub developer_offer: Option<OfferHash>,
}

/// Which events; what is not named does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// The event's name, as in its JSON.
    pub kind: Option<&'static str>,
    /// The deal that it belongs to.
    pub deal: Option<DealId>,
    /// Whom it concerns, as [`common::parties`] has it.
    pub account: Option<Address>,
    /// Lowest height.
    pub from_block: Option<u64>,
    /// Greatest height.
    pub to_block: Option<u64>,
}

impl Snapshot {
    /// Provider offers in `region` of `provider`.
    pub async fn provider_offers(
        &mut self,
        region: Option<Region>,
        provider: Option<Address>,
        part: Part,
    ) -> Result<Listed<ProviderOfferView>, StoreError> {
        let mut query = Statement::new(PROVIDER_OFFERS);
        if let Some(provider) = provider {
            query.push(" AND o.provider = ").push_bind(provider.to_string());
        }
        if let Some(region) = region {
            // A region's text is a prefix of the texts of the places in it, and has no wildcards.
            query.push(" AND o.region LIKE ").push_bind(format!("{region}%"));
        }
        narrow(&mut query, OFFER_PLACE, part)?;
        Ok(listed(self.fetch_provider_offers(query).await?, part, |item| item.opened_at))
    }

    /// Developer offers of `developer`.
    pub async fn developer_offers(
        &mut self,
        developer: Option<Address>,
        part: Part,
    ) -> Result<Listed<DeveloperOfferView>, StoreError> {
        let mut query = Statement::new(DEVELOPER_OFFERS);
        if let Some(developer) = developer {
            query.push(" AND o.developer = ").push_bind(developer.to_string());
        }
        narrow(&mut query, OFFER_PLACE, part)?;
        Ok(listed(self.fetch_developer_offers(query).await?, part, |item| item.opened_at))
    }

    /// Developer offers with all their deals; with `live`, only those that have a deal that is not over.
    pub async fn deployments(
        &mut self,
        developer: Option<Address>,
        live: bool,
        part: Part,
    ) -> Result<Listed<Deployment>, StoreError> {
        let mut query = Statement::new(DEVELOPER_OFFERS);
        if let Some(developer) = developer {
            query.push(" AND o.developer = ").push_bind(developer.to_string());
        }
        if live {
            query.push(" AND o.offer_hash IN (SELECT developer_offer FROM deals WHERE state <> 'ended')");
        }
        narrow(&mut query, OFFER_PLACE, part)?;
        let offers = listed(self.fetch_developer_offers(query).await?, part, |item| item.opened_at);
        Ok(Listed { items: self.with_deals(offers.items).await?, next: offers.next })
    }

    /// Deals.
    pub async fn deals(&mut self, filter: DealFilter, part: Part) -> Result<Listed<DealView>, StoreError> {
        Ok(listed(self.fetch_deals(deals(filter, part)?).await?, part, |item| item.opened_at))
    }

    /// What happened in the market.
    pub async fn events(&mut self, filter: EventFilter, part: Part) -> Result<Listed<EventView>, StoreError> {
        match filter.account {
            Some(account) => self.events_concerning(account, filter, part).await,
            None => Ok(listed(self.fetch_events(events(filter, part)?).await?, part, event_place)),
        }
    }

    /// Everything that happened to one deal: its own events, and its agent's attestations of its epochs.
    pub async fn timeline(&mut self, deal: DealId, part: Part) -> Result<Listed<EventView>, StoreError> {
        let mut query = timeline(deal);
        narrow(&mut query, EVENT_PLACE, part)?;
        Ok(listed(self.fetch_events(query).await?, part, event_place))
    }
}

const OFFER_PLACE: [&str; 2] = ["o.opened_block", "o.opened_log_index"];
pub(super) const EVENT_PLACE: [&str; 2] = ["e.block_number", "e.log_index"];

pub(super) const fn event_place(event: &EventView) -> OpenedAt {
    OpenedAt { block: event.block_number, log_index: event.log_index }
}

/// All events of a deal, and its agent's attestations of its epochs.
pub(super) fn timeline(deal: DealId) -> Statement {
    let mut query = Statement::new(
        "WITH places (block_number, log_index) AS (SELECT block_number, log_index FROM events WHERE deal_key = ",
    );
    query.push_bind(key(deal.as_bytes())).push(" AND deal_id = ").push_bind(deal.to_string());
    query.push(
        " UNION ALL SELECT a.block_number, a.log_index FROM deals d JOIN attestations a ON a.agent = d.agent
          AND a.epoch >= d.start_epoch AND a.epoch < d.end_epoch WHERE d.deal_id = ",
    );
    query.push_bind(deal.to_string()).push(") ").push(EVENTS_AT_PLACES);
    query
}

/// A page of deals, and one more.
pub(super) fn deals(filter: DealFilter, part: Part) -> Result<Statement, StoreError> {
    let mut query = Statement::new(DEALS);
    let columns = [
        (" AND d.provider = ", filter.provider.map(|account| account.to_string())),
        (" AND d.developer = ", filter.developer.map(|account| account.to_string())),
        (" AND d.agent = ", filter.agent.map(|account| account.to_string())),
        (" AND d.developer_offer = ", filter.developer_offer.map(|hash| hash.to_string())),
    ];
    let mut is_of_somebody = false;
    for (condition, value) in columns.into_iter().filter_map(|(sql, value)| value.map(|value| (sql, value))) {
        query.push(condition).push_bind(value);
        is_of_somebody = true;
    }
    if let Some(state) = filter.state {
        // All deals in a state are many more than those of an account, so its index is not to be used beside another.
        let column = if is_of_somebody { "d.state || ''" } else { "d.state" };
        query.push(" AND ").push(column).push(" = ").push_bind(word("deals.state", &state)?);
    }
    narrow(&mut query, ["d.opened_block", "d.opened_log_index"], part)?;
    Ok(query)
}

/// A page of events, and one more, whomever they concern.
pub(super) fn events(filter: EventFilter, part: Part) -> Result<Statement, StoreError> {
    let mut query = Statement::new(EVENTS);
    if let Some(kind) = filter.kind {
        // Nor is the index of all events of a kind where those of a deal are wanted.
        query.push(if filter.deal.is_some() { " AND e.kind + 0 = " } else { " AND e.kind = " });
        query.push_bind(kind::number(kind));
    }
    if let Some(deal) = filter.deal {
        query.push(" AND e.deal_key = ").push_bind(key(deal.as_bytes()));
        query.push(" AND e.deal_id = ").push_bind(deal.to_string());
    }
    between(&mut query, "e.block_number", filter);
    narrow(&mut query, EVENT_PLACE, part)?;
    Ok(query)
}

/// Only what `filter` has of the blocks.
pub(super) fn between(query: &mut Statement, block: &str, filter: EventFilter) {
    for (condition, height) in [(">=", filter.from_block), ("<=", filter.to_block)] {
        if let Some(height) = height {
            query.push(format_args!(" AND {block} {condition} "));
            query.push_bind(i64::try_from(height).unwrap_or(i64::MAX));
        }
    }
}

/// Adds what makes a list one part of it. One item more than wanted is read, to know whether there are more.
pub(super) fn narrow(query: &mut Statement, place: [&str; 2], part: Part) -> Result<(), StoreError> {
    let [block, log_index] = place;
    let (beyond, direction) = match part.order {
        Order::Asc => (">", "ASC"),
        Order::Desc => ("<", "DESC"),
    };
    if let Some(Cursor(after)) = part.after {
        query.push(format_args!(" AND ({block}, {log_index}) {beyond} ("));
        query.push_bind(big("cursor", after.block)?).push(", ");
        query.push_bind(big("cursor", after.log_index)?).push(")");
    }
    query.push(format_args!(" ORDER BY {block} {direction}, {log_index} {direction} LIMIT "));
    query.push_bind(i64::from(part.limit).saturating_add(1));
    Ok(())
}

pub(super) fn listed<T>(mut items: Vec<T>, part: Part, place: impl Fn(&T) -> OpenedAt) -> Listed<T> {
    let limit = usize::try_from(part.limit).unwrap_or(usize::MAX);
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more).map(|last| Cursor(place(last)));
    Listed { items, next }
}
