//! The market as it goes on: the state of the chain, the engine that stands at it, and what only one matcher knows. A block
//! costs what happened in it, whatever the market holds.
//!
//! Blocks are applied and taken back in the order of the chain. What each of them found before it changed it is remembered
//! until the block is final, so that a reorganization puts single entries back and rebuilds nothing. Who stands at a block
//! and hears of another one looks for the newest of the [anchors](Market::anchors) that is still the chain's, takes back
//! what came behind it and applies what follows.
//!
//! On top of the chain lie signed offers, which give way to the chain's own knowledge of them and come back when a
//! reorganization takes that away; fills under way, which are entered into what the chain says in the order in which they
//! were sent; and demands that are to be left alone. Whatever of all this changes is noted, and the engine is told of it in
//! one go, with what the entries come to in the end: matches that a plan has entered are taken back first. That costs what
//! was noted, and the fills under way.
//!
//! Layout: `touched` is what an event changes and what that was before; `line` holds the signed offers; `deals` finds
//! deals.

mod deals;
mod line;
#[cfg(test)]
mod tests;
mod touched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::{
    epoch::Epoch,
    event::{BlockId, BlockRef, MarketBlock, PlacedEvent},
    ids::{Address, DealId, OfferHash},
    market::MarketTerms,
    offer::{DeveloperOffer, ProviderOffer},
    state::{MarketState, Place, StateError},
};

pub use self::line::{SortedOffers, WaitingOffer};
pub(crate) use self::touched::{Touched, touched};
use self::{deals::Deals, line::Line, touched::Before};
use crate::{
    ends::Due,
    engine::{Engine, Plan},
    feasible,
    ledger::{Ledger, Placement},
    snapshot::{Conditions, Demand, PendingFill, Signed, Supply, enter_pending},
};

/// Who plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planner {
    /// This account: demands that name another one are not for it.
    Account(Address),
    /// Nobody in particular: demands are planned whomever they name.
    Anybody,
}

/// A block, and what it found before it changed it.
#[derive(Debug)]
struct Applied {
    anchor: BlockId,
    before: BTreeMap<Touched, Before>,
}

/// The market at one moment.
#[derive(Debug)]
pub struct Market {
    state: MarketState,
    engine: Engine,
    terms: MarketTerms,
    planner: Planner,
    deals: Deals,
    line: Line,
    pending: Vec<PendingFill>,
    /// Their demands.
    pending_demands: BTreeSet<OfferHash>,
    held: BTreeSet<OfferHash>,
    /// What fills under way change, as they leave it.
    entered: Ledger,
    /// What the engine is to be told of.
    noted: BTreeSet<Touched>,
    /// Demands that are to be left alone from now on, or no longer.
    noted_holds: BTreeSet<OfferHash>,
    /// Blocks that can be taken back, oldest first.
    applied: VecDeque<Applied>,
    /// Most of them.
    remembered: usize,
    /// The last block with events before those; none where there was none.
    base: Option<BlockId>,
    /// Of the block that is being applied.
    before: BTreeMap<Touched, Before>,
}

impl Market {
    /// Before the first event. At most `remembered` blocks with events can be taken back.
    pub fn new(terms: MarketTerms, planner: Planner, remembered: usize) -> Self {
        let matcher = if let Planner::Account(account) = planner { account } else { Address::ZERO };
        let conditions = Conditions {
            terms,
            time: 0,
            epoch: Epoch(0),
            matcher,
            cancelled: BTreeSet::new(),
            nonce_floors: BTreeMap::new(),
        };
        Self {
            state: MarketState::new(&terms),
            engine: Engine::new(conditions),
            terms,
            planner,
            deals: Deals::default(),
            line: Line::default(),
            pending: Vec::new(),
            pending_demands: BTreeSet::new(),
            held: BTreeSet::new(),
            entered: Ledger::default(),
            noted: BTreeSet::new(),
            noted_holds: BTreeSet::new(),
            applied: VecDeque::new(),
            remembered,
            base: None,
            before: BTreeMap::new(),
        }
    }

    /// The market of a state whose last block with events is `base`: that one and what came before it cannot be taken back.
    pub fn of(
        state: MarketState,
        base: Option<BlockId>,
        terms: MarketTerms,
        planner: Planner,
        remembered: usize,
    ) -> Self {
        let mut market = Self::new(terms, planner, remembered);
        let engine = &mut market.engine;
        state.as_of.iter().for_each(|block| engine.set_time(block.timestamp, terms.schedule.epoch_at(block.timestamp)));
        engine.set_paused(state.matching_paused);
        state.cancelled.iter().for_each(|(owner, offer)| engine.set_cancelled(*owner, *offer, true));
        state.nonce_floors.iter().for_each(|(owner, floor)| engine.set_nonce_floor(*owner, *floor));
        // What offers hold and their owners have before the offers themselves: so none is entered twice.
        state.free.iter().for_each(|(account, free)| engine.set_free(*account, *free));
        state.provider_offers.iter().for_each(|(hash, known)| engine.set_used(*hash, known.used));
        let demands = &state.developer_offers;
        demands.iter().for_each(|(hash, known)| engine.set_placement(*hash, Placement::of(known)));
        let deals = state.deals.values().map(|known| &known.deal);
        deals.for_each(|deal| engine.set_hosted(deal.developer_offer, deal.provider, true));
        market.deals = Deals::of(&state);
        market.base = base;
        let offers: Vec<Touched> = state.provider_offers.keys().map(|hash| Touched::Supply(*hash)).collect();
        let wishes: Vec<Touched> = state.developer_offers.keys().map(|hash| Touched::Demand(*hash)).collect();
        market.state = state;
        offers.into_iter().chain(wishes).for_each(|touched| market.tell(touched));
        market
    }

    /// The chain after the last block.
    pub const fn state(&self) -> &MarketState {
        &self.state
    }

    /// What fills are checked against.
    pub const fn conditions(&self) -> &Conditions {
        self.engine.conditions()
    }

    /// The engine, which stands at what was told last; for questions.
    pub const fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The engine, for what needs no more than to look.
    pub const fn seen(&self) -> &Engine {
        &self.engine
    }

    /// The blocks with events that the market stands on, newest first, down to the last one that cannot be taken back.
    /// Where that is the beginning of the market, none stands for it.
    pub fn anchors(&self) -> impl Iterator<Item = Option<BlockId>> {
        self.applied.iter().rev().map(|applied| Some(applied.anchor)).chain(std::iter::once(self.base))
    }

    /// Takes back all blocks behind an anchor, or behind the beginning; says how many with events those were.
    pub fn take_back_to(&mut self, anchor: Option<BlockId>) -> usize {
        let mut undone = 0_usize;
        let height = anchor.map_or(0, |anchor| anchor.number);
        let is_behind = |applied: &Applied| anchor.is_none() || applied.anchor.number > height;
        while let Some(applied) = self.applied.pop_back_if(|applied| is_behind(applied)) {
            self.undo(applied.before);
            undone = undone.saturating_add(1);
        }
        undone
    }

    /// Applies a block on top of the last one. Blocks without events may be left out.
    ///
    /// # Errors
    /// When an event contradicts what came before. Then nothing of the block is applied.
    pub fn apply(&mut self, block: &MarketBlock) -> Result<(), StateError> {
        if let Err(error) = block.events.iter().try_for_each(|placed| self.apply_event(placed)) {
            let before = std::mem::take(&mut self.before);
            self.undo(before);
            return Err(error);
        }
        self.close_block(&block.block);
        Ok(())
    }

    /// Applies one event of a block that [`Market::close_block`] ends. The engine is not told yet.
    pub(crate) fn apply_event(&mut self, placed: &PlacedEvent) -> Result<(), StateError> {
        let touched = touched(&placed.event, &self.state);
        let mut deal = None;
        for touched in &touched {
            self.before.entry(*touched).or_insert_with(|| Before::of(&self.state, *touched));
            if let Touched::Deal(id) = touched {
                deal = Some((*id, self.state.deals.get(id).map(|known| known.deal.clone())));
            }
        }
        let applied = self.state.apply(placed);
        if let Some((id, before)) = deal {
            self.deals.replace(before.as_ref(), self.state.deals.get(&id).map(|known| &known.deal));
        }
        self.noted.extend(touched);
        applied
    }

    /// Remembers the block whose events were applied.
    pub(crate) fn close_block(&mut self, block: &BlockRef) {
        self.state.as_of = Some(*block);
        let before = std::mem::take(&mut self.before);
        if !before.is_empty() {
            self.applied.push_back(Applied { anchor: block.id(), before });
        }
        self.forget_down_to(self.remembered);
    }

    /// Forgets how to take back blocks up to this height: they are final.
    pub fn forget_final(&mut self, finalized: u64) {
        let is_final = |applied: &&Applied| applied.anchor.number <= finalized;
        let last = self.applied.iter().take_while(is_final).count();
        self.forget_down_to(self.applied.len().saturating_sub(last));
    }

    fn forget_down_to(&mut self, most: usize) {
        while self.applied.len() > most {
            let forgotten = self.applied.pop_front();
            self.base = forgotten.map(|applied| applied.anchor).or(self.base);
        }
    }

    fn undo(&mut self, before: BTreeMap<Touched, Before>) {
        // Offers come before what is held of them, so that where an offer goes, that goes with it.
        for (touched, before) in before {
            match (touched, &before) {
                (Touched::Deal(id), Before::Deal(known)) => {
                    let now = self.state.deals.get(&id).map(|known| &known.deal);
                    self.deals.replace(now, known.as_ref().map(|known| &known.deal));
                }
                (Touched::Attested(agent, _), Before::Attested(false)) => self.deals.attested_less(agent),
                _ => (),
            }
            before.restore(&mut self.state, touched);
            self.noted.insert(touched);
        }
    }

    /// It is the moment of this block, the last one whether it has events or not; before the first one, of this second.
    pub fn stand_at(&mut self, block: Option<BlockRef>, now: u64) {
        self.state.as_of = block;
        self.set_time(block.map_or(now, |block| block.timestamp));
    }

    pub(crate) fn set_time(&mut self, time: u64) {
        self.engine.take_back();
        self.engine.set_time(time, self.terms.schedule.epoch_at(time));
    }

    /// A signed offer was accepted; `is_noted` where it is noted of it that the chain knows it. One of the same hash is
    /// replaced.
    pub fn accept_supply(&mut self, signed: Signed<ProviderOffer>, is_noted: bool) {
        let hash = signed.hash;
        self.line.add_supply(signed, is_noted);
        self.line.on_chain(hash, self.state.provider_offers.contains_key(&hash));
        self.noted.insert(Touched::Supply(hash));
    }

    /// As [`Market::accept_supply`], of a developer offer.
    pub fn accept_demand(&mut self, signed: Signed<DeveloperOffer>, is_noted: bool) {
        let hash = signed.hash;
        self.line.add_demand(signed, is_noted);
        self.line.on_chain(hash, self.state.developer_offers.contains_key(&hash));
        self.noted.insert(Touched::Demand(hash));
    }

    /// A signed offer is no longer open. What the chain knows of it stays.
    pub fn close_signed(&mut self, hash: OfferHash) {
        self.line.remove(hash);
        self.noted.extend([Touched::Supply(hash), Touched::Demand(hash)]);
    }

    /// These fills are under way, in the order in which they were sent, and no others.
    pub fn set_pending(&mut self, pending: Vec<PendingFill>) {
        if pending == self.pending {
            return;
        }
        let demands: BTreeSet<OfferHash> = pending.iter().map(|fill| fill.developer_offer).collect();
        self.noted_holds.extend(self.pending_demands.symmetric_difference(&demands));
        (self.pending, self.pending_demands) = (pending, demands);
    }

    /// These demands are to be left alone, and no others.
    pub fn set_held(&mut self, held: BTreeSet<OfferHash>) {
        self.noted_holds.extend(self.held.symmetric_difference(&held));
        self.held = held;
    }

    /// Tells the engine of everything that has changed. Matches of plans that were not kept are taken back.
    pub fn settle(&mut self) {
        self.engine.take_back();
        let mut noted = std::mem::take(&mut self.noted);
        let amounts = noted.split_off(&Touched::Account(Address::ZERO));
        noted.into_iter().for_each(|touched| self.tell(touched));
        for demand in std::mem::take(&mut self.noted_holds) {
            let held = self.is_held(demand);
            self.engine.set_held(demand, held);
        }
        self.tell_amounts(amounts);
    }

    /// Tells of what is entered and held, with the fills under way on top of it.
    fn tell_amounts(&mut self, mut noted: BTreeSet<Touched>) {
        // What the fills under way changed before, and what they change now.
        noted.extend(changed_by(&self.entered));
        self.entered = self.with_pending();
        noted.extend(changed_by(&self.entered));
        noted.into_iter().for_each(|touched| self.tell(touched));
    }

    /// What the fills under way make of the entries that they read.
    fn with_pending(&self) -> Ledger {
        let mut entered = Ledger::default();
        let conditions = self.engine.conditions();
        for fill in &self.pending {
            let Some(demand) = self.engine.demand(fill.developer_offer) else { continue };
            let Some(supply) = self.engine.supply(fill.provider_offer) else { continue };
            if feasible::supply_is_void(conditions, supply).is_some() {
                continue;
            }
            let has_hosted = self.has_hosted(demand.hash, supply.offer.provider);
            entered.bring(&self.state, demand, supply, has_hosted);
            enter_pending(conditions, &mut entered, demand, supply);
        }
        entered
    }

    /// Tells the engine how one entry is now.
    fn tell(&mut self, touched: Touched) {
        let (state, engine, entered) = (&self.state, &mut self.engine, &self.entered);
        match touched {
            Touched::Paused => engine.set_paused(state.matching_paused),
            Touched::NonceFloor(owner) => {
                engine.set_nonce_floor(owner, state.nonce_floors.get(&owner).copied().unwrap_or_default());
                self.line.floored(owner);
            }
            Touched::Cancelled(owner, offer) => {
                engine.set_cancelled(owner, offer, state.cancelled.contains(&(owner, offer)));
                self.line.cancelled(offer);
            }
            Touched::Supply(hash) => self.tell_supply(hash),
            Touched::Demand(hash) => self.tell_demand(hash),
            Touched::Account(account) => {
                engine.set_free(account, entered.part_free(account).unwrap_or_else(|| state.free_balance(account)));
            }
            Touched::Used(hash) => {
                engine.set_used(hash, entered.part_used(hash).unwrap_or_else(|| touched::used(state, hash)));
            }
            Touched::Placement(hash) => {
                let placement = entered.part_placement(hash);
                engine.set_placement(hash, placement.unwrap_or_else(|| touched::placement(state, hash)));
            }
            Touched::Host(demand, provider) => {
                let hosts = entered.has_hosted(demand, provider) || self.has_hosted(demand, provider);
                self.engine.set_hosted(demand, provider, hosts);
            }
            Touched::Deal(_) | Touched::Attested(..) | Touched::Artifact(_) => (),
        }
    }

    fn tell_supply(&mut self, hash: OfferHash) {
        let known = self.state.provider_offers.get(&hash);
        self.line.on_chain(hash, known.is_some());
        let known = known.map(|known| Supply::new(hash, known.offer.clone(), Vec::new(), known.opened_at));
        let signed = |signed: &Signed<ProviderOffer>| {
            Supply::new(hash, signed.offer.clone(), signed.signature.clone(), signed.place())
        };
        match known.or_else(|| self.line.supplies.get(&hash).map(signed)) {
            Some(supply) => self.engine.set_supply(supply),
            None => self.engine.remove_supply(hash),
        }
    }

    fn tell_demand(&mut self, hash: OfferHash) {
        let known = self.state.developer_offers.get(&hash);
        self.line.on_chain(hash, known.is_some());
        let known = known.map(|known| self.demand(hash, &known.offer, Vec::new(), known.opened_at));
        let signed = |signed: &Signed<DeveloperOffer>| {
            self.demand(hash, &signed.offer, signed.signature.clone(), signed.place())
        };
        match known.or_else(|| self.line.demands.get(&hash).map(signed)) {
            Some(demand) => self.engine.set_demand(demand),
            None => self.engine.remove_demand(hash),
        }
    }

    fn demand(&self, hash: OfferHash, offer: &DeveloperOffer, signature: Vec<u8>, place: Place) -> Demand {
        let mut offer = offer.clone();
        if self.planner == Planner::Anybody {
            offer.matcher = Address::ZERO;
        }
        let mut demand = Demand::new(hash, offer, signature, place, &self.terms);
        demand.held = self.is_held(hash);
        demand
    }

    fn is_held(&self, demand: OfferHash) -> bool {
        self.held.contains(&demand) || self.pending_demands.contains(&demand)
    }

    /// Plans at most `max_fills` fills. They stand until the market is settled again.
    pub fn plan(&mut self, max_fills: usize) -> Plan {
        self.engine.plan(max_fills)
    }

    /// What the chain has placed of a demand, fills under way apart.
    pub fn placed(&self, demand: OfferHash) -> Placement {
        touched::placement(&self.state, demand)
    }

    /// What the chain has placed of a demand and what is under way.
    pub fn placed_or_under_way(&self, demand: OfferHash) -> Placement {
        self.entered.part_placement(demand).unwrap_or_else(|| self.placed(demand))
    }

    /// Whether a fill of the demand is under way.
    pub fn is_under_way(&self, demand: OfferHash) -> bool {
        self.pending_demands.contains(&demand)
    }

    /// Whether the provider hosts or has hosted a replica of the developer offer, by the chain.
    pub fn has_hosted(&self, demand: OfferHash, provider: Address) -> bool {
        let mut deals = self.deals.of_demand(demand).filter_map(|deal| self.state.deals.get(&deal));
        deals.any(|known| known.deal.provider == provider)
    }

    /// All deals there ever were of a developer offer.
    pub fn deals_of_demand(&self, offer: OfferHash) -> impl Iterator<Item = DealId> {
        self.deals.of_demand(offer)
    }

    /// Deals of a provider offer that have not ended.
    pub fn open_deals_of_supply(&self, offer: OfferHash) -> impl Iterator<Item = DealId> {
        self.deals.open_of_supply(offer)
    }

    /// Whether the account hosts or has ever hosted anything.
    pub fn hosts_anything(&self, provider: Address) -> bool {
        self.deals.hosts_anything(provider)
    }

    /// Deals that can be ended now and that `wanted` takes, at most `limit`. One look reads a bounded number of deals, so
    /// that right after a start and in an epoch in which many end it takes several to find all.
    pub fn due(&mut self, limit: usize, wanted: impl Fn(DealId) -> bool) -> Vec<Due> {
        let epoch = self.engine.conditions().epoch;
        self.deals.due(&self.state, (&self.terms, epoch), limit, wanted)
    }

    /// What is to be noted of signed offers. Said again until they are [accepted](Market::accept_supply) anew with the note,
    /// or [closed](Market::close_signed).
    pub fn sort_signed(&mut self) -> SortedOffers {
        self.line.sort(self.engine.conditions())
    }

    /// Number of the acceptance of a signed offer that is open.
    pub fn sequence_of(&self, offer: OfferHash) -> Option<u64> {
        self.line.sequence(offer)
    }

    /// Signed offers that the chain does not know, accepted after this number, in order of acceptance.
    pub fn waiting(&self, after: u64) -> impl Iterator<Item = WaitingOffer> {
        self.line.waiting(after)
    }

    /// Whether blocks can be taken back, and how many with events.
    pub fn remembers(&self) -> usize {
        self.applied.len()
    }
}

/// What is entered in part of a ledger.
fn changed_by(entered: &Ledger) -> impl Iterator<Item = Touched> {
    let accounts = entered.balances().map(|(account, _)| Touched::Account(account));
    let used = entered.used_capacity().map(|(supply, _)| Touched::Used(supply));
    let placed = entered.placements().map(|(demand, _)| Touched::Placement(demand));
    let hosts = entered.hosted_pairs().map(|(demand, provider)| Touched::Host(demand, provider));
    accounts.chain(used).chain(placed).chain(hosts)
}
