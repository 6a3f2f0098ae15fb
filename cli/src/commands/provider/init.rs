//! `wharfage provider init`: everything that an agent needs, in one folder.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use chain::{Key, TxReceipt, calls};
use clap::Args;
use common::{
    clock::{Clock, SystemClock},
    feature::FeatureSet,
    ids::Address,
    money::Atoms,
    offer::ProviderOffer,
    region::Region,
    resources::{Prices, Resources},
};
use provider_agent::{AgentConfig, HostLimits, Isolation, SignedProviderOffer};
use serde_json::json;

use crate::{
    commands::{
        amount,
        connection::{ApiArgs, KeyArgs, Market, RpcArgs},
    },
    output::{Output, UsageError},
};

/// Files that stand beside `agent.toml`.
pub(super) const KEYSTORE: &str = "agent-key.json";
pub(super) const PASSWORD: &str = "agent-password";
const CONFIG: &str = "agent.toml";

/// Milliseconds between two looks at the chain.
const POLL_INTERVAL_MS: u64 = 1_000;
/// Blocks that may be replaced.
const REORG_MARGIN: u64 = 64;

/// Options of `wharfage provider init`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  wharfage provider init --keystore owner.json --region eu-de-fra1 --endpoint http://host.example.org:8090 \\
    --listen 0.0.0.0:8090 --cpu 4.0 --memory 8GiB --price-vcpu 0.002 --price-gib 0.0004")]
pub(crate) struct InitArgs {
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where the machine stands; continent and country at least, such as eu-de-fra1
    #[arg(long)]
    region: Region,
    /// URL at which gateways reach the agent
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Where the agent listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// CPU for sale: milli-CPU such as 4000, or CPUs such as 4.0
    #[arg(long, value_name = "AMOUNT", value_parser = amount::milli_cpu)]
    cpu: u32,
    /// Memory for sale, such as 8GiB
    #[arg(long, value_name = "AMOUNT", value_parser = amount::mebibytes)]
    memory: u32,
    /// USDC for one CPU and epoch
    #[arg(long, value_name = "USDC", value_parser = amount::tokens)]
    price_vcpu: Atoms,
    /// USDC for one GiB and epoch
    #[arg(long, value_name = "USDC", value_parser = amount::tokens)]
    price_gib: Atoms,
    /// Host capability that is switched on; repeat for more
    #[arg(long = "feature", value_name = "NAME", value_parser = FeatureSet::named)]
    features: Vec<FeatureSet>,
    /// Account that payments go to; without it the owner's
    #[arg(long, value_name = "ADDRESS")]
    payout: Option<Address>,
    /// Longest term of a deal in epochs; 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_epochs: u32,
    /// How long the offer may be matched
    #[arg(long, value_name = "SPAN", default_value = "365d", value_parser = amount::span)]
    valid_for: Duration,
    /// Post the offer on chain, which takes gas, rather than have the agent hand a signed one to the market
    #[arg(long)]
    post: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    /// The owner's key: it signs, its free balance carries the bonds, and it never goes to the agent
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) async fn run(args: InitArgs, output: &Output) -> anyhow::Result<()> {
    let config_file = args.dir.join(CONFIG);
    if config_file.exists() {
        let detail = format!("{} exists: name another folder with --dir, or delete it first", config_file.display());
        return Err(UsageError(detail).into());
    }
    let owner = args.key.load(output)?;
    let market = args.api.connect().await?;
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot create {}", args.dir.display()))?;
    let agent = hot_key(&args.dir)?;
    let offer = args.offer(owner.address(), agent.address());
    offer.validate().context("this offer is not valid")?;
    let hash = market.domain().provider_offer_hash(&offer);
    let signed = if args.post {
        None
    } else {
        Some(SignedProviderOffer { offer: offer.clone(), signature: hex::encode_prefixed(owner.sign(hash)?) })
    };
    let config = args.config(&market, signed)?;
    // Nothing is posted before the agent could run with it.
    config.validate().context("no agent could run with these options")?;
    let posted = if args.post { Some(args.post(&market, owner, &offer, output).await?) } else { None };
    fs::write(&config_file, toml::to_string(&config)?)
        .with_context(|| format!("cannot write {}", config_file.display()))?;
    let whole = market.terms.bond(offer.ask(offer.capacity).unwrap_or(Atoms::MAX)).unwrap_or(Atoms::MAX);
    let answer = json!({
        "config": config_file,
        "offerHash": hash,
        "provider": offer.provider,
        "agent": offer.agent,
        "payout": offer.payout,
        "transaction": posted.as_ref().map(|receipt| receipt.tx_hash),
        "bondOfWholeCapacity": whole,
    });
    output.answer(&answer, &lines(&config_file, &offer, posted.as_ref(), whole));
    Ok(())
}

impl InitArgs {
    fn offer(&self, owner: Address, agent: Address) -> ProviderOffer {
        let now = SystemClock.unix_seconds();
        ProviderOffer {
            provider: owner,
            agent,
            payout: self.payout.unwrap_or(owner),
            region: self.region,
            capacity: Resources { milli_cpu: self.cpu, memory_mib: self.memory },
            features: self.features.iter().fold(FeatureSet::EMPTY, |all, one| all.union(*one)),
            prices: Prices { per_vcpu_epoch: self.price_vcpu, per_gib_epoch: self.price_gib },
            max_epochs: self.max_epochs,
            valid_until: now.saturating_add(self.valid_for.as_secs()),
            nonce: now,
            endpoint: self.endpoint.trim_end_matches('/').to_owned(),
        }
    }

    fn config(&self, market: &Market, offer: Option<SignedProviderOffer>) -> anyhow::Result<AgentConfig> {
        let api = market.api.base().to_owned();
        let folder = std::path::absolute(&self.dir).context("the folder")?;
        Ok(AgentConfig {
            data_dir: folder.join("agent-data"),
            listen: self.listen,
            rpc: self.rpc.rpc.clone(),
            market: market.terms.market,
            market_deployed_at: Some(market.terms.deployed_at_block),
            // What the owner posted on chain needs nobody to hand it on.
            matcher_url: offer.is_some().then(|| api.clone()),
            content_stores: vec![api],
            region: Some(self.region),
            offer,
            poll_interval_ms: POLL_INTERVAL_MS,
            reorg_margin_blocks: REORG_MARGIN,
            limits: HostLimits::default(),
            isolation: Isolation::default(),
        })
    }

    async fn post(
        &self,
        market: &Market,
        owner: Key,
        offer: &ProviderOffer,
        output: &Output,
    ) -> anyhow::Result<TxReceipt> {
        let wallet = self.rpc.wallet(&market.terms, owner).await?;
        let receipt = wallet.sender.send(&calls::post_provider_offer(market.terms.market, offer)).await?;
        market.catch_up(&receipt, output).await;
        Ok(receipt)
    }
}

/// The agent's key in `folder`: the one of an earlier attempt, or a new one with a random password.
fn hot_key(folder: &Path) -> anyhow::Result<Key> {
    let (keystore, password_file) = (folder.join(KEYSTORE), folder.join(PASSWORD));
    if keystore.exists() {
        let args = KeyArgs { keystore: Some(keystore.clone()), password_file: Some(password_file) };
        return Ok(Key::from_keystore(&keystore, &args.password()?)?);
    }
    let password = random_password()?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&password_file)
        .with_context(|| format!("cannot write {}", password_file.display()))?;
    file.write_all(password.as_bytes()).with_context(|| format!("cannot write {}", password_file.display()))?;
    let key = Key::random();
    key.save_keystore(&keystore, &password)?;
    Ok(key)
}

/// 256 bits of the system's randomness.
fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    let mut source = fs::File::open("/dev/urandom").context("the system gives no randomness")?;
    source.read_exact(&mut bytes).context("the system gives no randomness")?;
    ensure!(bytes != [0; 32], "the system's randomness is none");
    Ok(hex::encode(bytes))
}

fn lines(config: &Path, offer: &ProviderOffer, posted: Option<&TxReceipt>, whole: Atoms) -> Vec<String> {
    let how = match posted {
        Some(receipt) => format!("the offer is posted in {}", receipt.tx_hash),
        None => "the offer is signed; the agent hands it to the market when it starts".to_owned(),
    };
    vec![
        format!("wrote {}", config.display()),
        how,
        "what is left to do:".to_owned(),
        format!("  deposit for bonds as {}: all of the capacity takes {whole} (`wharfage deposit`)", offer.provider),
        format!("  send gas money to the agent, {} (`wharfage faucet --to` on a test network)", offer.agent),
        format!("  start it: wharfage provider run --config {}", config.display()),
    ]
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        init: InitArgs,
    }

    #[test]
    fn options_make_a_valid_offer() {
        let cli = Cli::try_parse_from([
            "init",
            "--region",
            "eu-de-fra1",
            "--endpoint",
            "http://host.test:8090/",
            "--cpu",
            "4.0",
            "--memory",
            "8GiB",
            "--price-vcpu",
            "0.002",
            "--price-gib",
            "0.0004",
            "--valid-for",
            "1d",
        ])
        .unwrap_or_else(|error| panic!("{error}"));
        let offer = cli.init.offer(Address([1; 20]), Address([2; 20]));
        offer.validate().unwrap();
        assert_eq!(offer.capacity, Resources { milli_cpu: 4_000, memory_mib: 8_192 });
        assert_eq!((offer.prices.per_vcpu_epoch.get(), offer.prices.per_gib_epoch.get()), (2_000, 400));
        assert_eq!((offer.payout, offer.endpoint.as_str()), (offer.provider, "http://host.test:8090"));
        assert_eq!(offer.valid_until - offer.nonce, 86_400);
    }

    #[test]
    fn the_hot_key_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let key = hot_key(folder.path()).unwrap();
        assert_eq!(hot_key(folder.path()).unwrap().address(), key.address());
        for file in [KEYSTORE, PASSWORD] {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
