//! Whose turn it is, where several matchers serve one market.
//!
//! All of them see the same demands and plan the same hosts. Whoever comes second in a block pays gas for nothing. So a
//! matcher that lost most of a transaction lets demands wait for one block before it proposes them, for two when it loses
//! again, up to [`MAX_WAIT`]; whoever wins waits no longer. While the winner is there, nothing is left for the others when
//! their time has come, and they send nothing: each loses as often as it takes to double to the limit, for all the time
//! that the winner lives. When it is gone, somebody else steps in within [`MAX_WAIT`] blocks. No chance is involved, and
//! nobody has to know of anybody.

use std::collections::BTreeMap;

use common::ids::OfferHash;

/// Most blocks that demands are left to others.
pub(crate) const MAX_WAIT: u64 = 8;

/// How long this matcher leaves demands to others.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    wait: u64,
    /// Demands that can be matched, with the block at which that was first seen.
    seen: BTreeMap<OfferHash, u64>,
}

/// How a transaction fared against others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Deals that it opened.
    pub(crate) won: usize,
    /// Fills that others were faster with.
    pub(crate) lost: usize,
}

impl Turn {
    /// Takes note of a transaction that was mined.
    pub(crate) fn fared(&mut self, tally: Tally) {
        if tally.lost > tally.won {
            self.wait = self.wait.saturating_mul(2).clamp(1, MAX_WAIT);
        } else if tally.won > tally.lost {
            self.wait = 0;
        }
    }

    /// Blocks that demands are left to others at present.
    pub(crate) const fn wait(&self) -> u64 {
        self.wait
    }

    /// Which of the demands that can be matched at `block` are to be proposed. All of them have to be named, in any order.
    pub(crate) fn ripe(&mut self, demands: &[OfferHash], block: u64) -> Vec<bool> {
        let before = std::mem::take(&mut self.seen);
        let seen = |demand: &OfferHash| before.get(demand).copied().unwrap_or(block).min(block);
        self.seen = demands.iter().map(|demand| (*demand, seen(demand))).collect();
        demands.iter().map(|demand| block.saturating_sub(seen(demand)) >= self.wait).collect()
    }
}

#[cfg(test)]
mod tests {
    use matching::samples::hash;

    use super::*;

    const LOST: Tally = Tally { won: 1, lost: 2 };
    const WON: Tally = Tally { won: 2, lost: 1 };

    #[test]
    fn a_loser_waits_for_longer_every_time_and_a_winner_does_not() {
        let mut turn = Turn::default();
        let waits: Vec<u64> = (0..6)
            .map(|_| {
                turn.fared(LOST);
                turn.wait()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        turn.fared(Tally { won: 3, lost: 3 });
        assert_eq!(turn.wait(), 8);
        turn.fared(WON);
        assert_eq!(turn.wait(), 0);
    }

    #[test]
    fn a_demand_that_nobody_serves_meanwhile_is_proposed_when_its_time_has_come() {
        let mut turn = Turn::default();
        let both = [hash(1, 1), hash(1, 2)];
        assert_eq!(turn.ripe(&both, 10), [true, true]);
        turn.fared(LOST);
        turn.fared(LOST);
        assert_eq!(turn.ripe(&both, 11), [false, false]);
        // One was served and can be matched again later: its time begins anew.
        assert_eq!(turn.ripe(&both[1..], 12), [true]);
        assert_eq!(turn.ripe(&both, 12), [false, true]);
        assert_eq!(turn.ripe(&both, 14), [true, true]);
        // A reorganization took blocks back.
        assert_eq!(turn.ripe(&both, 9), [false, false]);
    }
}
