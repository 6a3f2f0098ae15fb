//! Local providers: each has an owner (cold key), an agent process of its own (hot key) and a payout account.

use std::path::PathBuf;

use anyhow::Context;
use chain::{Key, Rpc, TxSender, calls};
use common::{
    clock::{Clock, SystemClock},
    feature::FeatureSet,
    ids::{Address, OfferHash},
    money::Atoms,
    offer::ProviderOffer,
    resources::{Prices, Resources},
};
use provider_agent::{AgentConfig, HostLimits, Isolation, SignedProviderOffer};
use tokio::process::Command;

use super::{LocalMarket, accounts::Role, child::ChildProcess, local};

/// How long local offers are valid.
const VALID_SECONDS: u64 = 365 * 24 * 3_600;

/// How a provider makes its offer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registration {
    /// Its owner signs, its agent hands the offer to the matcher: no gas.
    Signed,
    /// Its owner posts the offer on chain.
    Posted,
}

/// What distinguishes the local providers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile {
    /// Name for people.
    pub(crate) name: &'static str,
    /// Number, 0 to 2, which decides keys and port.
    pub(crate) number: usize,
    region: &'static str,
    per_vcpu_epoch: u64,
    per_gib_epoch: u64,
    pub(crate) registration: Registration,
}

/// The providers of a local market: different places, prices and ways to register.
pub(crate) const PROFILES: [Profile; 3] = [
    Profile {
        name: "amber",
        number: 0,
        region: "eu-de-fra1",
        per_vcpu_epoch: 2_000,
        per_gib_epoch: 400,
        registration: Registration::Signed,
    },
    Profile {
        name: "basalt",
        number: 1,
        region: "na-us-iad1",
        per_vcpu_epoch: 2_400,
        per_gib_epoch: 320,
        registration: Registration::Posted,
    },
    Profile {
        name: "cobalt",
        number: 2,
        region: "ap-jp-tyo1",
        per_vcpu_epoch: 3_000,
        per_gib_epoch: 500,
        registration: Registration::Signed,
    },
];

/// A provider with its running agent.
pub(crate) struct LocalProvider {
    /// What distinguishes it.
    pub(crate) profile: Profile,
    /// What it sells.
    pub(crate) offer: ProviderOffer,
    /// Its offer's id.
    pub(crate) offer_hash: OfferHash,
    /// Its data folder and log.
    pub(crate) data_dir: PathBuf,
    process: ChildProcess,
}

impl Profile {
    /// The owner's account.
    pub(crate) fn owner(&self) -> anyhow::Result<Key> {
        Role::ProviderOwner(self.number).key()
    }

    /// Where payments go: an account that nothing on this machine needs the key of.
    pub(crate) fn payout(&self) -> Address {
        let mut account = [0xb0; 20];
        if let Some(last) = account.last_mut() {
            *last = u8::try_from(self.number).unwrap_or_default();
        }
        Address(account)
    }

    fn listen_port(&self, market: &LocalMarket) -> anyhow::Result<u16> {
        let number = u16::try_from(self.number).context("provider number")?;
        market.options.ports.agents.checked_add(number).context("agent port is above 65535")
    }

    fn offer(&self, market: &LocalMarket) -> anyhow::Result<ProviderOffer> {
        let price = |atoms| Atoms::new(atoms).context("price");
        Ok(ProviderOffer {
            provider: self.owner()?.address(),
            agent: Role::ProviderAgent(self.number).key()?.address(),
            payout: self.payout(),
            region: self.region.parse()?,
            capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
            features: FeatureSet::EMPTY,
            prices: Prices { per_vcpu_epoch: price(self.per_vcpu_epoch)?, per_gib_epoch: price(self.per_gib_epoch)? },
            max_epochs: 0,
            valid_until: SystemClock.unix_seconds().saturating_add(VALID_SECONDS),
            nonce: 0,
            endpoint: format!("http://{}", local(self.listen_port(market)?)),
        })
    }
}

impl LocalProvider {
    /// Gives the owner tokens, deposits `bond_money` of them, makes the offer known and starts the agent. What an
    /// earlier run has done is not done again.
    pub(crate) async fn start(market: &LocalMarket, profile: Profile, bond_money: Atoms) -> anyhow::Result<Self> {
        let data_dir = market.options.data_dir.join("agents").join(profile.name);
        tokio::fs::create_dir_all(&data_dir).await.with_context(|| format!("cannot create {}", data_dir.display()))?;
        let signed = signed_offer(market, profile, &data_dir).await?;
        let offer_hash = market.reader()?.domain().provider_offer_hash(&signed.offer);
        fund_and_post(market, profile, &signed.offer, offer_hash, bond_money).await?;
        let config = agent_config(market, profile, signed.clone(), &data_dir)?;
        let process = start_agent(profile, &config, &data_dir)?;
        Ok(Self { profile, offer: signed.offer, offer_hash, data_dir, process })
    }

    /// Where the agent answers.
    pub(crate) fn endpoint(&self) -> &str {
        &self.offer.endpoint
    }

    /// The agent's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir.join("agent.log")
    }

    /// The agent's process id, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.id()
    }

    /// An error if the agent has ended by itself.
    pub(crate) fn ensure_running(&mut self) -> anyhow::Result<()> {
        let log = self.log();
        self.process.ensure_running(&log)
    }

    /// Ends the agent as a power cut would.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Asks the agent to finish and waits for it.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}

/// The offer of an earlier run, or a new one: its hash is the provider's identity on the market.
async fn signed_offer(
    market: &LocalMarket,
    profile: Profile,
    data_dir: &std::path::Path,
) -> anyhow::Result<SignedProviderOffer> {
    let file = data_dir.join("offer.json");
    let wanted = profile.offer(market)?;
    if let Ok(text) = tokio::fs::read(&file).await {
        let known: SignedProviderOffer =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        // Only the validity may differ; another port would leave deals behind at the old one.
        anyhow::ensure!(
            known.offer.endpoint == wanted.endpoint,
            "{} was registered with {}, so it must listen there again: choose the ports of the last run",
            profile.name,
            known.offer.endpoint
        );
        return Ok(known);
    }
    let hash = market.reader()?.domain().provider_offer_hash(&wanted);
    let signature = hex::encode_prefixed(profile.owner()?.sign(hash)?);
    let signed = SignedProviderOffer { offer: wanted, signature };
    tokio::fs::write(&file, serde_json::to_vec_pretty(&signed)?)
        .await
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(signed)
}

async fn fund_and_post(
    market: &LocalMarket,
    profile: Profile,
    offer: &ProviderOffer,
    offer_hash: OfferHash,
    bond_money: Atoms,
) -> anyhow::Result<()> {
    let reader = market.reader()?;
    let (token, contract) = (market.deployment.token, market.deployment.market);
    let owner = TxSender::new(Rpc::new(&[market.chain.url().to_owned()])?, profile.owner()?).await?;
    if reader.token_balance(offer.provider).await?.checked_add(reader.free_balance(offer.provider).await?)?
        == Atoms::ZERO
    {
        market.operator.send(&calls::mint(token, offer.provider, bond_money)).await?;
        owner.send(&calls::approve(token, contract, bond_money)).await?;
        owner.send(&calls::deposit(contract, bond_money)).await?;
    }
    let posted = profile.registration == Registration::Posted;
    if posted && reader.provider_offer(offer_hash).await?.is_none() {
        owner.send(&calls::post_provider_offer(contract, offer)).await?;
    }
    Ok(())
}

fn agent_config(
    market: &LocalMarket,
    profile: Profile,
    signed: SignedProviderOffer,
    data_dir: &std::path::Path,
) -> anyhow::Result<AgentConfig> {
    // What the owner posted on chain needs nobody to hand it on.
    let is_signed = profile.registration == Registration::Signed;
    Ok(AgentConfig {
        data_dir: data_dir.to_path_buf(),
        listen: local(profile.listen_port(market)?),
        rpc: vec![market.chain.url().to_owned()],
        market: market.deployment.market,
        market_deployed_at: Some(market.deployment.deployed_at),
        matcher_url: is_signed.then(|| market.api_url()),
        content_stores: vec![market.api_url()],
        region: Some(signed.offer.region),
        offer: is_signed.then_some(signed),
        poll_interval_ms: 300,
        reorg_margin_blocks: 64,
        limits: HostLimits::default(),
        isolation: Isolation::default(),
    })
}

/// The agent is this same program in a process of its own, which knows the hot key alone.
fn start_agent(profile: Profile, config: &AgentConfig, data_dir: &std::path::Path) -> anyhow::Result<ChildProcess> {
    let file = data_dir.join("agent.toml");
    std::fs::write(&file, toml::to_string(config)?).with_context(|| format!("cannot write {}", file.display()))?;
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    let mut command = Command::new(program);
    command.args(["provider", "run", "--config"]).arg(&file);
    command.env("WHARFAGE_KEY", Role::ProviderAgent(profile.number).secret());
    ChildProcess::start(&format!("agent of {}", profile.name), command, &data_dir.join("agent.log"))
}
