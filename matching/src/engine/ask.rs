//! Questions about the market as it stands. They enter nothing and change no answer.

use common::{ids::OfferHash, money::Atoms, state::Place};

use super::{Engine, Fill, calls::Among, open_demands::Turn, tables::Standing};
use crate::depth::Offered;

impl Engine {
    /// The cheapest hosts for all missing replicas of a demand, or as many as there are, as [`crate::scan::place`] finds
    /// them; its minimum is not looked at. None for a demand that cannot be matched now.
    pub fn hosts_for(&mut self, demand: OfferHash) -> Vec<Fill> {
        let Some(number) = self.demands.find(demand) else { return Vec::new() };
        if self.demands.get(number).is_none_or(|slot| slot.standing == Standing::Closed) {
            return Vec::new();
        }
        let placed = self.place(number, &Among::All);
        let fill = |(supply, _, cost)| {
            let terms = &self.supplies.get(supply)?.terms;
            Some(Fill { supply: terms.hash, provider: terms.offer.provider, cost })
        };
        placed.fills.into_iter().filter_map(fill).collect()
    }

    /// Supplies that can be matched, as they stand, of those in the next `most` places from `from` on; and where to go on,
    /// while there are more. Who reads all of them in parts misses none that is there all the time.
    pub fn look_at_offered(&self, from: u32, most: u32, mut see: impl FnMut(&Offered<'_>)) -> Option<u32> {
        let until = from.saturating_add(most);
        for slot in (from..until).filter_map(|number| self.supplies.get(number)).filter(|slot| slot.active) {
            let free = self.accounts.get(slot.provider).map_or(Atoms::ZERO, |account| account.free);
            see(&Offered { supply: &slot.terms, used: slot.used, free });
        }
        (until < self.supplies.places()).then_some(until)
    }

    /// Whether a demand was looked at in vain, so that it waits for the market to change.
    pub fn waits(&self, demand: OfferHash) -> bool {
        let slot = self.demands.find(demand).and_then(|number| self.demands.get(number));
        slot.is_some_and(|slot| slot.standing == Standing::Waiting)
    }

    /// Demands that wait, of those in the next `most` places from `from` on, for as long as `see` wants more; and where to go
    /// on, while there are more. Who reads all of them in parts misses none that is there all the time.
    pub fn look_at_waiting(&self, from: u32, most: u32, mut see: impl FnMut(OfferHash) -> bool) -> Option<u32> {
        let mut next = from;
        for number in from..from.saturating_add(most) {
            next = number.saturating_add(1);
            let slot = self.demands.get(number).filter(|slot| slot.standing == Standing::Waiting);
            if slot.is_some_and(|slot| !see(slot.hash)) {
                break;
            }
        }
        (next < self.demands.places()).then_some(next)
    }

    /// Demands that can be matched now and come before this place in the order of service, which the supply could host,
    /// their developers' money apart; in order of service.
    pub fn claimants(&mut self, supply: OfferHash, before: (Place, OfferHash)) -> Vec<OfferHash> {
        let Some(number) = self.supplies.find(supply) else { return Vec::new() };
        let Some(slot) = self.supplies.get(number).filter(|slot| slot.active) else { return Vec::new() };
        let before = Turn { place: before.0, hash: before.1 };
        let offered = self.offered(number, slot);
        let served = self.waiting.served(&offered, None, usize::MAX);
        let waiting = served.wishes.into_iter().map(|wish| (wish.turn, wish.demand));
        let due = self.due.range(..before).map(|(turn, demand)| (*turn, *demand));
        let is_claimant = |(turn, demand): &(Turn, u32)| *turn < before && self.serves(number, *demand);
        let mut claimants: Vec<_> = waiting.chain(due).filter(is_claimant).collect();
        claimants.sort_unstable();
        claimants.into_iter().map(|(turn, _)| turn.hash).collect()
    }
}
