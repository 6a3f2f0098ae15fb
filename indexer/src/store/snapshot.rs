//! Consistent answers about single things: everything asked of one [`Snapshot`] is true at the same block.

use super::{
    Checkpoint,
    convert::{atoms, from_json, unsigned},
    db::{Statement, Tx},
    error::StoreError,
    views::{DEALS, DEVELOPER_OFFERS},
};
use crate::view::{AsOf, BalanceView, DealCounts, DealView, Deployment, DeveloperOfferView, Totals, WideAtoms};
use common::{
    event::BlockRef,
    ids::{Address, DealId, OfferHash},
    market::MarketTerms,
    money::Atoms,
};

/// Money is added up in two halves, since the sum of many accounts may exceed what a column can hold.
const HALF: u128 = 1_000_000_000;

/// A reader's view of the database at one block.
pub struct Snapshot {
    pub(super) read: Tx,
    checkpoint: Checkpoint,
}

impl Snapshot {
    pub(super) const fn new(read: Tx, checkpoint: Checkpoint) -> Self {
        Self { read, checkpoint }
    }

    /// The last committed block.
    pub const fn block(&self) -> Option<BlockRef> {
        self.checkpoint.block
    }

    /// How far the projection is.
    pub const fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The last committed block, as answers name it.
    pub fn as_of(&self) -> Option<AsOf> {
        self.checkpoint.block.map(|block| AsOf::new(block, self.checkpoint.finalized))
    }

    /// The market that the database was bound to.
    pub async fn market_terms(&mut self) -> Result<Option<MarketTerms>, StoreError> {
        let query = Statement::new("SELECT terms FROM market WHERE id = 1");
        let terms: Option<(String,)> = self.read.fetch_optional(query).await?;
        terms.map(|(terms,)| from_json("market.terms", &terms)).transpose()
    }

    /// Whether new matches are stopped.
    pub async fn matching_paused(&mut self) -> Result<bool, StoreError> {
        let query = Statement::new("SELECT paused FROM matching WHERE id = 1");
        let paused: Option<(bool,)> = self.read.fetch_optional(query).await?;
        Ok(paused.is_some_and(|(paused,)| paused))
    }

    /// One deal.
    pub async fn deal(&mut self, id: DealId) -> Result<Option<DealView>, StoreError> {
        let mut query = Statement::new(DEALS);
        query.push(" AND d.deal_id = ").push_bind(id.to_string());
        Ok(self.fetch_deals(query).await?.into_iter().next())
    }

    /// One developer offer.
    pub async fn developer_offer(&mut self, hash: OfferHash) -> Result<Option<DeveloperOfferView>, StoreError> {
        let mut query = Statement::new(DEVELOPER_OFFERS);
        query.push(" AND o.offer_hash = ").push_bind(hash.to_string());
        Ok(self.fetch_developer_offers(query).await?.into_iter().next())
    }

    /// One developer offer with all its deals.
    pub async fn deployment(&mut self, hash: OfferHash) -> Result<Option<Deployment>, StoreError> {
        let Some(offer) = self.developer_offer(hash).await? else { return Ok(None) };
        Ok(self.with_deals(vec![offer]).await?.into_iter().next())
    }

    /// One account's money; accounts never seen hold nothing.
    pub async fn balance(&mut self, account: Address) -> Result<BalanceView, StoreError> {
        let name = account.to_string();
        let floor = Statement::new("SELECT floor FROM nonce_floors WHERE owner = $1").bind(name.clone());
        let floor: Option<(String,)> = self.read.fetch_optional(floor).await?;
        Ok(BalanceView {
            account,
            free: free_balance(&mut self.read, &name).await?,
            locked: sum(&mut self.read, LOCKED_BY, Some(&name)).await?,
            bonded: sum(&mut self.read, BONDED_BY, Some(&name)).await?,
            nonce_floor: floor.map_or_else(|| "0".to_owned(), |(floor,)| floor),
        })
    }

    /// All money in the market.
    pub async fn totals(&mut self) -> Result<Totals, StoreError> {
        let free = sum(&mut self.read, FREE, None).await?;
        let locked = sum(&mut self.read, LOCKED, None).await?;
        let bonds = sum(&mut self.read, BONDS, None).await?;
        let held = WideAtoms(free.0.saturating_add(locked.0).saturating_add(bonds.0));
        let paid = sum(&mut self.read, PAID, None).await?;
        Ok(Totals { free, locked, bonds, held, paid, deals: deal_counts(&mut self.read).await? })
    }
}

macro_rules! sum_of {
    ($column:literal, $rest:literal) => {
        concat!(
            "SELECT CAST(coalesce(sum(",
            $column,
            " / 1000000000), 0) AS BIGINT), CAST(coalesce(sum(",
            $column,
            " % 1000000000), 0) AS BIGINT) FROM ",
            $rest
        )
    };
}

const FREE: &str = sum_of!("free", "balances");
const LOCKED: &str = sum_of!("locked", "deals WHERE state <> 'ended'");
const BONDS: &str = sum_of!("bond", "deals WHERE state <> 'ended'");
const PAID: &str = sum_of!("paid", "deals");
const LOCKED_BY: &str = sum_of!("locked", "deals WHERE developer = $1");
const BONDED_BY: &str = sum_of!("bond", "deals WHERE provider = $1");

async fn sum(db: &mut Tx, sql: &'static str, of: Option<&str>) -> Result<WideAtoms, StoreError> {
    let mut query = Statement::new(sql);
    if let Some(of) = of {
        query = query.bind(of.to_owned());
    }
    let (upper, lower): (i64, i64) = db.fetch_one(query).await?;
    joined(upper, lower)
}

/// A sum of its two halves.
pub(super) fn joined(upper: i64, lower: i64) -> Result<WideAtoms, StoreError> {
    let upper: u128 = unsigned::<u64>("sum", upper)?.into();
    let lower: u128 = unsigned::<u64>("sum", lower)?.into();
    Ok(WideAtoms(upper.saturating_mul(HALF).saturating_add(lower)))
}

async fn free_balance(db: &mut Tx, account: &str) -> Result<Atoms, StoreError> {
    let query = Statement::new("SELECT free FROM balances WHERE account = $1").bind(account.to_owned());
    let free: Option<(i64,)> = db.fetch_optional(query).await?;
    free.map_or(Ok(Atoms::ZERO), |(free,)| atoms("balances.free", free))
}

async fn deal_counts(db: &mut Tx) -> Result<DealCounts, StoreError> {
    let query = "SELECT count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'ending'),
         count(*) FILTER (WHERE state = 'ended') FROM deals";
    let (active, ending, ended): (i64, i64, i64) = db.fetch_one(Statement::new(query)).await?;
    Ok(DealCounts {
        active: unsigned("count of deals", active)?,
        ending: unsigned("count of deals", ending)?,
        ended: unsigned("count of deals", ended)?,
    })
}
