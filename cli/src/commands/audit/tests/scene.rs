//! A real market in which deals met every kind of end.

use alloy::sol_types::SolCall;
use chain::{Key, MatchProposal, TxSender, calls, calls::Call, deal_id, testing::TestMarket};
use common::{
    deal::DealRef,
    feature::FeatureSet,
    ids::{Address, DealId, Digest, OfferHash, ReceiptRoot},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
};
use contracts::Market;
use serde_json::{Value, json};

pub(super) struct Scene {
    pub(super) market: TestMarket,
    pub(super) developer: TxSender,
    /// Can pay for a few epochs only.
    poor: TxSender,
    /// Agent of the first provider.
    pub(super) agent: TxSender,
    pub(super) providers: [TxSender; 2],
    pub(super) supplies: [ProviderOffer; 2],
    /// Of the developer, at both providers; of the poor one, at the first.
    pub(super) demands: [DeveloperOffer; 2],
}

pub(super) fn atoms(n: u64) -> Atoms {
    Atoms::new(n).unwrap()
}

impl Scene {
    /// Everyone has money and has made offers; nothing is matched.
    async fn new() -> Self {
        let market = TestMarket::start().await;
        for (n, money) in [(1, 10_000_000), (2, 10_000_000), (3, 10_000_000), (4, 6_000)] {
            market.fund(&market.anvil.key(n), atoms(money)).await;
        }
        let [developer, poor] = [market.sender(1).await, market.sender(4).await];
        let providers = [market.sender(2).await, market.sender(3).await];
        let agent = market.sender(5).await;
        let mut supplies = [supply(providers[0].address()), supply(providers[1].address())];
        supplies[0].agent = agent.address();
        supplies[0].payout = market.anvil.key(6).address();
        let demands = [demand(developer.address(), 2), demand(poor.address(), 1)];
        let scene = Self { market, developer, poor, agent, providers, supplies, demands };
        scene.offer().await;
        scene
    }

    async fn offer(&self) {
        let market = self.market.market;
        for (provider, supply) in self.providers.iter().zip(&self.supplies) {
            provider.send(&calls::post_provider_offer(market, supply)).await.unwrap();
        }
        for (developer, demand) in [&self.developer, &self.poor].into_iter().zip(&self.demands) {
            developer.send(&calls::post_developer_offer(market, demand)).await.unwrap();
        }
    }

    /// Opened, billed, changed, updated, unfunded and closed, evicted, cancelled, withdrawn.
    pub(super) async fn life() -> Self {
        let scene = Self::new().await;
        let market = scene.market.market;
        scene.open(0, &[0, 1]).await;
        scene.open(1, &[0]).await;
        scene.providers[1].send(&calls::raise_nonce_floor(market, 2)).await.unwrap();
        scene.developer.send(&calls::cancel_offer(market, OfferHash([9; 32]))).await.unwrap();
        scene.market.next_epoch().await;
        scene.bill(true).await;
        scene.change().await;
        scene.update().await;
        let long = scene.reference(0, 0).await;
        scene.developer.send(&calls::fund_deal(market, &long, atoms(1_000))).await.unwrap();
        // The second provider is silent from here on, and the poor developer's money ends.
        for _ in 0..6 {
            scene.bill(false).await;
        }
        scene.send(&calls::evict(market, &scene.reference(0, 1).await)).await;
        scene.send(&calls::close_deal(market, &scene.reference(1, 0).await)).await;
        scene.developer.send(&calls::cancel_deals(market, &[long])).await.unwrap();
        scene.developer.send(&calls::withdraw(market, atoms(5), scene.developer.address())).await.unwrap();
        scene.providers[0].send(&calls::cancel_offer(market, scene.supply_hash(0))).await.unwrap();
        scene.send(&calls::set_matching_paused(market, true)).await;
        scene
    }

    async fn send(&self, call: &Call) {
        self.market.deployer.send(call).await.unwrap();
    }

    async fn open(&self, demand: usize, supplies: &[usize]) {
        let proposal = MatchProposal {
            developer: self.demands[demand].clone(),
            developer_signature: Vec::new(),
            providers: supplies.iter().map(|n| (self.supplies[*n].clone(), Vec::new())).collect(),
        };
        let receipt = self.market.deployer.send(&calls::match_offers(self.market.market, &[proposal])).await.unwrap();
        assert_eq!(receipt.events.len(), supplies.len(), "{:?}", receipt.events);
    }

    /// One epoch goes by, is attested and claimed.
    async fn bill(&self, both: bool) {
        let market = self.market.market;
        let served = self.market.next_epoch().await.minus(1);
        let agents = [&self.agent, &self.providers[1]].into_iter().take(if both { 2 } else { 1 });
        for agent in agents {
            agent.send(&calls::attest(market, served, ReceiptRoot([7; 32]))).await.unwrap();
        }
        let deals = [self.reference(0, 0).await, self.reference(0, 1).await, self.reference(1, 0).await];
        self.send(&calls::claim(market, &deals)).await;
    }

    /// Both sides agree on another price and a later end.
    async fn change(&self) {
        let reference = self.reference(0, 0).await;
        let deal = self.market.reader.deal(self.deal(0, 0)).await.unwrap().unwrap();
        let change = Market::DealChange {
            dealId: deal.id.0.into(),
            sequence: 1,
            endEpoch: deal.end_epoch.plus(5).0,
            milliCpu: 1_500,
            memoryMib: 1_024,
            pricePerEpoch: 1_200,
            validUntil: u64::MAX,
        };
        let hash = self.view(&Market::hashDealChangeCall { change: change.clone() }).await;
        let hash = OfferHash(hash.try_into().unwrap());
        let sign = |n: usize| self.market.anvil.key(n).sign(hash).unwrap();
        let offer = Market::postProviderOfferCall::abi_decode(
            &calls::post_provider_offer(self.market.market, &self.supplies[0]).data,
        );
        let call = Market::changeDealCall {
            r#ref: Market::DealRef {
                developerOffer: reference.developer_offer.0.into(),
                provider: reference.provider.0.into(),
                providerOffer: reference.provider_offer.0.into(),
            },
            change,
            providerOffer: offer.unwrap().offer,
            developerSignature: sign(1).into(),
            providerSignature: sign(2).into(),
        };
        self.send(&Call { to: self.market.market, data: call.abi_encode(), label: "changeDeal" }).await;
    }

    async fn update(&self) {
        let update = Market::ArtifactUpdate {
            developerOffer: self.demand_hash(0).0.into(),
            version: 1,
            artifact: [0xb2; 32].into(),
            manifest: [0xc3; 32].into(),
            validUntil: u64::MAX,
            artifactUrl: "http://127.0.0.1:9000/next.wasm".to_owned(),
        };
        let call = Market::updateArtifactCall { update, signature: Vec::new().into() };
        let call = Call { to: self.market.market, data: call.abi_encode(), label: "updateArtifact" };
        self.developer.send(&call).await.unwrap();
    }

    async fn view(&self, call: &impl SolCall) -> Vec<u8> {
        let request = json!({ "to": self.market.market, "data": hex::encode_prefixed(call.abi_encode()) });
        let answer = self.market.anvil.call("eth_call", json!([request, "latest"])).await;
        hex::decode(answer.as_str().unwrap()).unwrap()
    }

    pub(super) fn supply_hash(&self, n: usize) -> OfferHash {
        self.market.reader.domain().provider_offer_hash(&self.supplies[n])
    }

    pub(super) fn demand_hash(&self, n: usize) -> OfferHash {
        self.market.reader.domain().developer_offer_hash(&self.demands[n])
    }

    pub(super) fn deal(&self, demand: usize, provider: usize) -> DealId {
        deal_id(self.demand_hash(demand), self.providers[provider].address())
    }

    async fn reference(&self, demand: usize, provider: usize) -> DealRef {
        self.market.reader.deal(self.deal(demand, provider)).await.unwrap().unwrap().reference()
    }

    /// Somebody sends the contract tokens without a deposit.
    pub(super) async fn donate(&self, amount: u64) {
        self.market.mint(self.market.market, atoms(amount)).await;
    }

    /// Flips bits of the word at a place of a contract's storage, and mines a block so that it is the chain's state.
    pub(super) async fn tamper(&self, contract: Address, slot: [u8; 32], xor: [u8; 32]) {
        let slot = hex::encode_prefixed(slot);
        let word = self.market.anvil.call("eth_getStorageAt", json!([contract, slot, "latest"])).await;
        let mut bytes: [u8; 32] = hex::decode(word.as_str().unwrap()).unwrap().try_into().unwrap();
        bytes.iter_mut().zip(xor).for_each(|(byte, flip)| *byte ^= flip);
        let stored = json!([contract, slot, hex::encode_prefixed(bytes)]);
        assert_eq!(self.market.anvil.call("anvil_setStorageAt", stored).await, Value::Bool(true));
        self.market.anvil.mine(1).await;
    }

    /// Places of the words that mappings of a contract have for `keys`, outermost first: of all places that the mapping may
    /// have, those that hold something.
    pub(super) async fn slots(&self, contract: Address, keys: &[[u8; 32]]) -> Vec<[u8; 32]> {
        let mut found = Vec::new();
        for base in 0..40_u8 {
            let mut place = [0; 32];
            place[31] = base;
            let place = keys.iter().fold(place, |place, key| chain::keccak256(&[*key, place].concat()));
            let at = json!([contract, hex::encode_prefixed(place), "latest"]);
            let word = self.market.anvil.call("eth_getStorageAt", at).await;
            if word.as_str().unwrap().trim_start_matches("0x").bytes().any(|digit| digit != b'0') {
                found.push(place);
            }
        }
        assert!(!found.is_empty(), "no mapping has {keys:?}");
        found
    }

    /// A key of nobody in the market.
    pub(super) fn stranger(&self) -> Key {
        self.market.anvil.key(9)
    }
}

/// An address as a key of a mapping.
pub(super) fn key_of(account: Address) -> [u8; 32] {
    let mut key = [0; 32];
    key[12..].copy_from_slice(&account.0);
    key
}

/// Where the test token keeps an account's balance (solady's ERC20).
pub(super) fn token_slot(account: Address) -> [u8; 32] {
    chain::keccak256(&[account.0.as_slice(), &[0; 8], &0x87a2_11a2_u32.to_be_bytes()].concat())
}

fn supply(provider: Address) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent: provider,
        payout: provider,
        region: "eu-de-fra1".parse().unwrap(),
        capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
        features: FeatureSet::EMPTY,
        prices: Prices { per_vcpu_epoch: atoms(1_000), per_gib_epoch: atoms(500) },
        max_epochs: 0,
        valid_until: u64::MAX,
        nonce: 1,
        endpoint: "http://127.0.0.1:9001".to_owned(),
    }
}

fn demand(developer: Address, replicas: u16) -> DeveloperOffer {
    DeveloperOffer {
        developer,
        artifact: Digest([0xa1; 32]),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 1_000, memory_mib: 1_024 },
        features: FeatureSet::EMPTY,
        regions: Vec::new(),
        min_replicas: 1,
        replicas,
        max_price_per_epoch: atoms(2_000),
        epochs: 20,
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
