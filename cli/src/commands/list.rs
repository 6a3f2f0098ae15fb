//! `wharfage offers` and `wharfage deals`: lists of the market.

use clap::{Args, ValueEnum};
use common::{
    deal::DealState,
    ids::{Address, DealId},
    region::Region,
};
use serde_json::{Value, json};

use super::connection::ApiArgs;
use crate::{client::ApiClient, explanation::tokens, output::Output};

/// Most items that the market gives at a time.
const PAGE: usize = 500;

/// Which offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// What providers sell
    Providers,
    /// What developers want, matched at least once or posted on chain
    Developers,
    /// Signed offers that wait for their first match
    Waiting,
}

/// Options of `wharfage offers`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage offers
  wharfage offers developers --owner 0x70…c8
  wharfage offers providers --region eu-de --json")]
pub(crate) struct OffersArgs {
    /// Which offers
    #[arg(value_enum, default_value = "providers")]
    side: Side,
    /// Only offers of this account
    #[arg(long, value_name = "ADDRESS")]
    owner: Option<Address>,
    /// Only provider offers in this place
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Most offers to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    api: ApiArgs,
}

/// Options of `wharfage deals`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage deals --state active
  wharfage deals --provider 0x70…c8 --json
  wharfage deals --deal 0x9a…07")]
pub(crate) struct DealsArgs {
    /// Show this deal with everything that happened to it
    #[arg(long, value_name = "DEAL", conflicts_with_all = ["state", "provider", "developer", "agent"])]
    deal: Option<DealId>,
    /// Only deals in this state
    #[arg(long, value_name = "STATE", value_parser = ["active", "ending", "ended"])]
    state: Option<String>,
    /// Only deals of this provider
    #[arg(long, value_name = "ADDRESS")]
    provider: Option<Address>,
    /// Only deals of this developer
    #[arg(long, value_name = "ADDRESS")]
    developer: Option<Address>,
    /// Only deals that this agent attests
    #[arg(long, value_name = "ADDRESS")]
    agent: Option<Address>,
    /// Most deals or events to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn offers(args: OffersArgs, output: &Output) -> anyhow::Result<()> {
    let api = ApiClient::new(&args.api.api)?;
    let filter = |name: &str| args.owner.map(|owner| format!("{name}={owner}"));
    let region = args.region.map(|region| format!("region={region}"));
    let (path, filters, line): (_, _, fn(&Value) -> String) = match args.side {
        Side::Providers => ("/v1/provider-offers", vec![filter("provider"), region], provider_line),
        Side::Developers => ("/v1/developer-offers", vec![filter("developer")], developer_line),
        Side::Waiting => ("/v1/waiting-offers", Vec::new(), waiting_line),
    };
    let mut items = list(&api, path, &filters, args.limit).await?;
    if args.side == Side::Waiting
        && let Some(owner) = args.owner
    {
        items.retain(|item| item.get("owner") == Some(&json!(owner)));
    }
    show(items, line, "no offers", output);
    Ok(())
}

pub(crate) async fn deals(args: DealsArgs, output: &Output) -> anyhow::Result<()> {
    let api = ApiClient::new(&args.api.api)?;
    if let Some(deal) = args.deal {
        let mut shown: Value = api.get(&format!("/v1/deals/{deal}")).await?;
        let events = list(&api, &format!("/v1/deals/{deal}/timeline"), &[], args.limit).await?;
        let lines: Vec<_> = [deal_line(&shown)].into_iter().chain(events.iter().map(event_line)).collect();
        if let Value::Object(fields) = &mut shown {
            fields.insert("timeline".to_owned(), events.into());
        }
        output.answer(&shown, &lines);
        return Ok(());
    }
    let account = |name: &str, address: Option<Address>| address.map(|address| format!("{name}={address}"));
    let filters = [
        args.state.map(|state| format!("state={state}")),
        account("provider", args.provider),
        account("developer", args.developer),
        account("agent", args.agent),
    ];
    let items = list(&api, "/v1/deals", &filters, args.limit).await?;
    show(items, deal_line, "no deals", output);
    Ok(())
}

/// Up to `limit` items, page by page.
async fn list(api: &ApiClient, path: &str, filters: &[Option<String>], limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor = None;
    while items.len() < limit {
        let left = limit.saturating_sub(items.len()).min(PAGE);
        let parts = filters.iter().flatten().cloned().chain([format!("limit={left}")]).chain(cursor.take());
        let query: Vec<String> = parts.collect();
        let page: Value = api.get(&format!("{path}?{}", query.join("&"))).await?;
        let found = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        cursor = next_of(&page);
        let is_last = cursor.is_none() || found.is_empty();
        items.extend(found);
        if is_last {
            break;
        }
    }
    Ok(items)
}

/// How to ask for what follows: by cursor, or by the number of the last item.
fn next_of(page: &Value) -> Option<String> {
    let cursor = page.get("nextCursor").and_then(Value::as_str).map(|cursor| format!("cursor={cursor}"));
    cursor.or_else(|| page.get("nextAfter").and_then(Value::as_u64).map(|after| format!("after={after}")))
}

fn show(items: Vec<Value>, line: fn(&Value) -> String, none: &str, output: &Output) {
    let mut lines: Vec<String> = items.iter().map(line).collect();
    if lines.is_empty() {
        lines.push(none.to_owned());
    }
    output.answer(&json!({ "items": items }), &lines);
}

/// A field of nested objects as text; numbers without quotes.
fn text(value: &Value, path: &[&str]) -> String {
    match path.iter().try_fold(value, |value, name| value.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn provider_line(item: &Value) -> String {
    let field = |path: &[&str]| text(item, path);
    let price = |name: &str| tokens(item.get("offer").and_then(|offer| offer.get("prices")?.get(name)));
    format!(
        "{} {}{}: {} of {} mCPU and {} of {} MiB free, {} per vCPU and {} per GiB an epoch",
        field(&["offerHash"]),
        field(&["offer", "region"]),
        if item.get("cancelled") == Some(&Value::Bool(true)) { " (cancelled)" } else { "" },
        field(&["free", "milliCpu"]),
        field(&["offer", "capacity", "milliCpu"]),
        field(&["free", "memoryMib"]),
        field(&["offer", "capacity", "memoryMib"]),
        price("perVcpuEpoch"),
        price("perGibEpoch"),
    )
}

fn developer_line(item: &Value) -> String {
    let field = |path: &[&str]| text(item, path);
    format!(
        "{}{}: {} of {} replicas live, {} mCPU and {} MiB each, at most {} an epoch, until epoch {}",
        field(&["offerHash"]),
        if item.get("cancelled") == Some(&Value::Bool(true)) { " (cancelled)" } else { "" },
        field(&["liveReplicas"]),
        field(&["offer", "replicas"]),
        field(&["offer", "size", "milliCpu"]),
        field(&["offer", "size", "memoryMib"]),
        tokens(item.get("offer").and_then(|offer| offer.get("maxPricePerEpoch"))),
        field(&["endEpoch"]),
    )
}

fn waiting_line(item: &Value) -> String {
    let field = |name: &str| text(item, &[name]);
    format!(
        "{} {} offer of {}, accepted as number {}",
        field("offerHash"),
        field("kind"),
        field("owner"),
        field("sequence")
    )
}

fn deal_line(item: &Value) -> String {
    let field = |name: &str| text(item, &[name]);
    let state = item.get("state").and_then(|state| serde_json::from_value::<DealState>(state.clone()).ok());
    let until = if state == Some(DealState::Ended) { "ended" } else { "ends" };
    format!(
        "{} {}: offer {} at {} for {} an epoch, paid {}, {until} with epoch {}",
        field("id"),
        field("state"),
        field("developerOffer"),
        field("provider"),
        tokens(item.get("pricePerEpoch")),
        tokens(item.get("paid")),
        field("endEpoch"),
    )
}

/// The event's name, its place, and its own fields.
fn event_line(item: &Value) -> String {
    const PLACE: [&str; 7] = ["blockNumber", "blockHash", "timestamp", "logIndex", "txHash", "event", "dealId"];
    const MONEY: [&str; 7] = ["amount", "paid", "toppedUp", "refunded", "bond", "locked", "pricePerEpoch"];
    let fields = item.as_object().into_iter().flatten().filter(|(name, _)| !PLACE.contains(&name.as_str()));
    let fields: Vec<String> = fields
        .map(|(name, value)| match MONEY.contains(&name.as_str()) {
            true => format!("{name} {}", tokens(Some(value))),
            false => format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        })
        .collect();
    let field = |name: &str| text(item, &[name]);
    format!("  block {} {} in {}: {}", field("blockNumber"), field("event"), field("txHash"), fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_in_a_line() {
        let provider = json!({
            "offerHash": "0x01", "cancelled": true, "free": { "milliCpu": 500, "memoryMib": 128 },
            "offer": { "region": "eu-de-fra1", "capacity": { "milliCpu": 1000, "memoryMib": 256 },
                       "prices": { "perVcpuEpoch": "2000", "perGibEpoch": "400" } },
        });
        let line = provider_line(&provider);
        assert!(line.starts_with("0x01 eu-de-fra1 (cancelled): 500 of 1000 mCPU and 128 of 256 MiB free"), "{line}");
        assert!(line.contains("0.002000 USDC per vCPU"), "{line}");
        let deal = json!({ "id": "0x02", "state": "ended", "pricePerEpoch": "5", "paid": "10", "endEpoch": 7 });
        assert!(deal_line(&deal).ends_with("for 0.000005 USDC an epoch, paid 0.000010 USDC, ended with epoch 7"));
        let event = json!({
            "event": "deal_settled", "blockNumber": 3, "txHash": "0x03", "dealId": "0x02", "paid": "10", "epochsPaid": 2,
        });
        let line = event_line(&event);
        assert!(line.starts_with("  block 3 deal_settled in 0x03: "), "{line}");
        assert!(
            line.contains("paid 0.000010 USDC") && line.contains("epochsPaid 2") && !line.contains("0x02"),
            "{line}"
        );
    }

    #[test]
    fn what_follows_is_asked_for_as_the_list_wants_it() {
        assert_eq!(next_of(&json!({ "nextCursor": "7-1" })).unwrap(), "cursor=7-1");
        assert_eq!(next_of(&json!({ "nextAfter": 7 })).unwrap(), "after=7");
        assert_eq!(next_of(&json!({ "nextCursor": null })), None);
    }
}
