//! Large-neighbourhood search: empty a few supplies that lie near each other, serve anew whom that concerns, keep the
//! result when it is better or not much worse.
//!
//! This is "slack induction by string removals" of Christiaens and Vanden Berghe (Transportation Science 54, 2020) for
//! supplies in place of tours: neighbouring strings are removed together, insertion is greedy and blinks, acceptance is
//! simulated annealing. New here are the invitations: of the demands that an emptied supply could host some that miss
//! replicas try their luck too.
//!
//! A move costs the looks of serving at most a few dozen demands once; everything is taken back by a journal, so that
//! nothing of the size of the market is touched by a move. The search ends with the first move that exceeds the budget.

use super::{
    allocation::{Allocation, Meter, Placed},
    column::{Column, Id, OfferId, WantId},
    dual::Prices,
    fair::Standard,
    greedy::{self, Choice, Weight},
    rng::{EXPONENTIAL_BITS, Rng},
};

/// Most supplies that a move empties.
const MOST_EMPTIED: usize = 3;
/// Demands that are invited for each supply.
const INVITED: usize = 4;
/// Of a thousand hosts found, so many are passed by.
const PASSED_PER_MILLE: usize = 30;
/// Of a hundred moves, so many choose by price.
const PRICED_PERCENT: usize = 25;
/// The same under a standard of fairness, which looks at asks.
const PRICED_PERCENT_WHEN_FAIR: usize = 5;
/// A loss that is accepted at first with a chance of 1/e, in thousandths of the mean welfare of a demand served.
const HEAT_PER_MILLE: i128 = 40;
/// How often that loss is halved until the end.
const HALVINGS: u64 = 6;
/// Moves after which the heat is set anew.
const MOVES_PER_HEAT: u64 = 64;

/// In which order the demands of a move are served.
#[derive(Debug, Clone, Copy)]
enum Order {
    Random,
    Density,
    Value,
}

/// What the search is led by.
pub(super) struct Guide<'s> {
    /// What capacity is worth.
    pub(super) prices: &'s Prices,
    /// What demands are worth.
    pub(super) weights: &'s Column<WantId, Weight>,
    /// What must not be violated; the start must not violate it either.
    pub(super) standard: Option<&'s Standard>,
}

/// The search.
pub(super) struct Search<'s, 'm, 'a> {
    guide: Guide<'s>,
    now: Allocation<'m, 'a>,
    best: Placed,
    rng: Rng,
    /// Whom the present move serves anew, with the keys of their order.
    pool: Vec<(u64, WantId)>,
    in_pool: Column<WantId, bool>,
    emptied: Vec<OfferId>,
}

impl<'s, 'm, 'a> Search<'s, 'm, 'a> {
    /// A search that begins with `start`.
    pub(super) fn new(start: Allocation<'m, 'a>, guide: Guide<'s>, seed: u64) -> Self {
        Self {
            guide,
            best: start.placed.clone(),
            in_pool: start.model.wants.ids().map(|_| false).collect(),
            now: start,
            rng: Rng::new(seed),
            pool: Vec::new(),
            emptied: Vec::new(),
        }
    }

    /// The best answer found within the budget: the start, or one of greater welfare.
    pub(super) fn run(mut self, meter: &mut Meter) -> Placed {
        if self.now.model.wants.len() == 0 {
            return self.best;
        }
        let hottest = self.hottest();
        let (began, span) = (meter.used, meter.limit.saturating_sub(meter.used));
        let (mut heat, mut moves) = (hottest, 0_u64);
        while !meter.is_spent() {
            if moves.is_multiple_of(MOVES_PER_HEAT) {
                heat = cooled(hottest, meter.used.saturating_sub(began), span);
            }
            moves = moves.saturating_add(1);
            self.take_a_move(heat, meter);
        }
        self.best
    }

    fn hottest(&self) -> i128 {
        let placed = &self.now.placed;
        let served = self.now.model.wants.ids().filter(|want| !placed.hosts(*want).is_empty()).count();
        let mean = placed.welfare.checked_div(i128::try_from(served).unwrap_or(i128::MAX)).unwrap_or_default();
        mean.saturating_mul(HEAT_PER_MILLE).div_euclid(1_000)
    }

    fn take_a_move(&mut self, heat: i128, meter: &mut Meter) {
        let before = self.now.placed.welfare;
        self.ruin(meter);
        let is_fair = self.recreate(meter);
        for (_, want) in self.pool.drain(..) {
            self.in_pool.set(want, false);
        }
        let loss = before.saturating_sub(self.now.placed.welfare);
        let allowed = heat.saturating_mul(i128::from(self.rng.exponential())) >> EXPONENTIAL_BITS;
        if !is_fair || loss > allowed {
            self.now.roll_back();
            return;
        }
        self.now.commit();
        if self.now.placed.welfare > self.best.welfare {
            self.best.copy_from(&self.now.placed);
        }
    }

    /// Takes a demand away, and the guests of some supplies: one where that demand could be, then each time one where a
    /// demand could be that was taken away already.
    fn ruin(&mut self, meter: &mut Meter) {
        let model = self.now.model;
        let seed = WantId::new(self.rng.below(model.wants.len()));
        self.now.clear(seed);
        self.join(seed);
        self.emptied.clear();
        let mut near = seed;
        for _ in 0..=self.rng.below(MOST_EMPTIED) {
            // Cheap places are likelier.
            let reach = self.rng.below(model.option_count(near)).saturating_add(1);
            let rank = self.rng.below(reach);
            let offer = model.pairs.of(model.option(near, rank)).offer;
            if !self.emptied.contains(&offer) {
                self.emptied.push(offer);
                self.empty(offer);
            }
            near = self.rng.pick(&self.pool).map_or(seed, |(_, want)| want);
        }
        for at in 0..self.emptied.len() {
            if let Some(offer) = self.emptied.get(at).copied() {
                self.invite(offer);
                meter.count(INVITED as u64);
            }
        }
    }

    fn empty(&mut self, offer: OfferId) {
        while let Some(pair) = self.now.guests(offer).last().copied() {
            self.now.remove(pair);
            self.join(self.now.model.pairs.of(pair).want);
        }
    }

    fn invite(&mut self, offer: OfferId) {
        let model = self.now.model;
        let pairs = model.pairs_at(offer);
        for _ in 0..INVITED.min(pairs.len()) {
            let Some(pair) = self.rng.pick(pairs) else { return };
            let want = model.pairs.of(pair).want;
            if self.now.count(want) < model.wants.of(want).most {
                self.join(want);
            }
        }
    }

    fn join(&mut self, want: WantId) {
        if !self.in_pool.of(want) {
            self.in_pool.set(want, true);
            self.pool.push((0, want));
        }
    }

    /// Serves the pool; `false`, perhaps before all are served, when somebody does not get what it is owed.
    fn recreate(&mut self, meter: &mut Meter) -> bool {
        self.order();
        let percent = if self.guide.standard.is_some() { PRICED_PERCENT_WHEN_FAIR } else { PRICED_PERCENT };
        let choice = if self.rng.below(100) < percent { Choice::Priced(self.guide.prices) } else { Choice::Ask };
        for (_, want) in &self.pool {
            let rng = &mut self.rng;
            greedy::serve(&mut self.now, *want, choice, meter, || rng.below(1_000) < PASSED_PER_MILLE);
            let standard = self.guide.standard;
            if standard.is_some_and(|standard| !standard.holds(self.now.model, &self.now.placed, *want)) {
                return false;
            }
        }
        true
    }

    /// Puts the pool into some order; whoever is owed something comes first.
    fn order(&mut self) {
        let order = match self.rng.below(4) {
            0 => Order::Random,
            1 => Order::Value,
            _ => Order::Density,
        };
        for (key, want) in &mut self.pool {
            let weight = self.guide.weights.of(*want);
            // Three to five quarters of the weight, so that orders differ from move to move.
            let noise = 192_u64.saturating_add(self.rng.bits() >> 57);
            let random = match order {
                Order::Random => self.rng.bits(),
                Order::Density => weight.density.saturating_mul(noise),
                Order::Value => weight.value.saturating_mul(noise),
            };
            let is_owed = self.guide.standard.is_some_and(|standard| standard.protects(*want));
            *key = (random >> 1) | (u64::from(is_owed) << 63);
        }
        self.pool.sort_unstable_by(|one, other| other.cmp(one));
    }
}

/// `hottest · 2^(−HALVINGS · used / span)`, with straight lines between the powers of two.
fn cooled(hottest: i128, used: u64, span: u64) -> i128 {
    let halvings = u128::from(used).saturating_mul(u128::from(HALVINGS)) << 16;
    let halvings = halvings.checked_div(u128::from(span)).and_then(|sum| u32::try_from(sum).ok()).unwrap_or_default();
    let (whole, part) = (halvings >> 16, halvings & 0xffff);
    let rest = i128::from(0x2_0000_u32.saturating_sub(part));
    (hottest.saturating_mul(rest) >> 17) >> whole.min(127)
}
