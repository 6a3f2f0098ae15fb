//! Shadow prices, and with them a proven upper bound.
//!
//! # The bound
//!
//! Let `x(i,j)` be 1 where demand `i` has a replica at supply `j`, and `v(i,j) = max price − ask ≥ 0`. Let `S(i)` be
//! the sets of supplies that `i` may have *by itself*: each pair allowed by the predicate on the untouched ledger, no
//! two of one provider, and none or between `least(i)` and `most(i)` of them. An allocation chooses of each `S(i)` one
//! set so that for each supply `Σᵢ x·cpu(i) ≤ CPU(j)` and `Σᵢ x·mem(i) ≤ MEM(j)` and nobody runs out of money. For any
//! prices `λ(j), μ(j) ≥ 0` and any allocation,
//!
//! ```text
//! Σ x·v ≤ Σ x·v + Σⱼ λ(j)·(CPU(j) − Σᵢ x·cpu(i)) + Σⱼ μ(j)·(MEM(j) − Σᵢ x·mem(i))      each bracket is ≥ 0
//!       = Σⱼ (λ(j)·CPU(j) + μ(j)·MEM(j)) + Σᵢ Σⱼ x·(v(i,j) − λ(j)·cpu(i) − μ(j)·mem(i))
//!       ≤ Σⱼ (λ(j)·CPU(j) + μ(j)·MEM(j)) + Σᵢ max over S(i) of Σⱼ (v(i,j) − λ(j)·cpu(i) − μ(j)·mem(i)).
//! ```
//!
//! The last line is the bound. Its maxima are exact: of each provider only the best supply matters, of the providers
//! the best `most(i)`, of these all that are positive, filled up to `least(i)` with the next best, and nothing at all
//! when that sum is negative. An allocation's sets are among `S(i)`, as entering fills only tightens the predicate. So
//! the bound holds with the demands' minima, and it holds for every price: prices are found by a heuristic, the bound
//! is not. Leaving the money out can only raise it, and so can the fair standard.
//!
//! Numbers are integers with [`Prices::shift`] bits behind the point. Where a product saturates it is too small, what
//! is left of a value too large, and the bound still holds; the sum is rounded up.
//!
//! # The prices
//!
//! By subgradient steps (B. Polyak, "Minimization of unsmooth functionals", 1969): the length is a factor of the gap to
//! the best welfare known, over the square of the subgradient. The factor is halved when the bound has not fallen for a
//! while. The direction is measured in the worth of a whole supply, so that large and small ones take steps of like
//! effect.

use common::resources::Resources;

use super::{
    allocation::Meter,
    column::{AccountId, Column, OfferId, WantId},
    model::Model,
};

/// Values have at most this many bits with those behind the point: room for sums in 64.
const VALUE_BITS: u32 = 48;
/// Bits behind the point of a share of a supply.
const SHARE_BITS: u32 = 16;
/// Bits behind the point of the step's factor.
const FACTOR_BITS: u32 = 16;
/// Factor of the first steps: half of Polyak's length.
const FIRST_FACTOR: i128 = 1 << (FACTOR_BITS - 1);
/// Steps with a smaller factor are not worth taking.
const LAST_FACTOR: i128 = FIRST_FACTOR >> 10;
/// Steps without a worthwhile fall after which the factor is halved.
const PATIENCE: u32 = 30;
/// A fall is worthwhile from this power of ½ of the bound on.
const WORTHWHILE_FALL: u32 = 13;

/// What capacity is worth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Prices {
    /// Bits behind the point.
    shift: u32,
    at: Column<OfferId, Price>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Price {
    /// Of one thousandth of a CPU.
    cpu: i64,
    /// Of one MiB.
    memory: i64,
}

impl Prices {
    fn zero(model: &Model<'_>) -> Self {
        let most = model.pairs.rows().iter().map(|pair| pair.value).max().unwrap_or_default();
        let bits = i64::BITS.saturating_sub(most.leading_zeros());
        Self {
            shift: VALUE_BITS.saturating_sub(bits.max(VALUE_BITS.saturating_sub(30))),
            at: model.free.ids().map(|_| Price::default()).collect(),
        }
    }

    /// A value with the bits behind the point.
    #[inline]
    pub(super) const fn scaled(&self, value: i64) -> i64 {
        value.wrapping_shl(self.shift)
    }

    /// What is left of a scaled value when capacity of this size is paid for.
    #[inline]
    pub(super) fn left_of(&self, value: i64, size: Resources, offer: OfferId) -> i64 {
        value.saturating_sub(self.worth(size, offer))
    }

    /// What capacity of this size is worth there, scaled.
    #[inline]
    pub(super) fn worth(&self, size: Resources, offer: OfferId) -> i64 {
        let price = self.at.of(offer);
        let cpu = price.cpu.saturating_mul(i64::from(size.milli_cpu));
        cpu.saturating_add(price.memory.saturating_mul(i64::from(size.memory_mib)))
    }
}

/// A share of CPU and one of memory.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    cpu: i64,
    memory: i64,
}

/// What demand takes of a supply at the present prices.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    cpu: u64,
    memory: u64,
}

/// The search for prices with a low bound.
pub(super) struct Dual<'m, 'a> {
    model: &'m Model<'a>,
    /// Those of the lowest bound, which is scaled.
    best: (i128, Prices),
    prices: Prices,
    load: Column<OfferId, Load>,
    /// The subgradient, as shares of the capacity that are left over.
    direction: Column<OfferId, Shares>,
    chosen: Vec<(i64, AccountId, OfferId)>,
}

impl<'m, 'a> Dual<'m, 'a> {
    /// Before the first step: capacity is worth nothing. Evaluates once, whatever the meter says, so that there is
    /// always a bound.
    pub(super) fn new(model: &'m Model<'a>, meter: &mut Meter) -> Self {
        let prices = Prices::zero(model);
        let mut dual = Self {
            model,
            best: (0, prices.clone()),
            prices,
            load: model.free.ids().map(|_| Load::default()).collect(),
            direction: model.free.ids().map(|_| Shares::default()).collect(),
            chosen: Vec::new(),
        };
        dual.best.0 = dual.evaluate(meter);
        dual
    }

    /// The prices of the lowest bound.
    pub(super) const fn prices(&self) -> &Prices {
        &self.best.1
    }

    /// No allocation has a greater welfare, in atoms per epoch.
    pub(super) fn bound(&self) -> i128 {
        let whole = 1_i128.wrapping_shl(self.prices.shift);
        self.best.0.saturating_add(whole.saturating_sub(1)) >> self.prices.shift
    }

    /// Takes steps from the best prices until the budget is used up or they become too short. `known` is the welfare of
    /// some allocation.
    pub(super) fn descend(&mut self, known: i128, meter: &mut Meter) {
        if meter.is_spent() {
            return;
        }
        let known = known.saturating_mul(1_i128.wrapping_shl(self.prices.shift));
        let (mut factor, mut stale) = (FIRST_FACTOR, 0_u32);
        self.prices.clone_from(&self.best.1);
        let mut value = self.evaluate(meter);
        while factor >= LAST_FACTOR && !meter.is_spent() && self.step(value.saturating_sub(known), factor) {
            value = self.evaluate(meter);
            let fall = self.best.0.saturating_sub(value);
            stale = if fall > value >> WORTHWHILE_FALL { 0 } else { stale.saturating_add(1) };
            if fall > 0 {
                self.best.0 = value;
                self.best.1.clone_from(&self.prices);
            }
            if stale >= PATIENCE {
                (factor, stale) = (factor >> 1, 0);
            }
        }
    }

    /// The bound at the present prices, scaled; leaves the load that they cause.
    fn evaluate(&mut self, meter: &mut Meter) -> i128 {
        self.load.fill(Load::default());
        let mut sum = 0_i128;
        for want in self.model.wants.ids() {
            sum = sum.saturating_add(self.serve(want, meter));
        }
        for (offer, capacity) in self.model.free.ids().zip(self.model.free.rows()) {
            let price = self.prices.at.of(offer);
            let cpu = i128::from(price.cpu).saturating_mul(i128::from(capacity.milli_cpu));
            let memory = i128::from(price.memory).saturating_mul(i128::from(capacity.memory_mib));
            sum = sum.saturating_add(cpu).saturating_add(memory);
        }
        sum
    }

    /// The most that a demand can have at these prices, with the load of it.
    fn serve(&mut self, want: WantId, meter: &mut Meter) -> i128 {
        let row = self.model.wants.of(want);
        let (least, most) = (row.least as usize, row.most as usize);
        self.chosen.clear();
        let mut looks = 0_u64;
        for (_, pair) in self.model.options(want) {
            let value = self.prices.scaled(pair.value);
            if self.chosen.len() >= most && self.chosen.last().is_some_and(|(worst, ..)| value <= *worst) {
                // Values only fall from here on, and prices take of them.
                break;
            }
            looks = looks.saturating_add(1);
            let left = self.prices.left_of(value, row.size, pair.offer);
            choose(&mut self.chosen, most, (left, pair.provider, pair.offer));
        }
        meter.count(looks);
        let wanted = self.chosen.iter().filter(|(left, ..)| *left > 0).count().max(least);
        self.chosen.truncate(wanted);
        let sum: i128 = self.chosen.iter().map(|(left, ..)| i128::from(*left)).sum();
        if self.chosen.len() < least || sum <= 0 {
            return 0;
        }
        for (_, _, offer) in &self.chosen {
            self.load.change(*offer, |load| {
                load.cpu = load.cpu.saturating_add(u64::from(row.size.milli_cpu));
                load.memory = load.memory.saturating_add(u64::from(row.size.memory_mib));
            });
        }
        sum
    }

    /// Moves the prices against the direction by Polyak's length for this gap; `false` when there is nowhere to go.
    fn step(&mut self, gap: i128, factor: i128) -> bool {
        let mut norm = 0_i128;
        for (offer, capacity) in self.model.free.ids().zip(self.model.free.rows()) {
            let (load, price) = (self.load.of(offer), self.prices.at.of(offer));
            let direction = Shares {
                cpu: share_left(capacity.milli_cpu, load.cpu, price.cpu),
                memory: share_left(capacity.memory_mib, load.memory, price.memory),
            };
            norm = norm.saturating_add(i128::from(direction.cpu).saturating_pow(2));
            norm = norm.saturating_add(i128::from(direction.memory).saturating_pow(2));
            self.direction.set(offer, direction);
        }
        let length = gap.max(0).saturating_mul(factor) << (2 * SHARE_BITS - FACTOR_BITS);
        let Some(length) = length.checked_div(norm).filter(|length| *length > 0) else { return false };
        for (offer, capacity) in self.model.free.ids().zip(self.model.free.rows()) {
            let direction = self.direction.of(offer);
            self.prices.at.change(offer, |price| {
                price.cpu = moved(price.cpu, length, direction.cpu, capacity.milli_cpu);
                price.memory = moved(price.memory, length, direction.memory, capacity.memory_mib);
            });
        }
        true
    }
}

/// Keeps the best `most`, one of each provider, best first.
fn choose(
    chosen: &mut Vec<(i64, AccountId, OfferId)>,
    most: usize,
    (left, provider, offer): (i64, AccountId, OfferId),
) {
    if let Some(same) = chosen.iter().position(|(_, other, _)| *other == provider) {
        if chosen.get(same).is_some_and(|(other, ..)| *other >= left) {
            return;
        }
        chosen.remove(same);
    }
    let at = chosen.partition_point(|(other, ..)| *other >= left);
    if at < most {
        chosen.truncate(most.saturating_sub(1));
        chosen.insert(at, (left, provider, offer));
    }
}

/// The share of `capacity` that `load` leaves, below zero where it is overloaded; nothing where a price of zero would
/// fall.
fn share_left(capacity: u32, load: u64, price: i64) -> i64 {
    let left = i64::from(capacity).saturating_sub_unsigned(load);
    if price == 0 && left > 0 {
        return 0;
    }
    left.saturating_mul(1 << SHARE_BITS).checked_div(i64::from(capacity)).unwrap_or_default()
}

/// A price moved by `length · direction`, in the worth of a whole supply; never below zero.
fn moved(price: i64, length: i128, direction: i64, capacity: u32) -> i64 {
    let worth = length.saturating_mul(i128::from(direction)) >> SHARE_BITS;
    let step = worth.checked_div(i128::from(capacity)).unwrap_or_default();
    let moved = i128::from(price).saturating_sub(step).max(0);
    i64::try_from(moved).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::batch::tests::{optimum, tiny_market};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn any_prices_prove_a_bound(
            market in tiny_market(),
            drawn in vec((0_i64..4, 0_i64..4, 0_u32..45), 12),
        ) {
            let model = Model::of(&market);
            let mut meter = Meter { used: 0, limit: 0 };
            let mut dual = Dual::new(&model, &mut meter);
            let drawn = drawn.into_iter().map(|(cpu, memory, bits)| Price { cpu: cpu << bits, memory: memory << bits });
            dual.prices.at = drawn.take(model.free.len()).collect();
            dual.best.0 = dual.evaluate(&mut meter);
            prop_assert!(dual.bound() >= optimum(&market));
        }
    }
}
