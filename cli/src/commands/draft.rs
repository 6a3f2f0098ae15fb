//! A developer offer as command-line options.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use common::{
    feature::FeatureSet,
    ids::{Address, Digest},
    market::MarketTerms,
    money::Atoms,
    offer::DeveloperOffer,
    region::Region,
    resources::Resources,
};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{amount, connection::Market};
use crate::output::RefusedError;

/// Largest worker that is read; content stores take less or the same.
const MAX_WORKER_BYTES: u64 = 256 << 20;
/// Epochs that are locked ahead unless the developer or the market wants more.
const USUAL_PREPAID: u32 = 10;
/// How long after its term an offer may still be matched, for clocks that differ.
const SLACK: Duration = Duration::from_secs(3_600);
/// Limit with which the price is asked for when the developer gives none: 1,000,000 USDC for an epoch.
const ANY_PRICE: u64 = 1_000_000_000_000;

/// What the developer wants.
#[derive(Debug, Clone, Args)]
pub(crate) struct DraftArgs {
    /// CPU of each replica: milli-CPU such as 250, or CPUs such as 0.25
    #[arg(long, value_name = "AMOUNT", default_value = "250", value_parser = amount::milli_cpu)]
    pub(crate) cpu: u32,
    /// Memory of each replica, such as 128MiB
    #[arg(long, value_name = "AMOUNT", default_value = "128MiB", value_parser = amount::mebibytes)]
    pub(crate) memory: u32,
    /// Acceptable place: continent, country or site, such as eu, eu-de, eu-de-fra1; repeat for more, none for anywhere
    #[arg(long = "region", value_name = "REGION")]
    pub(crate) regions: Vec<Region>,
    /// Replicas, each at another provider
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) replicas: u16,
    /// Fewest replicas worth starting with
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) min_replicas: u16,
    /// Most USDC that one replica may cost for one epoch; without it, twice the dearest quoted now
    #[arg(long, value_name = "USDC", value_parser = amount::tokens)]
    pub(crate) max_price: Option<Atoms>,
    /// Term in epochs, from the first match
    #[arg(long, value_name = "N", default_value_t = 720)]
    pub(crate) epochs: u32,
    /// Epochs locked ahead for each replica; without it 10, or what the market demands
    #[arg(long, value_name = "N")]
    pub(crate) prepaid: Option<u32>,
    /// How long replicas may be placed, such as 12h; without it until the term is over
    #[arg(long, value_name = "SPAN", value_parser = amount::span)]
    pub(crate) valid_for: Option<Duration>,
    /// Host capability to ask for beside those that the worker imports, such as wasi:keyvalue
    #[arg(long = "feature", value_name = "NAME", value_parser = FeatureSet::named)]
    pub(crate) features: Vec<FeatureSet>,
    /// Provider that may host; none for any
    #[arg(long = "allow", value_name = "ADDRESS")]
    pub(crate) allow: Vec<Address>,
    /// Provider that may not host
    #[arg(long = "deny", value_name = "ADDRESS")]
    pub(crate) deny: Vec<Address>,
    /// Only this account may match the offer
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) matcher: Option<Address>,
    /// Paid for each replica placed to whoever sends the match, such as 0.05.
    #[arg(long, value_name = "USDC", value_parser = Atoms::parse_tokens)]
    pub(crate) matcher_fee: Option<Atoms>,
}

/// A worker that could be hosted.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) features: FeatureSet,
}

/// Who signs, what runs, and when.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Zero for a draft that nobody pays for yet.
    pub(crate) developer: Address,
    pub(crate) artifact: Digest,
    pub(crate) artifact_url: String,
    pub(crate) features: FeatureSet,
    pub(crate) nonce: u64,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// What the market says to a draft.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quote {
    pub(crate) matchable: bool,
    #[serde(default)]
    pub(crate) matching_paused: bool,
    pub(crate) replicas: Vec<QuotedReplica>,
    pub(crate) price_per_epoch: Atoms,
    pub(crate) lock: Atoms,
    pub(crate) explanation: Option<Value>,
}

/// A host that a draft would have.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct QuotedReplica {
    pub(crate) provider: Address,
    pub(crate) region: Region,
    pub(crate) ask: Atoms,
}

impl Worker {
    /// Reads a worker and checks what any host would.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let named = || path.display().to_string();
        let length = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        ensure!(length <= MAX_WORKER_BYTES, "{} has {length} bytes, at most {MAX_WORKER_BYTES} are taken", named());
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let features = matcher::required_features(&bytes)
            .map_err(|error| RefusedError { code: error.code(), detail: error.to_string() })
            .with_context(named)?;
        let digest = Digest(Sha256::digest(&bytes).into());
        Ok(Self { bytes, digest, features })
    }
}

impl DraftArgs {
    /// The offer, with `max_price` where the options give none.
    pub(crate) fn offer(&self, subject: &Subject, terms: &MarketTerms, max_price: Atoms) -> DeveloperOffer {
        let term = u64::from(self.epochs).saturating_mul(u64::from(terms.schedule.length));
        let valid_for = self.valid_for.map_or(term.saturating_add(SLACK.as_secs()), |span| span.as_secs());
        let prepaid = self.prepaid.unwrap_or_else(|| USUAL_PREPAID.max(terms.min_prepaid_epochs).min(self.epochs));
        DeveloperOffer {
            developer: subject.developer,
            artifact: subject.artifact,
            manifest: Digest::ZERO,
            size: Resources { milli_cpu: self.cpu, memory_mib: self.memory },
            features: self.features.iter().fold(subject.features, |all, one| all.union(*one)),
            regions: self.regions.clone(),
            min_replicas: self.min_replicas,
            replicas: self.replicas,
            max_price_per_epoch: self.max_price.unwrap_or(max_price),
            epochs: self.epochs,
            prepaid_epochs: prepaid,
            valid_until: subject.now.saturating_add(valid_for),
            nonce: subject.nonce,
            matcher: self.matcher.unwrap_or_default(),
            matcher_fee: self.matcher_fee.unwrap_or_default(),
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            artifact_url: subject.artifact_url.clone(),
        }
    }

    /// The offer with a price limit, and what the market says to it, the developer's money apart.
    pub(crate) async fn quoted(&self, subject: &Subject, market: &Market) -> anyhow::Result<(DeveloperOffer, Quote)> {
        let any_price = Atoms::new(ANY_PRICE)?;
        let mut offer = self.offer(subject, &market.terms, any_price);
        let mut quote = market.quote(&offer).await?;
        if self.max_price.is_none()
            && let Some(dearest) = quote.replicas.iter().map(|replica| replica.ask).max()
        {
            // Room for those that may have to stand in for a host that fails.
            offer.max_price_per_epoch = dearest.checked_mul(2)?;
            quote = market.quote(&offer).await?;
        }
        Ok((offer, quote))
    }
}

impl Market {
    /// Who would host this offer, whatever its developer's balance.
    pub(crate) async fn quote(&self, offer: &DeveloperOffer) -> anyhow::Result<Quote> {
        let draft = DeveloperOffer { developer: Address::ZERO, ..offer.clone() };
        let answer = self.api.quote(&draft).await?;
        serde_json::from_value(answer).context("the market's quote cannot be read")
    }
}

impl Quote {
    /// The quote for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let host = |replica: &QuotedReplica| {
            format!("  {} in {} for {} an epoch", replica.provider, replica.region, replica.ask)
        };
        let hosts = self.replicas.iter().map(host);
        let total = format!("  in all {} an epoch; {} are locked at the match", self.price_per_epoch, self.lock);
        hosts.chain([total]).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use common::epoch::EpochSchedule;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        draft: DraftArgs,
    }

    fn terms() -> MarketTerms {
        MarketTerms {
            chain_id: 31_337,
            market: Address([1; 20]),
            deployed_at_block: 1,
            token: Address([2; 20]),
            operator: Address([3; 20]),
            schedule: EpochSchedule { genesis: 0, length: 60 },
            attestation_window: 2,
            evict_after_missed: 2,
            bond_epochs: 3,
            min_prepaid_epochs: 3,
            grace_epochs: 4,
            notice_epochs: 1,
        }
    }

    fn subject() -> Subject {
        Subject {
            developer: Address([9; 20]),
            artifact: Digest([7; 32]),
            artifact_url: "http://store.test/a".to_owned(),
            features: FeatureSet::EMPTY,
            nonce: 5,
            now: 1_000,
        }
    }

    fn offer(args: &[&str]) -> DeveloperOffer {
        let cli = Cli::try_parse_from([&["draft"], args].concat()).unwrap_or_else(|error| panic!("{error}"));
        cli.draft.offer(&subject(), &terms(), Atoms::new(77).unwrap())
    }

    #[test]
    fn without_options_the_offer_is_valid() {
        let offer = offer(&[]);
        offer.validate(3).unwrap();
        assert_eq!(offer.size, Resources { milli_cpu: 250, memory_mib: 128 });
        assert_eq!((offer.replicas, offer.min_replicas, offer.prepaid_epochs), (1, 1, 10));
        assert_eq!(offer.max_price_per_epoch.get(), 77);
        // The whole term, so that a lost replica can be replaced until the end.
        assert_eq!(offer.valid_until, 1_000 + 720 * 60 + 3_600);
    }

    #[test]
    fn every_option_finds_its_field() {
        let address = Address([0xaa; 20]).to_string();
        let offer = offer(&[
            "--cpu",
            "0.5",
            "--memory",
            "1GiB",
            "--region",
            "eu-de",
            "--region",
            "na",
            "--replicas",
            "3",
            "--min-replicas",
            "2",
            "--max-price",
            "0.5",
            "--epochs",
            "4",
            "--valid-for",
            "1h",
            "--feature",
            "wasi:keyvalue",
            "--allow",
            &address,
            "--deny",
            &address,
            "--matcher",
            &address,
            "--matcher-fee",
            "0.05",
        ]);
        assert_eq!(offer.size, Resources { milli_cpu: 500, memory_mib: 1_024 });
        assert_eq!(offer.regions, ["eu-de".parse().unwrap(), "na".parse().unwrap()]);
        assert_eq!((offer.replicas, offer.min_replicas, offer.epochs), (3, 2, 4));
        assert_eq!(offer.max_price_per_epoch.get(), 500_000);
        // Never more epochs ahead than there are.
        assert_eq!(offer.prepaid_epochs, 4);
        assert_eq!(offer.valid_until, 4_600);
        assert_eq!(offer.features.names(), ["wasi:keyvalue"]);
        assert_eq!((offer.allow.len(), offer.deny.len(), offer.matcher), (1, 1, Address([0xaa; 20])));
        assert_eq!(offer.matcher_fee.get(), 50_000);
    }

    #[test]
    fn wrong_options_say_what_would_be_right() {
        for (args, says) in [
            (["--region", "moon"], "af, ap, eu, me, na, oc, sa"),
            (["--cpu", "2"], "2.0"),
            (["--memory", "128MB"], "128MiB"),
            (["--max-price", "cheap"], "1.25"),
            (["--feature", "gpu"], "wasi:keyvalue"),
            (["--allow", "0x12"], "40 hex digits"),
        ] {
            let error = Cli::try_parse_from([&["draft"], &args[..]].concat()).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_no_worker_is_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("worker.wasm");
        assert!(Worker::read(&file).unwrap_err().to_string().contains("cannot read"));
        std::fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
        let error = Worker::read(&file).unwrap_err();
        assert!(format!("{error:#}").contains("wasm32-wasip2"), "{error:#}");
        assert_eq!(error.downcast_ref::<RefusedError>().unwrap().code, "not_a_component");
    }
}
