//! `wharfage prices`: what deals were opened at, over time.

use clap::Args;
use common::region::Region;
use serde_json::Value;

use super::{amount, connection::ApiArgs};
use crate::{client::ApiClient, explanation::tokens, output::Output};

/// Most buckets that the market gives.
const BUCKETS: u32 = 500;

/// Options of `wharfage prices`.
#[derive(Debug, Args)]
#[command(
    after_help = "Buckets in which no deal was opened are left out, except with --json. The median of an even number of
prices is the lower of the middle two.

Examples:
  wharfage prices
  wharfage prices --bucket-epochs 24 --region eu
  wharfage prices --from-epoch 1000 --to-epoch 1999 --bucket-epochs 100 --min-cpu 1.0 --max-memory 4GiB --json"
)]
pub(crate) struct PricesArgs {
    /// Epochs of a bucket
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    bucket_epochs: u32,
    /// An epoch of the first bucket; without it the last 100 buckets are shown
    #[arg(long, value_name = "EPOCH")]
    from_epoch: Option<u32>,
    /// An epoch of the last bucket; without it the current one
    #[arg(long, value_name = "EPOCH")]
    to_epoch: Option<u32>,
    /// Only deals hosted in this place
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Only replicas with at least this CPU, such as 250 (milli-CPU) or 2.0
    #[arg(long, value_name = "AMOUNT", value_parser = amount::milli_cpu)]
    min_cpu: Option<u32>,
    /// Only replicas with at most this CPU
    #[arg(long, value_name = "AMOUNT", value_parser = amount::milli_cpu)]
    max_cpu: Option<u32>,
    /// Only replicas with at least this memory, such as 128MiB or 2GiB
    #[arg(long, value_name = "AMOUNT", value_parser = amount::mebibytes)]
    min_memory: Option<u32>,
    /// Only replicas with at most this memory
    #[arg(long, value_name = "AMOUNT", value_parser = amount::mebibytes)]
    max_memory: Option<u32>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn run(args: PricesArgs, output: &Output) -> anyhow::Result<()> {
    let api = ApiClient::new(&args.api.api)?;
    let number = |name: &str, value: Option<u32>| value.map(|value| format!("{name}={value}"));
    let filters = [
        number("limit", Some(BUCKETS)),
        number("bucketEpochs", Some(args.bucket_epochs)),
        number("fromEpoch", args.from_epoch),
        number("toEpoch", args.to_epoch),
        args.region.map(|region| format!("region={region}")),
        number("minMilliCpu", args.min_cpu),
        number("maxMilliCpu", args.max_cpu),
        number("minMemoryMib", args.min_memory),
        number("maxMemoryMib", args.max_memory),
    ];
    let filters: Vec<String> = filters.into_iter().flatten().collect();
    let answer: Value = api.get(&format!("/v1/prices?{}", filters.join("&"))).await?;
    let buckets = answer.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = buckets.iter().flat_map(bucket_lines).collect();
    if lines.is_empty() {
        lines.push("no deal was opened in these epochs".to_owned());
    }
    output.answer(&answer, &lines);
    Ok(())
}

/// A bucket with its three prices; nothing where there was no deal.
fn bucket_lines(bucket: &Value) -> Vec<String> {
    let number = |name: &str| bucket.get(name).and_then(Value::as_u64).unwrap_or_default();
    let deals = number("deals");
    if deals == 0 {
        return Vec::new();
    }
    let (from, to) = (number("fromEpoch"), number("toEpoch"));
    let epochs = if from == to { format!("epoch {from}") } else { format!("epochs {from} to {to}") };
    let prices = [("a vCPU", "perVcpuEpoch"), ("a GiB", "perGibEpoch"), ("a replica", "perReplicaEpoch")];
    let prices = prices.into_iter().filter_map(|(what, field)| {
        let price = |name: &str| tokens(bucket.get(field).and_then(|spread| spread.get(name)));
        bucket.get(field)?.as_object()?;
        let (least, median, greatest) = (price("least"), price("median"), price("greatest"));
        Some(format!("  {what:<9} {least} to {greatest} an epoch, median {median}"))
    });
    [format!("{epochs}: {deals} {}", if deals == 1 { "deal" } else { "deals" })].into_iter().chain(prices).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bucket_says_when_how_many_and_at_which_prices() {
        let spread = |least: &str, median: &str, greatest: &str| json!({ "least": least, "median": median, "greatest": greatest });
        let bucket = json!({
            "fromEpoch": 24, "toEpoch": 47, "start": 0, "deals": 3,
            "perVcpuEpoch": spread("5", "7", "9"), "perGibEpoch": spread("1", "1", "2"),
            "perReplicaEpoch": spread("10", "11", "12"),
        });
        let lines = bucket_lines(&bucket);
        assert_eq!(lines[0], "epochs 24 to 47: 3 deals");
        assert_eq!(lines[1], "  a vCPU    0.000005 USDC to 0.000009 USDC an epoch, median 0.000007 USDC");
        assert!(lines[3].starts_with("  a replica 0.000010 USDC"), "{lines:?}");
        let empty = json!({ "fromEpoch": 1, "toEpoch": 1, "deals": 0, "perVcpuEpoch": null });
        assert_eq!(bucket_lines(&empty), [""; 0]);
    }
}
