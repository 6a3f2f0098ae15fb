//! The market in memory held against a real chain and a real index, with each kind of database.

use std::{sync::Arc, time::Duration};

use chain::{calls, testing::TestMarket};
use common::{clock::SystemClock, shutdown::Shutdown};
use indexer::{Indexer, IndexerConfig, Location};
use matching::samples::{self, atoms};

use crate::{
    against_chain::{fold, real_developer_offer, real_provider_offer},
    metrics::Metrics,
    store::{
        Kind, NewOffer, OfferLimits, Store,
        testing::{Database, databases},
    },
    view::{ViewParts, Views},
};

const LIMITS: OfferLimits = OfferLimits { open: 100, open_per_owner: 100 };

/// A chain, its index, and a market that follows.
struct World {
    market: TestMarket,
    indexer: Indexer,
    store: Store,
    metrics: Metrics,
    views: Views,
    _database: Database,
    _folder: tempfile::TempDir,
}

impl World {
    /// One with each kind of database, which remember so many blocks.
    async fn each(remembered: usize) -> Vec<Self> {
        let mut worlds = Vec::new();
        for (number, database) in databases().await.into_iter().enumerate() {
            let market = TestMarket::start().await;
            let folder = tempfile::tempdir().unwrap();
            let location = match number {
                0 => Location::Sqlite(folder.path().join("indexer.db")),
                _ => Location::Postgres(migrations::testing::Postgres::shared().database().await),
            };
            let config = IndexerConfig { poll_interval: Duration::from_millis(20), ..IndexerConfig::new(location) };
            let indexer = Indexer::start(market.reader.clone(), config, Shutdown::new()).await.unwrap();
            let (store, metrics) = (database.open().await, Metrics::new().unwrap());
            let parts = ViewParts {
                indexer: indexer.store().clone(),
                store: store.clone(),
                clock: Arc::new(SystemClock),
                metrics: metrics.clone(),
                matcher: market.anvil.key(18).address(),
                remembered,
            };
            let views = Views::new((market.reader.domain(), *market.reader.terms()), parts);
            worlds.push(Self { market, indexer, store, metrics, views, _database: database, _folder: folder });
        }
        worlds
    }

    /// Waits until the index has the head, and compares what the market has become with what all events make of it.
    async fn agrees(&self) {
        let head = self.market.reader.rpc().head().await.unwrap();
        let mut committed = self.indexer.subscribe();
        committed.wait_for(|block| block.is_some_and(|block| block.hash == head.hash)).await.unwrap();
        let followed = self.views.ask(|present| present.market.state().clone()).await.unwrap();
        let mut folded = fold(&self.market).await;
        folded.as_of = followed.as_of;
        assert_eq!(followed, folded);
        assert_eq!(followed.as_of.map(|block| block.hash), Some(head.hash));
    }

    fn metric(&self, name: &str) -> u64 {
        let families = self.metrics.registry().gather();
        let family = families.iter().find(|family| family.name() == format!("wharfage_matcher_{name}")).unwrap();
        let value = family.get_metric()[0].get_counter().get_value();
        format!("{value:.0}").parse().unwrap()
    }

    async fn deposit(&self, atoms_each: &[u64]) {
        for amount in atoms_each {
            self.market.fund(&self.market.anvil.key(1), atoms(*amount)).await;
        }
    }
}

#[tokio::test]
async fn a_reorganization_at_the_head_is_followed_without_reading_the_market_again() {
    for world in World::each(100).await {
        let (market, views) = (&world.market, &world.views);
        world.deposit(&[1_000, 2_000]).await;
        market.fund(&market.anvil.key(10), atoms(5_000)).await;
        world.agrees().await;

        let now = market.reader.rpc().head().await.unwrap().timestamp;
        let wanted = real_developer_offer(market, samples::developer_offer(), now + 10_000);
        let offered = real_provider_offer(market, samples::provider_offer(10, 70), now + 10_000);
        let domain = market.reader.domain();
        let (hash, supply) = (domain.developer_offer_hash(&wanted), domain.provider_offer_hash(&offered));
        let signature = market.anvil.key(1).sign(hash).unwrap();
        let new = NewOffer {
            kind: Kind::Developer,
            hash,
            owner: wanted.developer,
            offer: &wanted,
            signature: &signature,
            block: 1,
            time: now,
        };
        world.store.accept(&new, LIMITS).await.unwrap();
        views.changed();
        let provider = market.sender(10).await;
        provider.send(&calls::post_provider_offer(market.market, &offered)).await.unwrap();
        world.agrees().await;
        assert_eq!(views.ask(|present| present.matchable()).await.unwrap(), [hash]);

        // The chain comes to know the signed offer by a match, and then forgets both.
        let signed = (offered.clone(), market.anvil.key(10).sign(supply).unwrap());
        let proposal =
            chain::MatchProposal { developer: wanted.clone(), developer_signature: signature, providers: vec![signed] };
        market.sender(18).await.send(&calls::match_offers(market.market, &[proposal])).await.unwrap();
        world.agrees().await;
        let placed = move |present: &mut crate::view::Present| {
            (present.market.placed(hash).live_replicas, present.matchable(), present.market.sort_signed())
        };
        let (live, matchable, sorted) = views.ask(placed).await.unwrap();
        assert_eq!((live, matchable, sorted.appeared), (1, vec![], vec![hash]));
        market.anvil.reorg(1).await;
        world.agrees().await;
        let (live, matchable, sorted) = views.ask(placed).await.unwrap();
        assert_eq!((live, matchable), (0, vec![hash]), "it waits again, as it was signed");
        assert_eq!((sorted.appeared, sorted.vanished), (vec![], vec![]), "nobody had noted it");
        world.deposit(&[77]).await;
        world.agrees().await;

        assert_eq!(world.metric("market_loads_total"), 1);
        assert_eq!(world.metric("market_blocks_taken_back_total"), 1);
    }
}

#[tokio::test]
async fn a_fork_below_what_is_remembered_is_put_right_by_reading_the_market_again() {
    for world in World::each(2).await {
        world.deposit(&[1_000]).await;
        world.agrees().await;
        world.deposit(&[10, 20, 30, 40, 50]).await;
        world.agrees().await;
        assert_eq!(world.metric("market_loads_total"), 1);
        let loaded_at = world.views.ask(|present| present.market.remembers()).await.unwrap();
        assert_eq!(loaded_at, 2);
        let height = world.market.reader.rpc().head().await.unwrap().number;
        // The block of the first deposit stays, by which nothing can be recognized any more.
        let first = world.views.ask(|present| present.market.anchors().last().flatten()).await.unwrap().unwrap();
        world.market.anvil.reorg(height - first.number + 1).await;
        world.deposit(&[60]).await;
        world.agrees().await;
        assert_eq!((world.metric("market_loads_total"), world.metric("market_blocks_taken_back_total")), (2, 0));
        world.deposit(&[70]).await;
        world.agrees().await;
        assert_eq!(world.metric("market_loads_total"), 2);
        let account = world.market.anvil.key(1).address();
        let free = world.views.ask(move |present| present.market.state().free_balance(account)).await.unwrap();
        assert!(free >= atoms(130), "{free}");
    }
}
