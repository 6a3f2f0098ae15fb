//! `wharfage explain`: who would host a worker, or why nobody would. Nothing is signed, nothing is stored.

use std::path::PathBuf;

use clap::Args;
use common::{
    clock::{Clock, SystemClock},
    feature::FeatureSet,
    ids::{Address, Digest},
};
use serde_json::{Value, json};

use super::{
    connection::ApiArgs,
    draft::{DraftArgs, Subject, Worker},
};
use crate::{explanation, output::Output};

/// Options of `wharfage explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage explain worker.wasm --region eu-fr --max-price 0.0001
  wharfage explain --cpu 2.0 --memory 4GiB --replicas 3 --json")]
pub(crate) struct ExplainArgs {
    /// The worker, for the capabilities that it needs
    worker: Option<PathBuf>,
    #[command(flatten)]
    draft: DraftArgs,
    /// Account that would pay; without it nobody's balance is considered
    #[arg(long, value_name = "ADDRESS")]
    developer: Option<Address>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn run(args: ExplainArgs, output: &Output) -> anyhow::Result<()> {
    // Without a worker, any digest stands for one: it plays no part in matching.
    let (artifact, features) = match &args.worker {
        Some(path) => Worker::read(path).map(|worker| (worker.digest, worker.features))?,
        None => (Digest([0xff; 32]), FeatureSet::EMPTY),
    };
    let market = args.api.connect().await?;
    let now = SystemClock.unix_seconds();
    let developer = args.developer.unwrap_or_default();
    let subject = Subject { developer, artifact, artifact_url: String::new(), features, nonce: now, now };
    let (offer, quote) = args.draft.quoted(&subject, &market).await?;
    let report = market.api.explain(&offer).await?;
    let mut lines = explanation::lines(&report);
    if !quote.replicas.is_empty() {
        lines.push("hosts now, the balance apart:".to_owned());
        lines.extend(quote.lines());
    }
    let mut answer = report;
    if let Value::Object(fields) = &mut answer {
        fields.insert("maxPricePerEpoch".to_owned(), json!(offer.max_price_per_epoch));
        fields.insert("pricePerEpoch".to_owned(), json!(quote.price_per_epoch));
        fields.insert("lock".to_owned(), json!(quote.lock));
    }
    output.answer(&answer, &lines);
    Ok(())
}
