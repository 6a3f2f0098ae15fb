//! `wharfage deploy`: from a file to a deployment that answers.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use chain::Key;
use clap::Args;
use common::{
    clock::{Clock, SystemClock},
    ids::{Address, OfferHash},
    money::Atoms,
    offer::DeveloperOffer,
};
use serde_json::{Value, json};

use super::{
    amount,
    connection::{ApiArgs, GatewayArgs, KeyArgs, Market, RpcArgs},
    draft::{DraftArgs, Quote, Subject, Worker},
    follow::{Followed, Follower},
    money,
};
use crate::{
    explanation,
    output::{Output, RefusedError},
};

/// Options of `wharfage deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage deploy worker.wasm --replicas 2 --region eu --max-price 0.002
  wharfage deploy worker.wasm --dry-run
  wharfage deploy worker.wasm --cpu 0.5 --memory 256MiB --epochs 1000 --deposit --yes --json")]
pub(crate) struct DeployArgs {
    /// The worker: a Wasm component that exports wasi:http/incoming-handler
    worker: PathBuf,
    #[command(flatten)]
    draft: DraftArgs,
    /// Where hosts fetch the worker, if it is not to be uploaded to the market's store
    #[arg(long, value_name = "URL")]
    artifact_url: Option<String>,
    /// Say who would host it at what price, and change nothing; needs no key
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before signing
    #[arg(long, short)]
    yes: bool,
    /// Move what is missing for the lock from the wallet into the market first
    #[arg(long)]
    deposit: bool,
    /// Submit although nobody would host it now: the offer waits
    #[arg(long)]
    wait_for_hosts: bool,
    /// Return once the offer is accepted
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for all replicas to answer
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = amount::span)]
    timeout: Duration,
    /// Path that the replicas are asked for while waiting
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) async fn run(args: DeployArgs, output: &Output) -> anyhow::Result<()> {
    let worker = Worker::read(&args.worker)?;
    output.progress(&format!("worker: {} bytes, SHA-256 {}", worker.bytes.len(), worker.digest));
    let market = args.api.connect().await?;
    if args.dry_run {
        return dry_run(&args, &worker, &market, output).await;
    }
    let key = args.key.load(output)?;
    let subject = args.subject(&worker, key.address(), next_nonce(&market, key.address()).await?);
    let (mut offer, quote) = args.draft.quoted(&subject, &market).await?;
    args.agree(&offer, &quote, output).await?;
    args.provide_money(&market, &key, &offer, &quote, output).await?;
    offer.artifact_url = args.upload(&market, &worker, output).await?;
    let hash = submit(&market, &key, &offer).await?;
    let url = args.gateway.url_of(hash, "/");
    output.progress(&format!("offer {hash} is on the market"));
    let mut answer = described(&market, &offer, hash, &url);
    if args.no_wait {
        output.answer(&answer, &[format!("offer {hash}"), format!("url   {url}")]);
        return Ok(());
    }
    let wanted = quote.replicas.len().max(usize::from(offer.min_replicas));
    let (patience, path) = (args.timeout, args.path.as_str());
    let follower = Follower { market: &market, gateway: &args.gateway, output, patience, path };
    let followed = follower.until_answered(hash, wanted).await?;
    let lines = followed_lines(&followed, hash, &url, offer.replicas);
    add(&mut answer, &followed);
    output.answer(&answer, &lines);
    Ok(())
}

async fn dry_run(args: &DeployArgs, worker: &Worker, market: &Market, output: &Output) -> anyhow::Result<()> {
    let developer = if args.key.is_given() { args.key.load(output)?.address() } else { Address::ZERO };
    let subject = args.subject(worker, developer, 0);
    let (offer, quote) = args.draft.quoted(&subject, market).await?;
    ensure_matchable(&quote, false)?;
    let mut lines = vec!["nothing was changed; this would be the match:".to_owned()];
    lines.extend(quote.lines());
    let answer = json!({
        "dryRun": true,
        "artifact": worker.digest,
        "features": offer.features,
        "maxPricePerEpoch": offer.max_price_per_epoch,
        "pricePerEpoch": quote.price_per_epoch,
        "lock": quote.lock,
        "replicas": hosts(&quote),
    });
    output.answer(&answer, &lines);
    Ok(())
}

impl DeployArgs {
    fn subject(&self, worker: &Worker, developer: Address, nonce: u64) -> Subject {
        let now = SystemClock.unix_seconds();
        // Offers that differ in nothing else are still two.
        let nonce = nonce.max(now);
        // The store's URL is not known before the upload; it plays no part in matching.
        let artifact_url = self.artifact_url.clone().unwrap_or_default();
        Subject { developer, artifact: worker.digest, artifact_url, features: worker.features, nonce, now }
    }

    async fn upload(&self, market: &Market, worker: &Worker, output: &Output) -> anyhow::Result<String> {
        if let Some(url) = &self.artifact_url {
            return Ok(url.clone());
        }
        output.progress("uploading the worker …");
        let stored = market.api.upload(worker.digest, worker.bytes.clone()).await?;
        stored.get("url").and_then(Value::as_str).map(str::to_owned).context("the store gave no URL for the worker")
    }

    /// Shows what it costs and asks whether that is wanted.
    async fn agree(&self, offer: &DeveloperOffer, quote: &Quote, output: &Output) -> anyhow::Result<()> {
        ensure_matchable(quote, self.wait_for_hosts)?;
        if quote.matching_paused {
            output.progress("note: the market's operator has stopped new matches for now; the offer will wait");
        }
        if quote.matchable {
            output.progress("the market offers:");
            quote.lines().iter().for_each(|line| output.progress(line));
        }
        if quote.replicas.len() < usize::from(offer.replicas) {
            let why = quote.explanation.as_ref().map(explanation::lines).unwrap_or_default();
            output.progress(&format!("only {} of {} replicas have a host now:", quote.replicas.len(), offer.replicas));
            why.iter().for_each(|line| output.progress(&format!("  {line}")));
        }
        output.progress(&format!(
            "you agree to pay up to {} for each replica and epoch, for {} epochs",
            offer.max_price_per_epoch, offer.epochs
        ));
        if offer.prepaid_epochs < offer.epochs {
            let ahead = offer.prepaid_epochs;
            output.progress(&format!(
                "{ahead} epochs are paid ahead; later ones come out of the free balance, so keep it filled"
            ));
        }
        if self.yes { Ok(()) } else { output.confirm("Sign and submit this offer?").await }
    }

    /// Makes sure that the free balance covers the lock.
    async fn provide_money(
        &self,
        market: &Market,
        key: &Key,
        offer: &DeveloperOffer,
        quote: &Quote,
        output: &Output,
    ) -> anyhow::Result<()> {
        let free = money::free_balance(market, offer.developer).await?;
        let missing = quote.lock.checked_sub(free).unwrap_or(Atoms::ZERO);
        if missing == Atoms::ZERO {
            return Ok(());
        }
        if !self.deposit {
            let typed = missing.to_string();
            let detail = format!(
                "the free balance of {} is {free}, but {} are locked at the match: run `wharfage deposit {}`, or add --deposit",
                offer.developer,
                quote.lock,
                typed.trim_end_matches(" USDC")
            );
            return Err(RefusedError { code: "insufficient_balance", detail }.into());
        }
        let wallet = self.rpc.wallet(&market.terms, key.clone()).await?;
        output.progress(&format!("depositing {missing} …"));
        let receipt = money::deposit_own(market, &wallet, missing).await?;
        market.catch_up(&receipt, output).await;
        Ok(())
    }
}

/// An offer that nobody would host is not signed unless that is wanted.
fn ensure_matchable(quote: &Quote, may_wait: bool) -> anyhow::Result<()> {
    if quote.matchable || may_wait {
        return Ok(());
    }
    let why = quote.explanation.as_ref().map(explanation::lines).unwrap_or_default();
    let detail = format!(
        "nobody would host this offer now, so nothing was signed.\n  {}\nChange the offer, or add --wait-for-hosts to let it wait.",
        why.join("\n  ")
    );
    Err(RefusedError { code: "no_match", detail }.into())
}

/// The first nonce that is not void.
async fn next_nonce(market: &Market, developer: Address) -> anyhow::Result<u64> {
    let balance: Value = market.api.get(&format!("/v1/balances/{developer}")).await?;
    Ok(balance.get("nonceFloor").and_then(Value::as_str).and_then(|floor| floor.parse().ok()).unwrap_or_default())
}

async fn submit(market: &Market, key: &Key, offer: &DeveloperOffer) -> anyhow::Result<OfferHash> {
    offer.validate(market.terms.min_prepaid_epochs).context("this offer is not valid")?;
    let hash = market.domain().developer_offer_hash(offer);
    market.api.submit(market.terms.chain_id, offer, &key.sign(hash)?).await?;
    Ok(hash)
}

fn hosts(quote: &Quote) -> Value {
    let host = |replica: &super::draft::QuotedReplica| json!({ "provider": replica.provider, "region": replica.region, "pricePerEpoch": replica.ask });
    quote.replicas.iter().map(host).collect()
}

fn described(market: &Market, offer: &DeveloperOffer, hash: OfferHash, url: &str) -> Value {
    json!({
        "offerHash": hash,
        "artifact": offer.artifact,
        "developer": offer.developer,
        "chainId": market.terms.chain_id,
        "market": market.terms.market,
        "maxPricePerEpoch": offer.max_price_per_epoch,
        "hostLabel": gateway::domain::name::label(hash),
        "url": url,
    })
}

fn add(answer: &mut Value, followed: &Followed) {
    let Value::Object(fields) = answer else { return };
    fields.insert("status".to_owned(), json!(followed.status));
    fields.insert("replicas".to_owned(), json!(followed.replicas));
    fields.insert("transactions".to_owned(), followed.transactions.clone());
}

fn followed_lines(followed: &Followed, hash: OfferHash, url: &str, wanted: u16) -> Vec<String> {
    let mut lines = vec![format!("{} of {wanted} replicas answer", followed.replicas.len())];
    for replica in &followed.replicas {
        lines.push(format!("  {} in {} for {} an epoch", replica.provider, replica.region, replica.price_per_epoch));
    }
    lines.push(format!("offer {hash}"));
    lines.push(format!("url   {url}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_that_nobody_would_host_is_explained_and_not_signed() {
        let quote: Quote = serde_json::from_value(json!({
            "matchable": false, "replicas": [], "pricePerEpoch": "0", "lock": "0",
            "explanation": { "summary": "No provider is in eu-fr.", "suggestions": [{ "text": "allow eu-de" }] },
        }))
        .unwrap();
        let error = ensure_matchable(&quote, false).unwrap_err();
        let refused = error.downcast_ref::<RefusedError>().unwrap();
        assert_eq!(refused.code, "no_match");
        assert!(
            refused.detail.contains("No provider is in eu-fr.") && refused.detail.contains("would match: allow eu-de")
        );
        ensure_matchable(&quote, true).unwrap();
    }
}
