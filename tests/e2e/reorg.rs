//! The chain takes a match back; afterwards the database says what the chain says.

use common::{ids::Address, money::Atoms};
use serde_json::{Value, json};

use crate::market::{UpMarket, eventually, sample_worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_reorg_across_a_match_leaves_database_and_chain_in_agreement() {
    let market = UpMarket::start(60).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    market.deposit("50").await;
    let before_match = market.reader.rpc().head().await.unwrap().number;
    let hash = market.submit(&market.offer(&worker, 2)).await;
    let deals = market.matched(hash, 2).await;
    // The indexer has seen the match as well.
    eventually("the match in the database", async || {
        let (_, answer) = market.get(&format!("/v1/deals/{}", deals[0].id)).await;
        (answer["id"] == deals[0].id.to_string()).then_some(())
    })
    .await;

    // Everything after the deposit is replaced by empty blocks: the match is gone.
    let head = market.reader.rpc().head().await.unwrap().number;
    let old = market.reader.rpc().block(head).await.unwrap().unwrap();
    market.node("anvil_reorg", json!([head - before_match, []])).await;
    let new = market.reader.rpc().block(head).await.unwrap().unwrap();
    assert_ne!(old.hash, new.hash, "anvil did not reorganise");

    // The matcher makes the match again, and then the database and the contract agree in everything.
    let deals = market.matched(hash, 2).await;
    let expected: Vec<String> = deals.iter().map(|deal| deal.id.to_string()).collect();
    eventually("the database to agree with the chain", async || {
        let (_, status) = market.get("/v1/status").await;
        let as_of = &status["asOfBlock"];
        let block = market.reader.rpc().block(as_of["number"].as_u64()?).await.unwrap()?;
        let canonical = as_of["hash"] == block.hash.to_string();
        let (_, live) = market.get("/v1/deals?limit=500").await;
        let ids: Vec<&str> = live["items"].as_array()?.iter().filter_map(|deal| deal["id"].as_str()).collect();
        let same = expected.iter().all(|id| ids.contains(&id.as_str())) && ids.len() == expected.len();
        (canonical && same).then_some(())
    })
    .await;
    let accounts = market.summary["providers"].as_array().unwrap().iter().map(|provider| &provider["provider"]);
    let accounts = accounts.map(|account| account.as_str().unwrap().parse::<Address>().unwrap());
    for account in accounts.chain([market.developer().address()]) {
        let by_chain = market.reader.free_balance(account).await.unwrap();
        let (_, answer) = market.get(&format!("/v1/balances/{account}")).await;
        assert_eq!(free(&answer), by_chain, "{answer}");
    }
}

fn free(answer: &Value) -> Atoms {
    let amount = answer["free"].as_str().unwrap_or_else(|| panic!("{answer} has no free balance"));
    Atoms::new(amount.parse().unwrap()).unwrap()
}
