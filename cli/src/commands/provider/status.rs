//! `wharfage provider status`: offers, deals and earnings.

use anyhow::Context;
use clap::Args;
use common::ids::Address;
use serde_json::{Value, json};

use crate::{
    client::ApiClient,
    commands::connection::{ApiArgs, KeyArgs},
    explanation::tokens,
    output::Output,
};

/// Options of `wharfage provider status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage provider status 0x70…c8
  wharfage provider status --keystore owner.json --agent http://127.0.0.1:8090")]
pub(crate) struct StatusArgs {
    /// The provider's account; without it that of the key
    provider: Option<Address>,
    /// Ask this agent too how its workers are
    #[arg(long, value_name = "URL")]
    agent: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) async fn run(args: StatusArgs, output: &Output) -> anyhow::Result<()> {
    let provider = match args.provider {
        Some(provider) => provider,
        None => args.key.load(output)?.address(),
    };
    let api = ApiClient::new(&args.api.api)?;
    let mut shown: Value = api.get(&format!("/v1/providers/{provider}")).await?;
    let agent: Option<Value> = match &args.agent {
        Some(url) => Some(ApiClient::new(url)?.get("/status").await.with_context(|| format!("the agent at {url}"))?),
        None => None,
    };
    let lines = lines(&shown, agent.as_ref());
    if let (Value::Object(fields), Some(agent)) = (&mut shown, agent) {
        fields.insert("agentStatus".to_owned(), json!(agent));
    }
    output.answer(&shown, &lines);
    Ok(())
}

fn lines(shown: &Value, agent: Option<&Value>) -> Vec<String> {
    let amount = |name: &str| tokens(shown.get(name));
    let count = |name: &str| shown.get("deals").and_then(|deals| deals.get(name)?.as_u64()).unwrap_or_default();
    let mut lines = vec![
        format!("provider {}", shown.get("provider").and_then(Value::as_str).unwrap_or("?")),
        format!("  earned {}, free {}, bonded {}", amount("earned"), amount("free"), amount("bonded")),
        format!("  deals: {} active, {} ending, {} ended", count("active"), count("ending"), count("ended")),
    ];
    let array = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    for offer in array(shown.get("offers")) {
        let text = |path: &[&str]| {
            let found = path.iter().try_fold(&offer, |value, name| value.get(name));
            found.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default()
        };
        lines.push(format!(
            "  offer {} in {}: {} of {} mCPU and {} of {} MiB free",
            text(&["offerHash"]),
            text(&["offer", "region"]),
            text(&["free", "milliCpu"]),
            text(&["offer", "capacity", "milliCpu"]),
            text(&["free", "memoryMib"]),
            text(&["offer", "capacity", "memoryMib"]),
        ));
    }
    for deal in array(agent.and_then(|agent| agent.get("deals"))) {
        let text = |name: &str| deal.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let requests = deal.get("runningRequests").and_then(Value::as_u64).unwrap_or_default();
        lines.push(format!("  worker of deal {} is {}, {requests} requests running", text("dealId"), text("state")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_told_with_offers_and_workers() {
        let shown = json!({
            "provider": "0x01", "earned": "1500000", "free": "0", "bonded": "3",
            "deals": { "active": 2, "ending": 0, "ended": 1 },
            "offers": [{ "offerHash": "0x02", "free": { "milliCpu": 1, "memoryMib": 2 },
                         "offer": { "region": "eu-de", "capacity": { "milliCpu": 3, "memoryMib": 4 } } }],
        });
        let agent = json!({ "deals": [{ "dealId": "0x03", "state": "ready", "runningRequests": 5 }] });
        let told = lines(&shown, Some(&agent)).join("\n");
        for part in ["earned 1.500000 USDC", "2 active", "1 of 3 mCPU and 2 of 4 MiB free", "0x03 is ready, 5 requests"]
        {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
