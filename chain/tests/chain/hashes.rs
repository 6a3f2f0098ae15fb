//! What Rust and Solidity compute of an offer is the same: hashes, asks, deal ids.
//!
//! Each property asks the contract about hundreds of random values in a few requests: `multicall` over its own views.

use std::fmt::Debug;

use alloy::{
    primitives::{Address as Account, Bytes, U256},
    sol_types::{SolCall, SolValue},
};
use chain::{calls, deal_id, testing::TestMarket};
use common::{
    ids::{Address, DealId, OfferHash},
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
};
use contracts::Market;
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;

use crate::offers::{any_address, any_atoms, any_developer_offer, any_provider_offer, any_resources, provider_offer};

const SAMPLES: usize = 300;

/// Random values; the seed is fixed, so that a failure repeats.
fn samples<T: Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let all = vec(strategy, SAMPLES);
    all.new_tree(&mut TestRunner::deterministic()).unwrap().current()
}

/// Answers of many calls of the market's views.
async fn ask(market: &TestMarket, requests: Vec<Vec<u8>>) -> Vec<[u8; 32]> {
    let mut answers = Vec::new();
    for part in requests.chunks(100) {
        let inner =
            part.iter().map(|data| calls::Call { to: market.market, data: data.clone(), label: "view" }).collect();
        let call = calls::multicall(market.market, inner);
        let request = json!([{ "to": call.to, "data": Bytes::from(call.data), "gas": "0x3b9aca00" }, "latest"]);
        let answer: Bytes = serde_json::from_value(market.anvil.call("eth_call", request).await).unwrap();
        let results = Market::multicallCall::abi_decode_returns(&answer).unwrap();
        answers.extend(results.iter().map(|result| <[u8; 32]>::try_from(result.as_ref()).unwrap()));
    }
    assert_eq!(answers.len(), SAMPLES);
    answers
}

/// The call of `original` with its arguments replaced: every offer goes through the crate's own encoder.
fn with_selector(selector: [u8; 4], call: &calls::Call) -> Vec<u8> {
    [&selector[..], &call.data[4..]].concat()
}

#[tokio::test]
async fn offers_have_the_hash_that_the_contract_gives_them() {
    let market = TestMarket::start().await;
    let domain = market.reader.domain();

    let offers: Vec<ProviderOffer> = samples(any_provider_offer());
    let selector = Market::hashProviderOfferCall::SELECTOR;
    let requests =
        offers.iter().map(|offer| with_selector(selector, &calls::post_provider_offer(market.market, offer)));
    let hashes = ask(&market, requests.collect()).await;
    for (offer, hash) in offers.iter().zip(hashes) {
        assert_eq!(domain.provider_offer_hash(offer), OfferHash(hash), "{offer:?}");
    }

    let offers: Vec<DeveloperOffer> = samples(any_developer_offer());
    let selector = Market::hashDeveloperOfferCall::SELECTOR;
    let requests =
        offers.iter().map(|offer| with_selector(selector, &calls::post_developer_offer(market.market, offer)));
    let hashes = ask(&market, requests.collect()).await;
    for (offer, hash) in offers.iter().zip(hashes) {
        assert_eq!(domain.developer_offer_hash(offer), OfferHash(hash), "{offer:?}");
    }
}

#[tokio::test]
async fn deals_have_the_id_that_the_contract_gives_them() {
    let market = TestMarket::start().await;
    let pairs: Vec<([u8; 32], Address)> = samples((any::<[u8; 32]>(), any_address()));
    let requests = pairs.iter().map(|(offer, provider)| {
        Market::dealIdOfCall { offerHash: offer.into(), provider: Account::from(provider.0) }.abi_encode()
    });
    for ((offer, provider), id) in pairs.iter().zip(ask(&market, requests.collect()).await) {
        assert_eq!(deal_id(OfferHash(*offer), *provider), DealId(id));
    }
}

#[tokio::test]
async fn asks_are_what_the_contract_asks() {
    let market = TestMarket::start().await;
    let prices =
        (any_atoms(), any_atoms()).prop_map(|(per_vcpu_epoch, per_gib_epoch)| Prices { per_vcpu_epoch, per_gib_epoch });
    let demands: Vec<(Prices, Resources)> = samples((prices, any_resources()));
    let requests = demands.iter().map(|(prices, size)| {
        let offer = ProviderOffer { prices: *prices, ..provider_offer(Address([1; 20])) };
        let posted = calls::post_provider_offer(market.market, &offer);
        let offer = Market::postProviderOfferCall::abi_decode(&posted.data).unwrap().offer;
        Market::askOfCall { offer, milliCpu: size.milli_cpu, memoryMib: size.memory_mib }.abi_encode()
    });
    let mut payable = 0;
    for ((prices, size), ask) in demands.iter().zip(ask(&market, requests.collect()).await) {
        let ask = U256::abi_decode(&ask).unwrap();
        match prices.ask(*size) {
            Ok(atoms) => {
                assert_eq!(ask, U256::from(atoms.get()));
                payable += 1;
            }
            Err(_) => assert!(ask > U256::from(i64::MAX), "{prices:?} {size:?}: {ask}"),
        }
    }
    // Random 32-bit sizes at random 63-bit prices mostly exceed the limit: both sides must have been seen.
    assert!((0..SAMPLES).contains(&payable));
}
