//! Matches entered and taken back.

use common::{epoch::Epoch, ids::OfferHash, money::Atoms, resources::Resources};

use super::{Engine, Fill, Match};
use crate::ledger::FillCost;

impl Engine {
    /// Makes the matches of all plans since the last call part of the market.
    pub fn keep(&mut self) {
        self.standing.clear();
    }

    /// Undoes the matches of all plans that were not kept.
    pub fn take_back(&mut self) {
        while let Some(undone) = self.standing.pop() {
            self.undo_entered(&undone);
        }
    }

    /// Looks at the market as the standing matches before that of `demand` leave it; where it has none, as all do.
    pub(crate) fn at_turn_of<T>(&mut self, demand: OfferHash, look: impl FnOnce(&mut Self) -> T) -> T {
        let Some(at) = self.standing.iter().position(|standing| standing.demand == demand) else { return look(self) };
        let later = self.standing.split_off(at);
        later.iter().rev().for_each(|undone| self.undo_entered(undone));
        let seen = look(self);
        later.iter().for_each(|entered| self.enter_again(entered));
        self.standing.extend(later);
        seen
    }

    /// Undoes a match, kept or not: money, bonds, capacity and places are as if it had never been.
    pub fn undo(&mut self, undone: &Match) {
        self.standing.retain(|standing| standing != undone);
        self.undo_entered(undone);
    }

    fn undo_entered(&mut self, undone: &Match) {
        let Some(number) = self.demands.find(undone.demand) else { return };
        let Some(slot) = self.demands.get_mut(number) else { return };
        let mut placement = slot.placement;
        let fills = u16::try_from(undone.fills.len()).unwrap_or(u16::MAX);
        placement.live_replicas = placement.live_replicas.saturating_sub(fills);
        if undone.begins {
            placement.end_epoch = None;
        }
        let (developer, terms) = (slot.developer, slot.terms.as_ref());
        let size = terms.map_or(Resources::default(), |terms| terms.offer.size);
        let unlimited = terms.is_some_and(|terms| terms.unlimited_funds);
        for fill in undone.fills.iter().rev() {
            let supply = self.supplies.find(fill.supply);
            let known = supply.and_then(|supply| Some((supply, self.supplies.get(supply)?)));
            let provider = match known {
                Some((supply, slot)) => {
                    let (used, provider) = (slot.used.saturating_sub(size), slot.provider);
                    self.set_used_of(supply, used);
                    provider
                }
                None => self.account(fill.provider),
            };
            self.move_money(provider, fill.cost.bond, Atoms::checked_add);
            if !unlimited || provider == developer {
                self.move_money(developer, fill.cost.lock, Atoms::checked_add);
            }
            self.remove_host(number, provider);
        }
        self.set_placement_of(number, placement);
        self.review_demand(number, true);
        self.forget_empty(number);
    }

    /// Enters hosts that [`Engine::place`] found.
    pub(super) fn enter(&mut self, number: u32, fills: &[(u32, u32, FillCost)]) -> Option<Match> {
        let slot = self.demands.get(number)?;
        let (hash, developer, mut placement) = (slot.hash, slot.developer, slot.placement);
        let terms = slot.terms.as_ref()?;
        let (size, epochs, unlimited) = (terms.offer.size, terms.offer.epochs, terms.unlimited_funds);
        let begins = placement.end_epoch.is_none();
        let mut entered = Match { demand: hash, fills: Vec::with_capacity(fills.len()), begins };
        for (supply, provider, cost) in fills.iter().copied() {
            let slot = self.supplies.get(supply)?;
            entered.fills.push(Fill { supply: slot.terms.hash, provider: slot.terms.offer.provider, cost });
            let used = Resources {
                milli_cpu: slot.used.milli_cpu.saturating_add(size.milli_cpu),
                memory_mib: slot.used.memory_mib.saturating_add(size.memory_mib),
            };
            self.set_used_of(supply, used);
            if !unlimited || provider == developer {
                self.move_money(developer, cost.lock, Atoms::checked_sub);
            }
            self.move_money(provider, cost.bond, Atoms::checked_sub);
            self.add_host(number, provider);
        }
        let new = u16::try_from(fills.len()).unwrap_or(u16::MAX);
        placement.live_replicas = placement.live_replicas.saturating_add(new);
        let start: Epoch = self.conditions.start_epoch();
        placement.end_epoch.get_or_insert(start.plus(epochs));
        self.set_placement_of(number, placement);
        self.review_demand(number, true);
        Some(entered)
    }

    /// Enters a match that was undone a moment ago.
    fn enter_again(&mut self, undone: &Match) {
        let Some(number) = self.demands.find(undone.demand) else { return };
        let numbered = |fill: &Fill| {
            let supply = self.supplies.find(fill.supply)?;
            Some((supply, self.supplies.get(supply)?.provider, fill.cost))
        };
        let fills: Vec<_> = undone.fills.iter().filter_map(numbered).collect();
        self.enter(number, &fills);
    }

    fn move_money(
        &mut self,
        account: u32,
        amount: Atoms,
        change: impl Fn(Atoms, Atoms) -> Result<Atoms, common::money::MoneyError>,
    ) {
        let free = self.accounts.get(account).map_or(Atoms::ZERO, |account| account.free);
        // Every amount was checked against this balance, or comes back to where it was taken from.
        if let Ok(free) = change(free, amount) {
            self.set_balance(account, free);
        }
    }
}
