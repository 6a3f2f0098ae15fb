//! Facts about the market. Each says how something is now, and may be told again without harm.
//!
//! While matches of a plan stand, facts include them: who tells facts of the chain first takes the plan back.

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
    money::Atoms,
    resources::Resources,
};

use super::{
    Engine, Placed,
    open_demands::Wish,
    search::ask,
    supplies::{Entry, NO_ASK},
    tables::{Account, DemandSlot, Standing, SupplySlot, delist, enlist},
};
use crate::{
    feasible,
    ledger::Placement,
    snapshot::{Demand, Supply},
};

impl Engine {
    /// There is this supply, with these terms. Void ones are known, but never matched.
    pub fn set_supply(&mut self, supply: Supply) {
        let hash = supply.hash;
        if self.supply(hash).is_some_and(|known| *known == supply) {
            return;
        }
        self.remove_supply(hash);
        let used = self.unclaimed.remove(&hash).unwrap_or_default();
        let provider = self.account(supply.offer.provider);
        let (valid_until, prices) = (supply.offer.valid_until, supply.offer.prices);
        let whole = ask(prices.per_vcpu_epoch.get(), prices.per_gib_epoch.get(), supply.offer.capacity);
        let number = self.supplies.insert(SupplySlot { terms: Box::new(supply), used, provider, at: 0, active: false });
        if let Some(account) = self.accounts.get_mut(provider) {
            account.highest_ask = account.highest_ask.max(whole);
            let at = enlist(&mut account.supplies, number);
            if let Some(slot) = self.supplies.get_mut(number) {
                slot.at = at;
            }
        }
        self.supply_ends.insert((valid_until, number));
        self.review_supply(number);
    }

    /// There is no such supply.
    pub fn remove_supply(&mut self, hash: OfferHash) {
        let Some(number) = self.supplies.find(hash) else { return };
        self.deactivate(number);
        let Some(slot) = self.supplies.remove(number) else { return };
        self.supply_ends.remove(&(slot.terms.offer.valid_until, number));
        if slot.used != Resources::default() {
            self.unclaimed.insert(hash, slot.used);
        }
        let moved = self.accounts.get_mut(slot.provider).and_then(|account| delist(&mut account.supplies, slot.at));
        if let Some(moved) = moved.and_then(|moved| self.supplies.get_mut(moved)) {
            moved.at = slot.at;
        }
    }

    /// Deals hold this much of the provider offer.
    pub fn set_used(&mut self, provider_offer: OfferHash, used: Resources) {
        match self.supplies.find(provider_offer) {
            Some(number) => self.set_used_of(number, used),
            None if used == Resources::default() => drop(self.unclaimed.remove(&provider_offer)),
            None => drop(self.unclaimed.insert(provider_offer, used)),
        }
    }

    /// The account has this free balance.
    pub fn set_free(&mut self, account: Address, free: Atoms) {
        let number = self.account(account);
        self.set_balance(number, free);
    }

    /// There is this demand, with these terms.
    pub fn set_demand(&mut self, demand: Demand) {
        let known = self.demands.find(demand.hash);
        if let Some(terms) = known.and_then(|number| self.demands.get(number)?.terms.as_deref()) {
            if *terms == demand {
                return;
            }
            self.remove_demand(demand.hash);
        }
        let developer = self.account(demand.offer.developer);
        let number = self.demands.find_or_insert(demand.hash, || DemandSlot::unknown(demand.hash));
        self.demand_ends.insert((demand.offer.valid_until, number));
        let at = self.accounts.get_mut(developer).map(|account| enlist(&mut account.demands, number));
        if let Some(slot) = self.demands.get_mut(number) {
            (slot.developer, slot.at, slot.terms) = (developer, at.unwrap_or_default(), Some(Box::new(demand)));
        }
        self.review_demand(number, true);
    }

    /// There is no such demand.
    pub fn remove_demand(&mut self, hash: OfferHash) {
        let Some(number) = self.demands.find(hash) else { return };
        self.close(number);
        let Some(slot) = self.demands.get_mut(number) else { return };
        let (developer, at) = (slot.developer, slot.at);
        let Some(terms) = slot.terms.take() else { return };
        self.demand_ends.remove(&(terms.offer.valid_until, number));
        let moved = self.accounts.get_mut(developer).and_then(|account| delist(&mut account.demands, at));
        if let Some(moved) = moved.and_then(|moved| self.demands.get_mut(moved)) {
            moved.at = at;
        }
        self.forget_empty(number);
    }

    /// The demand is to be left alone, or not any longer.
    pub fn set_held(&mut self, demand: OfferHash, held: bool) {
        let Some(number) = self.demands.find(demand) else { return };
        let Some(terms) = self.demands.get_mut(number).and_then(|slot| slot.terms.as_mut()) else { return };
        if terms.held != held {
            terms.held = held;
            self.review_demand(number, false);
        }
    }

    /// So much of the developer offer is placed.
    pub fn set_placement(&mut self, developer_offer: OfferHash, placement: Placement) {
        let number = self.demands.find_or_insert(developer_offer, || DemandSlot::unknown(developer_offer));
        self.set_placement_of(number, placement);
        self.review_demand(number, true);
        self.forget_empty(number);
    }

    /// The provider hosts or has hosted a replica of the developer offer, or never has.
    pub fn set_hosted(&mut self, developer_offer: OfferHash, provider: Address, hosted: bool) {
        let provider = self.account(provider);
        let number = self.demands.find_or_insert(developer_offer, || DemandSlot::unknown(developer_offer));
        if hosted {
            self.add_host(number, provider);
        } else {
            self.remove_host(number, provider);
        }
        self.review_demand(number, true);
        self.forget_empty(number);
    }

    /// The owner voided the offer, or, when a block is taken back, has not.
    pub fn set_cancelled(&mut self, owner: Address, offer: OfferHash, cancelled: bool) {
        if cancelled {
            self.conditions.cancelled.insert((owner, offer));
        } else {
            self.conditions.cancelled.remove(&(owner, offer));
        }
        if let Some(number) = self.supplies.find(offer) {
            self.review_supply(number);
        }
        if let Some(number) = self.demands.find(offer) {
            self.review_demand(number, false);
        }
    }

    /// The owner's offers with a smaller nonce are void.
    pub fn set_nonce_floor(&mut self, owner: Address, floor: u64) {
        if self.conditions.nonce_floor(owner) == floor {
            return;
        }
        if floor == 0 {
            self.conditions.nonce_floors.remove(&owner);
        } else {
            self.conditions.nonce_floors.insert(owner, floor);
        }
        let Some(account) = self.accounts.find(owner).and_then(|number| self.accounts.get(number)) else { return };
        let (supplies, demands) = (account.supplies.clone(), account.demands.clone());
        supplies.into_iter().for_each(|number| self.review_supply(number));
        demands.into_iter().for_each(|number| self.review_demand(number, false));
    }

    /// New matches are stopped, or not.
    pub const fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// It is this second, in this epoch; earlier than before when a block is taken back.
    pub fn set_time(&mut self, time: u64, epoch: Epoch) {
        let (before, begun) = (self.conditions.time, self.conditions.start_epoch());
        (self.conditions.time, self.conditions.epoch) = (time, epoch);
        // Valid before and void now, or the other way round.
        let turned = (before.min(time), 0)..(before.max(time), 0);
        let supplies: Vec<u32> = self.supply_ends.range(turned.clone()).map(|(_, number)| *number).collect();
        let demands: Vec<u32> = self.demand_ends.range(turned).map(|(_, number)| *number).collect();
        supplies.into_iter().for_each(|number| self.review_supply(number));
        demands.into_iter().for_each(|number| self.review_demand(number, false));
        let start = self.conditions.start_epoch();
        if start != begun {
            let running: Vec<u32> = self.terms.range((start.min(begun), 0)..).map(|(_, number)| *number).collect();
            running.into_iter().for_each(|number| self.review_demand(number, true));
        }
    }

    /// The number of an account.
    pub(super) fn account(&mut self, address: Address) -> u32 {
        let number = self.accounts.find_or_insert(address, || Account {
            address,
            least_affordable: NO_ASK,
            ..Account::default()
        });
        if number as usize == self.affordable.len() {
            let nothing = self.highest_affordable(Atoms::ZERO);
            self.affordable.push(nothing);
        }
        number
    }

    /// The highest ask whose bond this much pays.
    fn highest_affordable(&self, free: Atoms) -> u64 {
        free.get().checked_div(u64::from(self.conditions.terms.bond_epochs)).unwrap_or(NO_ASK)
    }

    pub(super) fn set_balance(&mut self, number: u32, free: Atoms) {
        let (before, after) = (self.affordable_by(number), self.highest_affordable(free));
        let Some(account) = self.accounts.get_mut(number) else { return };
        let (rises, changes) = (free > account.free, free != account.free);
        account.free = free;
        let (highest_ask, hosts) = (account.highest_ask, !account.supplies.is_empty());
        if let Some(affordable) = self.affordable.get_mut(number as usize) {
            *affordable = after;
        }
        if !changes {
            return;
        }
        if hosts && after > before && before < highest_ask {
            self.afford_more(number);
        }
        let Some(account) = self.accounts.get(number).filter(|account| !account.demands.is_empty()) else { return };
        for demand in account.demands.clone() {
            if hosts || (rises && self.demands.get(demand).is_some_and(|slot| slot.lacks_funds)) {
                self.wake(demand);
            }
        }
    }

    /// The provider can pay larger bonds: its supplies call, and the index must not say less than it affords.
    fn afford_more(&mut self, number: u32) {
        let stated = self.stated_affordable(number);
        let Some(account) = self.accounts.get_mut(number) else { return };
        let is_understated = stated > account.least_affordable;
        account.least_affordable = account.least_affordable.max(stated);
        for supply in account.supplies.clone() {
            let Some(slot) = self.supplies.get(supply).filter(|slot| slot.active) else { continue };
            if is_understated {
                let place = slot.entry(supply);
                self.index.change(&place, |entry| entry.affordable = entry.affordable.max(stated));
            }
            self.call(supply);
        }
    }

    /// What the index says of the asks that a provider affords: no limit where its balance is enough for any of them, so
    /// that the rest of its balance may change without a word.
    fn stated_affordable(&self, account: u32) -> u64 {
        let (affordable, slot) = (self.affordable_by(account), self.accounts.get(account));
        if slot.is_some_and(|account| affordable >= account.highest_ask) { NO_ASK } else { affordable }
    }

    /// Says the truth of the supplies that, as the last search found, promise more than their providers have.
    pub(super) fn restate(&mut self) {
        let mut overstated = std::mem::take(&mut self.search.overstated);
        for supply in overstated.drain(..) {
            let Some(slot) = self.supplies.get(supply) else { continue };
            let (provider, place) = (slot.provider, slot.entry(supply));
            let stated = self.stated_affordable(provider);
            self.index.change(&place, |entry| entry.affordable = stated);
            if let Some(account) = self.accounts.get_mut(provider) {
                account.least_affordable = account.least_affordable.min(stated);
            }
        }
        self.search.overstated = overstated;
    }

    pub(super) fn set_used_of(&mut self, number: u32, used: Resources) {
        let Some(slot) = self.supplies.get_mut(number) else { return };
        if slot.used == used {
            return;
        }
        let (before, place) = (slot.free(), slot.entry(number));
        slot.used = used;
        let (after, provider) = (slot.free(), slot.provider);
        if !slot.active || before == after {
            return;
        }
        self.index.change(&place, |entry| (entry.milli_cpu, entry.memory_mib) = (after.milli_cpu, after.memory_mib));
        if after.milli_cpu > before.milli_cpu || after.memory_mib > before.memory_mib {
            self.call(number);
        }
        self.wake_demands_of(provider);
    }

    /// Puts a supply into the index or takes it out.
    fn review_supply(&mut self, number: u32) {
        let Some(slot) = self.supplies.get(number) else { return };
        let is_open = feasible::supply_is_void(&self.conditions, &slot.terms).is_none();
        match (slot.active, is_open) {
            (false, true) => self.activate(number),
            (true, false) => self.deactivate(number),
            _ => (),
        }
    }

    fn activate(&mut self, number: u32) {
        let Some(slot) = self.supplies.get_mut(number) else { return };
        slot.active = true;
        let provider = slot.provider;
        let affordable = self.stated_affordable(provider);
        if let Some(account) = self.accounts.get_mut(provider) {
            account.least_affordable = account.least_affordable.min(affordable);
        }
        let Some(slot) = self.supplies.get(number) else { return };
        let entry = Entry { affordable, ..slot.entry(number) };
        self.sample.insert(slot.terms.hash, number);
        self.index.insert(entry);
        self.call(number);
        self.wake_demands_of(provider);
    }

    fn deactivate(&mut self, number: u32) {
        let Some(slot) = self.supplies.get(number).filter(|slot| slot.active) else { return };
        let (entry, provider) = (slot.entry(number), slot.provider);
        self.sample.remove(slot.terms.hash, number);
        self.index.remove(&entry);
        if let Some(slot) = self.supplies.get_mut(number) {
            slot.active = false;
        }
        self.better.remove(&number);
        self.wake_demands_of(provider);
    }

    /// The supply has become better: it calls waiting demands in the next plan.
    fn call(&mut self, supply: u32) {
        if !self.waiting.is_empty() {
            self.better.insert(supply, None);
        }
    }

    /// The caller reviews the demand.
    pub(super) fn set_placement_of(&mut self, number: u32, placement: Placement) {
        let Some(slot) = self.demands.get_mut(number) else { return };
        let before = std::mem::replace(&mut slot.placement, placement);
        if before == placement {
            return;
        }
        if before.end_epoch != placement.end_epoch {
            self.terms.extend(placement.end_epoch.map(|end| (end, number)));
            if let Some(end) = before.end_epoch {
                self.terms.remove(&(end, number));
            }
        }
    }

    /// The caller reviews the demand when all of its hosts are set.
    pub(super) fn add_host(&mut self, number: u32, provider: u32) {
        if let Some(slot) = self.demands.get_mut(number)
            && let Err(at) = slot.hosts.binary_search(&provider)
        {
            slot.hosts.insert(at, provider);
        }
    }

    /// As [`Engine::add_host`].
    pub(super) fn remove_host(&mut self, number: u32, provider: u32) {
        if let Some(slot) = self.demands.get_mut(number)
            && let Ok(at) = slot.hosts.binary_search(&provider)
        {
            slot.hosts.remove(at);
        }
    }

    /// Sees whether a demand can be matched at all; `touched` when what it would find may be another than before.
    pub(super) fn review_demand(&mut self, number: u32, touched: bool) {
        let Some(slot) = self.demands.get(number) else { return };
        let is_open = slot.terms.as_deref().is_some_and(|demand| {
            !demand.held && feasible::demand_is_blocked_under(&self.conditions, slot.placement, demand).is_none()
        });
        match (slot.standing, is_open) {
            (Standing::Closed, true) => {
                let turn = slot.turn();
                self.set_standing(number, Standing::Due);
                self.due.extend(turn.map(|turn| (turn, number)));
            }
            (_, true) if touched => self.wake(number),
            (_, true) => (),
            (_, false) => self.close(number),
        }
    }

    fn close(&mut self, number: u32) {
        self.wake(number);
        let Some(turn) = self.demands.get(number).and_then(DemandSlot::turn) else { return };
        self.due.remove(&turn);
        self.set_standing(number, Standing::Closed);
    }

    /// Makes a waiting demand due.
    pub(super) fn wake(&mut self, number: u32) {
        let Some(slot) = self.demands.get(number).filter(|slot| slot.standing == Standing::Waiting) else { return };
        let (Some(turn), Some(terms)) = (slot.turn(), &slot.terms) else { return };
        // Where it stands does not depend on its term, which may be another by now.
        self.waiting.remove(&Wish::new(terms, number, 0));
        self.due.insert(turn, number);
        self.set_standing(number, Standing::Due);
    }

    /// A demand was looked at in vain.
    pub(super) fn wait(&mut self, number: u32, placed: Placed) {
        let Some(slot) = self.demands.get_mut(number) else { return };
        let least = slot.terms.as_ref().map_or(1, |terms| terms.offer.min_replicas);
        let needed = usize::from(least.saturating_sub(slot.placement.live_replicas)).max(1);
        slot.missing = needed.saturating_sub(placed.fills.len());
        slot.found = placed.fills.into_iter().map(|(_, provider, _)| provider).collect();
        slot.helpers.clear();
        slot.lacks_funds = placed.lacks_funds;
        if slot.standing != Standing::Due {
            return;
        }
        slot.standing = Standing::Waiting;
        let (Some(turn), Some(terms)) = (slot.turn(), &slot.terms) else { return };
        let term = feasible::remaining_under(&self.conditions, slot.placement, terms);
        self.due.remove(&turn);
        self.waiting.insert(Wish::new(terms, number, term));
    }

    fn wake_demands_of(&mut self, account: u32) {
        let Some(account) = self.accounts.get(account).filter(|account| !account.demands.is_empty()) else { return };
        account.demands.clone().into_iter().for_each(|number| self.wake(number));
    }

    fn set_standing(&mut self, number: u32, standing: Standing) {
        let Some(slot) = self.demands.get_mut(number) else { return };
        match (std::mem::replace(&mut slot.standing, standing), standing) {
            (Standing::Closed, Standing::Due | Standing::Waiting) => self.open = self.open.saturating_add(1),
            (Standing::Due | Standing::Waiting, Standing::Closed) => self.open = self.open.saturating_sub(1),
            _ => (),
        }
    }

    pub(super) fn forget_empty(&mut self, number: u32) {
        if self.demands.get(number).is_some_and(DemandSlot::is_empty) {
            self.demands.remove(number);
        }
    }
}

impl SupplySlot {
    pub(super) fn free(&self) -> Resources {
        self.terms.offer.capacity.saturating_sub(self.used)
    }

    pub(super) fn has_room_for(&self, size: Resources) -> bool {
        let free = self.free();
        size.milli_cpu <= free.milli_cpu && size.memory_mib <= free.memory_mib
    }

    /// Its entry, with no word on what its provider affords.
    pub(super) fn entry(&self, number: u32) -> Entry {
        Entry::new(&self.terms, number, self.provider, self.free())
    }
}
