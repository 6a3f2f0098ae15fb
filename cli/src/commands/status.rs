//! `wharfage status`: one deployment.

use clap::Args;
use common::ids::OfferHash;
use serde_json::{Value, json};

use super::{
    connection::{ApiArgs, GatewayArgs},
    follow::Replica,
};
use crate::{explanation, output::Output};

/// Options of `wharfage status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfage status 0x4f…c1")]
pub(crate) struct StatusArgs {
    /// The developer offer's hash
    offer: OfferHash,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
}

pub(crate) async fn run(args: StatusArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let mut shown = market.api.developer_offer(args.offer).await?;
    let replicas = market.deployment(args.offer).await?.deals;
    let url = args.gateway.url_of(args.offer, "/");
    let lines = lines(&shown, &replicas, &url);
    if let Value::Object(fields) = &mut shown {
        fields.insert("replicas".to_owned(), json!(replicas));
        fields.insert("url".to_owned(), json!(url));
    }
    output.answer(&shown, &lines);
    Ok(())
}

fn lines(shown: &Value, replicas: &[Replica], url: &str) -> Vec<String> {
    let text = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
    let mut lines = vec![format!("{}: {}", text("offerHash"), text("status").replace('_', " ")), format!("url {url}")];
    for replica in replicas {
        let state = format!("{:?}", replica.state).to_lowercase();
        let unfunded =
            replica.unfunded_since.map(|since| format!(", unfunded since epoch {since}")).unwrap_or_default();
        lines.push(format!("deal {} {state}{unfunded}", replica.id));
        lines.push(format!(
            "  {} in {} for {} an epoch, until epoch {}",
            replica.provider, replica.region, replica.price_per_epoch, replica.end_epoch
        ));
    }
    let transactions = shown.get("transactions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for transaction in transactions {
        let field = |name: &str| transaction.get(name).and_then(Value::as_str).unwrap_or("?");
        lines.push(format!("match transaction {} {}", field("hash"), field("status")));
    }
    lines.extend(shown.get("explanation").map(explanation::lines).unwrap_or_default());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_told_with_its_hosts_and_what_is_missing() {
        let shown = json!({
            "offerHash": "0x01", "status": "partly_placed", "transactions": [{ "hash": "0x02", "status": "mined" }],
            "explanation": { "summary": "One more is wanted.", "suggestions": [] },
        });
        let replicas: Vec<Replica> = serde_json::from_value(json!([{
            "id": format!("0x{:064}", 3), "provider": format!("0x{:040}", 4), "region": "eu-de-fra1",
            "endpoint": "http://agent.test", "state": "active", "unfundedSince": 7, "startEpoch": 1, "endEpoch": 9,
            "pricePerEpoch": "550",
        }]))
        .unwrap();
        let told = lines(&shown, &replicas, "http://gateway.test/d/0x01/").join("\n");
        for part in ["0x01: partly placed", "active, unfunded since epoch 7", "0.000550 USDC", "0x02 mined", "One more"]
        {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
