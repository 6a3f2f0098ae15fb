//! `wharfage contracts deploy` makes a market where its file says, and no other.

use std::path::Path;

use serde_json::Value;

use crate::market::{UpMarket, repository, run, wharfage};

/// The example of the docs, for the chain and the token of a market that runs.
fn parameters(folder: &Path, market: &UpMarket, chain_id: u64) -> String {
    let example = std::fs::read_to_string(repository().join("docs/market.example.toml")).unwrap();
    let genesis = market.reader.terms().schedule.genesis;
    let text: String = example
        .lines()
        .map(|line| match line.split_once(" = ").map(|(key, _)| key) {
            Some("chain_id") => format!("chain_id = {chain_id}\n"),
            Some("token") => format!("token = \"{}\"\n", market.token()),
            Some("genesis") => format!("genesis = {genesis}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let path = folder.join(format!("market-{chain_id}.toml"));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_is_deployed_where_its_parameters_say() {
    let market = UpMarket::start(60).await;
    let chain_id = market.reader.terms().chain_id;
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) =
        (parameters(folder.path(), &market, chain_id), parameters(folder.path(), &market, chain_id + 1));
    let deploy = |file: &str, more: &[&str]| {
        let args = ["contracts", "deploy", "--json", "--rpc", market.url("rpcUrl"), "--parameters", file];
        let mut command = wharfage(&[&args, more].concat());
        command.env("WHARFAGE_KEY", market.url("developerKey"));
        command
    };
    let answer = |output: std::process::Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };

    let planned = answer(run(deploy(&right, &["--dry-run"]), true));
    assert_eq!((&planned["verified"], planned["transactions"].as_array().unwrap().len()), (&Value::Bool(false), 0));

    let refused = run(deploy(&wrong, &[]), false);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains(&format!("chain {}", chain_id + 1)) && said.contains(&format!("chain {chain_id}")), "{said}");

    let deployed = answer(run(deploy(&right, &[]), true));
    assert_eq!((&deployed["market"], &deployed["extension"]), (&planned["market"], &planned["extension"]));
    assert_eq!((&deployed["verified"], deployed["transactions"].as_array().unwrap().len()), (&Value::Bool(true), 2));

    let again = answer(run(deploy(&right, &[]), true));
    assert_eq!((&again["market"], again["transactions"].as_array().unwrap().len()), (&planned["market"], 0));
    assert_eq!(again["verified"], true);
}
