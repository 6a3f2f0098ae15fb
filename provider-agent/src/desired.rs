//! What the chain wants of this agent: the deals that name its key, with the offers that they serve.

use std::collections::{BTreeMap, BTreeSet};

use chain::{ChainError, MarketReader};
use common::{
    deal::DealState,
    epoch::Epoch,
    event::{BlockRef, MarketEvent},
    ids::{Address, DealId},
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::store::Assignment;

/// Deals that are asked for at once.
const PARALLEL_READS: usize = 8;

/// One look at the chain.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) head: BlockRef,
    pub(crate) epoch: Epoch,
    /// Deals that are new or have changed.
    pub(crate) changed: Vec<Assignment>,
    /// Block up to which deals have been found.
    pub(crate) searched_to: u64,
}

/// Whose deals are looked for, and from where on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    pub(crate) agent: Address,
    /// Blocks up to this one were searched before; `None` at the first time.
    pub(crate) searched_to: Option<u64>,
    /// Blocks that may have been replaced since.
    pub(crate) reorg_margin: u64,
}

/// Reads the deals of an agent; `known` are those from before.
pub(crate) async fn read(
    market: &MarketReader,
    head: BlockRef,
    search: Search,
    known: &BTreeMap<DealId, Assignment>,
) -> Result<Reading, ChainError> {
    let deployed = market.terms().deployed_at_block;
    let from = search.searched_to.map_or(deployed, |to| to.saturating_sub(search.reorg_margin).max(deployed));
    let opened = market.deals_of_agent(search.agent, from).await?;
    let opened = opened.into_iter().filter_map(|placed| match placed.event {
        MarketEvent::DealOpened(opened) => Some(opened.deal_id),
        _ => None,
    });
    let open = known.values().filter(|assignment| assignment.deal.state != DealState::Ended);
    let ids: BTreeSet<DealId> = opened.chain(open.map(|assignment| assignment.deal.id)).collect();
    let reads = ids.into_iter().map(|id| read_one(market, head, search, id, known.get(&id)));
    let found: Vec<Found> = stream::iter(reads).buffer_unordered(PARALLEL_READS).try_collect().await?;
    let is_complete = !found.iter().any(|found| matches!(found, Found::NotYet));
    let changed = found.into_iter().filter_map(|found| match found {
        Found::Changed(assignment) => Some(*assignment),
        Found::Same | Found::NotYet => None,
    });
    Ok(Reading {
        head,
        epoch: market.terms().schedule.epoch_at(head.timestamp),
        changed: changed.collect(),
        // What could not be read in full is searched for again.
        searched_to: if is_complete { head.number } else { from.saturating_sub(1) },
    })
}

enum Found {
    Changed(Box<Assignment>),
    Same,
    /// The endpoint does not know yet what another one has told.
    NotYet,
}

async fn read_one(
    market: &MarketReader,
    head: BlockRef,
    search: Search,
    id: DealId,
    known: Option<&Assignment>,
) -> Result<Found, ChainError> {
    let deal = market.deal(id).await?;
    let next = match (deal, known) {
        (Some(deal), Some(known)) => Assignment { deal, missing_since: None, ..known.clone() },
        (Some(deal), None) if deal.agent != search.agent => return Ok(Found::Same),
        (Some(deal), None) => match market.developer_offer(deal.developer_offer).await? {
            Some(offer) => Assignment { deal, offer, missing_since: None },
            None => return Ok(Found::NotYet),
        },
        (None, Some(known)) => gone(known.clone(), head.number, search.reorg_margin),
        (None, None) => return Ok(Found::NotYet),
    };
    Ok(if known == Some(&next) { Found::Same } else { Found::Changed(Box::new(next)) })
}

/// A deal that the chain does not know any more: replaced by a reorganisation, or asked of an endpoint that lags. It goes on
/// until it has been missing for so long that no reorganisation brings it back.
fn gone(mut assignment: Assignment, head: u64, reorg_margin: u64) -> Assignment {
    let since = *assignment.missing_since.get_or_insert(head);
    if head.saturating_sub(since) >= reorg_margin {
        assignment.deal.state = DealState::Ended;
    }
    assignment
}
