//! Small, crowded markets for tests: few accounts, places and sizes, so that every check is often the one that decides.

#![expect(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "part of tests")]

use std::collections::{BTreeMap, BTreeSet};

use common::{
    epoch::{Epoch, EpochSchedule},
    feature::FeatureSet,
    ids::{Address, Digest, OfferHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    region::Region,
    resources::{Prices, Resources},
    state::Place,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    ledger::Ledger,
    snapshot::{Conditions, Demand, Snapshot, Supply},
};

/// When it is, in seconds since 1970.
pub const TIME: u64 = 10_000;
const PLACES: [&str; 6] = ["eu-de-fra1", "eu-de-ber1", "eu-fr-par1", "na-us-nyc1", "na-us-sfo1", "ap-jp-tyo1"];
const PREFIXES: [&str; 6] = ["eu", "eu-de", "eu-fr-par1", "na-us", "ap", "sa"];

/// An amount.
pub fn atoms(amount: u64) -> Atoms {
    Atoms::new(amount).unwrap()
}

/// An account by its number.
pub fn account(number: u8) -> Address {
    Address([number; 20])
}

/// An offer hash: kind 1 for demands, 2 for supplies.
pub fn hash(kind: u8, number: usize) -> OfferHash {
    let mut bytes = [kind; 32];
    bytes[28..].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    OfferHash(bytes)
}

/// A region by its text.
pub fn region(text: &str) -> Region {
    text.parse().unwrap()
}

/// A market's constants.
pub fn terms() -> MarketTerms {
    MarketTerms {
        chain_id: 31_337,
        market: account(200),
        deployed_at_block: 1,
        token: account(201),
        operator: account(202),
        schedule: EpochSchedule { genesis: 1_000, length: 60 },
        attestation_window: 2,
        evict_after_missed: 3,
        bond_epochs: 2,
        min_prepaid_epochs: 2,
        grace_epochs: 3,
        notice_epochs: 2,
    }
}

/// A modest offer that any provider of [`supply`] takes.
pub fn developer_offer() -> DeveloperOffer {
    DeveloperOffer {
        developer: account(1),
        artifact: Digest([7; 32]),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 1_000, memory_mib: 1_024 },
        features: FeatureSet::EMPTY,
        regions: Vec::new(),
        min_replicas: 1,
        replicas: 1,
        max_price_per_epoch: atoms(1_000),
        epochs: 10,
        prepaid_epochs: 3,
        valid_until: TIME + 100,
        nonce: 5,
        matcher: Address::ZERO,
        matcher_fee: Atoms::ZERO,
        allow: Vec::new(),
        deny: Vec::new(),
        artifact_url: String::new(),
    }
}

/// An offer of a machine in Frankfurt that asks for its CPU alone.
pub fn provider_offer(provider: u8, price_per_vcpu: u64) -> ProviderOffer {
    ProviderOffer {
        provider: account(provider),
        agent: account(provider.wrapping_add(50)),
        payout: account(provider),
        region: region("eu-de-fra1"),
        capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
        features: FeatureSet::EMPTY,
        prices: Prices { per_vcpu_epoch: atoms(price_per_vcpu), per_gib_epoch: Atoms::ZERO },
        max_epochs: 0,
        valid_until: TIME + 100,
        nonce: 5,
        endpoint: "http://127.0.0.1:9000".to_owned(),
    }
}

/// A market in which everybody is rich; offers have the order in which they are given.
pub fn market(developers: Vec<DeveloperOffer>, providers: Vec<ProviderOffer>) -> Snapshot {
    let terms = terms();
    let mut ledger = Ledger::default();
    for number in 0..=120 {
        ledger.set_free(account(number), atoms(1_000_000));
    }
    let place = |index: usize| Place { block: 1, log_index: index as u64 };
    let demands = developers.into_iter().enumerate();
    let supplies = providers.into_iter().enumerate();
    Snapshot {
        as_of: None,
        conditions: Conditions {
            terms,
            time: TIME,
            epoch: terms.schedule.epoch_at(TIME),
            matcher: account(99),
            cancelled: BTreeSet::new(),
            nonce_floors: BTreeMap::new(),
        },
        ledger,
        demands: demands.map(|(at, offer)| Demand::new(hash(1, at), offer, Vec::new(), place(at), &terms)).collect(),
        supplies: supplies.map(|(at, offer)| Supply::new(hash(2, at), offer, Vec::new(), place(at))).collect(),
        matching_paused: false,
    }
}

fn any_features() -> impl Strategy<Value = FeatureSet> {
    select(vec![0_u64, 0, 0, 1, 2, 3, 7]).prop_map(FeatureSet)
}

fn any_size() -> impl Strategy<Value = Resources> {
    (1_u32..8, 1_u32..8).prop_map(|(cpu, gib)| Resources { milli_cpu: cpu * 250, memory_mib: gib * 512 })
}

/// Any developer offer, void ones too.
pub fn any_developer_offer() -> impl Strategy<Value = DeveloperOffer> {
    let regions = vec(select(PREFIXES.to_vec()), 0..3);
    let lists = (vec(10_u8..18, 0..6), vec(10_u8..18, 0..2), any::<bool>());
    let wants = (1_u16..4, 0_u16..3, 1_u64..400, 1_u32..12, 0_u32..6);
    let rest = (
        1_u8..4,
        0_u64..8,
        prop_oneof![8 => Just(TIME + 50), 1 => Just(TIME - 1)],
        select(vec![0_u8, 0, 0, 0, 99, 98]),
    );
    (any_size(), any_features(), regions, lists, wants, rest).prop_map(
        |(size, features, regions, (allow, deny, lists), wants, (developer, nonce, valid_until, matcher))| {
            let (min_replicas, more, max_price, epochs, prepaid) = wants;
            let addresses = |list: Vec<u8>| list.into_iter().map(account).collect::<Vec<_>>();
            DeveloperOffer {
                developer: account(developer),
                size,
                features,
                regions: regions.into_iter().map(region).collect(),
                min_replicas,
                replicas: min_replicas + more,
                max_price_per_epoch: atoms(max_price),
                epochs,
                prepaid_epochs: prepaid,
                valid_until,
                nonce,
                matcher: if matcher == 0 { Address::ZERO } else { account(matcher) },
                allow: if lists { addresses(allow) } else { Vec::new() },
                deny: addresses(deny),
                ..developer_offer()
            }
        },
    )
}

/// Any provider offer, void ones too.
pub fn any_provider_offer() -> impl Strategy<Value = ProviderOffer> {
    let place = prop_oneof![20 => select(PLACES.to_vec()), 1 => Just("eu")];
    let valid_until = prop_oneof![8 => Just(TIME + 50), 1 => Just(TIME - 1)];
    // Account 1 is a developer too.
    let provider = select(vec![10_u8, 11, 12, 13, 14, 15, 16, 1]);
    (provider, place, any_size(), any_features(), (0_u64..200, 0_u64..100), 0_u32..12, valid_until, 0_u64..8).prop_map(
        |(provider, place, size, features, (per_vcpu, per_gib), max_epochs, valid_until, nonce)| ProviderOffer {
            region: region(place),
            capacity: Resources { milli_cpu: size.milli_cpu * 2, memory_mib: size.memory_mib * 2 },
            features,
            prices: Prices { per_vcpu_epoch: atoms(per_vcpu), per_gib_epoch: atoms(per_gib) },
            max_epochs,
            valid_until,
            nonce,
            ..provider_offer(provider, 0)
        },
    )
}

/// A random market with some capacity used, some replicas placed, some offers void and some accounts poor.
pub fn any_market() -> impl Strategy<Value = Snapshot> {
    let balances = vec(prop_oneof![1 => 0_u64..300, 2 => 1_000_u64..10_000], 8);
    let placed = vec((0_usize..8, 10_u8..17, 0_u32..6), 0..4);
    let used = vec((0_usize..12, any_size()), 0..4);
    let floors = vec((1_u8..17, 0_u64..4), 0..3);
    let cancelled = vec((any::<bool>(), 0_usize..12), 0..3);
    let offers = (vec(any_developer_offer(), 1..8), vec(any_provider_offer(), 0..12));
    (offers, balances, placed, used, floors, cancelled).prop_map(
        |((developers, providers), balances, placed, used, floors, cancelled)| {
            let mut market = market(developers, providers);
            let payers = [1, 2, 3, 10, 11, 12, 13, 14];
            for (number, amount) in payers.into_iter().zip(balances) {
                market.ledger.set_free(account(number), atoms(amount));
            }
            let now = market.conditions.epoch;
            for (demand, provider, left) in placed {
                market.ledger.set_hosted(hash(1, demand), account(provider), Epoch(now.0 + left));
            }
            for (supply, size) in used {
                market.ledger.set_used(hash(2, supply), size);
            }
            market.conditions.nonce_floors = floors.into_iter().map(|(owner, floor)| (account(owner), floor)).collect();
            for (is_demand, index) in cancelled {
                let owner = if is_demand {
                    market.demands.get(index).map(|demand| (demand.offer.developer, demand.hash))
                } else {
                    market.supplies.get(index).map(|supply| (supply.offer.provider, supply.hash))
                };
                market.conditions.cancelled.extend(owner);
            }
            let conditions = market.conditions.clone();
            market.supplies.retain(|supply| crate::feasible::supply_is_void(&conditions, supply).is_none());
            market
        },
    )
}
