//! The market as the chain tells it, the engine that is told of each event what it touched, and what was otherwise in the
//! last blocks.

use std::collections::{BTreeMap, VecDeque};

use common::{
    epoch::Epoch,
    event::{BlockRef, MarketEvent, PlacedEvent},
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
    ledger::Placement,
    snapshot::{Conditions, Demand, Signed, Supply},
};

/// Most fills that are planned at the end of a block. What waits behind so many is not followed.
const PLANNED_FILLS: usize = 1_000;

/// Something that an event touches.
#[derive(Debug, Clone, Copy)]
enum Touched {
    Account(Address),
    Supply(OfferHash),
    Used(OfferHash),
    Demand(OfferHash),
    Placement(OfferHash),
    Host(OfferHash, Address),
    Cancelled(Address, OfferHash),
    NonceFloor(Address),
    Paused,
}

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
    pub(super) state: MarketState,
    pub(super) engine: Engine,
    terms: MarketTerms,
    listed: Listed,
    /// How many blocks are remembered; at least 1.
    window: u64,
    before: VecDeque<Before>,
}

impl Market {
    pub(super) fn new(terms: MarketTerms, window: u64, signed: SignedOffers) -> Self {
        let conditions = Conditions {
            terms,
            time: 0,
            epoch: Epoch(0),
            matcher: Address::ZERO,
            cancelled: Default::default(),
            nonce_floors: Default::default(),
        };
        Self {
            state: MarketState::new(&terms),
            engine: Engine::new(conditions),
            terms,
            listed: Listed::of(signed),
            window,
            before: VecDeque::new(),
        }
    }

    pub(super) fn begin(&mut self, block: BlockRef) {
        self.engine.set_time(block.timestamp, self.terms.schedule.epoch_at(block.timestamp));
        let oldest = block.number.saturating_sub(self.window);
        while self.before.front().is_some_and(|before| before.block <= oldest) {
            self.before.pop_front();
        }
        self.before.push_back(Before { block: block.number, ..Before::default() });
    }

    pub(super) fn apply(&mut self, placed: &PlacedEvent) -> Result<(), StateError> {
        let touched = touched(&placed.event, &self.state);
        touched.iter().for_each(|touched| self.remember(*touched));
        self.state.apply(placed)?;
        touched.into_iter().for_each(|touched| self.tell(touched));
        Ok(())
    }

    /// The block is over: what was accepted up to it is known from now on.
    pub(super) fn end(&mut self, block: BlockRef) {
        self.state.as_of = Some(block);
        let (mut supplies, mut demands) = (Vec::new(), Vec::new());
        while let Some(first) = self.listed.supplies.first_entry().filter(|first| *first.key() <= block.number) {
            supplies.extend(first.remove());
        }
        while let Some(first) = self.listed.demands.first_entry().filter(|first| *first.key() <= block.number) {
            demands.extend(first.remove());
        }
        for signed in supplies.into_iter().filter(|signed| !self.state.provider_offers.contains_key(&signed.hash)) {
            let place = signed.place();
            self.engine.set_supply(Supply::new(signed.hash, signed.offer, Vec::new(), place));
        }
        for signed in demands.into_iter().filter(|signed| !self.state.developer_offers.contains_key(&signed.hash)) {
            let place = signed.place();
            self.engine.set_demand(self.demand(signed.hash, signed.offer, place));
        }
    }

    /// What could be matched now.
    pub(super) fn plan(&mut self) -> Plan {
        let plan = self.engine.plan(PLANNED_FILLS);
        self.engine.take_back();
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
            others.iter().for_each(|demand| self.engine.set_held(*demand, true));
            held.extend(others);
        };
        held.into_iter().for_each(|demand| self.engine.set_held(demand, false));
        planned(&plan)
    }

    /// Who alone may match the demand.
    pub(super) fn named_matcher(&self, demand: OfferHash) -> Option<Address> {
        let known = self.state.developer_offers.get(&demand).map(|known| known.offer.matcher);
        known.or_else(|| self.listed.matchers.get(&demand).copied()).filter(|matcher| !matcher.is_zero())
    }

    /// Gives an offer that a match has just revealed the place that it had before: that of its acceptance or, where nobody
    /// told of it, for a provider offer the first of all, so that nothing is held against it. Says whether it was told of.
    pub(super) fn place_revealed(&mut self, offer: OfferHash) -> bool {
        let listed = self.listed.places.get(&offer).copied();
        if let Some(supply) = self.engine.supply(offer) {
            let place = listed.unwrap_or_default();
            self.engine.set_supply(Supply { place, ..supply.clone() });
        }
        if let Some(place) = listed
            && let Some(demand) = self.engine.demand(offer)
        {
            self.engine.set_demand(Demand { place, ..demand.clone() });
        }
        listed.is_some()
    }

    /// Gives an offer the place that it has on the chain.
    pub(super) fn place_on_chain(&mut self, offer: OfferHash) {
        self.tell(Touched::Supply(offer));
        self.tell(Touched::Demand(offer));
    }

    /// The least that an account had right now and at the ends of the blocks that are remembered.
    pub(super) fn least_free(&self, account: Address) -> Atoms {
        let before = self.before.iter().filter_map(|before| before.free.get(&account).copied());
        before.fold(self.state.free_balance(account), Atoms::min)
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
        self.state.developer_offers.get(&demand).map_or(0, |known| known.live_replicas)
    }

    fn used(&self, supply: OfferHash) -> Resources {
        self.state.provider_offers.get(&supply).map(|known| known.used).unwrap_or_default()
    }

    fn remember(&mut self, touched: Touched) {
        match touched {
            Touched::Account(account) => {
                let free = self.state.free_balance(account);
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

    /// Tells the engine how it is now.
    fn tell(&mut self, touched: Touched) {
        let (state, engine) = (&self.state, &mut self.engine);
        match touched {
            Touched::Account(account) => engine.set_free(account, state.free_balance(account)),
            Touched::Supply(hash) => {
                let Some(known) = state.provider_offers.get(&hash) else { return };
                engine.set_supply(Supply::new(hash, known.offer.clone(), Vec::new(), known.opened_at));
            }
            Touched::Used(hash) => {
                let used = state.provider_offers.get(&hash).map(|known| known.used).unwrap_or_default();
                engine.set_used(hash, used);
            }
            Touched::Demand(hash) => {
                let Some(known) = state.developer_offers.get(&hash) else { return };
                let (offer, place) = (known.offer.clone(), known.opened_at);
                self.engine.set_demand(self.demand(hash, offer, place));
            }
            Touched::Placement(hash) => {
                let Some(known) = state.developer_offers.get(&hash) else { return };
                let placement = Placement { live_replicas: known.live_replicas, end_epoch: known.end_epoch };
                engine.set_placement(hash, placement);
            }
            Touched::Host(demand, provider) => engine.set_hosted(demand, provider, true),
            Touched::Cancelled(owner, offer) => engine.set_cancelled(owner, offer, true),
            Touched::NonceFloor(owner) => {
                engine.set_nonce_floor(owner, state.nonce_floors.get(&owner).copied().unwrap_or_default());
            }
            Touched::Paused => engine.set_paused(state.matching_paused),
        }
    }

    /// A demand that any account may match: who may is looked at where it matters, as many matchers are judged.
    fn demand(&self, hash: OfferHash, offer: DeveloperOffer, place: Place) -> Demand {
        let offer = DeveloperOffer { matcher: Address::ZERO, ..offer };
        Demand::new(hash, offer, Vec::new(), place, &self.terms)
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

/// What the event will change, as far as the engine wants to know.
fn touched(event: &MarketEvent, state: &MarketState) -> Vec<Touched> {
    match event {
        MarketEvent::Deposited { account, .. } | MarketEvent::Withdrawn { account, .. } => {
            vec![Touched::Account(*account)]
        }
        MarketEvent::ProviderOfferOpened { offer_hash, .. } => vec![Touched::Supply(*offer_hash)],
        MarketEvent::DeveloperOfferOpened { offer_hash, .. } => vec![Touched::Demand(*offer_hash)],
        MarketEvent::OfferCancelled { owner, offer_hash } => vec![Touched::Cancelled(*owner, *offer_hash)],
        MarketEvent::NonceFloorRaised { owner, .. } => vec![Touched::NonceFloor(*owner)],
        MarketEvent::MatchingPaused { .. } => vec![Touched::Paused],
        MarketEvent::MatcherPaid { developer_offer, matcher, .. } => {
            let developer = state.developer_offers.get(developer_offer).map(|known| known.offer.developer);
            [Some(*matcher), developer].into_iter().flatten().map(Touched::Account).collect()
        }
        MarketEvent::DealOpened(deal) => {
            let developer = state.developer_offers.get(&deal.developer_offer).map(|known| known.offer.developer);
            let provider = state.provider_offers.get(&deal.provider_offer).map(|known| known.offer.provider);
            let accounts = [developer, provider].into_iter().flatten().map(Touched::Account);
            let host = provider.map(|provider| Touched::Host(deal.developer_offer, provider));
            let offers = [Touched::Used(deal.provider_offer), Touched::Placement(deal.developer_offer)];
            accounts.chain(host).chain(offers).collect()
        }
        MarketEvent::DealFunded { from, .. } => vec![Touched::Account(*from)],
        event => touched_of_deal(event, state),
    }
}

fn touched_of_deal(event: &MarketEvent, state: &MarketState) -> Vec<Touched> {
    let deal = |id| state.deals.get(id).map(|known| &known.deal);
    match event {
        MarketEvent::DealSettled { deal_id, .. } => deal(deal_id).map_or_else(Vec::new, |deal| {
            let payout = state.provider_offers.get(&deal.provider_offer).map(|known| known.offer.payout);
            [Some(deal.developer), payout].into_iter().flatten().map(Touched::Account).collect()
        }),
        MarketEvent::DealRefunded { deal_id, .. } | MarketEvent::DealEnding { deal_id, .. } => {
            deal(deal_id).map_or_else(Vec::new, |deal| vec![Touched::Account(deal.developer)])
        }
        MarketEvent::DealChanged(changed) => deal(&changed.deal_id)
            .map_or_else(Vec::new, |deal| vec![Touched::Used(deal.provider_offer), Touched::Account(deal.provider)]),
        MarketEvent::DealEnded { deal_id, bond_to, .. } => deal(deal_id).map_or_else(Vec::new, |deal| {
            vec![
                Touched::Account(deal.developer),
                Touched::Account(*bond_to),
                Touched::Used(deal.provider_offer),
                Touched::Placement(deal.developer_offer),
            ]
        }),
        _ => Vec::new(),
    }
}
