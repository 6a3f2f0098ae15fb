//! Signed offers in the order in which they were accepted.

use std::collections::BTreeSet;

use common::{
    ids::{Address, OfferHash},
    offer::{DeveloperOffer, ProviderOffer},
};
use indexer::store::db::{Statement, Tx};
use matching::snapshot::Signed;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::FromRow;

use super::{
    Store, StoreError,
    convert::{bytes, from_json, id, signed, to_json, unsigned},
};

/// Which side of the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Demand.
    Developer,
    /// Supply.
    Provider,
}

impl Kind {
    /// The word that databases and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Provider => "provider",
        }
    }
}

/// How many offers may wait.
#[derive(Debug, Clone, Copy)]
pub struct OfferLimits {
    /// Of one kind, in all.
    pub open: usize,
    /// Of one kind and owner.
    pub open_per_owner: usize,
}

/// An offer that has passed every check.
#[derive(Debug, Clone)]
pub struct NewOffer<'a, T> {
    /// Which side.
    pub kind: Kind,
    /// Its EIP-712 hash.
    pub hash: OfferHash,
    /// Who signed.
    pub owner: Address,
    /// Its terms.
    pub offer: &'a T,
    /// The signature.
    pub signature: &'a [u8],
    /// Block that is indexed last.
    pub block: u64,
    /// Now, in seconds since 1970.
    pub time: u64,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is new, or was closed and is open again; it has this number.
    New(u64),
    /// It was accepted before.
    Known(u64),
}

/// An offer of either kind as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredOffer {
    /// Demand.
    Developer(Signed<DeveloperOffer>),
    /// Supply.
    Provider(Signed<ProviderOffer>),
}

/// Everything that is open, in order of acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignedOffers {
    /// Demand.
    pub developer: Vec<Signed<DeveloperOffer>>,
    /// Supply.
    pub provider: Vec<Signed<ProviderOffer>>,
    /// Those of both that the chain was last seen to know.
    pub seen_on_chain: BTreeSet<OfferHash>,
}

#[derive(FromRow)]
struct Row {
    offer_hash: String,
    kind: String,
    sequence: i64,
    accepted_block: i64,
    offer: String,
    signature: String,
    on_chain_block: Option<i64>,
}

impl Store {
    /// Takes an offer in, once: a second submission changes nothing, one of a closed offer opens it at the end of the
    /// line.
    ///
    /// # Errors
    /// [`StoreError::TooManyOffers`] when a limit is reached.
    pub async fn accept<T: Serialize>(
        &self,
        new: &NewOffer<'_, T>,
        limits: OfferLimits,
    ) -> Result<Accepted, StoreError> {
        let mut tx = self.write().await?;
        let known = Statement::new("SELECT sequence, closed_at FROM signed_offers WHERE offer_hash = $1");
        let found: Option<(i64, Option<i64>)> = tx.fetch_optional(known.bind(new.hash.to_string())).await?;
        if let Some((sequence, None)) = found {
            return Ok(Accepted::Known(unsigned("signed_offers.sequence", sequence)?));
        }
        check_limits(&mut tx, new.kind, new.owner, limits).await?;
        let next = "UPDATE acceptance SET next_sequence = next_sequence + 1 WHERE id = 1 RETURNING next_sequence - 1";
        let (sequence,): (i64,) = tx.fetch_one(Statement::new(next)).await?;
        let taken_in = Statement::new(
            "INSERT INTO signed_offers (offer_hash, kind, owner, sequence, accepted_block, accepted_at, offer, signature)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (offer_hash) DO UPDATE SET sequence = $4, accepted_block = $5, accepted_at = $6,
                 signature = $8, on_chain_block = NULL, closed_at = NULL",
        );
        let taken_in = taken_in
            .bind(new.hash.to_string())
            .bind(new.kind.as_str().to_owned())
            .bind(new.owner.to_string())
            .bind(sequence)
            .bind(signed("signed_offers.accepted_block", new.block)?)
            .bind(signed("signed_offers.accepted_at", new.time)?)
            .bind(to_json("signed_offers.offer", new.offer)?)
            .bind(hex::encode_prefixed(new.signature));
        tx.execute(taken_in).await?;
        tx.commit().await?;
        Ok(Accepted::New(unsigned("signed_offers.sequence", sequence)?))
    }

    /// The number that the next accepted offer gets: it changes whenever one is taken in, by whichever process.
    pub async fn next_sequence(&self) -> Result<u64, StoreError> {
        let (next,): (i64,) =
            self.pool.read().await?.fetch_one(Statement::new("SELECT next_sequence FROM acceptance")).await?;
        unsigned("acceptance.next_sequence", next)
    }

    /// Everything that is open.
    pub async fn signed_offers(&self) -> Result<SignedOffers, StoreError> {
        let open = "SELECT * FROM signed_offers WHERE closed_at IS NULL ORDER BY sequence";
        let rows: Vec<Row> = self.rows(Statement::new(open)).await?;
        let mut offers = SignedOffers::default();
        for row in rows {
            if row.on_chain_block.is_some() {
                offers.seen_on_chain.insert(id("signed_offers.offer_hash", &row.offer_hash)?);
            }
            match row.try_into()? {
                StoredOffer::Developer(offer) => offers.developer.push(offer),
                StoredOffer::Provider(offer) => offers.provider.push(offer),
            }
        }
        Ok(offers)
    }

    /// One offer, open or closed.
    pub async fn signed_offer(&self, hash: OfferHash) -> Result<Option<StoredOffer>, StoreError> {
        let one = Statement::new("SELECT * FROM signed_offers WHERE offer_hash = $1").bind(hash.to_string());
        let row: Option<Row> = self.row(one).await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Takes void offers out of the running.
    pub async fn close_offers(&self, hashes: &[OfferHash], time: u64) -> Result<(), StoreError> {
        let time = signed("signed_offers.closed_at", time)?;
        let mut tx = self.write().await?;
        for hash in hashes {
            let close = "UPDATE signed_offers SET closed_at = $1 WHERE offer_hash = $2 AND closed_at IS NULL";
            tx.execute(Statement::new(close).bind(time).bind(hash.to_string())).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Notes which open offers the chain has come to know as of `block`, and which it no longer does.
    pub async fn note_chain(
        &self,
        appeared: &[OfferHash],
        vanished: &[OfferHash],
        block: u64,
    ) -> Result<(), StoreError> {
        let block = signed("signed_offers.on_chain_block", block)?;
        let appeared = appeared.iter().map(|hash| (hash, Some(block)));
        let vanished = vanished.iter().map(|hash| (hash, None));
        let mut tx = self.write().await?;
        for (hash, block) in appeared.chain(vanished) {
            let note = "UPDATE signed_offers SET on_chain_block = $1 WHERE offer_hash = $2";
            tx.execute(Statement::new(note).bind(block).bind(hash.to_string())).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Closes offers that the chain was seen to know up to `final_block`: their signatures are needed no more.
    pub async fn close_settled(&self, final_block: u64, time: u64) -> Result<(), StoreError> {
        let close = "UPDATE signed_offers SET closed_at = $1 WHERE closed_at IS NULL AND on_chain_block <= $2";
        let time = signed("signed_offers.closed_at", time)?;
        self.change(Statement::new(close).bind(time).bind(signed("signed_offers.on_chain_block", final_block)?)).await
    }

    /// Forgets offers that were closed before `time`.
    pub async fn prune_offers(&self, time: u64) -> Result<(), StoreError> {
        let time = signed("signed_offers.closed_at", time)?;
        self.change(Statement::new("DELETE FROM signed_offers WHERE closed_at < $1").bind(time)).await
    }
}

async fn check_limits(tx: &mut Tx, kind: Kind, owner: Address, limits: OfferLimits) -> Result<(), StoreError> {
    let waiting = Statement::new(
        "SELECT CAST(COUNT(*) AS BIGINT), CAST(COALESCE(SUM(CASE WHEN owner = $1 THEN 1 ELSE 0 END), 0) AS BIGINT)
         FROM signed_offers WHERE kind = $2 AND closed_at IS NULL AND on_chain_block IS NULL",
    );
    let waiting = waiting.bind(owner.to_string()).bind(kind.as_str().to_owned());
    let (open, of_owner): (i64, i64) = tx.fetch_one(waiting).await?;
    let reached = |count: i64, limit: usize| usize::try_from(count).unwrap_or(usize::MAX) >= limit;
    let (limit, scope) = if reached(of_owner, limits.open_per_owner) {
        (limits.open_per_owner, "of one account")
    } else if reached(open, limits.open) {
        (limits.open, "in all")
    } else {
        return Ok(());
    };
    Err(StoreError::TooManyOffers { limit, kind: kind.as_str(), scope })
}

impl TryFrom<Row> for StoredOffer {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        match row.kind.as_str() {
            "developer" => row.read().map(Self::Developer),
            _ => row.read().map(Self::Provider),
        }
    }
}

impl Row {
    fn read<T: DeserializeOwned>(&self) -> Result<Signed<T>, StoreError> {
        Ok(Signed {
            hash: id("signed_offers.offer_hash", &self.offer_hash)?,
            offer: from_json("signed_offers.offer", &self.offer)?,
            signature: bytes("signed_offers.signature", &self.signature)?,
            accepted_block: unsigned("signed_offers.accepted_block", self.accepted_block)?,
            sequence: unsigned("signed_offers.sequence", self.sequence)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use matching::samples::{account, hash, provider_offer};

    use super::*;
    use crate::store::testing::databases;

    const LIMITS: OfferLimits = OfferLimits { open: 2, open_per_owner: 2 };

    async fn accept(store: &Store, number: usize, time: u64) -> Result<Accepted, StoreError> {
        let offer = provider_offer(10, 70);
        let (kind, hash, owner) = (Kind::Provider, hash(2, number), account(10));
        let new = NewOffer { kind, hash, owner, offer: &offer, signature: &[1, 2], block: 7, time };
        store.accept(&new, LIMITS).await
    }

    #[tokio::test]
    async fn numbers_are_given_once_and_what_is_placed_or_void_leaves_the_line() {
        for database in databases().await {
            offers_come_and_go(&database.open().await).await;
        }
    }

    async fn offers_come_and_go(store: &Store) {
        assert_eq!(accept(store, 1, 100).await.unwrap(), Accepted::New(1));
        assert_eq!(accept(store, 1, 101).await.unwrap(), Accepted::Known(1));
        assert_eq!(accept(store, 2, 102).await.unwrap(), Accepted::New(2));
        assert!(matches!(accept(store, 3, 103).await, Err(StoreError::TooManyOffers { limit: 2, .. })));

        // One becomes known to the chain, another void: there is room for two more.
        store.note_chain(&[hash(2, 1)], &[], 8).await.unwrap();
        store.close_offers(&[hash(2, 2)], 104).await.unwrap();
        let open = store.signed_offers().await.unwrap();
        assert_eq!(open.provider.iter().map(|signed| signed.sequence).collect::<Vec<_>>(), [1]);
        assert_eq!(open.seen_on_chain, BTreeSet::from([hash(2, 1)]));
        assert_eq!(accept(store, 3, 105).await.unwrap(), Accepted::New(3));
        // A reorganization puts the first back in its old place; the second comes back at the end of the line.
        store.note_chain(&[], &[hash(2, 1)], 9).await.unwrap();
        store.close_offers(&[hash(2, 3)], 106).await.unwrap();
        assert_eq!(accept(store, 2, 107).await.unwrap(), Accepted::New(4));
        let open = store.signed_offers().await.unwrap();
        assert_eq!(open.provider.iter().map(|signed| signed.sequence).collect::<Vec<_>>(), [1, 4]);

        store.prune_offers(107).await.unwrap();
        assert_eq!(store.signed_offer(hash(2, 3)).await.unwrap(), None);
        assert!(store.signed_offer(hash(2, 1)).await.unwrap().is_some());
        store.note_chain(&[hash(2, 1)], &[], 10).await.unwrap();
        store.close_settled(9, 108).await.unwrap();
        assert_eq!(store.signed_offers().await.unwrap().provider.len(), 2);
        store.close_settled(10, 108).await.unwrap();
        assert_eq!(store.signed_offers().await.unwrap().provider.len(), 1);
    }
}
