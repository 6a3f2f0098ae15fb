//! The standard of fairness: who is served by continuous matching loses nothing by the batch.
//!
//! A demand that has `k > 0` hosts in the continuous answer, which together ask `A`, must have `k` or more, and the `k`
//! cheapest of them may together ask at most `A`, with the tolerated surcharge on top. More hosts than `k` may come,
//! each within the developer's limit as always. A demand that has none there is owed nothing. So the standard compares
//! every answer with one fixed answer. Where the number of hosts is the same, it is the partial order "at least as many
//! hosts and no greater sum of asks".
//!
//! Without a surcharge there is little to gain, whatever the search. Continuous matching is a serial dictatorship: one
//! demand after the other takes what it likes best of what is left. Let demands want one replica each and asks differ.
//! The first demand has its cheapest host and can be content with no other; given that, so can the second; and so on. A
//! demand that found none still finds none, as all before it stay where they are. Only equal asks, and demands for
//! several replicas, which care for the sum alone, leave room. A surcharge of some percent opens much more.

use super::{
    allocation::Placed,
    column::{Column, WantId},
    model::Model,
};

/// What each demand has in the continuous answer.
#[derive(Debug)]
pub(super) struct Standard {
    owed: Column<WantId, Owed>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    /// Hosts.
    hosts: usize,
    /// Most that so many may ask together.
    ask: u64,
}

impl Standard {
    /// The standard that the continuous answer sets, with a surcharge of this many percent.
    pub(super) fn of(model: &Model<'_>, continuous: &Placed, percent: u32) -> Self {
        let owed = |want| {
            let hosts = continuous.hosts(want);
            let asked = sum(hosts.iter().map(|pair| model.ask(*pair)));
            let whole = u128::from(asked).saturating_mul(u128::from(percent).saturating_add(100));
            Owed { hosts: hosts.len(), ask: u64::try_from(whole.div_euclid(100)).unwrap_or(u64::MAX) }
        };
        Self { owed: model.wants.ids().map(owed).collect() }
    }

    /// Whether a demand is owed anything.
    pub(super) fn protects(&self, want: WantId) -> bool {
        self.owed.of(want).hosts > 0
    }

    /// Whether a demand has what it is owed.
    pub(super) fn holds(&self, model: &Model<'_>, placed: &Placed, want: WantId) -> bool {
        let (owed, hosts) = (self.owed.of(want), placed.hosts(want));
        let asks = hosts.iter().map(|pair| model.ask(*pair));
        if hosts.len() <= owed.hosts {
            return hosts.len() == owed.hosts && sum(asks) <= owed.ask;
        }
        let mut asks: Vec<u64> = asks.collect();
        asks.sort_unstable();
        sum(asks.into_iter().take(owed.hosts)) <= owed.ask
    }
}

/// Asks are below 2⁴⁸ and hosts at most 100: the sum cannot saturate.
fn sum(asks: impl Iterator<Item = u64>) -> u64 {
    asks.fold(0, u64::saturating_add)
}
