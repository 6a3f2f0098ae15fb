//! Providers: what their offers, their deals and their balances say together.

use std::collections::HashMap;

use common::{ids::Address, money::Atoms};

use super::{
    Snapshot,
    convert::{atoms, parse, unsigned},
    db::Statement,
    error::StoreError,
    lists::{Listed, listed, narrow},
    snapshot::joined,
};
use crate::{
    projection::rows::OpenedAt,
    view::{DealCounts, MAX_LIMIT, Order, Part, ProviderSummary, ProviderView, WideAtoms},
};

/// Providers by their first offers; who hosts has offered.
const PROVIDERS: &str = "SELECT o.provider, o.opened_block, o.opened_log_index FROM provider_offers o
     WHERE NOT EXISTS (SELECT 1 FROM provider_offers f WHERE f.provider = o.provider
       AND (f.opened_block, f.opened_log_index) < (o.opened_block, o.opened_log_index))";

#[derive(sqlx::FromRow)]
struct FirstOffer {
    provider: String,
    opened_block: i64,
    opened_log_index: i64,
}

/// What a provider's deals add up to.
#[derive(Default, sqlx::FromRow)]
struct DealSums {
    provider: String,
    active: i64,
    ending: i64,
    ended: i64,
    evictions: i64,
    bonded_upper: i64,
    bonded_lower: i64,
    earned_upper: i64,
    earned_lower: i64,
}

const DEAL_SUMS: &str = "SELECT provider, count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state = 'ending') AS ending, count(*) FILTER (WHERE state = 'ended') AS ended,
       count(*) FILTER (WHERE cause = 'provider_evicted') AS evictions,
       CAST(sum(bond / 1000000000) AS BIGINT) AS bonded_upper, CAST(sum(bond % 1000000000) AS BIGINT) AS bonded_lower,
       CAST(sum(paid / 1000000000) AS BIGINT) AS earned_upper, CAST(sum(paid % 1000000000) AS BIGINT) AS earned_lower
     FROM deals WHERE provider IN (";

impl DealSums {
    fn counts(&self) -> Result<DealCounts, StoreError> {
        let count = |count| unsigned("count of deals", count);
        Ok(DealCounts { active: count(self.active)?, ending: count(self.ending)?, ended: count(self.ended)? })
    }

    fn bonded(&self) -> Result<WideAtoms, StoreError> {
        joined(self.bonded_upper, self.bonded_lower)
    }

    fn earned(&self) -> Result<WideAtoms, StoreError> {
        joined(self.earned_upper, self.earned_lower)
    }
}

impl Snapshot {
    /// Providers in the order of their first offers.
    pub async fn providers(&mut self, part: Part) -> Result<Listed<ProviderSummary>, StoreError> {
        let mut query = Statement::new(PROVIDERS);
        narrow(&mut query, ["o.opened_block", "o.opened_log_index"], part)?;
        let found = self.summaries(query).await?;
        Ok(listed(found, part, |provider| provider.first_seen_at))
    }

    /// A provider; none when it never offered.
    pub async fn provider(&mut self, provider: Address) -> Result<Option<ProviderView>, StoreError> {
        let mut query = Statement::new(PROVIDERS);
        query.push(" AND o.provider = ").push_bind(provider.to_string());
        let Some(summary) = self.summaries(query).await?.into_iter().next() else { return Ok(None) };
        let part = Part { limit: MAX_LIMIT, after: None, order: Order::Asc };
        let offers = self.provider_offers(None, Some(provider), part).await?.items;
        Ok(Some(ProviderView { summary, offers }))
    }

    async fn summaries(&mut self, query: Statement) -> Result<Vec<ProviderSummary>, StoreError> {
        let found: Vec<FirstOffer> = self.read.fetch_all(query).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let names = || found.iter().map(|first| first.provider.clone());
        let mut query = Statement::new(DEAL_SUMS);
        query.push_list(names()).push(") GROUP BY provider");
        let sums: Vec<DealSums> = self.read.fetch_all(query).await?;
        let sums: HashMap<_, _> = sums.into_iter().map(|sums| (sums.provider.clone(), sums)).collect();
        let offers = self.numbers("SELECT provider, count(*) FROM provider_offers WHERE provider IN (", names());
        let offers = offers.await?;
        let free = self.numbers("SELECT account, max(free) FROM balances WHERE account IN (", names()).await?;
        let summary = |first: FirstOffer| {
            let (none, name) = (DealSums::default(), first.provider);
            let deals = sums.get(&name).unwrap_or(&none);
            Ok(ProviderSummary {
                provider: parse("provider_offers.provider", &name)?,
                free: free.get(&name).map_or(Ok(Atoms::ZERO), |free| atoms("balances.free", *free))?,
                bonded: deals.bonded()?,
                earned: deals.earned()?,
                deals: deals.counts()?,
                evictions: unsigned("count of evictions", deals.evictions)?,
                offer_count: unsigned("count of offers", offers.get(&name).copied().unwrap_or_default())?,
                first_seen_at: OpenedAt {
                    block: unsigned("opened_block", first.opened_block)?,
                    log_index: unsigned("opened_log_index", first.opened_log_index)?,
                },
            })
        };
        found.into_iter().map(summary).collect()
    }

    /// A number for each of `names`, by the first column of `query`, which ends before them.
    async fn numbers(
        &mut self,
        query: &'static str,
        names: impl Iterator<Item = String>,
    ) -> Result<HashMap<String, i64>, StoreError> {
        let mut query = Statement::new(query);
        query.push_list(names).push(") GROUP BY 1");
        let found: Vec<(String, i64)> = self.read.fetch_all(query).await?;
        Ok(found.into_iter().collect())
    }
}
