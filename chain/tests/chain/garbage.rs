//! What strangers may put on the chain: offers that no offer can be. They are read as closed, deals with them count like
//! all others, and money still adds up.

use alloy::{primitives::FixedBytes, sol_types::SolCall};
use chain::{calls, calls::Call, testing::TestMarket};
use common::{
    event::MarketEvent,
    offer::{DeveloperOffer, ProviderOffer},
};
use contracts::Market;

use crate::{
    offers::{atoms, developer_offer, provider_offer},
    reader::replay,
};

/// Stands for bytes that are no UTF-8, until the call is encoded.
const BROKEN_TEXT: &str = "broken-text";

fn encode(market: &TestMarket, call: &impl SolCall) -> Call {
    let mut data = call.abi_encode();
    while let Some(at) = data.windows(BROKEN_TEXT.len()).position(|window| window == BROKEN_TEXT.as_bytes()) {
        data[at..at + BROKEN_TEXT.len()].fill(0xff);
    }
    Call { to: market.market, data, label: "garbage" }
}

fn bindings_of_supply(market: &TestMarket, offer: &ProviderOffer) -> Market::ProviderOffer {
    let call = calls::post_provider_offer(market.market, offer);
    Market::postProviderOfferCall::abi_decode(&call.data).unwrap().offer
}

fn bindings_of_demand(market: &TestMarket, offer: &DeveloperOffer) -> Market::DeveloperOffer {
    let call = calls::post_developer_offer(market.market, offer);
    Market::postDeveloperOfferCall::abi_decode(&call.data).unwrap().offer
}

#[tokio::test]
async fn a_deal_between_unreadable_offers_counts() {
    let market = TestMarket::start().await;
    let (provider, developer) = (market.anvil.key(1), market.anvil.key(2));
    market.fund(&provider, atoms(100_000)).await;
    market.fund(&developer, atoms(100_000)).await;
    let supply = Market::ProviderOffer {
        region: FixedBytes(*b"eu??\x01\xfe!!"),
        endpoint: BROKEN_TEXT.to_owned(),
        ..bindings_of_supply(&market, &provider_offer(provider.address()))
    };
    let demand = Market::DeveloperOffer {
        regions: vec![FixedBytes(*b"eu??\0\0\0\0"), FixedBytes(*b"eu\0\0\0\0\0\0")],
        artifactUrl: BROKEN_TEXT.to_owned(),
        ..bindings_of_demand(&market, &developer_offer(developer.address()))
    };
    let post_supply = encode(&market, &Market::postProviderOfferCall { offer: supply.clone() });
    let posted = market.sender(1).await.send(&post_supply).await.unwrap();
    let post_demand = encode(&market, &Market::postDeveloperOfferCall { offer: demand.clone() });
    market.sender(2).await.send(&post_demand).await.unwrap();
    let matches = vec![Market::Match {
        developerOffer: demand,
        developerSignature: Default::default(),
        fills: vec![Market::Fill { offer: supply, signature: Default::default() }],
    }];
    let matched = encode(&market, &Market::matchOffersCall { matches });
    let receipt = market.deployer.send(&matched).await.unwrap();
    let [MarketEvent::DealOpened(opened)] = &receipt.events.iter().map(|placed| &placed.event).collect::<Vec<_>>()[..]
    else {
        panic!("{receipt:?}")
    };
    assert_eq!(opened.price_per_epoch, atoms(7_500));

    let state = replay(&market).await;
    // Both openings, and the supply once more when the deal was looked at.
    assert_eq!(market.reader.inexact_offers(), 3);
    let supply = &state.provider_offers[&opened.provider_offer];
    assert_eq!(supply.used.milli_cpu, 500);
    // Readable as far as it goes, and never matched again.
    assert_eq!((supply.offer.region.to_string().as_str(), supply.offer.valid_until), ("eu", 0));
    let demand = &state.developer_offers[&opened.developer_offer];
    assert_eq!(demand.offer.valid_until, 0);
    assert_eq!(demand.offer.regions, ["eu".parse().unwrap()]);
    // The receipt of whoever posted it reads the same.
    let [MarketEvent::ProviderOfferOpened { offer, .. }] =
        &posted.events.iter().map(|placed| &placed.event).collect::<Vec<_>>()[..]
    else {
        panic!("{posted:?}")
    };
    assert_eq!(**offer, supply.offer);
}

#[tokio::test]
async fn an_unknown_place_closes_an_offer_and_a_price_beyond_money_is_refused() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    let sane = bindings_of_supply(&market, &provider_offer(sender.address()));
    let dear = Market::ProviderOffer { pricePerGibEpoch: 1 << 63, nonce: 2, ..sane.clone() };
    let error = sender.send(&encode(&market, &Market::postProviderOfferCall { offer: dear })).await.unwrap_err();
    assert!(error.to_string().contains("ProviderOfferMalformed"), "{error}");
    let offers =
        [Market::ProviderOffer { region: FixedBytes(*b"\xff\xfe\xfd\xfc\0\0\0\0"), nonce: 3, ..sane.clone() }, sane];
    for offer in offers {
        sender.send(&encode(&market, &Market::postProviderOfferCall { offer })).await.unwrap();
    }
    let state = replay(&market).await;
    let mut closed: Vec<(u64, bool)> =
        state.provider_offers.values().map(|known| (known.offer.nonce, known.offer.valid_until == 0)).collect();
    closed.sort_unstable();
    assert_eq!(closed, [(1, false), (3, true)]);
}
