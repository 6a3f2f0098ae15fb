//! A real market on a real chain, with a developer and two providers.

use std::{path::Path, time::Duration};

use chain::{MatchProposal, TxSender, calls, deal_id, testing::TestMarket};
use common::{
    deal::DealRef,
    event::BlockRef,
    feature::FeatureSet,
    ids::{Address, DealId, Digest, OfferHash, ReceiptRoot},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
    shutdown::Shutdown,
    state::MarketState,
};
use indexer::{Indexer, IndexerConfig, IndexerError, Location};

pub(crate) struct Scene {
    pub(crate) market: TestMarket,
    pub(crate) developer: TxSender,
    pub(crate) providers: [TxSender; 2],
    pub(crate) demand: DeveloperOffer,
    pub(crate) supplies: [ProviderOffer; 2],
}

pub(crate) fn atoms(n: u64) -> Atoms {
    Atoms::new(n).unwrap()
}

impl Scene {
    /// Everyone has money; nothing is offered.
    pub(crate) async fn new() -> Self {
        let market = TestMarket::start().await;
        for n in 1..4 {
            market.fund(&market.anvil.key(n), atoms(10_000_000)).await;
        }
        let developer = market.sender(1).await;
        let providers = [market.sender(2).await, market.sender(3).await];
        let supplies = [
            supply(providers[0].address(), "eu-de-fra1", "http://127.0.0.1:9001"),
            supply(providers[1].address(), "na-us-east", "http://127.0.0.1:9002"),
        ];
        let demand = demand(developer.address());
        Self { market, developer, providers, demand, supplies }
    }

    pub(crate) fn demand_hash(&self) -> OfferHash {
        self.market.reader.domain().developer_offer_hash(&self.demand)
    }

    pub(crate) fn deal(&self, provider: usize) -> DealId {
        deal_id(self.demand_hash(), self.providers[provider].address())
    }

    /// All offers are posted and both replicas placed.
    pub(crate) async fn open(&self) {
        let market = self.market.market;
        for (provider, supply) in self.providers.iter().zip(&self.supplies) {
            provider.send(&calls::post_provider_offer(market, supply)).await.unwrap();
        }
        self.developer.send(&calls::post_developer_offer(market, &self.demand)).await.unwrap();
        let proposal = MatchProposal {
            developer: self.demand.clone(),
            developer_signature: Vec::new(),
            providers: self.supplies.iter().map(|supply| (supply.clone(), Vec::new())).collect(),
        };
        let receipt = self.market.deployer.send(&calls::match_offers(market, &[proposal])).await.unwrap();
        assert_eq!(receipt.events.len(), 2, "{:?}", receipt.events);
    }

    pub(crate) async fn deal_ref(&self, n: usize) -> DealRef {
        self.market.reader.deal(self.deal(n)).await.unwrap().unwrap().reference()
    }

    /// One epoch goes by; the providers attest it and are paid.
    pub(crate) async fn bill(&self) {
        let epoch = self.market.next_epoch().await;
        for provider in &self.providers {
            let root = ReceiptRoot([7; 32]);
            provider.send(&calls::attest(self.market.market, epoch.minus(1), root)).await.unwrap();
        }
        let deals = [self.deal_ref(0).await, self.deal_ref(1).await];
        self.market.deployer.send(&calls::claim(self.market.market, &deals)).await.unwrap();
    }

    pub(crate) async fn head(&self) -> BlockRef {
        self.market.anvil.rpc().head().await.unwrap()
    }

    /// What the canonical chain's events add up to, read independently of the indexer.
    pub(crate) async fn truth(&self) -> MarketState {
        let from = self.market.reader.terms().deployed_at_block;
        let mut state = MarketState::new(self.market.reader.terms());
        for block in self.market.reader.blocks(from, self.head().await.number).await.unwrap() {
            state.apply_block(&block).unwrap();
        }
        state
    }

    pub(crate) async fn indexer(&self, database: &Path, shutdown: &Shutdown) -> Result<Indexer, IndexerError> {
        let config = config(database.to_owned());
        Indexer::start(self.market.reader.clone(), config, shutdown.clone()).await
    }

    /// Waits until the indexer is at the chain's head, then compares everything that it says with the chain.
    pub(crate) async fn agrees(&self, indexer: &Indexer) {
        let head = self.head().await;
        let mut committed = indexer.subscribe();
        let reached = committed.wait_for(|block| block.is_some_and(|block| block.hash == head.hash));
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the indexer never got there").unwrap();
        let state = indexer.store().market_state().await.unwrap();
        assert_eq!(state, self.truth().await);
        for sender in [&self.developer, &self.providers[0], &self.providers[1]] {
            let on_chain = self.market.reader.free_balance(sender.address()).await.unwrap();
            assert_eq!(state.free_balance(sender.address()), on_chain);
        }
        for (id, known) in &state.deals {
            assert_eq!(self.market.reader.deal(*id).await.unwrap().as_ref(), Some(&known.deal));
        }
        let held = self.market.reader.token_balance(self.market.market).await.unwrap();
        assert_eq!(state.total_held().unwrap(), held, "no atom is missing");
    }
}

pub(crate) fn config(database: impl Into<Location>) -> IndexerConfig {
    IndexerConfig { poll_interval: Duration::from_millis(20), ..IndexerConfig::new(database.into()) }
}

fn supply(provider: Address, region: &str, endpoint: &str) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent: provider,
        payout: provider,
        region: region.parse().unwrap(),
        capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
        features: FeatureSet::EMPTY,
        prices: Prices { per_vcpu_epoch: atoms(1_000), per_gib_epoch: atoms(500) },
        max_epochs: 0,
        valid_until: u64::MAX,
        nonce: 1,
        endpoint: endpoint.to_owned(),
    }
}

fn demand(developer: Address) -> DeveloperOffer {
    DeveloperOffer {
        developer,
        artifact: Digest([0xa1; 32]),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 1_000, memory_mib: 1_024 },
        features: FeatureSet::EMPTY,
        regions: Vec::new(),
        min_replicas: 1,
        replicas: 2,
        max_price_per_epoch: atoms(2_000),
        epochs: 10,
        prepaid_epochs: 3,
        valid_until: u64::MAX,
        nonce: 1,
        matcher: Address::ZERO,
        matcher_fee: Atoms::ZERO,
        allow: Vec::new(),
        deny: Vec::new(),
        artifact_url: "http://127.0.0.1:9000/worker.wasm".to_owned(),
    }
}
