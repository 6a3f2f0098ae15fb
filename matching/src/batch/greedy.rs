//! Serving demands one after the other, none of them ever moved again.
//!
//! One demand takes at most one look at each of its pairs by ask, and one for each replica by price. So an answer takes
//! at most `pairs` looks by ask and `pairs · replicas` by price.

use std::cmp::Reverse;

use super::{
    allocation::{Allocation, Meter},
    column::{Column, PairId, WantId},
    dual::Prices,
    model::Model,
};

/// By what a host is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Choice<'p> {
    /// The lowest ask.
    Ask,
    /// The lowest sum of the ask and of what capacity is worth to others.
    Priced(&'p Prices),
}

/// Serves demands in this order. In order of service and by ask it is continuous matching.
pub(super) fn answer<'m, 'a>(
    model: &'m Model<'a>,
    order: impl IntoIterator<Item = WantId>,
    choice: Choice<'_>,
    meter: &mut Meter,
) -> Allocation<'m, 'a> {
    let mut allocation = Allocation::new(model);
    for want in order {
        serve(&mut allocation, want, choice, meter, || false);
    }
    allocation.commit();
    allocation
}

/// Finds hosts for the missing replicas of a demand, as many as there are; without its minimum it gets none. `skips`
/// says of a host that could be taken whether to pass it by.
pub(super) fn serve(
    allocation: &mut Allocation<'_, '_>,
    want: WantId,
    choice: Choice<'_>,
    meter: &mut Meter,
    mut skips: impl FnMut() -> bool,
) {
    match choice {
        Choice::Ask => serve_cheapest(allocation, want, meter, &mut skips),
        Choice::Priced(prices) => serve_priced(allocation, want, prices, meter, &mut skips),
    }
    if allocation.count(want) < allocation.model.wants.of(want).least {
        allocation.clear(want);
    }
}

fn serve_cheapest(
    allocation: &mut Allocation<'_, '_>,
    want: WantId,
    meter: &mut Meter,
    skips: &mut impl FnMut() -> bool,
) {
    let model = allocation.model;
    let row = model.wants.of(want);
    let mut missing = row.most.saturating_sub(allocation.count(want));
    let mut looks = 0_u64;
    for (id, offer) in model.places(want) {
        if missing == 0 {
            break;
        }
        looks = looks.saturating_add(1);
        if allocation.fits(row.size, offer) && allocation.may_host(id, &model.pairs.of(id)) && !skips() {
            allocation.place(id);
            missing = missing.saturating_sub(1);
        }
    }
    meter.count(looks);
}

fn serve_priced(
    allocation: &mut Allocation<'_, '_>,
    want: WantId,
    prices: &Prices,
    meter: &mut Meter,
    skips: &mut impl FnMut() -> bool,
) {
    let model = allocation.model;
    let row = model.wants.of(want);
    while allocation.count(want) < row.most {
        let mut best: Option<(i64, PairId)> = None;
        let mut looks = 0_u64;
        for (id, pair) in model.options(want) {
            let value = prices.scaled(pair.value);
            if best.is_some_and(|(most, _)| value <= most) {
                // Values only fall from here on, and prices take of them.
                break;
            }
            looks = looks.saturating_add(1);
            if allocation.fits(row.size, pair.offer) && allocation.may_host(id, pair) {
                let left = prices.left_of(value, row.size, pair.offer);
                if best.is_none_or(|(most, _)| left > most) && !skips() {
                    best = Some((left, id));
                }
            }
        }
        meter.count(looks);
        let Some((_, id)) = best else { break };
        allocation.place(id);
    }
}

/// What a demand is worth at its cheapest hosts, by itself and for what it takes: for orders, nothing is decided by it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Value of its minimum of replicas, in atoms; below 2⁵⁵.
    pub(super) value: u64,
    /// The same for each part of the market's capacity that it takes, below 2⁴⁸.
    pub(super) density: u64,
}

/// The weights of all demands.
pub(super) fn weights(model: &Model<'_>) -> Column<WantId, Weight> {
    let cpu: u64 = model.free.rows().iter().map(|free| u64::from(free.milli_cpu)).fold(0, u64::saturating_add);
    let memory: u64 = model.free.rows().iter().map(|free| u64::from(free.memory_mib)).fold(0, u64::saturating_add);
    let weight = |want| {
        let row = model.wants.of(want);
        let cheapest = model.options(want).take(row.least as usize);
        let value = cheapest.map(|(_, pair)| pair.value.unsigned_abs()).fold(0, u64::saturating_add);
        // As if all of the market's CPU were worth as much as all of its memory.
        let size = u128::from(row.size.milli_cpu)
            .saturating_mul(u128::from(memory))
            .saturating_add(u128::from(row.size.memory_mib).saturating_mul(u128::from(cpu)));
        let whole = u128::from(cpu).saturating_mul(u128::from(memory)).saturating_mul(u128::from(value));
        let density = whole.checked_div(size.saturating_mul(u128::from(row.least))).unwrap_or_default();
        Weight { value, density: u64::try_from(density).unwrap_or(u64::MAX) }
    };
    model.wants.ids().map(weight).collect()
}

/// Demands by density, densest first.
pub(super) fn by_density(weights: &Column<WantId, Weight>) -> Vec<WantId> {
    let mut order: Vec<WantId> = weights.ids().collect();
    order.sort_by_key(|want| Reverse(weights.of(*want).density));
    order
}

/// Demands by what is left of a replica's value at these prices, for its size, greatest first.
pub(super) fn by_price(model: &Model<'_>, prices: &Prices, meter: &mut Meter) -> Vec<WantId> {
    let left = |want| {
        let row = model.wants.of(want);
        let left = model.options(want).map(|(_, pair)| prices.left_of(prices.scaled(pair.value), row.size, pair.offer));
        let size = i64::from(row.size.milli_cpu).saturating_add(i64::from(row.size.memory_mib));
        left.max().unwrap_or_default().checked_div(size).unwrap_or_default()
    };
    meter.count(model.pairs.len() as u64);
    let mut order: Vec<(Reverse<i64>, WantId)> = model.wants.ids().map(|want| (Reverse(left(want)), want)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, want)| want).collect()
}
