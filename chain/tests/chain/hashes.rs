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
    agreement::{ArtifactUpdate, DealChange, Receipt},
    deal::DealRef,
    epoch::Epoch,
    ids::{Address, DealId, Digest, OfferHash},
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

fn any_change() -> impl Strategy<Value = DealChange> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>());
    (any::<[u8; 32]>(), numbers, any_resources(), any_atoms()).prop_map(|(deal, numbers, size, price_per_epoch)| {
        let (sequence, end, valid_until) = numbers;
        DealChange { deal_id: DealId(deal), sequence, end_epoch: Epoch(end), size, price_per_epoch, valid_until }
    })
}

fn any_update() -> impl Strategy<Value = ArtifactUpdate> {
    let words = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
    (words, any::<u32>(), any::<u64>(), ".{0,80}").prop_map(|(words, version, valid_until, artifact_url)| {
        let (offer, artifact, manifest) = (OfferHash(words.0), Digest(words.1), Digest(words.2));
        ArtifactUpdate { developer_offer: offer, version, artifact, manifest, valid_until, artifact_url }
    })
}

fn any_receipt() -> impl Strategy<Value = Receipt> {
    (any::<[u8; 32]>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(deal, sequence, content)| Receipt {
        deal_id: DealId(deal),
        sequence,
        content: Digest(content),
    })
}

#[tokio::test]
async fn what_else_is_signed_has_the_hash_that_the_contract_gives_it() {
    let market = TestMarket::start().await;
    let domain = market.reader.domain();
    let deal = DealRef { developer_offer: OfferHash::ZERO, provider: Address::ZERO, provider_offer: OfferHash::ZERO };
    let offer = provider_offer(Address([1; 20]));

    // Each goes through the crate's own encoder of the call that carries it.
    let changes = samples(any_change());
    let requests = changes.iter().map(|change| {
        let sent = calls::change_deal(market.market, &deal, change, &offer, &[], &[]);
        let change = Market::changeDealCall::abi_decode(&sent.data).unwrap().change;
        Market::hashDealChangeCall { change }.abi_encode()
    });
    for (change, hash) in changes.iter().zip(ask(&market, requests.collect()).await) {
        assert_eq!(domain.deal_change_hash(change), hash, "{change:?}");
    }

    let updates = samples(any_update());
    let requests = updates.iter().map(|update| {
        let sent = calls::update_artifact(market.market, update, &[]);
        let update = Market::updateArtifactCall::abi_decode(&sent.data).unwrap().update;
        Market::hashArtifactUpdateCall { update }.abi_encode()
    });
    for (update, hash) in updates.iter().zip(ask(&market, requests.collect()).await) {
        assert_eq!(domain.artifact_update_hash(update), hash, "{update:?}");
    }

    let receipts = samples(any_receipt());
    let requests = receipts.iter().map(|receipt| {
        let sent = calls::slash(market.market, &deal, (receipt, &[]), (receipt, &[]));
        let receipt = Market::slashCall::abi_decode(&sent.data).unwrap().second;
        Market::hashReceiptCall { receipt }.abi_encode()
    });
    for (receipt, hash) in receipts.iter().zip(ask(&market, requests.collect()).await) {
        assert_eq!(domain.receipt_hash(receipt), hash, "{receipt:?}");
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
