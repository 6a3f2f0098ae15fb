//! The market's clock: epoch `n` is the seconds `genesis + n · length` up to the next one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Index of a billing period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// `epochs` later, capped at the last epoch that can be represented.
    #[must_use]
    pub const fn plus(self, epochs: u32) -> Self {
        Self(self.0.saturating_add(epochs))
    }

    /// `epochs` earlier, but not before epoch 0.
    #[must_use]
    pub const fn minus(self, epochs: u32) -> Self {
        Self(self.0.saturating_sub(epochs))
    }

    /// Number of epochs from `earlier` up to `self`; 0 when it is not earlier.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When epochs begin. Times are seconds since 1970, as in block timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochSchedule {
    /// Second at which epoch 0 began.
    pub genesis: u64,
    /// Seconds; at least 1.
    pub length: u32,
}

impl EpochSchedule {
    /// The epoch that second `time` lies in; times before genesis count as epoch 0, as no contract existed.
    pub fn epoch_at(&self, time: u64) -> Epoch {
        let epochs = time.saturating_sub(self.genesis).checked_div(u64::from(self.length)).unwrap_or(0);
        Epoch(u32::try_from(epochs).unwrap_or(u32::MAX))
    }

    /// First second of `epoch`.
    pub fn start_of(&self, epoch: Epoch) -> u64 {
        self.genesis.saturating_add(u64::from(epoch.0).saturating_mul(u64::from(self.length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_belong_to_the_later_epoch() {
        let schedule = EpochSchedule { genesis: 1_000, length: 60 };
        assert_eq!(schedule.epoch_at(999), Epoch(0));
        assert_eq!(schedule.epoch_at(1_059), Epoch(0));
        assert_eq!(schedule.epoch_at(1_060), Epoch(1));
        assert_eq!(schedule.start_of(Epoch(1)), 1_060);
    }
}
