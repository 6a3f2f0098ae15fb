//! The market as the chain tells it, event by event, and what was otherwise in the last blocks.

use std::collections::{BTreeMap, VecDeque};

use common::{
    event::{BlockRef, PlacedEvent},
    ids::{Address, OfferHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
    state::{MarketState, Place, StateError},
};

use super::{
    SignedOffers,
    ends::{Planned, planned},
};
use crate::{
    engine::{Engine, Plan},
    market::{self, Planner, Touched, touched},
    snapshot::{Demand, Signed, Supply},
};

/// Most fills that are planned at the end of a block. What waits behind so many is not followed.
const PLANNED_FILLS: usize = 1_000;

/// What a block found before it changed it.
#[derive(Debug, Default)]
struct Before {
    block: u64,
    free: BTreeMap<Address, Atoms>,
    used: BTreeMap<OfferHash, Resources>,
    live: BTreeMap<OfferHash, u16>,
}

/// Signed offers that the chain does not know yet, as somebody says when they were accepted.
#[derive(Debug, Default)]
struct Listed {
    /// By the block that they were accepted at.
    supplies: BTreeMap<u64, Vec<Signed<ProviderOffer>>>,
    demands: BTreeMap<u64, Vec<Signed<DeveloperOffer>>>,
    places: BTreeMap<OfferHash, Place>,
    /// Of those whom only one account may match.
    matchers: BTreeMap<OfferHash, Address>,
}

pub(super) struct Market {
    market: market::Market,
    listed: Listed,
    /// How many blocks are remembered; at least 1.
    window: u64,
    before: VecDeque<Before>,
}

impl Market {
    pub(super) fn new(terms: MarketTerms, window: u64, signed: SignedOffers) -> Self {
        Self {
            // Who may match is looked at where it matters, as many matchers are judged; and nothing is taken back.
            market: market::Market::new(terms, Planner::Anybody, 0),
            listed: Listed::of(signed),
            window,
            before: VecDeque::new(),
        }
    }

    pub(super) const fn state(&self) -> &MarketState {
        self.market.state()
    }

    pub(super) const fn engine(&mut self) -> &mut Engine {
        self.market.engine()
    }

    pub(super) const fn seen(&self) -> &Engine {
        self.market.seen()
    }

    pub(super) fn begin(&mut self, block: BlockRef) {
        self.market.set_time(block.timestamp);
        let oldest = block.number.saturating_sub(self.window);
        while self.before.front().is_some_and(|before| before.block <= oldest) {
            self.before.pop_front();
        }
        self.before.push_back(Before { block: block.number, ..Before::default() });
    }

    pub(super) fn apply(&mut self, placed: &PlacedEvent) -> Result<(), StateError> {
        touched(&placed.event, self.state()).into_iter().for_each(|touched| self.remember(touched));
        self.market.apply_event(placed)?;
        self.market.settle();
        Ok(())
    }

    /// The block is over: what was accepted up to it is known from now on.
    pub(super) fn end(&mut self, block: BlockRef) {
        self.market.close_block(&block);
        while let Some(first) = self.listed.supplies.first_entry().filter(|first| *first.key() <= block.number) {
            first.remove().into_iter().for_each(|signed| self.market.accept_supply(signed, false));
        }
        while let Some(first) = self.listed.demands.first_entry().filter(|first| *first.key() <= block.number) {
            first.remove().into_iter().for_each(|signed| self.market.accept_demand(signed, false));
        }
        self.market.settle();
    }

    /// What could be matched now.
    pub(super) fn plan(&mut self) -> Plan {
        let plan = self.market.plan(PLANNED_FILLS);
        self.engine().take_back();
        plan
    }

    /// What one matcher could match now.
    pub(super) fn planned_by(&mut self, matcher: Address) -> Planned {
        let mut held = Vec::new();
        let plan = loop {
            let plan = self.plan();
            let others = plan.matches.iter().map(|found| found.demand);
            let others: Vec<_> =
                others.filter(|demand| self.named_matcher(*demand).is_some_and(|named| named != matcher)).collect();
            if others.is_empty() {
                break plan;
            }
            others.iter().for_each(|demand| self.engine().set_held(*demand, true));
            held.extend(others);
        };
        held.into_iter().for_each(|demand| self.engine().set_held(demand, false));
        planned(&plan)
    }

    /// Who alone may match the demand.
    pub(super) fn named_matcher(&self, demand: OfferHash) -> Option<Address> {
        let known = self.state().developer_offers.get(&demand).map(|known| known.offer.matcher);
        known.or_else(|| self.listed.matchers.get(&demand).copied()).filter(|matcher| !matcher.is_zero())
    }

    /// Gives an offer that a match has just revealed the place that it had before: that of its acceptance or, where nobody
    /// told of it, for a provider offer the first of all, so that nothing is held against it. Says whether it was told of.
    pub(super) fn place_revealed(&mut self, offer: OfferHash) -> bool {
        let listed = self.listed.places.get(&offer).copied();
        if let Some(supply) = self.seen().supply(offer).cloned() {
            let place = listed.unwrap_or_default();
            self.engine().set_supply(Supply { place, ..supply });
        }
        if let Some(place) = listed
            && let Some(demand) = self.seen().demand(offer).cloned()
        {
            self.engine().set_demand(Demand { place, ..demand });
        }
        listed.is_some()
    }

    /// Gives an offer the place that it has on the chain, which needs nobody's word for it any more.
    pub(super) fn place_on_chain(&mut self, offer: OfferHash) {
        self.market.close_signed(offer);
        self.market.settle();
    }

    /// The least that an account had right now and at the ends of the blocks that are remembered.
    pub(super) fn least_free(&self, account: Address) -> Atoms {
        let before = self.before.iter().filter_map(|before| before.free.get(&account).copied());
        before.fold(self.state().free_balance(account), Atoms::min)
    }

    /// The most that deals held of an offer, right now and at the ends of the blocks that are remembered.
    pub(super) fn most_used(&self, supply: OfferHash) -> Resources {
        let now = self.used(supply);
        let before = self.before.iter().filter_map(|before| before.used.get(&supply));
        before.fold(now, |most, used| Resources {
            milli_cpu: most.milli_cpu.max(used.milli_cpu),
            memory_mib: most.memory_mib.max(used.memory_mib),
        })
    }

    /// The most replicas that a demand had, right now and at the ends of the blocks that are remembered.
    pub(super) fn most_live(&self, demand: OfferHash) -> u16 {
        let before = self.before.iter().filter_map(|before| before.live.get(&demand).copied());
        before.fold(self.live(demand), u16::max)
    }

    /// The replicas that a demand has.
    pub(super) fn live(&self, demand: OfferHash) -> u16 {
        self.state().developer_offers.get(&demand).map_or(0, |known| known.live_replicas)
    }

    fn used(&self, supply: OfferHash) -> Resources {
        self.state().provider_offers.get(&supply).map(|known| known.used).unwrap_or_default()
    }

    fn remember(&mut self, touched: Touched) {
        match touched {
            Touched::Account(account) => {
                let free = self.state().free_balance(account);
                self.before.back_mut().map(|before| *before.free.entry(account).or_insert(free));
            }
            Touched::Used(supply) => {
                let used = self.used(supply);
                self.before.back_mut().map(|before| *before.used.entry(supply).or_insert(used));
            }
            Touched::Placement(demand) => {
                let live = self.live(demand);
                self.before.back_mut().map(|before| *before.live.entry(demand).or_insert(live));
            }
            _ => (),
        }
    }
}

impl Listed {
    fn of(signed: SignedOffers) -> Self {
        let mut listed = Self::default();
        for offer in signed.provider {
            listed.places.insert(offer.hash, offer.place());
            listed.supplies.entry(offer.accepted_block).or_default().push(offer);
        }
        for offer in signed.developer {
            listed.places.insert(offer.hash, offer.place());
            listed.matchers.insert(offer.hash, offer.offer.matcher);
            listed.demands.entry(offer.accepted_block).or_default().push(offer);
        }
        listed
    }
}
