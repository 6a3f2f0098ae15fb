//! What to attest and what to claim, by the rules of the contract's settlement.
//!
//! One attestation speaks for all deals of an agent. This agent attests an epoch when at least one billed deal was ready
//! in it; deals that were not ready in it are paid as well then, since the contract cannot tell them apart. They
//! are named in [`BillingPlan::unserved`], which goes to the log and the metrics.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    deal::{Deal, DealState},
    epoch::Epoch,
    ids::DealId,
    money::Atoms,
};

/// What the agent knows when it plans.
#[derive(Debug)]
pub struct Books<'a> {
    /// The chain's epoch.
    pub now: Epoch,
    /// An epoch can be attested during this many epochs after it.
    pub attestation_window: u32,
    /// All deals of this agent that have not ended, as last read.
    pub deals: &'a [Deal],
    /// Epochs in which a deal was ready at least once.
    pub served: &'a BTreeSet<(DealId, Epoch)>,
    /// Epochs that are attested on chain.
    pub attested: &'a BTreeSet<Epoch>,
    /// Free balances of developers, as far as they were asked for.
    pub free: &'a BTreeMap<DealId, Atoms>,
    /// Epoch in which a deal was last settled only to renew its lock.
    pub renewed: &'a BTreeMap<DealId, Epoch>,
}

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BillingPlan {
    /// Epochs to attest, earliest first.
    pub attest: Vec<Epoch>,
    /// Deals to claim for: attested epochs will be paid.
    pub claim: Vec<DealId>,
    /// Deals to settle although nothing is to be paid: the lock is to be topped up, or its end to be recorded.
    pub renew: Vec<DealId>,
    /// Unfunded deals to settle, as their developers have money again.
    pub resume: Vec<DealId>,
    /// Billed deals that were not ready once in an epoch that is to be attested.
    pub unserved: Vec<(DealId, Epoch)>,
}

/// Epochs whose attestation matters to the plan: from the first unsettled or attestable one, the latest `most` of them.
pub fn epochs_of_interest(deals: &[Deal], now: Epoch, attestation_window: u32, most: u32) -> BTreeSet<Epoch> {
    let unsettled = deals.iter().map(|deal| deal.settled_until).min().unwrap_or(now);
    let from = unsettled.min(now.minus(attestation_window)).max(now.minus(most));
    (from.0..now.0).map(Epoch).collect()
}

impl Books<'_> {
    /// First epoch that can still be attested.
    pub fn first_attestable(&self) -> Epoch {
        self.now.minus(self.attestation_window)
    }

    /// What to send now.
    pub fn plan(&self) -> BillingPlan {
        let mut plan = BillingPlan::default();
        for epoch in (self.first_attestable().0..self.now.0).map(Epoch) {
            if self.attested.contains(&epoch) {
                continue;
            }
            let billed = || self.deals.iter().filter(|deal| deal.is_billed_in(epoch)).map(|deal| deal.id);
            if billed().any(|id| self.served.contains(&(id, epoch))) {
                plan.attest.push(epoch);
                let missing = billed().filter(|id| !self.served.contains(&(*id, epoch)));
                plan.unserved.extend(missing.map(|id| (id, epoch)));
            }
        }
        for deal in self.deals.iter().filter(|deal| deal.state != DealState::Ended) {
            if self.payable_epochs(deal) > 0 {
                plan.claim.push(deal.id);
            } else if self.needs_renewal(deal) {
                plan.renew.push(deal.id);
            } else if self.can_resume(deal) {
                plan.resume.push(deal.id);
            }
        }
        plan
    }

    /// How far a settlement would come now: over all final epochs, and on as far as they are attested without a hole.
    fn settles_until(&self, deal: &Deal) -> Epoch {
        let limit = deal.unfunded_since.unwrap_or(deal.end_epoch).min(deal.end_epoch);
        let mut until = deal.settled_until.max(self.first_attestable().min(limit));
        while until < self.now.min(limit) && self.attested.contains(&until) {
            until = until.plus(1);
        }
        until
    }

    fn payable_epochs(&self, deal: &Deal) -> usize {
        let (from, to) = (deal.settled_until, self.settles_until(deal));
        if from < to { self.attested.range(from..to).count() } else { 0 }
    }

    fn needs_renewal(&self, deal: &Deal) -> bool {
        let is_done = self.renewed.get(&deal.id).is_some_and(|last| *last >= self.now);
        let is_running = deal.start_epoch <= self.now && self.now < deal.end_epoch;
        is_running && deal.unfunded_since.is_none() && deal.paid_until <= self.now && !is_done
    }

    fn can_resume(&self, deal: &Deal) -> bool {
        let has_money = self.free.get(&deal.id).is_some_and(|free| *free >= deal.price_per_epoch);
        let reaches_gap = deal.unfunded_since.is_some_and(|since| self.settles_until(deal) >= since);
        has_money && reaches_gap && self.now.plus(1) < deal.end_epoch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u32 = 4;

    fn deal(id: u8, start: u32, end: u32) -> Deal {
        Deal {
            id: DealId([id; 32]),
            developer_offer: Default::default(),
            provider_offer: Default::default(),
            developer: Default::default(),
            provider: Default::default(),
            agent: Default::default(),
            size: Default::default(),
            price_per_epoch: Atoms::new(10).unwrap(),
            old_price: None,
            changes: 0,
            start_epoch: Epoch(start),
            end_epoch: Epoch(end),
            settled_until: Epoch(start),
            paid_until: Epoch(end),
            locked: Atoms::ZERO,
            bond: Atoms::ZERO,
            unfunded_since: None,
            state: DealState::Active,
            cause: None,
        }
    }

    /// A world that tests change piece by piece.
    #[derive(Default)]
    struct World {
        deals: Vec<Deal>,
        served: BTreeSet<(DealId, Epoch)>,
        attested: BTreeSet<Epoch>,
        free: BTreeMap<DealId, Atoms>,
        renewed: BTreeMap<DealId, Epoch>,
    }

    impl World {
        fn plan(&self, now: u32) -> BillingPlan {
            Books {
                now: Epoch(now),
                attestation_window: WINDOW,
                deals: &self.deals,
                served: &self.served,
                attested: &self.attested,
                free: &self.free,
                renewed: &self.renewed,
            }
            .plan()
        }

        fn serve(&mut self, id: u8, epochs: std::ops::Range<u32>) {
            self.served.extend(epochs.map(|epoch| (DealId([id; 32]), Epoch(epoch))));
        }
    }

    #[test]
    fn an_epoch_is_attested_after_it_ended_and_only_once() {
        let mut world = World { deals: vec![deal(1, 5, 20)], ..World::default() };
        world.serve(1, 4..8);
        assert_eq!(world.plan(5).attest, [], "epoch 5 still runs, epoch 4 is not billed");
        assert_eq!(world.plan(6).attest, [Epoch(5)]);
        world.attested.insert(Epoch(5));
        assert_eq!(world.plan(6).attest, []);
        assert_eq!(world.plan(8).attest, [Epoch(6), Epoch(7)], "catching up goes in order");
        assert_eq!(world.plan(12).attest, [], "beyond the window it is too late");
    }

    #[test]
    fn what_was_not_served_is_not_attested_alone_but_named_beside_others() {
        let mut world = World { deals: vec![deal(1, 5, 20), deal(2, 5, 20)], ..World::default() };
        assert_eq!(world.plan(7).attest, []);
        world.serve(1, 6..7);
        let plan = world.plan(7);
        assert_eq!(plan.attest, [Epoch(6)]);
        assert_eq!(plan.unserved, [(DealId([2; 32]), Epoch(6))]);
    }

    #[test]
    fn the_last_epochs_are_attested_and_claimed_after_the_end() {
        let mut world = World { deals: vec![deal(1, 5, 7)], ..World::default() };
        world.serve(1, 5..7);
        assert_eq!(world.plan(9).attest, [Epoch(5), Epoch(6)]);
        world.attested.extend([Epoch(5), Epoch(6)]);
        assert_eq!(world.plan(9).claim, [DealId([1; 32])]);
        world.deals[0].settled_until = Epoch(7);
        assert_eq!(world.plan(9), BillingPlan::default());
    }

    #[test]
    fn a_hole_holds_back_what_lies_behind_it_until_it_is_final() {
        let mut world = World { deals: vec![deal(1, 5, 20)], ..World::default() };
        world.attested.extend([Epoch(6), Epoch(7)]);
        assert_eq!(world.plan(8).claim, [], "epoch 5 may still be attested");
        assert_eq!(world.plan(10).claim, [DealId([1; 32])], "epoch 5 is lost, 6 and 7 are paid");
    }

    #[test]
    fn a_lock_that_ran_out_is_renewed_once_an_epoch() {
        let mut world = World { deals: vec![deal(1, 5, 20)], ..World::default() };
        world.deals[0].paid_until = Epoch(8);
        assert_eq!(world.plan(7).renew, []);
        assert_eq!(world.plan(8).renew, [DealId([1; 32])]);
        world.renewed.insert(DealId([1; 32]), Epoch(8));
        assert_eq!(world.plan(8).renew, []);
        assert_eq!(world.plan(9).renew, [DealId([1; 32])]);
    }

    #[test]
    fn an_unfunded_deal_is_settled_when_its_developer_has_money_again() {
        let mut world = World { deals: vec![deal(1, 5, 20)], ..World::default() };
        world.deals[0].unfunded_since = Some(Epoch(8));
        world.deals[0].settled_until = Epoch(8);
        assert_eq!(world.plan(9), BillingPlan::default());
        world.free.insert(DealId([1; 32]), Atoms::new(9).unwrap());
        assert_eq!(world.plan(9).resume, []);
        world.free.insert(DealId([1; 32]), Atoms::new(10).unwrap());
        assert_eq!(world.plan(9).resume, [DealId([1; 32])]);
        assert_eq!(world.plan(19).resume, [], "there is no epoch left to go on with");
        world.deals[0].settled_until = Epoch(7);
        assert_eq!(world.plan(9).resume, [], "epoch 7 may still be attested and is settled first");
    }

    proptest! {
        /// Planning every few epochs and doing what the plan says attests every served and billed epoch exactly once and
        /// leaves nothing to claim, as long as no pause is longer than the window.
        #[test]
        fn nothing_is_lost_and_nothing_is_done_twice(
            spans in proptest::collection::vec((5u32..12, 1u32..12), 1..4),
            pauses in proptest::collection::vec(1u32..=WINDOW, 1..12),
        ) {
            let mut world = World::default();
            for (at, (start, length)) in spans.iter().enumerate() {
                let id = u8::try_from(at).unwrap();
                world.deals.push(deal(id, *start, start.saturating_add(*length)));
                world.serve(id, 0..40);
            }
            let mut sent = BTreeSet::new();
            let mut now = 5;
            for pause in pauses.into_iter().chain([WINDOW; 8]) {
                now = pause.saturating_add(now);
                for epoch in world.plan(now).attest {
                    prop_assert!(sent.insert(epoch), "epoch {} twice", epoch);
                    world.attested.insert(epoch);
                }
                for id in world.plan(now).claim {
                    let deal = world.deals.iter_mut().find(|deal| deal.id == id).unwrap();
                    let settled = Epoch(now).min(deal.end_epoch);
                    prop_assert!(settled > deal.settled_until);
                    deal.settled_until = settled;
                }
                prop_assert_eq!(world.plan(now).claim, vec![]);
            }
            let billed: BTreeSet<Epoch> =
                world.deals.iter().flat_map(|deal| (deal.start_epoch.0..deal.end_epoch.0).map(Epoch)).collect();
            prop_assert_eq!(sent, billed);
            prop_assert!(world.deals.iter().all(|deal| deal.settled_until == deal.end_epoch));
        }
    }
}
