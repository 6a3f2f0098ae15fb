//! `wharfage demo --json` does what its story says, and the money is all there.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::market::{built_worker, eventually, is_alive, run, signal, wharfage};

fn atoms(value: &Value) -> u64 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no amount")).parse().unwrap()
}

#[test]
fn the_demo_plays_to_its_end_and_every_atom_is_accounted_for() {
    let worker = built_worker("hello.wasm");
    let output = run(wharfage(&["demo", "--json", "--worker", worker.to_str().unwrap()]), true);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 1, "one JSON object and nothing else: {stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap();

    assert_eq!(report["conserved"], true);
    let ledger = &report["ledger"];
    assert_eq!(ledger["differences"].as_array().unwrap().len(), 0);
    assert_eq!(atoms(&ledger["minted"]), 25_000_000, "three providers with 5 and a developer with 10 USDC");
    assert_eq!(atoms(&ledger["minted"]), atoms(&ledger["inWallets"]) + atoms(&ledger["heldByMarket"]));
    assert_eq!(atoms(&ledger["heldByMarket"]), atoms(&ledger["owedByMarket"]));

    let deals = ledger["deals"].as_array().unwrap();
    assert_eq!(deals.len(), 3, "two replicas, one of them placed again");
    let providers: BTreeSet<_> = deals.iter().map(|deal| deal["provider"].as_str().unwrap()).collect();
    assert_eq!(providers.len(), 3, "each at another provider");
    for deal in deals {
        assert_eq!(deal["state"], "ended");
        assert_eq!(atoms(&deal["locked"]), 0);
        assert_eq!(atoms(&deal["funded"]), atoms(&deal["paid"]) + atoms(&deal["refunded"]));
        assert_eq!(atoms(&deal["paid"]) % atoms(&deal["pricePerEpoch"]), 0, "whole epochs are paid");
    }
    let causes: Vec<_> = deals.iter().map(|deal| deal["cause"].as_str().unwrap()).collect();
    assert_eq!(causes.iter().filter(|cause| **cause == "provider_evicted").count(), 1, "{causes:?}");
    assert_eq!(causes.iter().filter(|cause| **cause == "developer_cancelled").count(), 2, "{causes:?}");
    let paid_twice = deals.iter().filter(|deal| atoms(&deal["paid"]) >= 2 * atoms(&deal["pricePerEpoch"]));
    assert!(paid_twice.count() >= 2, "the first two deals were paid for two epochs");

    let transactions = report["transactions"].as_array().unwrap();
    assert!(transactions.iter().all(|transaction| transaction["gasUsed"].as_u64().unwrap() >= 21_000));
    for call in ["deploy", "mint", "depositWithPermit", "matchOffers", "attest", "claim", "evict", "withdraw"] {
        assert!(transactions.iter().any(|transaction| transaction["call"] == call), "no {call} among {transactions:?}");
    }
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() >= 15, "{steps:?}");
    assert!(steps.iter().all(|step| step["durationMs"].is_u64()));
}

#[test]
fn an_interrupted_demo_leaves_no_process_behind() {
    let mut demo = wharfage(&["demo", "--json"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let children = |pid: u32| {
        let path = format!("/proc/{pid}/task");
        let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
        tasks
            .flat_map(|task| {
                std::fs::read_to_string(task.path().join("children"))
                    .unwrap_or_default()
                    .split(' ')
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter_map(|pid| pid.trim().parse::<u32>().ok())
            .collect::<BTreeSet<_>>()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let seen = runtime.block_on(eventually("anvil and two agents", async || {
        let seen = children(demo.id());
        (seen.len() >= 3).then_some(seen)
    }));
    signal(demo.id(), libc::SIGINT);
    let status = demo.wait().unwrap();
    assert!(!status.success(), "an interrupted story has not been told");
    for pid in seen {
        assert!(!is_alive(pid), "process {pid} is left behind");
    }
}
