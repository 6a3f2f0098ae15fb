//! Reading logs from nodes with limits, and while the chain changes.

use std::sync::atomic::{AtomicBool, Ordering};

use chain::{ChainError, MarketReader, Rpc, calls, testing::TestMarket};
use common::offer::ProviderOffer;
use serde_json::{Value, json};

use crate::{
    offers::provider_offer,
    proxy::{Proxy, Verdict},
};

async fn post_offers(market: &TestMarket, offers: u64) {
    let sender = market.sender(1).await;
    for nonce in 0..offers {
        let offer = ProviderOffer { nonce, ..provider_offer(sender.address()) };
        sender.send(&calls::post_provider_offer(market.market, &offer)).await.unwrap();
        market.anvil.mine(7).await;
    }
}

async fn reader_through(proxy: &Proxy, market: &TestMarket) -> MarketReader {
    let rpc = Rpc::new(std::slice::from_ref(&proxy.url)).unwrap();
    MarketReader::connect(rpc, market.market, Some(0)).await.unwrap()
}

fn blocks_asked(request: &Value) -> Option<u64> {
    if request["method"] != "eth_getLogs" {
        return None;
    }
    let number = |field: &str| {
        let text = request["params"][0][field].as_str().unwrap();
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    };
    Some(number("toBlock") - number("fromBlock") + 1)
}

#[tokio::test]
async fn a_node_with_a_block_limit_is_asked_in_parts() {
    let market = TestMarket::start().await;
    post_offers(&market, 6).await;
    let head = market.reader.rpc().head().await.unwrap().number;
    let whole = market.reader.blocks(0, head).await.unwrap();
    for limit in [1, 5, 1_000] {
        let proxy = Proxy::start(market.anvil.url(), move |request| match blocks_asked(request) {
            // The code is the one of a rate limit, as with some providers: the words decide.
            Some(blocks) if blocks > limit => Verdict::Refuse(-32005, "query returned more than 10000 results"),
            _ => Verdict::Forward,
        });
        let proxy = proxy.await;
        let reader = reader_through(&proxy, &market).await;
        let before = proxy.requests();
        assert_eq!(reader.blocks(0, head).await.unwrap(), whole, "limit {limit}");
        // Halving, some growing in vain, and the headers: never more than a few requests for each part.
        let parts = head / limit + 1;
        assert!(proxy.requests() - before <= 30 + 3 * parts, "limit {limit}");
    }
}

#[tokio::test]
async fn a_block_that_the_node_never_returns_is_an_error() {
    let market = TestMarket::start().await;
    let refuse = |request: &Value| match blocks_asked(request) {
        Some(_) => Verdict::Refuse(-32602, "Log response size exceeded"),
        None => Verdict::Forward,
    };
    let proxy = Proxy::start(market.anvil.url(), refuse).await;
    market.anvil.mine(4).await;
    let error = reader_through(&proxy, &market).await.blocks(2, 4).await.unwrap_err();
    assert!(matches!(error, ChainError::TooManyLogs { block: 2 }), "{error}");
}

#[tokio::test]
async fn a_reorg_between_the_requests_is_noticed() {
    let market = TestMarket::start().await;
    post_offers(&market, 2).await;
    let head = market.reader.rpc().head().await.unwrap().number;
    // Before the logs are read, the last eight blocks (with the second offer) are replaced by empty ones.
    let reorged = AtomicBool::new(false);
    let reorg = json!({ "jsonrpc": "2.0", "id": 1, "method": "anvil_reorg", "params": [8, []] });
    let judge = move |request: &Value| {
        let now = request["method"] == "eth_getLogs" && !reorged.swap(true, Ordering::SeqCst);
        if now { Verdict::After(reorg.clone()) } else { Verdict::Forward }
    };
    let proxy = Proxy::start(market.anvil.url(), judge).await;
    let reader = reader_through(&proxy, &market).await;
    // Without a check this would be the new logs, one offer short, under the new hash: nothing would look wrong.
    let error = reader.blocks(0, head).await.unwrap_err();
    assert!(matches!(error, ChainError::BlockGone { .. }), "{error}");
    assert!(error.is_transient());
    let blocks = reader.blocks(0, head).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.events.len()).collect::<Vec<_>>(), [1, 0]);
}
