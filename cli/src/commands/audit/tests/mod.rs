//! Audits of a real market on a real chain, whole and tampered with.

mod indexer;
mod scene;

use chain::ChainError;
use common::ids::Address;
use serde_json::{Value, json};

use self::{
    indexer::{Lie, LyingIndexer},
    scene::{Scene, key_of, token_slot},
};
use super::{BlockChoice, Report, examine};
use crate::{client::ApiClient, output::Output};

async fn audit(scene: &Scene, apis: &[ApiClient]) -> Report {
    let choice = apis.is_empty().then_some(BlockChoice::Latest);
    examine(&scene.market.reader, apis, choice, 100, &Output::new(true)).await.unwrap()
}

fn shown(report: &Report) -> Value {
    serde_json::to_value(report).unwrap()
}

/// Kind and field of each difference.
fn differing(report: &Report) -> Vec<String> {
    let report = shown(report);
    let text = |difference: &Value, name: &str| difference[name].as_str().unwrap().to_owned();
    let differences = report["differences"].as_array().unwrap().iter();
    differences.map(|difference| format!("{} {}", text(difference, "what"), text(difference, "field"))).collect()
}

/// How many things of a kind were compared with the contract.
fn compared(report: &Value, what: &str) -> u64 {
    let rows = report["compared"].as_array().unwrap();
    rows.iter().find(|row| row["what"] == what && row["against"] == "contract").unwrap()["compared"].as_u64().unwrap()
}

#[tokio::test]
async fn a_market_is_what_its_events_add_up_to() {
    let scene = Scene::life().await;
    let report = audit(&scene, &[]).await;
    assert_eq!(differing(&report), [""; 0]);
    assert!(report.is_equal());
    let before = shown(&report);
    let counted = ["account", "deal", "deal funds", "provider offer", "developer offer", "cancelled offer"];
    let counted = counted.map(|what| compared(&before, what));
    assert_eq!(counted[1..], [3, 3, 2, 2, 1]);
    assert!(counted[0] >= 6 && compared(&before, "attested epochs") >= 4, "{before}");
    assert_eq!(before["money"]["surplus"], "0");

    // A donation belongs to nobody, and is no difference.
    scene.donate(7).await;
    let after = shown(&audit(&scene, &[]).await);
    assert_eq!((&after["equal"], &after["money"]["surplus"]), (&json!(true), &json!("7")));
    // The block before still is what it was.
    let block = before["auditedBlock"]["number"].as_u64().unwrap();
    let choice = Some(BlockChoice::Number(block));
    let again = examine(&scene.market.reader, &[], choice, 100, &Output::new(true)).await.unwrap();
    assert_eq!(shown(&again), before);
}

/// Words of the contract's storage, and what is found when a bit of them is another.
#[tokio::test]
async fn storage_that_no_event_explains_is_found() {
    let scene = Scene::life().await;
    let (market, token) = (scene.market.market, scene.market.token);
    let (provider, agent) = (scene.providers[0].address(), scene.agent.address());
    let bit = |bit: usize| {
        let mut xor = [0; 32];
        xor[31 - bit / 8] = 1 << (bit % 8);
        xor
    };
    let first = async |contract: Address, keys: &[[u8; 32]]| scene.slots(contract, keys).await[0];
    let last = async |contract: Address, keys: &[[u8; 32]]| *scene.slots(contract, keys).await.last().unwrap();
    let deal = scene.deal(0, 0).0;
    let tampered = [
        (market, first(market, &[key_of(provider)]).await, bit(0), "account free"),
        (market, first(market, &[key_of(provider)]).await, bit(128), "account nonceFloor"),
        (market, last(market, &[key_of(agent)]).await, bit(3), "account receiptsHash"),
        (market, first(market, &[deal]).await, bit(191), "deal locked"),
        (market, first(market, &[deal]).await, bit(127), "deal endEpoch"),
        (market, first(market, &[deal]).await, bit(47), "deal pricePerEpoch"),
        (market, first(market, &[deal]).await, bit(14), "deal "),
        (market, first(market, &[scene.demand_hash(1).0]).await, [0xff; 32], "developer offer liveReplicas"),
        (
            market,
            first(market, &[key_of(provider), scene.supply_hash(0).0]).await,
            [0xff; 32],
            "provider offer cancelled",
        ),
        (market, first(market, &[key_of(agent), [0; 32]]).await, bit(1), "attested epochs attested"),
        (
            market,
            first(market, &[key_of(scene.developer.address()), [9; 32]]).await,
            [0xff; 32],
            "cancelled offer cancelled",
        ),
        // The contract has fewer tokens than it owes.
        (token, token_slot(market), bit(24), "tokens held at least"),
    ];
    for (contract, slot, xor, found) in tampered {
        let snapshot = scene.market.anvil.snapshot().await;
        scene.tamper(contract, slot, xor).await;
        let report = audit(&scene, &[]).await;
        assert!(differing(&report).iter().any(|difference| difference == found), "{found}: {:?}", differing(&report));
        assert!(!report.is_equal());
        scene.market.anvil.revert(&snapshot).await;
    }
    assert!(audit(&scene, &[]).await.is_equal());
}

#[tokio::test]
async fn an_honest_indexer_agrees_even_while_the_market_moves() {
    let scene = Scene::life().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = LyingIndexer::start(&scene, folder.path()).await;
    let honest = indexer.telling(|_, _| ()).await;
    let moving = indexer.moving().await;
    let report = audit(&scene, &[honest.clone(), moving]).await;
    assert_eq!(differing(&report), [""; 0]);
    let report = shown(&report);
    assert!(report["toBlock"].as_u64() > report["auditedBlock"]["number"].as_u64(), "{report}");
    let rows = report["compared"].as_array().unwrap();
    let served: Vec<_> = rows.iter().filter(|row| row["against"] == honest.base()).collect();
    let kinds = served.iter().map(|row| row["what"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        kinds,
        [
            "attestation",
            "balance",
            "block",
            "deal",
            "deployment",
            "developer offer",
            "market",
            "page",
            "payment",
            "provider",
            "provider offer",
            "totals"
        ]
    );
}

#[tokio::test]
async fn an_indexer_that_lies_is_found() {
    let scene = Scene::life().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = LyingIndexer::start(&scene, folder.path()).await;
    let lies: [(Lie, &str); 11] = [
        (|path, body| set(path, "/v1/deals", body, "/items/0/paid", json!("1")), "deal paid"),
        (|path, body| set(path, "/v1/deals", body, "/items/0/state", json!("active")), "deal state"),
        (|path, body| forget(path, "/v1/deals", body), "deal "),
        (|path, body| set(path, "/v1/deals", body, "/nextCursor", json!("1-1")), "page nextCursor"),
        (|path, body| set(path, "/v1/balances", body, "/free", json!("12")), "balance free"),
        (
            |path, body| set(path, "/v1/provider-offers", body, "/items/1/used/milliCpu", json!(1)),
            "provider offer used.milliCpu",
        ),
        (
            |path, body| set(path, "/v1/provider-offers", body, "/items/0/cancelled", json!(false)),
            "provider offer cancelled",
        ),
        (
            |path, body| set(path, "/v1/developer-offers", body, "/items/0/offer/epochs", json!(2)),
            "developer offer offer.epochs",
        ),
        (
            |path, body| set(path, "/v1/deployments", body, "/items/0/deals/0/endpoint", json!("http://evil")),
            "deployment deals.0.endpoint",
        ),
        (|path, body| set(path, "/v1/totals", body, "/paid", json!("0")), "totals paid"),
        (|path, body| set(path, "/v1/market", body, "/matchingPaused", json!(false)), "market matchingPaused"),
    ];
    for (lie, found) in lies {
        let report = audit(&scene, &[indexer.telling(lie).await]).await;
        assert!(differing(&report).iter().any(|difference| difference == found), "{found}: {:?}", differing(&report));
    }
    // An order that would make a reader of pages miss something, and a block that is on no chain.
    let swapped: Lie = |path, body| {
        if path == "/v1/deals" {
            body["items"].as_array_mut().unwrap().reverse();
        }
    };
    let differences = differing(&audit(&scene, &[indexer.telling(swapped).await]).await);
    assert!(differences.iter().any(|difference| difference.starts_with("page order.")), "{differences:?}");
    let forked: Lie = |_, body| body["asOfBlock"]["hash"] = json!(format!("0x{}", "11".repeat(32)));
    let report = audit(&scene, &[indexer.telling(forked).await]).await;
    assert_eq!(differing(&report), ["block hash"]);
}

/// What an indexer changes about its lists of history, and what is found then.
#[tokio::test]
async fn an_indexer_that_lies_about_history_is_found() {
    let scene = Scene::life().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = LyingIndexer::start(&scene, folder.path()).await;
    let honest = audit(&scene, &[indexer.telling_in_pages(|_, _| ()).await]).await;
    assert_eq!(differing(&honest), [""; 0]);
    let shown = shown(&honest);
    let rows = shown["compared"].as_array().unwrap();
    let counted = |what: &str| rows.iter().find(|row| row["what"] == what).unwrap()["compared"].as_u64().unwrap();
    // Each list has several pages, and ends with one that is not full.
    assert!(counted("payment") > 20 && counted("attestation") > 5, "{shown}");

    const PAYMENTS: &str = "/v1/payments";
    const ATTESTATIONS: &str = "/v1/attestations";
    let lies: [(Lie, &[&str]); 11] = [
        (|path, body| set(path, PAYMENTS, body, "/items/1/amount", json!("1")), &["payment amount"]),
        (|path, body| set(path, PAYMENTS, body, "/items/1/txHash", json!("0x00")), &["payment txHash"]),
        (|path, body| set(path, PAYMENTS, body, "/items/2/to", json!(Address::ZERO)), &["payment to"]),
        (|path, body| set(path, ATTESTATIONS, body, "/items/1/epoch", json!(99)), &["attestation epoch"]),
        (|path, body| tamper(path, PAYMENTS, body, |rows| drop(rows.remove(1))), &["payment "]),
        (|path, body| tamper(path, ATTESTATIONS, body, |rows| drop(rows.remove(0))), &["attestation "]),
        (|path, body| tamper(path, PAYMENTS, body, |rows| rows.insert(1, rows[0].clone())), &["payment twice"]),
        (|path, body| tamper(path, PAYMENTS, body, |rows| rows.swap(0, 1)), &["payment ", "payment order"]),
        (
            |path, body| {
                tamper(path, PAYMENTS, body, |rows| {
                    // One that never was: above all others of its event.
                    let mut made_up = rows[0].clone();
                    made_up["part"] = json!(7);
                    rows.insert(1, made_up);
                });
            },
            &["payment "],
        ),
        (|path, body| set(path, PAYMENTS, body, "/nextCursor", json!("1-1")), &["page nextCursor", "payment "]),
        (|path, body| set(path, ATTESTATIONS, body, "/nextCursor", Value::Null), &["attestation "]),
    ];
    for (at, (lie, found)) in lies.into_iter().enumerate() {
        let differences = differing(&audit(&scene, &[indexer.telling_in_pages(lie).await]).await);
        for found in found {
            assert!(differences.iter().any(|difference| difference == found), "{at}: {found}: {differences:?}");
        }
    }
    // One lie is one difference: what follows is compared with what it should be.
    let once: Lie = |path, body| tamper(path, PAYMENTS, body, |rows| rows.retain(|row| row["kind"] != "withdrawal"));
    let differences = differing(&audit(&scene, &[indexer.telling(once).await]).await);
    assert_eq!(differences, ["payment "]);
}

/// Changes the rows of a list.
fn tamper(path: &str, at: &str, body: &mut Value, change: fn(&mut Vec<Value>)) {
    // The last page may have none.
    if path == at && body["items"].as_array().unwrap().len() > 2 {
        change(body["items"].as_array_mut().unwrap());
    }
}

/// Changes an answer to paths that begin so.
fn set(path: &str, at: &str, body: &mut Value, pointer: &str, value: Value) {
    // The last page may be shorter.
    if let Some(told) = body.pointer_mut(pointer).filter(|_| path.starts_with(at)) {
        *told = value;
    }
}

/// Leaves out the last item of a list.
fn forget(path: &str, at: &str, body: &mut Value) {
    if path == at {
        body["items"].as_array_mut().unwrap().pop();
    }
}

#[tokio::test]
async fn what_cannot_be_audited_says_why() {
    let scene = Scene::life().await;
    let reader = &scene.market.reader;
    let output = Output::new(true);
    for (choice, said) in [
        (BlockChoice::Number(0), "before the market's first"),
        (BlockChoice::Number(1_000_000), "the node knows no block 1000000"),
    ] {
        let error = examine(reader, &[], Some(choice), 1, &output).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error:#}");
    }
    let nobody = scene.stranger().address();
    let error = super::connect(scene.market.anvil.rpc(), nobody, None, &output).await.unwrap_err();
    assert!(matches!(error, ChainError::NoMarket { .. }), "{error}");
}

#[test]
fn blocks_are_named_or_numbered() {
    assert_eq!("latest".parse(), Ok(BlockChoice::Latest));
    assert_eq!("finalized".parse(), Ok(BlockChoice::Finalized));
    assert_eq!("17".parse(), Ok(BlockChoice::Number(17)));
    assert!("-1".parse::<BlockChoice>().unwrap_err().contains("a block's number"));
}
