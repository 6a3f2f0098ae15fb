//! `wharfage depth`: how much of a size can be had, where and at which prices.

use clap::Args;
use common::{feature::FeatureSet, region::Region};
use serde_json::Value;

use super::{amount, connection::ApiArgs};
use crate::{client::ApiClient, explanation::tokens, output::Output};

/// Options of `wharfage depth`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage depth
  wharfage depth --cpu 2.0 --memory 4GiB --region eu
  wharfage depth --cpu 500 --memory 512 --feature wasi:keyvalue --json")]
pub(crate) struct DepthArgs {
    /// CPU of a replica, such as 250 (milli-CPU) or 2.0; without a size the usual ones are shown
    #[arg(long, value_name = "AMOUNT", value_parser = amount::milli_cpu, requires = "memory")]
    cpu: Option<u32>,
    /// Memory of a replica, such as 128MiB or 2GiB
    #[arg(long, value_name = "AMOUNT", value_parser = amount::mebibytes, requires = "cpu")]
    memory: Option<u32>,
    /// Only in this place
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Only where hosts have this capability; may be given several times
    #[arg(long = "feature", value_name = "NAME", value_parser = FeatureSet::named)]
    features: Vec<FeatureSet>,
    /// Only where a term of so many epochs is offered
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn run(args: DepthArgs, output: &Output) -> anyhow::Result<()> {
    let api = ApiClient::new(&args.api.api)?;
    let features: Vec<String> = args.features.iter().flat_map(|feature| feature.names()).collect();
    let filters = [
        args.cpu.map(|cpu| format!("milliCpu={cpu}")),
        args.memory.map(|memory| format!("memoryMib={memory}")),
        args.region.map(|region| format!("region={region}")),
        (!features.is_empty()).then(|| format!("features={}", features.join(","))),
        args.epochs.map(|epochs| format!("epochs={epochs}")),
    ];
    let filters: Vec<String> = filters.into_iter().flatten().collect();
    let answer: Value = api.get(&format!("/v1/depth?{}", filters.join("&"))).await?;
    let sizes = answer.get("sizes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let lines: Vec<String> = sizes.iter().flat_map(size_lines).collect();
    output.answer(&answer, &lines);
    Ok(())
}

/// A size with its places, and the steps of all of them together.
fn size_lines(depth: &Value) -> Vec<String> {
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or_default();
    let size = |name: &str| number(depth.get("size").and_then(|size| size.get(name)));
    let mut lines = vec![format!("{} milli-CPU, {} MiB", size("milliCpu"), size("memoryMib"))];
    let total = depth.get("total");
    let places = depth.get("regions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for place in total.into_iter().chain(places) {
        let name = place.get("region").and_then(Value::as_str).unwrap_or("everywhere");
        let steps = place.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let asks = match (steps.first(), steps.last()) {
            (Some(first), Some(last)) => {
                format!(" from {} to {} an epoch", tokens(first.get("ask")), tokens(last.get("ask")))
            }
            _ => String::new(),
        };
        let (replicas, providers) = (number(place.get("replicas")), number(place.get("providers")));
        lines.push(format!("  {name:<12} {replicas} replicas at {providers} providers{asks}"));
    }
    let steps = total.and_then(|total| total.get("steps")).and_then(Value::as_array).map(Vec::as_slice);
    lines.extend(steps.unwrap_or_default().iter().map(|step| {
        let (replicas, providers) = (number(step.get("replicas")), number(step.get("providers")));
        format!("  up to {}: {replicas} replicas at {providers} providers", tokens(step.get("ask")))
    }));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_come_first_and_then_the_steps() {
        let step = |ask: &str, replicas: u64| json!({ "ask": ask, "providers": 1, "replicas": replicas });
        let depth = json!({
            "size": { "milliCpu": 250, "memoryMib": 256 },
            "total": { "offers": 2, "providers": 2, "replicas": 9, "steps": [step("70", 4), step("90", 9)] },
            "regions": [{ "region": "eu", "offers": 1, "providers": 1, "replicas": 4, "steps": [step("70", 4)] }],
        });
        let lines = size_lines(&depth);
        assert_eq!(lines[0], "250 milli-CPU, 256 MiB");
        assert!(
            lines[1].contains("everywhere   9 replicas at 2 providers from 0.000070 USDC to 0.000090"),
            "{lines:?}"
        );
        assert!(lines[2].contains("eu           4 replicas"), "{lines:?}");
        assert_eq!(lines[4], "  up to 0.000090 USDC: 9 replicas at 1 providers");
    }
}
