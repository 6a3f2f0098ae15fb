//! One match against what the engine says.
//!
//! What was taken is right when the engine takes it on the state right before the match. Where it does not, everything
//! that a matcher could not know, or saw change a moment ago, is taken out of the market and the engine is asked again: what
//! it then names was there, at a better price, all the time. An honest matcher plans all demands together, so that one it
//! planned before may have been meant to have that; what the engine planned at the ends of the last blocks tells.

use std::collections::BTreeSet;

use common::{
    event::DealOpened,
    ids::{Address, OfferHash},
    money::Atoms,
    state::Place,
};

use super::{
    ends::Ends,
    market::Market,
    matches::Made,
    verdict::{Better, JudgedFill, PassedOver, Verdict},
};
use crate::{
    engine::Fill,
    snapshot::{SIGNED_LOG_INDEX, Supply},
};

/// Most earlier demands that are looked at for one fill.
const MAX_CLAIMANTS: usize = 64;

/// A match to be judged, right before it changes anything.
pub(super) struct Case<'a> {
    pub(super) market: &'a mut Market,
    pub(super) ends: &'a Ends,
    pub(super) made: &'a Made<'a>,
    pub(super) matcher: Address,
    pub(super) tried: &'a Tried,
    /// Offers that this match reveals, of whose acceptance nobody told.
    pub(super) untold: &'a BTreeSet<OfferHash>,
    /// Blocks for which something must have been there to be held against the matcher.
    pub(super) window: u64,
}

/// What the same transaction proposed before and the contract refused.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// For the same demand.
    pub(super) supplies: BTreeSet<OfferHash>,
    pub(super) demands: BTreeSet<OfferHash>,
}

/// An earlier demand that wants what a fill takes.
#[derive(Debug)]
pub(super) struct Claim {
    /// Which of the match's fills.
    pub(super) fill: usize,
    claimant: PassedOver,
    /// What it would pay for each replica.
    asks: Vec<Atoms>,
}

impl Case<'_> {
    /// The fills with what is said of their prices, and by how many replicas they are fewer than they could be.
    pub(super) fn prices(&mut self) -> (Vec<JudgedFill>, usize) {
        let now = self.market.engine().hosts_for(self.made.demand);
        let count = self.made.deals.len();
        let is_first_choice = |deal: &DealOpened| now.iter().take(count).any(|host| host.supply == deal.provider_offer);
        let all_right = self.made.deals.iter().all(|deal| is_first_choice(deal));
        if all_right && now.len() == count {
            let fills = self.made.deals.iter().map(|deal| self.judged(deal, Verdict::AsEngine));
            return (fills.collect(), 0);
        }
        let (known, saw_race) = self.long_known_hosts();
        let first = known.iter().take(count);
        let mut passed: Vec<Fill> = first.filter(|host| !self.made.has(host.supply)).copied().collect();
        passed.reverse();
        let mut deals: Vec<&DealOpened> = self.made.deals.clone();
        deals.sort_by_key(|deal| (deal.price_per_epoch, self.place(deal.provider_offer), deal.provider_offer));
        let mut fills = Vec::with_capacity(count);
        for deal in deals {
            let verdict = if is_first_choice(deal) {
                Verdict::AsEngine
            } else {
                let otherwise = if saw_race { Verdict::Race } else { Verdict::NotJudged };
                self.compared(deal, passed.pop()).unwrap_or(otherwise)
            };
            fills.push(self.judged(deal, verdict));
        }
        (fills, known.len().saturating_sub(count))
    }

    /// Earlier demands that the engine would place with what this match takes.
    pub(super) fn claims(&mut self) -> Vec<Claim> {
        let made = self.made;
        let turn = (self.demand_place(made.demand), made.demand);
        let mut claims = Vec::new();
        for (fill, deal) in made.deals.iter().enumerate() {
            let supply = deal.provider_offer;
            if self.chosen(supply, None).is_some() {
                continue;
            }
            let mut claimants = self.market.engine().claimants(supply, turn);
            claimants.retain(|demand| self.market.named_matcher(*demand).is_none_or(|named| named == self.matcher));
            claimants.truncate(MAX_CLAIMANTS);
            claims.extend(claimants.into_iter().filter_map(|demand| self.claim(fill, demand, supply)));
        }
        claims
    }

    fn claim(&mut self, fill: usize, demand: OfferHash, supply: OfferHash) -> Option<Claim> {
        let offer = &self.market.seen().demand(demand)?.offer;
        let (developer, least) = (offer.developer, offer.min_replicas);
        let place = self.demand_place(demand);
        let is_tried = self.tried.demands.contains(&demand);
        if demand == self.made.demand || is_tried || known_after(place) >= self.made.block {
            return None;
        }
        // Plans without what nobody knew cannot tell that it was right: then all else must have been there.
        let (made, untold) = (self.made, !self.untold.is_empty());
        let live = self.market.live(demand);
        if untold && (self.market.most_live(demand) > live || !self.suits_term_before(demand, supply)) {
            return None;
        }
        let hosts = self.hosts_without(demand, |case, host| {
            let is_new = known_after(case.place(host.supply)) >= made.block;
            host.supply != supply && (is_new || (untold && !case.was_there(demand, host)))
        });
        if usize::from(live).saturating_add(hosts.len()) < usize::from(least) {
            return None;
        }
        let wanted = hosts.iter().find(|host| host.supply == supply)?;
        // Its money was there all the time.
        if self.market.least_free(developer) < wanted.cost.lock {
            return None;
        }
        let blocks_there = self.made.block.saturating_sub(place.block);
        let claimant = PassedOver { demand, developer, since_block: place.block, blocks_there };
        Some(Claim { fill, claimant, asks: hosts.iter().map(|host| host.cost.ask).collect() })
    }

    /// The engine's hosts, of those that were there all the time and that no other demand was to have; and whether there are
    /// others.
    fn long_known_hosts(&mut self) -> (Vec<Fill>, bool) {
        let (made, mut saw_race) = (self.made, false);
        let hosts = self.hosts_without(made.demand, |case, host| {
            if made.has(host.supply) {
                return false;
            }
            let is_tried = case.tried.supplies.contains(&host.supply);
            let is_race = !is_tried && (!case.was_there(made.demand, host) || case.is_spoken_for(host.supply));
            saw_race |= is_race;
            is_tried || is_race
        });
        (hosts, saw_race)
    }

    /// The hosts that the engine would choose if those that are to be left out were not there.
    fn hosts_without(&mut self, demand: OfferHash, mut is_out: impl FnMut(&Self, &Fill) -> bool) -> Vec<Fill> {
        let mut out: Vec<Supply> = Vec::new();
        let hosts = loop {
            let hosts = self.market.engine().hosts_for(demand);
            let found: Vec<OfferHash> =
                hosts.iter().filter(|host| is_out(self, host)).map(|host| host.supply).collect();
            if found.is_empty() {
                break hosts;
            }
            for supply in found {
                out.extend(self.market.seen().supply(supply).cloned());
                self.market.engine().remove_supply(supply);
            }
        };
        out.into_iter().for_each(|supply| self.market.engine().set_supply(supply));
        hosts
    }

    /// Whether the host could have served the demand at the ends of all blocks of the window.
    fn was_there(&self, demand: OfferHash, host: &Fill) -> bool {
        let Some(supply) = self.market.seen().supply(host.supply) else { return false };
        let suits_term = self.suits_term_before(demand, host.supply);
        let Some(demand) = self.market.seen().demand(demand) else { return false };
        let (offer, size) = (&supply.offer, demand.offer.size);
        let room = offer.capacity.saturating_sub(self.market.most_used(host.supply));
        let own_lock = if offer.provider == demand.offer.developer { host.cost.lock } else { Atoms::ZERO };
        let needed = host.cost.bond.checked_add(own_lock).unwrap_or(Atoms::MAX);
        known_after(supply.place).saturating_add(self.window) <= self.made.block
            && size.milli_cpu <= room.milli_cpu
            && size.memory_mib <= room.memory_mib
            && needed <= self.market.least_free(offer.provider)
            && suits_term
    }

    /// Whether the term was not too long when the window began: with each epoch there is less to go, which suits more offers.
    fn suits_term_before(&self, demand: OfferHash, supply: OfferHash) -> bool {
        let longest = self.market.seen().supply(supply).map_or(0, |supply| supply.offer.max_epochs);
        let epoch = self.ends.epoch_before(self.made.block).unwrap_or_default();
        let known = self.market.state().developer_offers.get(&demand);
        let term = known.map_or(0, |known| known.offer.remaining_epochs(epoch.plus(1), known.end_epoch));
        longest == 0 || term <= longest
    }

    /// What is said of a deal that the engine would not have made now, when there is this instead; none where there is
    /// nothing better, and it never would have.
    fn compared(&self, deal: &DealOpened, instead: Option<Fill>) -> Option<Verdict> {
        let (made, price) = (self.made, deal.price_per_epoch);
        let order = |host: &Fill| (host.cost.ask, self.place(host.supply));
        let instead = instead.filter(|host| order(host) <= (price, self.place(deal.provider_offer)));
        match self.chosen(deal.provider_offer, instead.map(|host| host.supply)) {
            Some(1) => return Some(Verdict::AsEngine),
            Some(_) => return Some(Verdict::Race),
            None => (),
        }
        let instead = instead?;
        let place = self.place(instead.supply);
        let lost_per_epoch = price.checked_sub(instead.cost.ask).unwrap_or_default();
        let term = u64::from(deal.end_epoch.since(deal.start_epoch));
        let better = Better {
            supply: instead.supply,
            provider: instead.provider,
            ask: instead.cost.ask,
            since_block: place.block,
            blocks_there: made.block.saturating_sub(place.block),
            lost_per_epoch,
            lost_in_term: lost_per_epoch.checked_mul(term).unwrap_or(Atoms::MAX),
        };
        let is_dearer = lost_per_epoch > Atoms::ZERO;
        Some(if is_dearer { Verdict::Dearer { better } } else { Verdict::TieBrokenOtherwise { better } })
    }

    /// How many blocks ago the matcher's plan had this supply, and not the other, for the demand.
    fn chosen(&self, supply: OfferHash, other: Option<OfferHash>) -> Option<u64> {
        self.ends.chosen((self.made.block, self.matcher), (self.made.demand, supply), other)
    }

    /// Whether a matcher that planned at the end of the block before had given the supply to other demands.
    fn is_spoken_for(&self, supply: OfferHash) -> bool {
        self.ends.is_spoken_for((self.made.block, self.matcher), (self.made.demand, supply))
    }

    fn judged(&self, deal: &DealOpened, verdict: Verdict) -> JudgedFill {
        let supply = deal.provider_offer;
        let provider = self.market.state().provider_offers.get(&supply).map(|known| known.offer.provider);
        JudgedFill { supply, provider: provider.unwrap_or_default(), ask: deal.price_per_epoch, verdict }
    }

    fn place(&self, supply: OfferHash) -> Place {
        self.market.seen().supply(supply).map(|supply| supply.place).unwrap_or_default()
    }

    fn demand_place(&self, demand: OfferHash) -> Place {
        self.market.seen().demand(demand).map(|demand| demand.place).unwrap_or_default()
    }
}

/// The block after which everybody knew an offer in this place. A signed one was accepted when its block was the last one,
/// which may have been after the matcher had planned.
const fn known_after(place: Place) -> u64 {
    if place.log_index >= SIGNED_LOG_INDEX { place.block.saturating_add(1) } else { place.block }
}

impl Claim {
    /// The claimant, where the match has left it fewer hosts or dearer ones.
    pub(super) fn harmed(&self, market: &mut Market) -> Option<PassedOver> {
        let hosts = market.engine().hosts_for(self.claimant.demand);
        let sum = |asks: &mut dyn Iterator<Item = Atoms>| asks.map(|ask| u128::from(ask.get())).sum::<u128>();
        let before = sum(&mut self.asks.iter().copied());
        let after = sum(&mut hosts.iter().take(self.asks.len()).map(|host| host.cost.ask));
        (hosts.len() < self.asks.len() || after > before).then_some(self.claimant)
    }
}
