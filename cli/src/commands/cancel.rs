//! `wharfage cancel`: end a deployment.

use chain::calls;
use clap::Args;
use common::{
    deal::DealState,
    ids::{DealId, OfferHash},
};
use serde_json::json;

use super::connection::{ApiArgs, KeyArgs, RpcArgs};
use crate::output::Output;

/// Options of `wharfage cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage cancel 0x4f…c1
  wharfage cancel 0x4f…c1 --keep-deals")]
pub(crate) struct CancelArgs {
    /// The developer offer's hash
    offer: OfferHash,
    /// Let the replicas that have a host go on, and only accept no further one
    #[arg(long)]
    keep_deals: bool,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) async fn run(args: CancelArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let key = args.key.load(output)?;
    let wallet = args.rpc.wallet(&market.terms, key).await?;
    let contract = market.terms.market;
    let active = market.deployment(args.offer).await?.deals.into_iter().filter(|deal| deal.state == DealState::Active);
    let deals: Vec<DealId> = active.filter(|_| !args.keep_deals).map(|deal| deal.id).collect();
    let references = wallet.references(&deals).await?;
    let mut calls = Vec::new();
    if !wallet.reader.is_cancelled(wallet.key.address(), args.offer).await? {
        calls.push(calls::cancel_offer(contract, args.offer));
    }
    if !deals.is_empty() {
        calls.push(calls::cancel_deals(contract, &references));
    }
    if calls.is_empty() {
        let lines = [format!("offer {} is cancelled already and has no active deal", args.offer)];
        output.answer(&json!({ "offerHash": args.offer, "cancelledDeals": deals, "transaction": null }), &lines);
        return Ok(());
    }
    // One transaction: no match can come between the two.
    let receipt = wallet.sender.send(&calls::multicall(contract, calls)).await?;
    market.catch_up(&receipt, output).await;
    let answer = json!({
        "offerHash": args.offer,
        "cancelledDeals": deals,
        "transaction": receipt.tx_hash,
        "gas": receipt.gas_used,
    });
    let lines = [
        format!("offer {} is cancelled in {}", args.offer, receipt.tx_hash),
        format!("{} deals end at the next epoch; money for later epochs is back in the free balance", deals.len()),
    ];
    output.answer(&answer, &lines);
    Ok(())
}
