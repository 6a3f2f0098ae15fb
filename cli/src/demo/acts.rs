//! The acts of the demo, in the order in which they are played.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use chain::{Key, MarketReader, Rpc, TxReceipt, TxSender, calls};
use common::{
    clock::{Clock, SystemClock},
    deal::{Deal, DealState, EndCause},
    event::MarketEvent,
    feature::FeatureSet,
    ids::{Address, DealId, Digest, OfferHash},
    money::Atoms,
    offer::DeveloperOffer,
    resources::Resources,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    report::{self, Report},
    story::Story,
};
use crate::{
    client::ApiClient,
    ledger::Ledger,
    local::{
        LocalMarket, LocalOptions,
        providers::{LocalProvider, PROFILES, Profile, Registration},
    },
};

/// Longest wait for anything; a quiet machine needs a fraction of it.
const PATIENCE: Duration = Duration::from_secs(120);
/// What each provider brings for its bonds, and the developer for its workers.
const PROVIDER_MONEY: &str = "5";
const DEVELOPER_MONEY: &str = "10";

/// Everything on stage.
pub(super) struct Stage {
    story: Story,
    options: LocalOptions,
    worker: Vec<u8>,
    developer: Key,
    market: Option<LocalMarket>,
    providers: Vec<LocalProvider>,
    minted: Atoms,
    /// Match transactions that were told of.
    told_matches: BTreeSet<String>,
}

impl Stage {
    pub(super) fn new(story: Story, options: LocalOptions, worker: Vec<u8>) -> Self {
        let developer = Key::random();
        let told_matches = BTreeSet::new();
        Self {
            story,
            options,
            worker,
            developer,
            market: None,
            providers: Vec::new(),
            minted: Atoms::ZERO,
            told_matches,
        }
    }

    pub(super) fn story(&self) -> &Story {
        &self.story
    }

    /// Ends everything that was started, agents first, the chain last.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for provider in &mut self.providers {
            provider.stop().await?;
        }
        match self.market.take() {
            Some(market) => market.stop().await,
            None => Ok(()),
        }
    }

    /// Plays all acts.
    pub(super) async fn play(&mut self) -> anyhow::Result<Report> {
        self.story.heading("A market");
        self.open_market().await?;
        self.register(PROFILES.get(..2).context("two providers")?).await?;
        self.story.heading("A developer, without gas");
        let offer = self.prepare_offer().await?;
        self.explain_hopeless(&offer).await?;
        let hash = self.submit(&offer).await?;
        let deals = self.wait_for_match(hash, 2).await?;
        self.story.heading("Workers");
        self.wait_until_served(&deals).await?;
        self.call_replicas(hash, &deals).await?;
        self.wait_until_paid(&deals, 2).await?;
        self.story.heading("A provider fails");
        let (lost, survivor) = self.fail_dearest(&deals).await?;
        self.replace(hash, lost).await?;
        self.story.heading("The end");
        self.cancel(hash, survivor).await?;
        self.refund().await?;
        self.report().await
    }

    async fn open_market(&mut self) -> anyhow::Result<()> {
        let story = &self.story;
        let chain = LocalMarket::start_chain(&self.options, &|what| story.say(&format!("            {what}"))).await?;
        self.story.done("a chain is up", vec![format!("anvil at {}, a block every second", chain.url())]);
        let (deployment, receipts) = LocalMarket::deploy(&self.options, &chain).await?;
        let gas = receipts.iter().map(|receipt| format!("{} gas in {}", receipt.gas_used, receipt.tx_hash));
        let details = [format!("market {}, test token {}", deployment.market, deployment.token)];
        self.story.done("contracts are deployed", details.into_iter().chain(gas).collect());
        let market = LocalMarket::start_services(self.options.clone(), chain, deployment).await?;
        let details = vec![format!("web API {}, gateway {}", market.api_url(), market.gateway_url())];
        self.market = Some(market);
        self.story.done("indexer, matcher and gateway are up", details);
        let developer = self.developer.address();
        let receipt = self.mint(developer, Atoms::parse_tokens(DEVELOPER_MONEY)?).await?;
        let details = vec![format!("{DEVELOPER_MONEY} USDC for developer {developer} in {}", receipt.tx_hash)];
        self.story.done("the faucet gives out tokens", details);
        Ok(())
    }

    async fn register(&mut self, profiles: &[Profile]) -> anyhow::Result<()> {
        for profile in profiles {
            let money = Atoms::parse_tokens(PROVIDER_MONEY)?;
            let provider = LocalProvider::start(self.market()?, *profile, money).await?;
            self.minted = self.minted.checked_add(money)?;
            let endpoint = provider.endpoint().to_owned();
            let offer = provider.offer.clone();
            let hash = provider.offer_hash;
            self.providers.push(provider);
            self.wait("the agent to answer", async |stage: &mut Self| {
                stage.providers.iter_mut().try_for_each(LocalProvider::ensure_running)?;
                Ok(answers(&format!("{endpoint}/healthz")).await.then_some(()))
            })
            .await?;
            let api = self.api()?;
            self.wait("the offer to be on the market", async |_: &mut Self| {
                Ok(api.get::<Value>(&format!("/v1/provider-offers/{hash}")).await.ok())
            })
            .await?;
            let how = match profile.registration {
                Registration::Signed => "signed, no gas",
                Registration::Posted => "posted on chain",
            };
            let (cpu, memory) = (offer.capacity.milli_cpu, offer.capacity.memory_mib);
            let (vcpu, gib) = (offer.prices.per_vcpu_epoch, offer.prices.per_gib_epoch);
            self.story.done(
                format!("provider {} in {} offers {cpu} mCPU and {memory} MiB ({how})", profile.name, offer.region),
                vec![format!("{vcpu} per vCPU-epoch, {gib} per GiB-epoch; agent at {endpoint}")],
            );
        }
        Ok(())
    }

    /// Uploads the worker and moves the money by a signature that somebody else relays.
    async fn prepare_offer(&mut self) -> anyhow::Result<DeveloperOffer> {
        let api = self.api()?;
        let digest = Digest(Sha256::digest(&self.worker).into());
        let stored = api.upload(digest, self.worker.clone()).await?;
        let url = stored.get("url").and_then(Value::as_str).context("the upload has no url")?.to_owned();
        let features = stored.get("features").cloned().unwrap_or(Value::Array(Vec::new()));
        let features: FeatureSet = serde_json::from_value(features)?;
        let details = vec![format!("{} bytes, SHA-256 {digest}", self.worker.len())];
        self.story.done("a Rust-written worker is uploaded", details);

        let market = self.market()?;
        let (reader, deployment) = (market.reader()?, market.deployment);
        let permit_owner = self.developer.address();
        let amount = reader.token_balance(permit_owner).await?;
        let deadline = SystemClock.unix_seconds().saturating_add(3_600);
        let permit = reader.permit(permit_owner, amount, deadline).await?;
        let signature = self.developer.sign_permit(&permit)?;
        let call = calls::deposit_with_permit(deployment.market, permit_owner, amount, deadline, &signature);
        let receipt = market.operator.send(&call).await?;
        let details =
            vec![format!("{amount} by a signed permit, relayed in {} ({} gas)", receipt.tx_hash, receipt.gas_used)];
        // Quotes go by what the indexer has seen.
        let api = self.api()?;
        self.wait("the indexer to see the deposit", async |_: &mut Self| {
            let balance = api.get::<Value>(&format!("/v1/balances/{permit_owner}")).await?;
            Ok((balance.get("free") == Some(&serde_json::to_value(amount)?)).then_some(()))
        })
        .await?;
        self.story.done("the developer's tokens are in escrow", details);
        Ok(DeveloperOffer {
            developer: self.developer.address(),
            artifact: digest,
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: 250, memory_mib: 128 },
            features,
            regions: Vec::new(),
            min_replicas: 1,
            replicas: 2,
            max_price_per_epoch: Atoms::parse_tokens("0.001")?,
            epochs: 200,
            prepaid_epochs: 10,
            valid_until: SystemClock.unix_seconds().saturating_add(3_600),
            nonce: 0,
            matcher: Address::ZERO,
            matcher_fee: Atoms::ZERO,
            allow: Vec::new(),
            deny: Vec::new(),
            artifact_url: url,
        })
    }

    async fn explain_hopeless(&mut self, offer: &DeveloperOffer) -> anyhow::Result<()> {
        let mut hopeless = offer.clone();
        hopeless.regions = vec!["eu-fr".parse()?];
        hopeless.max_price_per_epoch = Atoms::parse_tokens("0.0001")?;
        let report = self.api()?.explain(&hopeless).await?;
        let details = crate::explanation::lines(&report);
        ensure!(!details.is_empty(), "the market explained nothing: {report}");
        self.story.done("an offer that cannot match is explained before any money moves", details);
        Ok(())
    }

    async fn submit(&mut self, offer: &DeveloperOffer) -> anyhow::Result<OfferHash> {
        let (api, domain) = (self.api()?, self.reader()?.domain());
        let quote = api.quote(offer).await?;
        let hash = domain.developer_offer_hash(offer);
        let signature = self.developer.sign(hash)?;
        api.submit(domain.chain_id, offer, &signature).await?;
        let mut details = crate::explanation::quote_lines(&quote);
        details.push(format!("offer {hash}"));
        self.story.done("the developer signs an offer for 2 replicas and posts it to the web API", details);
        Ok(hash)
    }

    async fn wait_for_match(&mut self, hash: OfferHash, wanted: usize) -> anyhow::Result<Vec<Deal>> {
        let deals = self
            .wait("the match", async |stage: &mut Self| {
                let deals = stage.live_deals(hash).await?;
                Ok((deals.len() >= wanted).then_some(deals))
            })
            .await?;
        let mut details = Vec::new();
        for deal in &deals {
            let host = self.name_of(deal.provider);
            let price = deal.price_per_epoch;
            details.push(format!("deal {} at {host} for {price} an epoch, bond {}", deal.id, deal.bond));
        }
        for (transaction, gas) in self.matches_of(hash).await? {
            if !self.told_matches.insert(transaction.clone()) {
                continue;
            }
            details.push(format!("match transaction {transaction} ({gas} gas)"));
        }
        self.story.done(format!("matched: {} replicas at different providers", deals.len()), details);
        Ok(deals)
    }

    async fn wait_until_served(&mut self, deals: &[Deal]) -> anyhow::Result<()> {
        let mut details = Vec::new();
        for deal in deals {
            let (name, endpoint) = self.host_of(deal)?;
            let url = format!("{endpoint}/status/{}", deal.id);
            self.wait("the workers to be ready", async |stage: &mut Self| {
                stage.providers.iter_mut().try_for_each(LocalProvider::ensure_running)?;
                Ok(is_ready(&url).await.then_some(()))
            })
            .await?;
            details.push(format!("{name}: fetched by digest, verified, compiled, ready"));
        }
        self.story.done("artifact fetched and workers ready", details);
        Ok(())
    }

    /// Calls the deployment through the gateway until every one of `deals` has answered.
    async fn call_replicas(&mut self, hash: OfferHash, deals: &[Deal]) -> anyhow::Result<()> {
        let url = format!("{}/d/{hash}/", self.market()?.gateway_url());
        let wanted: BTreeSet<String> = deals.iter().map(|deal| deal.id.to_string()).collect();
        let mut answers = BTreeMap::<String, (u32, String)>::new();
        self.wait("every replica to answer through the gateway", async |_: &mut Self| {
            for _ in 0..8 {
                if let Some((deal, body)) = call(&url).await {
                    let (count, _) = answers.entry(deal).or_insert((0, body));
                    *count = count.saturating_add(1);
                }
            }
            Ok(wanted.iter().all(|deal| answers.contains_key(deal)).then_some(()))
        })
        .await?;
        let mut details = vec![format!("GET {url}")];
        for deal in deals {
            let (count, body) = answers.get(&deal.id.to_string()).cloned().unwrap_or_default();
            let first = body.lines().next().unwrap_or_default();
            details.push(format!("{} answered {count} times: {first}", self.name_of(deal.provider)));
        }
        self.story.done("HTTP requests answered by every replica through the gateway", details);
        Ok(())
    }

    async fn wait_until_paid(&mut self, deals: &[Deal], epochs: u32) -> anyhow::Result<()> {
        let reader = self.reader()?.clone();
        let from = reader.terms().deployed_at_block;
        let ids: BTreeSet<DealId> = deals.iter().map(|deal| deal.id).collect();
        let paid = self
            .wait("two epochs to be served, attested and claimed", async |_: &mut Self| {
                let paid = payments(&reader, from, &ids).await?;
                let enough = ids.iter().all(|id| paid.get(id).is_some_and(|(count, _)| *count >= epochs));
                Ok(enough.then_some(paid))
            })
            .await?;
        let details = deals.iter().filter_map(|deal| {
            let (count, amount) = paid.get(&deal.id)?;
            Some(format!("{} was paid {amount} for {count} epochs", self.name_of(deal.provider)))
        });
        let details = details.collect();
        self.story.done("two epochs attested by the agents and claimed to their payout accounts", details);
        Ok(())
    }

    /// Kills the agent of the dearest replica and waits until the deal is evicted.
    async fn fail_dearest(&mut self, deals: &[Deal]) -> anyhow::Result<(Deal, Deal)> {
        let profile = PROFILES.get(2).context("a third provider")?;
        self.register(std::slice::from_ref(profile)).await?;
        let lost = deals.iter().max_by_key(|deal| deal.price_per_epoch).context("no deal")?.clone();
        let survivor = deals.iter().find(|deal| deal.id != lost.id).context("one deal alone")?.clone();
        let name = self.name_of(lost.provider);
        let at = self.providers.iter().position(|provider| provider.offer.provider == lost.provider);
        self.providers.remove(at.context("no such provider")?).kill().await?;
        self.story.done(format!("the agent of {name} is killed in the middle of an epoch"), Vec::new());
        let reader = self.reader()?.clone();
        let ended = self
            .wait("the market to notice", async |_: &mut Self| {
                let deal = reader.deal(lost.id).await?.context("the deal is gone")?;
                Ok((deal.state == DealState::Ended).then_some(deal))
            })
            .await?;
        ensure!(ended.cause == Some(EndCause::ProviderEvicted), "the deal ended by {:?}", ended.cause);
        let details = vec![format!("its bond of {} goes to the developer", lost.bond)];
        self.story.done(format!("{name} missed two epochs and is evicted"), details);
        Ok((lost, survivor))
    }

    async fn replace(&mut self, hash: OfferHash, lost: Deal) -> anyhow::Result<()> {
        let deals = self.wait_for_match(hash, 2).await?;
        ensure!(deals.iter().all(|deal| deal.id != lost.id), "the lost deal is still alive");
        self.wait_until_served(&deals).await?;
        self.call_replicas(hash, &deals).await
    }

    /// The one act for which the developer needs gas.
    async fn cancel(&mut self, hash: OfferHash, survivor: Deal) -> anyhow::Result<()> {
        let deals = self.live_deals(hash).await?;
        ensure!(deals.iter().any(|deal| deal.id == survivor.id), "the surviving deal has ended");
        let reader = self.reader()?.clone();
        let mut references = Vec::new();
        for deal in &deals {
            references.push(reader.deal(deal.id).await?.context("the deal is gone")?.reference());
        }
        let market = self.market()?;
        market.chain.node().give_gas(&self.developer.address().to_string()).await?;
        let contract = market.deployment.market;
        let developer = TxSender::new(Rpc::new(&[market.chain.url().to_owned()])?, self.developer.clone()).await?;
        let both = vec![calls::cancel_offer(contract, hash), calls::cancel_deals(contract, &references)];
        let receipt = developer.send(&calls::multicall(contract, both)).await?;
        let at_once = refunded(&receipt)?;
        let details = vec![
            format!("transaction {} ({} gas)", receipt.tx_hash, receipt.gas_used),
            format!("{at_once} for epochs to come is free again at once"),
        ];
        self.story.done("the developer cancels", details);
        self.wait("the last epochs to be settled and the deals to be closed", async |_: &mut Self| {
            for deal in &deals {
                if reader.deal(deal.id).await?.is_none_or(|deal| deal.state != DealState::Ended) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await?;
        self.story.done("last epochs paid, bonds returned, deals closed", Vec::new());
        Ok(())
    }

    async fn refund(&mut self) -> anyhow::Result<()> {
        let market = self.market()?;
        let account = self.developer.address();
        let free = market.reader()?.free_balance(account).await?;
        let developer = TxSender::new(Rpc::new(&[market.chain.url().to_owned()])?, self.developer.clone()).await?;
        let receipt = developer.send(&calls::withdraw(market.deployment.market, free, account)).await?;
        let wallet = market.reader()?.token_balance(account).await?;
        ensure!(wallet == free, "withdrew {free}, but the wallet holds {wallet}");
        let details = vec![format!("{free} in {} ({} gas)", receipt.tx_hash, receipt.gas_used)];
        self.story.done("the developer withdraws what was not used", details);
        Ok(())
    }

    async fn report(&mut self) -> anyhow::Result<Report> {
        let reader = self.reader()?.clone();
        let mut names = BTreeMap::from([(self.developer.address(), "developer".to_owned())]);
        for profile in &PROFILES {
            names.insert(profile.owner()?.address(), format!("{} (owner)", profile.name));
            names.insert(profile.payout(), format!("{} (payout)", profile.name));
        }
        let ledger = Ledger::draw_up(&reader, &names, self.minted).await?;
        self.story.done("the ledger is drawn up from the chain", Vec::new());
        let transactions = report::transactions(self.market()?.chain.node(), ledger.as_of_block).await?;
        Ok(Report {
            steps: self.story.steps().to_vec(),
            transactions,
            conserved: ledger.conserved,
            ledger,
            duration_ms: self.story.elapsed_ms(),
        })
    }
}

/// Helpers of the acts.
impl Stage {
    fn market(&self) -> anyhow::Result<&LocalMarket> {
        self.market.as_ref().context("the market is not open yet")
    }

    fn reader(&self) -> anyhow::Result<&MarketReader> {
        self.market()?.reader()
    }

    fn api(&self) -> anyhow::Result<ApiClient> {
        Ok(ApiClient::new(&self.market()?.api_url())?)
    }

    async fn mint(&mut self, to: Address, amount: Atoms) -> anyhow::Result<TxReceipt> {
        let market = self.market()?;
        let receipt = market.operator.send(&calls::mint(market.deployment.token, to, amount)).await?;
        self.minted = self.minted.checked_add(amount)?;
        Ok(receipt)
    }

    fn name_of(&self, provider: Address) -> String {
        let is = |profile: &&Profile| profile.owner().is_ok_and(|key| key.address() == provider);
        PROFILES.iter().find(is).map_or_else(|| provider.to_string(), |profile| profile.name.to_owned())
    }

    fn host_of(&self, deal: &Deal) -> anyhow::Result<(&'static str, String)> {
        let host = self.providers.iter().find(|provider| provider.offer.provider == deal.provider);
        let host = host.with_context(|| format!("deal {} is at an unknown provider", deal.id))?;
        Ok((host.profile.name, host.endpoint().to_owned()))
    }

    /// Deals of an offer that have not ended, as the contract has them.
    async fn live_deals(&self, hash: OfferHash) -> anyhow::Result<Vec<Deal>> {
        let reader = self.reader()?;
        let mut live = Vec::new();
        for profile in &PROFILES {
            let id = chain::deal_id(hash, profile.owner()?.address());
            live.extend(reader.deal(id).await?.filter(|deal| deal.state != DealState::Ended));
        }
        Ok(live)
    }

    /// Transactions that opened deals of this offer, with their gas.
    async fn matches_of(&self, hash: OfferHash) -> anyhow::Result<Vec<(String, u64)>> {
        let market = self.market()?;
        let reader = market.reader()?;
        let head = reader.rpc().head().await?.number;
        let blocks = reader.blocks(reader.terms().deployed_at_block, head).await?;
        let mut matches = Vec::new();
        for placed in blocks.iter().flat_map(|block| &block.events) {
            let opened = matches!(&placed.event, MarketEvent::DealOpened(deal) if deal.developer_offer == hash);
            if opened && !matches.iter().any(|(known, _)| *known == placed.tx_hash.to_string()) {
                let receipt = market.operator.receipt(placed.tx_hash).await?.context("a mined match has a receipt")?;
                matches.push((placed.tx_hash.to_string(), receipt.gas_used));
            }
        }
        Ok(matches)
    }

    /// Asks `check` until it gives something, or until patience ends.
    async fn wait<T>(
        &mut self,
        what: &str,
        mut check: impl AsyncFnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = check(self).await? {
                return Ok(found);
            }
            if began.elapsed() > PATIENCE {
                bail!("waited {} s in vain for {what}", PATIENCE.as_secs());
            }
            if let Some(market) = &mut self.market {
                market.chain.ensure_running()?;
            }
            self.story.waiting(what);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn answers(url: &str) -> bool {
    reqwest::get(url).await.is_ok_and(|response| response.status().is_success())
}

async fn is_ready(url: &str) -> bool {
    let Ok(response) = reqwest::get(url).await else { return false };
    let status = response.json::<Value>().await.unwrap_or_default();
    status.get("state").and_then(Value::as_str) == Some("ready")
}

/// One request; which deal answered, and what.
async fn call(url: &str) -> Option<(String, String)> {
    let response = reqwest::get(url).await.ok().filter(|response| response.status().is_success())?;
    let deal = response.headers().get("x-wharfage-deal")?.to_str().ok()?.to_owned();
    Some((deal, response.text().await.ok()?))
}

/// Epochs and money that each deal was paid.
async fn payments(
    reader: &MarketReader,
    from: u64,
    deals: &BTreeSet<DealId>,
) -> anyhow::Result<BTreeMap<DealId, (u32, Atoms)>> {
    let head = reader.rpc().head().await?.number;
    let mut paid_by_deal = BTreeMap::<DealId, (u32, Atoms)>::new();
    for placed in reader.blocks(from, head).await?.iter().flat_map(|block| &block.events) {
        if let MarketEvent::DealSettled { deal_id, paid, .. } = &placed.event
            && deals.contains(deal_id)
        {
            let (_, amount) = paid_by_deal.entry(*deal_id).or_default();
            *amount = amount.checked_add(*paid)?;
        }
    }
    for (id, (epochs, amount)) in &mut paid_by_deal {
        // The price of these deals is never changed.
        let price = reader.deal(*id).await?.context("the deal is gone")?.price_per_epoch;
        *epochs = u32::try_from(amount.get().checked_div(price.get()).unwrap_or_default())?;
    }
    Ok(paid_by_deal)
}

fn refunded(receipt: &TxReceipt) -> anyhow::Result<Atoms> {
    let refunds = receipt.events.iter().filter_map(|placed| match &placed.event {
        MarketEvent::DealEnding { refunded, .. } => Some(*refunded),
        _ => None,
    });
    Ok(refunds.sum::<Result<Atoms, _>>()?)
}
