//! The market of a snapshot.

use super::Engine;
use crate::snapshot::Snapshot;

impl Engine {
    /// The market of a snapshot. Void supplies, which snapshots leave out, are not known to it.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut engine = Self::new(snapshot.conditions.clone());
        engine.set_paused(snapshot.matching_paused);
        let ledger = &snapshot.ledger;
        ledger.balances().for_each(|(account, free)| engine.set_free(account, free));
        ledger.used_capacity().for_each(|(offer, used)| engine.set_used(offer, used));
        ledger.placements().for_each(|(offer, placement)| engine.set_placement(offer, placement));
        ledger.hosted_pairs().for_each(|(offer, provider)| engine.set_hosted(offer, provider, true));
        snapshot.supplies.iter().for_each(|supply| engine.set_supply(supply.clone()));
        snapshot.demands.iter().for_each(|demand| engine.set_demand(demand.clone()));
        engine
    }
}
