//! Random histories: the engine is told of every change, the scan sees the market as it then is.

use common::{
    offer::{DeveloperOffer, ProviderOffer},
    state::Place,
};

use super::{follow::follow, *};
use crate::ledger::Placement;

/// Something that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Happens {
    AddSupply(Box<ProviderOffer>, u64),
    RemoveSupply(usize),
    AddDemand(Box<DeveloperOffer>, u64),
    RemoveDemand(usize),
    Free(u8, u64),
    Used(usize, Resources),
    Held(usize, bool),
    Hosted(usize, u8, bool),
    Placed(usize, u16, Option<u32>),
    /// A deal of a kept match ends, with or without its host being remembered.
    Ended(usize),
    Cancelled(bool, usize, bool),
    NonceFloor(u8, u64),
    Paused(bool),
    Later(u64),
    Earlier(u64),
    /// A plan is carried out.
    Kept(usize),
    /// A match that was carried out is not on the chain any more.
    Undone(usize),
    /// Back to what was so many steps ago.
    Reorganized(usize),
}

fn anything() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let size =
        || (0_u32..12, 0_u32..12).prop_map(|(cpu, gib)| Resources { milli_cpu: cpu * 250, memory_mib: gib * 512 });
    let place = || 0_u64..6;
    let amount = prop_oneof![2 => 0_u64..600, 1 => 600_u64..10_000];
    let who = || proptest::sample::select(vec![1_u8, 2, 3, 10, 11, 12, 13, 14, 15, 16]);
    prop_oneof![
        6 => (samples::any_provider_offer(), place()).prop_map(|(offer, place)| AddSupply(Box::new(offer), place)),
        2 => (0_usize..40).prop_map(RemoveSupply),
        5 => (samples::any_developer_offer(), place()).prop_map(|(offer, place)| AddDemand(Box::new(offer), place)),
        1 => (0_usize..40).prop_map(RemoveDemand),
        4 => (who(), amount).prop_map(|(who, amount)| Free(who, amount)),
        3 => (0_usize..40, size()).prop_map(|(at, size)| Used(at, size)),
        1 => (0_usize..40, any::<bool>()).prop_map(|(at, held)| Held(at, held)),
        1 => (0_usize..40, who(), any::<bool>()).prop_map(|(at, who, hosted)| Hosted(at, who, hosted)),
        1 => (0_usize..40, 0_u16..4, proptest::option::of(165_u32..175)).prop_map(|(at, live, end)| Placed(at, live, end)),
        3 => (0_usize..40).prop_map(Ended),
        1 => (any::<bool>(), 0_usize..40, any::<bool>()).prop_map(|(demand, at, yes)| Cancelled(demand, at, yes)),
        1 => (who(), 0_u64..5).prop_map(|(who, floor)| NonceFloor(who, floor)),
        1 => any::<bool>().prop_map(Paused),
        2 => (1_u64..80).prop_map(Later),
        1 => (1_u64..80).prop_map(Earlier),
        4 => (1_usize..20).prop_map(Kept),
        1 => (0_usize..40).prop_map(Undone),
        2 => (1_usize..10).prop_map(Reorganized),
    ]
}

/// The market with all offers, void ones too, and the engine that is told of it.
struct World {
    market: Snapshot,
    carried_out: Vec<(Snapshot, Match)>,
    next: usize,
    engine: Engine,
}

impl World {
    fn new(market: Snapshot) -> Self {
        let mut engine = Engine::of(&seen(&market));
        // The void ones too, which a change of the time alone can bring back.
        market.supplies.iter().for_each(|supply| engine.set_supply(supply.clone()));
        Self { next: 1_000, carried_out: Vec::new(), engine, market }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::AddSupply(offer, place) => self.add_supply(*offer, place),
            Happens::RemoveSupply(at) if !self.market.supplies.is_empty() => {
                let gone = self.market.supplies.remove(at % self.market.supplies.len());
                self.engine.remove_supply(gone.hash);
            }
            Happens::AddDemand(offer, place) => self.add_demand(*offer, place),
            Happens::RemoveDemand(at) if !self.market.demands.is_empty() => {
                let gone = self.market.demands.remove(at % self.market.demands.len());
                self.engine.remove_demand(gone.hash);
            }
            Happens::Free(who, amount) => {
                self.market.ledger.set_free(account(who), atoms(amount));
                self.engine.set_free(account(who), atoms(amount));
            }
            Happens::Used(at, used) => {
                let Some(supply) = self.market.supplies.get(at) else { return };
                self.market.ledger.set_used(supply.hash, used);
                self.engine.set_used(supply.hash, used);
            }
            Happens::Held(at, held) => {
                let Some(demand) = self.market.demands.get_mut(at) else { return };
                demand.held = held;
                self.engine.set_held(demand.hash, held);
            }
            Happens::Hosted(at, who, hosted) => self.host(at, who, hosted),
            Happens::Placed(at, live_replicas, end) => {
                let Some(demand) = self.market.demands.get(at) else { return };
                let placement = Placement { live_replicas, end_epoch: end.map(Epoch) };
                self.market.ledger.set_placement(demand.hash, placement);
                self.engine.set_placement(demand.hash, placement);
            }
            Happens::Ended(at) => self.end(at),
            Happens::Cancelled(demand, at, yes) => self.cancel(demand, at, yes),
            Happens::NonceFloor(who, floor) => {
                self.market.conditions.nonce_floors.insert(account(who), floor);
                self.engine.set_nonce_floor(account(who), floor);
            }
            Happens::Paused(paused) => {
                self.market.matching_paused = paused;
                self.engine.set_paused(paused);
            }
            Happens::Later(by) => self.set_time(self.market.conditions.time + by),
            Happens::Earlier(by) => self.set_time(self.market.conditions.time - by),
            Happens::Kept(budget) => self.carry_out(budget),
            Happens::Undone(at) => self.undo(at),
            _ => (),
        }
    }

    /// Never the same, and in no order: places are shared here, so that hashes decide.
    fn number(&self) -> usize {
        self.next * 7_919 % 10_007 + 1_000
    }

    fn add_supply(&mut self, offer: ProviderOffer, block: u64) {
        let place = Place { block, log_index: self.next as u64 % 3 };
        let supply = Supply::new(samples::hash(2, self.number()), offer, Vec::new(), place);
        self.next += 1;
        self.market.supplies.push(supply.clone());
        self.engine.set_supply(supply.clone());
        self.engine.set_supply(supply);
    }

    fn add_demand(&mut self, offer: DeveloperOffer, block: u64) {
        let place = Place { block, log_index: self.next as u64 % 3 };
        let demand =
            Demand::new(samples::hash(1, self.number()), offer, Vec::new(), place, &self.market.conditions.terms);
        self.next += 1;
        self.market.demands.push(demand.clone());
        self.engine.set_demand(demand);
    }

    fn host(&mut self, at: usize, who: u8, hosted: bool) {
        let Some(demand) = self.market.demands.get(at) else { return };
        self.market.ledger.set_host(demand.hash, account(who), hosted);
        self.engine.set_hosted(demand.hash, account(who), hosted);
    }

    fn end(&mut self, at: usize) {
        if self.carried_out.is_empty() {
            return;
        }
        let (_, ended) = self.carried_out.remove(at % self.carried_out.len());
        let Some(size) = self.engine.demand(ended.demand).map(|demand| demand.offer.size) else { return };
        let ledger = &mut self.market.ledger;
        for fill in &ended.fills {
            let used = ledger.used(fill.supply).saturating_sub(size);
            let free = ledger.free(fill.provider).checked_add(fill.cost.bond).unwrap();
            let mut placement = ledger.placement(ended.demand);
            placement.live_replicas = placement.live_replicas.saturating_sub(1);
            ledger.set_used(fill.supply, used);
            ledger.set_free(fill.provider, free);
            ledger.set_placement(ended.demand, placement);
            self.engine.set_used(fill.supply, used);
            self.engine.set_free(fill.provider, free);
            self.engine.set_placement(ended.demand, placement);
        }
    }

    fn cancel(&mut self, demand: bool, at: usize, yes: bool) {
        let offer = if demand {
            self.market.demands.get(at).map(|demand| (demand.offer.developer, demand.hash))
        } else {
            self.market.supplies.get(at).map(|supply| (supply.offer.provider, supply.hash))
        };
        let Some((owner, hash)) = offer else { return };
        let cancelled = &mut self.market.conditions.cancelled;
        let _changed = if yes { cancelled.insert((owner, hash)) } else { cancelled.remove(&(owner, hash)) };
        self.engine.set_cancelled(owner, hash, yes);
    }

    fn set_time(&mut self, time: u64) {
        let epoch = self.market.conditions.terms.schedule.epoch_at(time);
        (self.market.conditions.time, self.market.conditions.epoch) = (time, epoch);
        self.engine.set_time(time, epoch);
    }

    fn carry_out(&mut self, budget: usize) {
        let now = seen(&self.market);
        let plan = self.engine.plan(budget);
        self.engine.keep();
        let scanned = scan::plan(&now, budget);
        assert_eq!(answer(&plan), super::scanned(&now, budget));
        self.market.ledger = scanned.ledger;
        self.carried_out.extend(plan.matches.into_iter().map(|found| (now.clone(), found)));
    }

    fn undo(&mut self, at: usize) {
        if self.carried_out.is_empty() {
            return;
        }
        let (_, undone) = self.carried_out.remove(at % self.carried_out.len());
        let known = |hash| self.market.supplies.iter().any(|supply| supply.hash == hash);
        if !undone.fills.iter().all(|fill| known(fill.supply)) {
            return;
        }
        let Some(demand) = self.market.demands.iter().find(|demand| demand.hash == undone.demand).cloned() else {
            return;
        };
        self.engine.undo(&undone);
        let ledger = &mut self.market.ledger;
        let mut placement = ledger.placement(demand.hash);
        placement.live_replicas = placement.live_replicas.saturating_sub(u16::try_from(undone.fills.len()).unwrap());
        if undone.begins {
            placement.end_epoch = None;
        }
        ledger.set_placement(demand.hash, placement);
        for fill in undone.fills.iter() {
            ledger.set_used(fill.supply, ledger.used(fill.supply).saturating_sub(demand.offer.size));
            ledger.deposit(fill.provider, fill.cost.bond);
            ledger.deposit(demand.offer.developer, fill.cost.lock);
            ledger.set_host(demand.hash, fill.provider, false);
        }
    }
}

/// The market as snapshots have it: void supplies left out, everything in order.
fn seen(market: &Snapshot) -> Snapshot {
    let mut seen = market.clone();
    seen.supplies.retain(|supply| feasible::supply_is_void(&market.conditions, supply).is_none());
    seen.supplies.sort_by_key(|supply| (supply.place, supply.hash));
    seen.demands.sort_by_key(|demand| (demand.place, demand.hash));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn after_every_change_the_engine_plans_as_the_scan_does(
        market in samples::any_market(),
        history in proptest::collection::vec((anything(), 0_u8..4, 1_usize..10), 1..60),
    ) {
        let mut world = World::new(market);
        for (what, look, budget) in history {
            world.happen(what);
            // Several changes between two plans are another matter than one.
            let now = seen(&world.market);
            match look {
                0 => (),
                1 => prop_assert_eq!(planned(&mut world.engine, budget), scanned(&now, budget)),
                _ => prop_assert_eq!(planned(&mut world.engine, usize::MAX), scanned(&now, usize::MAX)),
            }
        }
        let now = seen(&world.market);
        let whole = scanned(&now, usize::MAX);
        prop_assert_eq!(&planned(&mut world.engine, usize::MAX), &whole);
        prop_assert_eq!(&planned(&mut Engine::of(&now), usize::MAX), &whole);
    }

    #[test]
    fn snapshots_are_followed_forth_and_back(
        market in samples::any_market(),
        history in proptest::collection::vec((anything(), 0_u8..3, 1_usize..10), 1..50),
    ) {
        let mut world = World::new(market);
        let mut follower = Engine::of(&seen(&world.market));
        let (mut stands_at, mut past) = (seen(&world.market), vec![world.market.clone()]);
        for (what, look, budget) in history {
            if let Happens::Reorganized(by) = what {
                let back = past.len().saturating_sub(by + 1);
                past.truncate(back + 1);
                world = World { next: world.next, ..World::new(past[back].clone()) };
            } else {
                world.happen(what);
                past.push(world.market.clone());
            }
            if look == 0 {
                continue;
            }
            let now = seen(&world.market);
            follow(&mut follower, &stands_at, &now);
            // The plan is left standing: the next snapshot takes it back.
            let budget = if look == 1 { budget } else { usize::MAX };
            prop_assert_eq!(answer(&follower.plan(budget)), scanned(&now, budget));
            stands_at = now;
        }
    }

    #[test]
    fn any_market_becomes_any_other(first in samples::any_market(), second in samples::any_market()) {
        let mut engine = Engine::of(&first);
        let there = scanned(&first, usize::MAX);
        prop_assert_eq!(&answer(&engine.plan(usize::MAX)), &there);
        follow(&mut engine, &first, &second);
        prop_assert_eq!(answer(&engine.plan(3)), scanned(&second, 3));
        follow(&mut engine, &second, &first);
        prop_assert_eq!(&answer(&engine.plan(usize::MAX)), &there);
    }
}
