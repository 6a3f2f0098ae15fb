//! From any snapshot to any other by the facts that are otherwise, whatever lies between.

use std::{collections::BTreeMap, iter::Peekable};

use common::resources::Resources;

use crate::{engine::Engine, ledger::Placement, snapshot::Snapshot};

/// Follows the market from the snapshot that the engine stands at to another one, later or, after a reorganization,
/// earlier. Matches of plans that were not kept are taken back first. Only where the market's constants or the
/// matcher's account are others is everything made anew.
pub(super) fn follow(engine: &mut Engine, from: &Snapshot, to: &Snapshot) {
    engine.take_back();
    let (old, new) = (&from.conditions, &to.conditions);
    if (old.terms, old.matcher) != (new.terms, new.matcher) {
        *engine = Engine::of(to);
        return;
    }
    engine.set_paused(to.matching_paused);
    engine.set_time(new.time, new.epoch);
    for (owner, offer) in old.cancelled.difference(&new.cancelled) {
        engine.set_cancelled(*owner, *offer, false);
    }
    for (owner, offer) in new.cancelled.difference(&old.cancelled) {
        engine.set_cancelled(*owner, *offer, true);
    }
    let floors = changes(pairs(&old.nonce_floors), pairs(&new.nonce_floors));
    floors.for_each(|(owner, floor)| engine.set_nonce_floor(owner, floor.unwrap_or_default()));
    follow_ledger(engine, from, to);
    follow_offers(engine, from, to);
}

fn follow_ledger(engine: &mut Engine, from: &Snapshot, to: &Snapshot) {
    let (old, new) = (&from.ledger, &to.ledger);
    for (account, free) in changes(old.balances(), new.balances()) {
        engine.set_free(account, free.unwrap_or_default());
    }
    for (offer, used) in changes(old.used_capacity(), new.used_capacity()) {
        engine.set_used(offer, used.unwrap_or(Resources::default()));
    }
    for (offer, placement) in changes(old.placements(), new.placements()) {
        engine.set_placement(offer, placement.unwrap_or(Placement::default()));
    }
    let whole = |pair| (pair, ());
    for ((offer, provider), hosted) in changes(old.hosted_pairs().map(whole), new.hosted_pairs().map(whole)) {
        engine.set_hosted(offer, provider, hosted.is_some());
    }
}

/// First what is gone, then what is new or other: an offer may have got another place in the order.
fn follow_offers(engine: &mut Engine, from: &Snapshot, to: &Snapshot) {
    let old = from.supplies.iter().map(|supply| ((supply.place, supply.hash), supply));
    let new = to.supplies.iter().map(|supply| ((supply.place, supply.hash), supply));
    let (gone, set): (Vec<_>, Vec<_>) = changes(old, new).partition(|(_, supply)| supply.is_none());
    gone.into_iter().for_each(|((_, hash), _)| engine.remove_supply(hash));
    set.into_iter().filter_map(|(_, supply)| supply).for_each(|supply| engine.set_supply(supply.clone()));

    let old = from.demands.iter().map(|demand| ((demand.place, demand.hash), demand));
    let new = to.demands.iter().map(|demand| ((demand.place, demand.hash), demand));
    let (gone, set): (Vec<_>, Vec<_>) = changes(old, new).partition(|(_, demand)| demand.is_none());
    gone.into_iter().for_each(|((_, hash), _)| engine.remove_demand(hash));
    set.into_iter().filter_map(|(_, demand)| demand).for_each(|demand| engine.set_demand(demand.clone()));
}

fn pairs<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> impl Iterator<Item = (K, V)> {
    map.iter().map(|(key, value)| (*key, *value))
}

/// What is otherwise in `new` than in `old`, both in the order of their keys; `None` for what it lacks.
fn changes<K: Ord + Copy, V: PartialEq>(
    old: impl Iterator<Item = (K, V)>,
    new: impl Iterator<Item = (K, V)>,
) -> impl Iterator<Item = (K, Option<V>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    std::iter::from_fn(move || next_change(&mut old, &mut new))
}

fn next_change<K: Ord + Copy, V: PartialEq>(
    old: &mut Peekable<impl Iterator<Item = (K, V)>>,
    new: &mut Peekable<impl Iterator<Item = (K, V)>>,
) -> Option<(K, Option<V>)> {
    loop {
        let key = match (old.peek(), new.peek()) {
            (Some((left, _)), Some((right, _))) => (*left).min(*right),
            (Some((key, _)), None) | (None, Some((key, _))) => *key,
            (None, None) => return None,
        };
        let before = old.next_if(|(other, _)| *other == key).map(|(_, value)| value);
        let after = new.next_if(|(other, _)| *other == key).map(|(_, value)| value);
        if before != after {
            return Some((key, after));
        }
    }
}
