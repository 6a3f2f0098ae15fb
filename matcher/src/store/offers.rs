//! Signed offers in the order in which they were accepted.

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

/// What has become of signed offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfferNews {
    /// Those that are open, and whether it is noted that the chain knows them; in the order of their changes.
    pub open: Vec<(StoredOffer, bool)>,
    /// Those that are not any more.
    pub closed: Vec<OfferHash>,
    /// Number of the last change that is in this.
    pub up_to: u64,
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
    closed_at: Option<i64>,
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
        let change = next_change(&mut tx).await?;
        let taken_in = Statement::new(
            "INSERT INTO signed_offers
                 (offer_hash, kind, owner, sequence, accepted_block, accepted_at, offer, signature, changed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (offer_hash) DO UPDATE SET sequence = $4, accepted_block = $5, accepted_at = $6,
                 signature = $8, changed = $9, on_chain_block = NULL, closed_at = NULL",
        );
        let taken_in = taken_in
            .bind(new.hash.to_string())
            .bind(new.kind.as_str().to_owned())
            .bind(new.owner.to_string())
            .bind(sequence)
            .bind(signed("signed_offers.accepted_block", new.block)?)
            .bind(signed("signed_offers.accepted_at", new.time)?)
            .bind(to_json("signed_offers.offer", new.offer)?)
            .bind(hex::encode_prefixed(new.signature))
            .bind(change);
        tx.execute(taken_in).await?;
        tx.commit().await?;
        Ok(Accepted::New(unsigned("signed_offers.sequence", sequence)?))
    }

    /// Number of the last change of any offer, by whichever process.
    pub async fn last_change(&self) -> Result<u64, StoreError> {
        last_change(&mut self.pool.read().await?).await
    }

    /// What has become of offers since a change, or else all that are open. One consistent read.
    pub async fn offer_news(&self, since: Option<u64>) -> Result<OfferNews, StoreError> {
        let mut read = self.pool.read().await?;
        let mut news = OfferNews { up_to: last_change(&mut read).await?, ..OfferNews::default() };
        let rows = match since {
            Some(since) if since >= news.up_to => return Ok(news),
            Some(since) => Statement::new("SELECT * FROM signed_offers WHERE changed > $1 ORDER BY changed, sequence")
                .bind(signed("signed_offers.changed", since)?),
            None => Statement::new("SELECT * FROM signed_offers WHERE closed_at IS NULL ORDER BY changed, sequence"),
        };
        let rows: Vec<Row> = read.fetch_all(rows).await?;
        for row in rows {
            if row.closed_at.is_some() {
                news.closed.push(id("signed_offers.offer_hash", &row.offer_hash)?);
            } else {
                let is_noted = row.on_chain_block.is_some();
                news.open.push((row.try_into()?, is_noted));
            }
        }
        Ok(news)
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
        let change = next_change(&mut tx).await?;
        for hash in hashes {
            let close =
                "UPDATE signed_offers SET closed_at = $1, changed = $2 WHERE offer_hash = $3 AND closed_at IS NULL";
            tx.execute(Statement::new(close).bind(time).bind(change).bind(hash.to_string())).await?;
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
        let change = next_change(&mut tx).await?;
        for (hash, block) in appeared.chain(vanished) {
            let note = "UPDATE signed_offers SET on_chain_block = $1, changed = $2 WHERE offer_hash = $3";
            tx.execute(Statement::new(note).bind(block).bind(change).bind(hash.to_string())).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Closes offers that the chain was seen to know up to `final_block`: their signatures are needed no more.
    pub async fn close_settled(&self, final_block: u64, time: u64) -> Result<(), StoreError> {
        let close = "UPDATE signed_offers SET closed_at = $1, changed = $2
             WHERE closed_at IS NULL AND on_chain_block <= $3";
        let time = signed("signed_offers.closed_at", time)?;
        let final_block = signed("signed_offers.on_chain_block", final_block)?;
        let mut tx = self.write().await?;
        let change = next_change(&mut tx).await?;
        tx.execute(Statement::new(close).bind(time).bind(change).bind(final_block)).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets offers that were closed before `time`.
    pub async fn prune_offers(&self, time: u64) -> Result<(), StoreError> {
        let time = signed("signed_offers.closed_at", time)?;
        self.change(Statement::new("DELETE FROM signed_offers WHERE closed_at < $1").bind(time)).await
    }
}

/// A number for a change. Whoever writes is the only one: numbers are in the order in which changes can be read.
async fn next_change(tx: &mut Tx) -> Result<i64, StoreError> {
    let next = "UPDATE acceptance SET next_change = next_change + 1 WHERE id = 1 RETURNING next_change - 1";
    let (change,): (i64,) = tx.fetch_one(Statement::new(next)).await?;
    Ok(change)
}

async fn last_change(read: &mut Tx) -> Result<u64, StoreError> {
    let (last,): (i64,) = read.fetch_one(Statement::new("SELECT next_change - 1 FROM acceptance")).await?;
    unsigned("acceptance.next_change", last)
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
    use std::collections::BTreeMap;

    use matching::samples::{account, hash, provider_offer};

    use super::*;
    use crate::store::testing::databases;

    fn sequences(news: &OfferNews) -> Vec<(u64, bool)> {
        let sequence = |offer: &StoredOffer| match offer {
            StoredOffer::Developer(signed) => signed.sequence,
            StoredOffer::Provider(signed) => signed.sequence,
        };
        news.open.iter().map(|(offer, is_noted)| (sequence(offer), *is_noted)).collect()
    }

    /// What is open, and that it is the same for somebody who follows.
    async fn open(
        store: &Store,
        follower: &mut BTreeMap<OfferHash, (StoredOffer, bool)>,
        up_to: &mut u64,
    ) -> OfferNews {
        let all = store.offer_news(None).await.unwrap();
        let news = store.offer_news(Some(*up_to)).await.unwrap();
        news.closed.iter().for_each(|hash| drop(follower.remove(hash)));
        for (offer, is_noted) in news.open {
            let StoredOffer::Provider(signed) = &offer else { panic!("{offer:?}") };
            follower.insert(signed.hash, (offer.clone(), is_noted));
        }
        *up_to = news.up_to;
        assert_eq!(store.last_change().await.unwrap(), *up_to);
        assert_eq!(store.offer_news(Some(*up_to)).await.unwrap(), OfferNews { up_to: *up_to, ..OfferNews::default() });
        let mut now: Vec<_> = all.open.clone();
        now.sort_by_key(
            |(offer, _)| if let StoredOffer::Provider(signed) = offer { signed.hash } else { OfferHash::ZERO },
        );
        assert_eq!(follower.values().cloned().collect::<Vec<_>>(), now);
        all
    }

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
        let (mut follower, mut up_to) = (BTreeMap::new(), 0);
        assert_eq!(accept(store, 1, 100).await.unwrap(), Accepted::New(1));
        assert_eq!(accept(store, 1, 101).await.unwrap(), Accepted::Known(1));
        assert_eq!(accept(store, 2, 102).await.unwrap(), Accepted::New(2));
        assert_eq!(sequences(&open(store, &mut follower, &mut up_to).await), [(1, false), (2, false)]);
        assert!(matches!(accept(store, 3, 103).await, Err(StoreError::TooManyOffers { limit: 2, .. })));

        // One becomes known to the chain, another void: there is room for two more.
        store.note_chain(&[hash(2, 1)], &[], 8).await.unwrap();
        store.close_offers(&[hash(2, 2)], 104).await.unwrap();
        assert_eq!(sequences(&open(store, &mut follower, &mut up_to).await), [(1, true)]);
        assert_eq!(accept(store, 3, 105).await.unwrap(), Accepted::New(3));
        // A reorganization puts the first back in its old place; the second comes back at the end of the line.
        store.note_chain(&[], &[hash(2, 1)], 9).await.unwrap();
        store.close_offers(&[hash(2, 3)], 106).await.unwrap();
        assert_eq!(accept(store, 2, 107).await.unwrap(), Accepted::New(4));
        assert_eq!(sequences(&open(store, &mut follower, &mut up_to).await), [(1, false), (4, false)]);

        store.prune_offers(107).await.unwrap();
        assert_eq!(store.signed_offer(hash(2, 3)).await.unwrap(), None);
        assert!(store.signed_offer(hash(2, 1)).await.unwrap().is_some());
        store.note_chain(&[hash(2, 1)], &[], 10).await.unwrap();
        store.close_settled(9, 108).await.unwrap();
        assert_eq!(open(store, &mut follower, &mut up_to).await.open.len(), 2);
        store.close_settled(10, 108).await.unwrap();
        assert_eq!(sequences(&open(store, &mut follower, &mut up_to).await), [(4, false)]);
    }
}
