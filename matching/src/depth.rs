//! The depth of the market: how many replicas of a size there is room for, where, and at which asks.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    feature::FeatureSet, ids::Address, market::MarketTerms, money::Atoms, region::Region, resources::Resources,
    state::Place,
};
use serde::Serialize;

use crate::snapshot::Supply;

/// Most steps of one place.
const MAX_STEPS: usize = 10;
/// Bytes of a region that name a continent and a country.
const PREFIXES: [usize; 2] = [2, 4];

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of a replica.
    pub size: Resources,
    /// Host capabilities.
    pub features: FeatureSet,
    /// Only here.
    pub region: Option<Region>,
    /// For so many epochs.
    pub epochs: u32,
}

/// Room for replicas of a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Depth {
    /// Of a replica.
    pub size: Resources,
    /// Everywhere that was looked.
    pub total: PlaceDepth,
    /// By continent and country, in order of their names.
    pub regions: Vec<PlaceDepth>,
}

/// Room in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct PlaceDepth {
    /// The place; none where all are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Provider offers with room.
    pub offers: usize,
    /// Providers with room: an offer gets at most one replica from each.
    pub providers: usize,
    /// Replicas that there is room and bond for.
    pub replicas: u64,
    /// From the cheapest ask to the dearest, at most ten of all there are.
    pub steps: Vec<Step>,
}

/// What is to be had at or below an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// For one epoch.
    pub ask: Atoms,
    /// Providers.
    pub providers: usize,
    /// Replicas.
    pub replicas: u64,
}

/// A supply as it stands.
#[derive(Debug, Clone, Copy)]
pub struct Offered<'a> {
    /// Its terms. It is not void.
    pub supply: &'a Supply,
    /// What deals hold of it.
    pub used: Resources,
    /// Its provider's free balance.
    pub free: Atoms,
}

/// A supply with room for replicas.
#[derive(Debug)]
struct Room {
    ask: Atoms,
    place: Place,
    provider: Address,
    region: Region,
    replicas: u64,
    /// The provider's.
    free: Atoms,
}

/// Supplies with room for a size, gathered one by one, so that nobody has to keep still for long.
#[derive(Debug)]
pub struct Gathered {
    wanted: Wanted,
    rooms: Vec<Room>,
}

impl Gathered {
    /// None yet.
    pub const fn new(wanted: Wanted) -> Self {
        Self { wanted, rooms: Vec::new() }
    }

    /// Adds a supply, if there is room in it.
    pub fn add(&mut self, offered: &Offered<'_>) {
        let (wanted, offer) = (&self.wanted, &offered.supply.offer);
        let fits = offer.features.contains(wanted.features)
            && wanted.region.is_none_or(|region| region.contains(offer.region))
            && (offer.max_epochs == 0 || offer.max_epochs >= wanted.epochs);
        let free = offer.capacity.saturating_sub(offered.used);
        let of = |free: u32, size: u32| free.checked_div(size).unwrap_or(u32::MAX);
        let replicas = of(free.milli_cpu, wanted.size.milli_cpu).min(of(free.memory_mib, wanted.size.memory_mib));
        let ask = offer.ask(wanted.size).filter(|_| fits && replicas > 0);
        self.rooms.extend(ask.map(|ask| Room {
            ask,
            place: offered.supply.place,
            provider: offer.provider,
            region: offer.region,
            replicas: u64::from(replicas),
            free: offered.free,
        }));
    }

    /// The depth for the size. A provider's balance pays the bonds of its cheapest offers first; replicas that it does not
    /// pay for are not counted. Takes O(*n* log *n*) for *n* supplies with room.
    pub fn depth(mut self, terms: &MarketTerms) -> Depth {
        self.rooms.sort_unstable_by_key(|room| (room.ask, room.place));
        let mut balances: BTreeMap<Address, Atoms> = BTreeMap::new();
        let (mut total, mut places) = (Tally::default(), BTreeMap::<Region, Tally>::new());
        for room in self.rooms {
            let provider = room.provider;
            let left = balances.entry(provider).or_insert(room.free);
            let replicas = bonded(terms, room.ask, room.replicas, left);
            if replicas == 0 {
                continue;
            }
            total.add(room.ask, provider, replicas);
            for place in PREFIXES.iter().filter_map(|length| room.region.prefix(*length)) {
                places.entry(place).or_default().add(room.ask, provider, replicas);
            }
        }
        let regions = places.into_iter().map(|(place, tally)| tally.shown(Some(place))).collect();
        Depth { size: self.wanted.size, total: total.shown(self.wanted.region), regions }
    }
}

/// How many of so many replicas the balance pays the bond for, which is taken off it.
fn bonded(terms: &MarketTerms, ask: Atoms, replicas: u64, left: &mut Atoms) -> u64 {
    let Ok(bond) = terms.bond(ask) else { return 0 };
    let most = left.get().checked_div(bond.get()).unwrap_or(u64::MAX).min(replicas);
    // At most what the balance was divided into.
    if let Ok(rest) = bond.checked_mul(most).and_then(|taken| left.checked_sub(taken)) {
        *left = rest;
    }
    most
}

/// What was found in one place, from cheap to dear.
#[derive(Default)]
struct Tally {
    offers: usize,
    providers: BTreeSet<Address>,
    /// One for each ask.
    steps: Vec<Step>,
}

impl Tally {
    fn add(&mut self, ask: Atoms, provider: Address, replicas: u64) {
        self.offers = self.offers.saturating_add(1);
        self.providers.insert(provider);
        let before = self.steps.last().copied();
        let replicas = before.map_or(0, |step| step.replicas).saturating_add(replicas);
        let step = Step { ask, providers: self.providers.len(), replicas };
        match self.steps.last_mut().filter(|last| last.ask == ask) {
            Some(last) => *last = step,
            None => self.steps.push(step),
        }
    }

    fn shown(self, region: Option<Region>) -> PlaceDepth {
        PlaceDepth {
            region,
            offers: self.offers,
            providers: self.providers.len(),
            replicas: self.steps.last().map_or(0, |last| last.replicas),
            steps: thinned(self.steps),
        }
    }
}

/// The first step, the last one, and of those between as many as there is room for, at equal shares of the replicas.
fn thinned(steps: Vec<Step>) -> Vec<Step> {
    if steps.len() <= MAX_STEPS {
        return steps;
    }
    let all = steps.last().map_or(0, |last| u128::from(last.replicas));
    let parts = u128::try_from(MAX_STEPS.saturating_sub(1)).unwrap_or(1);
    let mut chosen: Vec<usize> = vec![0];
    for part in 1..=parts {
        let share = all.saturating_mul(part).div_ceil(parts);
        let at = steps.partition_point(|step| u128::from(step.replicas) < share);
        if chosen.last() != Some(&at) {
            chosen.push(at);
        }
    }
    chosen.into_iter().filter_map(|at| steps.get(at).copied()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        feasible,
        samples::{self, account, atoms, developer_offer, market, provider_offer, region},
        scan,
        snapshot::Snapshot,
    };

    const SIZE: Resources = Resources { milli_cpu: 1_000, memory_mib: 1_024 };

    fn wanted(size: Resources) -> Wanted {
        Wanted { size, features: FeatureSet::EMPTY, region: None, epochs: 1 }
    }

    fn look(market: &Snapshot, wanted: &Wanted) -> Depth {
        let mut gathered = Gathered::new(wanted.clone());
        let (ledger, offered) = (&market.ledger, market.supplies.iter().rev());
        offered.for_each(|supply| {
            let (used, free) = (ledger.used(supply.hash), ledger.free(supply.offer.provider));
            gathered.add(&Offered { supply, used, free });
        });
        gathered.depth(&market.conditions.terms)
    }

    #[test]
    fn room_is_counted_by_place_and_ask() {
        let mut paris = provider_offer(11, 50);
        paris.region = region("eu-fr-par1");
        let mut nyc = provider_offer(12, 70);
        nyc.region = region("na-us-nyc1");
        nyc.capacity.memory_mib = 2_048;
        let depth = look(&market(vec![], vec![provider_offer(10, 70), paris, nyc]), &wanted(SIZE));
        let step = |ask, providers, replicas| Step { ask: atoms(ask), providers, replicas };
        assert_eq!(depth.total.steps, [step(50, 1, 4), step(70, 3, 10)]);
        assert_eq!((depth.total.offers, depth.total.providers, depth.total.replicas), (3, 3, 10));
        let places: Vec<_> = depth
            .regions
            .iter()
            .map(|place| (place.region.map(|region| region.to_string()).unwrap_or_default(), place.replicas))
            .collect();
        let place = |name: &str, replicas| (name.to_owned(), replicas);
        assert_eq!(places, [place("eu", 8), place("eu-de", 4), place("eu-fr", 4), place("na", 2), place("na-us", 2)]);
    }

    #[test]
    fn bonds_are_paid_from_the_cheapest_on() {
        let mut market = market(vec![], vec![provider_offer(10, 100), provider_offer(10, 50)]);
        // Two epochs are bonded: five replicas at 50, of which four fit, and none at 100.
        market.ledger.set_free(account(10), atoms(599));
        let depth = look(&market, &wanted(SIZE));
        assert_eq!((depth.total.offers, depth.total.replicas), (1, 4));
        market.ledger.set_free(account(10), atoms(600));
        assert_eq!(look(&market, &wanted(SIZE)).total.replicas, 5);
    }

    #[test]
    fn many_asks_are_shown_in_a_few_steps() {
        let providers: Vec<_> = (0..100).map(|number| provider_offer(number, 50 + u64::from(number))).collect();
        let depth = look(&market(vec![], providers), &wanted(SIZE));
        assert_eq!(depth.total.steps.len(), MAX_STEPS);
        assert_eq!(depth.total.steps.first().unwrap().ask, atoms(50));
        let last = depth.total.steps.last().unwrap();
        assert_eq!((last.ask, last.providers, last.replicas), (atoms(149), 100, 400));
        assert!(depth.total.steps.is_sorted_by_key(|step| (step.ask, step.replicas)));
    }

    proptest! {
        #[test]
        fn an_offer_finds_as_many_hosts_as_there_are_providers(market in samples::any_market(), limit in 1_u64..300) {
            let mut offer = developer_offer();
            (offer.size, offer.epochs, offer.replicas) = (SIZE, 1, 100);
            (offer.developer, offer.max_price_per_epoch) = (account(99), atoms(limit));
            let place = common::state::Place { block: 9, log_index: 0 };
            let demand = crate::snapshot::Demand::new(
                samples::hash(9, 9), offer, Vec::new(), place, &market.conditions.terms,
            );
            let hosts = scan::place(&market.conditions, &market.ledger, &demand, &market.supplies);
            prop_assert!(feasible::demand_is_blocked(&market.conditions, &market.ledger, &demand).is_none());
            let depth = look(&market, &wanted(SIZE));
            let within = depth.total.steps.iter().rev().find(|step| step.ask <= atoms(limit));
            if depth.total.steps.len() < MAX_STEPS {
                prop_assert_eq!(within.map_or(0, |step| step.providers), hosts.len());
            }
        }
    }
}
