//! A chain with a market that has been busy for long: a given number of events in a given number of blocks.
//!
//! Each transaction is a block. In every epoch the agents attest, some developers sign offers that are matched at once,
//! some deals are cancelled and closed, and all others are claimed, in batches. Deposits fill up what is missing, so that
//! the number of events is exact.

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use chain::{
    Call, Key, MatchProposal, TxSender, calls,
    deploy::DeployConfig,
    testing::{Anvil, TestMarket},
};
use common::{
    deal::DealRef,
    epoch::Epoch,
    feature::FeatureSet,
    ids::{Address, Digest, ReceiptRoot},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
};

/// Blocks of an epoch.
const BLOCKS_PER_EPOCH: u64 = 20;
/// Providers, and agents; each sends from its own account.
const PROVIDERS: usize = 4;
/// Developers.
const DEVELOPERS: usize = 4;
/// Offers that are signed and matched in an epoch.
const MATCHES_PER_EPOCH: u64 = 20;
/// Deals that live at a time; older ones are cancelled.
const LIVE_DEALS: usize = 1_200;

/// A market with a past.
pub(crate) struct Workload {
    pub(crate) market: TestMarket,
    /// Events of the market.
    pub(crate) events: u64,
    /// Height of the last block.
    pub(crate) head: u64,
}

struct Builder {
    market: TestMarket,
    providers: Vec<(TxSender, ProviderOffer)>,
    developers: Vec<(TxSender, Key)>,
    live: VecDeque<(usize, DealRef)>,
    ending: VecDeque<(Epoch, DealRef)>,
    claimed: usize,
    nonce: u64,
    events: u64,
    blocks: u64,
}

/// Builds `events` events in `blocks` blocks after the market's first.
pub(crate) async fn build(events: u64, blocks: u64) -> anyhow::Result<Workload> {
    ensure!(blocks >= 40 && events >= blocks, "a workload has at least 40 blocks, and an event in each");
    let mut builder = Builder::start().await?;
    let usual = events.div_ceil(blocks);
    while builder.blocks < blocks {
        let left = events.saturating_sub(builder.events);
        // What is due by now: blocks of attestations have few events, and leave more to the others.
        let due = left.div_ceil(blocks.saturating_sub(builder.blocks));
        let last = builder.blocks.saturating_add(1) == blocks;
        if last || due <= 1 || due > usual.saturating_mul(2) {
            builder.deposits(due).await?;
        } else {
            builder.step(due).await?;
        }
        if builder.blocks.is_multiple_of(200) {
            eprintln!("{} of {blocks} blocks, {} of {events} events", builder.blocks, builder.events);
        }
    }
    ensure!(builder.events == events, "the workload has {} events, not {events}", builder.events);
    let head = builder.market.anvil.rpc().head().await?.number;
    Ok(Workload { market: builder.market, events, head })
}

fn atoms(amount: u64) -> Atoms {
    Atoms::new(amount).unwrap()
}

impl Builder {
    async fn start() -> anyhow::Result<Self> {
        let anvil = Anvil::start_with(&["--gas-limit", "100000000"]).await;
        anvil.set_block_timestamp_interval(1).await;
        let config = DeployConfig {
            epoch_length: u32::try_from(BLOCKS_PER_EPOCH)?,
            attestation_window: 2,
            evict_after_missed: 8,
            bond_epochs: 2,
            min_prepaid_epochs: 2,
            grace_epochs: 4,
            notice_epochs: 2,
            operator: anvil.key(0).address(),
        };
        let market = TestMarket::deploy(anvil, &config).await;
        let mut builder = Self {
            market,
            providers: Vec::new(),
            developers: Vec::new(),
            live: VecDeque::new(),
            ending: VecDeque::new(),
            claimed: 0,
            nonce: 0,
            events: 0,
            blocks: 0,
        };
        for n in 1..=PROVIDERS + DEVELOPERS {
            let key = builder.market.anvil.key(n);
            let sender = builder.market.sender(n).await;
            builder.market.mint(key.address(), atoms(1_000_000_000_000)).await;
            sender.send(&calls::approve(builder.market.token, builder.market.market, atoms(1_000_000_000_000))).await?;
            builder.send(&sender, &calls::deposit(builder.market.market, atoms(500_000_000_000))).await?;
            if n <= PROVIDERS {
                let offer = supply(key.address());
                builder.send(&sender, &calls::post_provider_offer(builder.market.market, &offer)).await?;
                builder.providers.push((sender, offer));
            } else {
                builder.developers.push((sender, key));
            }
        }
        // What was done to get here counts as well: the indexer reads it too.
        Ok(builder)
    }

    /// Sends a block of its own.
    async fn send(&mut self, sender: &TxSender, call: &Call) -> anyhow::Result<()> {
        let receipt = sender.send(call).await.with_context(|| call.label.to_owned())?;
        self.blocks = self.blocks.saturating_add(1);
        self.events = self.events.saturating_add(receipt.events.len() as u64);
        Ok(())
    }

    /// The next block, of about `size` events.
    async fn step(&mut self, size: u64) -> anyhow::Result<()> {
        let epoch = self.market.reader.current_epoch().await?;
        match self.blocks.rem_euclid(BLOCKS_PER_EPOCH) {
            0..4 if epoch.0 > 1 => {
                let who = usize::try_from(self.blocks.rem_euclid(BLOCKS_PER_EPOCH))?;
                let sender = self.providers.get(who).context("no such provider")?.0.clone();
                let root = ReceiptRoot([u8::try_from(self.blocks.rem_euclid(251))?; 32]);
                self.send(&sender, &calls::attest(self.market.market, epoch.minus(1), root)).await
            }
            4 | 5 => self.matches(MATCHES_PER_EPOCH).await,
            6 if self.live.len() > LIVE_DEALS => self.cancels(10).await,
            7 => self.closes(epoch).await,
            // At first, until there is enough to claim.
            _ if self.live.len() < LIVE_DEALS => self.matches(size.div_euclid(2).max(1)).await,
            _ => self.claims(size).await,
        }
    }

    async fn deposits(&mut self, count: u64) -> anyhow::Result<()> {
        ensure!(count <= 1_000, "{count} events are left for one block: ask for fewer events or more blocks");
        let (sender, _) = self.developers.first().context("no developer")?.clone();
        let deposit = calls::deposit_for(self.market.market, sender.address(), atoms(1));
        let calls = (0..count).map(|_| deposit.clone()).collect();
        self.send(&sender, &calls::multicall(self.market.market, calls)).await
    }

    async fn matches(&mut self, count: u64) -> anyhow::Result<()> {
        let mut proposals = Vec::new();
        let mut refs = Vec::new();
        let domain = self.market.reader.domain();
        for _ in 0..count {
            self.nonce = self.nonce.saturating_add(1);
            let n = usize::try_from(self.nonce)?;
            let who = n.rem_euclid(DEVELOPERS);
            let (_, key) = self.developers.get(who).context("no developer")?;
            let (_, supply) = self.providers.get(n.rem_euclid(PROVIDERS)).context("no provider")?;
            let demand = demand(key.address(), self.nonce);
            let hash = domain.developer_offer_hash(&demand);
            refs.push((
                who,
                DealRef {
                    developer_offer: hash,
                    provider: supply.provider,
                    provider_offer: domain.provider_offer_hash(supply),
                },
            ));
            let developer_signature = key.sign(hash)?;
            proposals.push(MatchProposal {
                developer: demand,
                developer_signature,
                providers: vec![(supply.clone(), Vec::new())],
            });
        }
        let deployer = self.market.deployer.clone();
        self.send(&deployer, &calls::match_offers(self.market.market, &proposals)).await?;
        self.live.extend(refs);
        Ok(())
    }

    /// The oldest deals of one developer.
    async fn cancels(&mut self, count: usize) -> anyhow::Result<()> {
        let Some((who, _)) = self.live.front().copied() else { return self.deposits(1).await };
        let (mut taken, mut kept) = (Vec::new(), VecDeque::new());
        for (owner, deal) in std::mem::take(&mut self.live) {
            if owner == who && taken.len() < count { taken.push(deal) } else { kept.push_back((owner, deal)) }
        }
        self.live = kept;
        let (sender, _) = self.developers.get(who).context("no developer")?.clone();
        self.send(&sender, &calls::cancel_deals(self.market.market, &taken)).await?;
        let epoch = self.market.reader.current_epoch().await?;
        self.ending.extend(taken.into_iter().map(|deal| (epoch.plus(5), deal)));
        Ok(())
    }

    /// Deals that ended long enough ago.
    async fn closes(&mut self, epoch: Epoch) -> anyhow::Result<()> {
        let mut due = Vec::new();
        while let Some((_, deal)) = self.ending.pop_front_if(|(from, _)| *from <= epoch) {
            due.push(calls::close_deal(self.market.market, &deal));
        }
        if due.is_empty() {
            return self.deposits(1).await;
        }
        let deployer = self.market.deployer.clone();
        self.send(&deployer, &calls::multicall(self.market.market, due)).await
    }

    /// Deals in turn.
    async fn claims(&mut self, size: u64) -> anyhow::Result<()> {
        let size = usize::try_from(size)?.saturating_add(8).min(self.live.len());
        if size == 0 {
            return self.deposits(1).await;
        }
        let batch: Vec<DealRef> =
            self.live.iter().cycle().skip(self.claimed).take(size).map(|(_, deal)| *deal).collect();
        self.claimed = self.claimed.saturating_add(size).rem_euclid(self.live.len());
        let deployer = self.market.deployer.clone();
        self.send(&deployer, &calls::claim(self.market.market, &batch)).await
    }
}

fn supply(provider: Address) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent: provider,
        payout: provider,
        region: "eu-de-fra1".parse().unwrap(),
        capacity: Resources { milli_cpu: 1 << 29, memory_mib: 1 << 29 },
        features: FeatureSet::EMPTY,
        prices: Prices { per_vcpu_epoch: atoms(1_000), per_gib_epoch: atoms(500) },
        max_epochs: 0,
        valid_until: u64::MAX,
        nonce: 1,
        endpoint: "https://provider.example:8443".to_owned(),
    }
}

fn demand(developer: Address, nonce: u64) -> DeveloperOffer {
    DeveloperOffer {
        developer,
        artifact: Digest([0xa1; 32]),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 250, memory_mib: 128 },
        features: FeatureSet::EMPTY,
        regions: vec!["eu".parse().unwrap()],
        min_replicas: 1,
        replicas: 1,
        max_price_per_epoch: atoms(2_000),
        epochs: 10_000,
        prepaid_epochs: 4,
        valid_until: u64::MAX,
        nonce,
        matcher: Address::ZERO,
        matcher_fee: Atoms::ZERO,
        allow: Vec::new(),
        deny: Vec::new(),
        artifact_url: "https://content.example/worker.wasm".to_owned(),
    }
}
