//! What should be, against what is: one action for each replica that is not where it should be.

use common::{
    deal::{Deal, DealState},
    epoch::Epoch,
    ids::DealId,
};

use super::replica::ReplicaState;

/// What the chain wants of a deal's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It shall run.
    Run,
    /// Its money ended: keep the module, refuse requests.
    Pause,
    /// The deal is over.
    Stop,
}

/// What `deal`, as last read from the chain at `epoch`, wants. Nothing here depends on how old that reading is: only what the
/// chain has said ends a worker.
pub fn wish(deal: &Deal, epoch: Epoch) -> Wish {
    if deal.state == DealState::Ended || epoch >= deal.end_epoch {
        return Wish::Stop;
    }
    if deal.unfunded_since.is_some_and(|since| since <= epoch) {
        return Wish::Pause;
    }
    Wish::Run
}

/// What to do with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fetch, compile, start.
    BringUp,
    /// Refuse requests, keep the module.
    Pause,
    /// Take requests again.
    Resume,
    /// Let running requests end, then stop.
    Stop,
}

/// The one next step of a replica, if there is one; `now` is seconds since 1970.
pub fn next_action(wish: Wish, state: &ReplicaState, now: u64) -> Option<Action> {
    use ReplicaState as S;
    match (wish, state) {
        (_, S::Stopped | S::Draining) => None,
        (Wish::Stop, _) => Some(Action::Stop),
        (Wish::Run, S::Assigned) => Some(Action::BringUp),
        (Wish::Run, S::Backoff { until, .. }) if *until <= now => Some(Action::BringUp),
        (Wish::Run, S::Paused) => Some(Action::Resume),
        (Wish::Pause, S::Ready) => Some(Action::Pause),
        // What is coming up goes on, even when unfunded meanwhile: it is paused once it is ready.
        _ => None,
    }
}

/// All next steps, in the order given.
pub fn plan<'a>(
    replicas: impl IntoIterator<Item = (&'a Deal, &'a ReplicaState)>,
    epoch: Epoch,
    now: u64,
) -> Vec<(DealId, Action)> {
    replicas
        .into_iter()
        .filter_map(|(deal, state)| Some((deal.id, next_action(wish(deal, epoch), state, now)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use common::money::Atoms;

    use super::*;
    use crate::domain::replica::{Cause, Failure, Replica, ReplicaEvent};

    pub(crate) fn deal(start: u32, end: u32) -> Deal {
        Deal {
            id: DealId([1; 32]),
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

    #[test]
    fn a_worker_runs_before_its_first_billed_epoch_and_not_after_its_last() {
        let deal = deal(5, 8);
        assert_eq!(wish(&deal, Epoch(4)), Wish::Run);
        assert_eq!(wish(&deal, Epoch(7)), Wish::Run);
        assert_eq!(wish(&deal, Epoch(8)), Wish::Stop);
    }

    #[test]
    fn unfunded_pauses_and_ended_stops() {
        let mut deal = deal(5, 8);
        deal.unfunded_since = Some(Epoch(7));
        assert_eq!(wish(&deal, Epoch(6)), Wish::Run);
        assert_eq!(wish(&deal, Epoch(7)), Wish::Pause);
        deal.state = DealState::Ended;
        assert_eq!(wish(&deal, Epoch(6)), Wish::Stop);
    }

    #[test]
    fn a_failed_replica_waits_its_time() {
        let failure = Failure::new(Cause::ArtifactUnavailable, "no source");
        let backoff = ReplicaState::Backoff { failure: failure.clone(), until: 100 };
        assert_eq!(next_action(Wish::Run, &backoff, 99), None);
        assert_eq!(next_action(Wish::Run, &backoff, 100), Some(Action::BringUp));
        assert_eq!(next_action(Wish::Run, &ReplicaState::Failed { failure }, 100), None);
    }

    /// Carrying out the plan again and again ends where the wish is, from everywhere, and stays there.
    #[test]
    fn it_converges() {
        for (end, unfunded, settles) in [(9, None, "ready"), (9, Some(Epoch(5)), "paused"), (5, None, "stopped")] {
            let mut deal = deal(4, end);
            let mut replica = Replica::default();
            for step in 0..12 {
                // Unfunded only once it runs: otherwise there is nothing to pause yet.
                deal.unfunded_since = unfunded.filter(|_| step > 6);
                let planned = plan([(&deal, replica.state())], Epoch(5), 0);
                let events: &[ReplicaEvent] = match planned.first().map(|(_, action)| *action) {
                    None => &[],
                    Some(Action::BringUp) => &[
                        ReplicaEvent::Begin,
                        ReplicaEvent::Verified,
                        ReplicaEvent::Compiling,
                        ReplicaEvent::Starting,
                        ReplicaEvent::Ready,
                    ],
                    Some(Action::Pause) => &[ReplicaEvent::Pause],
                    Some(Action::Resume) => &[ReplicaEvent::Resume],
                    Some(Action::Stop) => &[ReplicaEvent::Drain, ReplicaEvent::Stopped],
                };
                for event in events {
                    replica.apply(event.clone()).unwrap();
                }
            }
            assert_eq!(replica.state().name(), settles);
            assert_eq!(plan([(&deal, replica.state())], Epoch(5), 0), []);
        }
    }
}
