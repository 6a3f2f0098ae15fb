//! What is sold: CPU and memory, and what they cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::{Atoms, MoneyError};

/// An amount of CPU and memory, as capacity or as demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: u32,
    /// MiB of memory.
    pub memory_mib: u32,
}

impl Resources {
    /// Whether `wanted` fits into `self`.
    pub fn contains(self, wanted: Self) -> bool {
        wanted.milli_cpu <= self.milli_cpu && wanted.memory_mib <= self.memory_mib
    }

    /// What is left of `self` when `used` is taken; zero where more is used than there is.
    pub fn saturating_sub(self, used: Self) -> Self {
        Self {
            milli_cpu: self.milli_cpu.saturating_sub(used.milli_cpu),
            memory_mib: self.memory_mib.saturating_sub(used.memory_mib),
        }
    }
}

/// A provider's prices, in atoms per epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prices {
    /// For 1,000 milli-CPU.
    pub per_vcpu_epoch: Atoms,
    /// For 1,024 MiB.
    pub per_gib_epoch: Atoms,
}

impl Prices {
    /// Price of one replica for one epoch, rounded down to whole atoms, as `Market.askOf` computes it:
    /// `(milliCpu · perVcpu · 1024 + memoryMib · perGib · 1000) / 1,024,000`.
    pub fn ask(&self, size: Resources) -> Result<Atoms, MoneyError> {
        // Both below 2⁴².
        let cpu = u64::from(size.milli_cpu).saturating_mul(1_024);
        let memory = u64::from(size.memory_mib).saturating_mul(1_000);
        let (per_vcpu, per_gib) = (self.per_vcpu_epoch.get(), self.per_gib_epoch.get());
        // Nearly always 64 bits are enough, and then it is several times faster.
        let sum = cpu.checked_mul(per_vcpu).zip(memory.checked_mul(per_gib));
        let ask = match sum.and_then(|(cpu, memory)| cpu.checked_add(memory)) {
            Some(sum) => Ok(sum.div_euclid(1_024_000)),
            None => {
                // Below 2⁴² · 2⁶³ = 2¹⁰⁵: cannot overflow.
                let part = |amount: u64, price: u64| u128::from(amount).saturating_mul(u128::from(price));
                u64::try_from(part(cpu, per_vcpu).saturating_add(part(memory, per_gib)).div_euclid(1_024_000))
            }
        };
        ask.map_err(|_| MoneyError::TooLarge).and_then(Atoms::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ask_is_rounded_down_once() {
        let prices = Prices { per_vcpu_epoch: Atoms::new(999).unwrap(), per_gib_epoch: Atoms::new(1_023).unwrap() };
        // 0.999 and 0.999…: each alone is below one atom, together they are not.
        assert_eq!(prices.ask(Resources { milli_cpu: 1, memory_mib: 1 }).unwrap().get(), 1);
        assert_eq!(prices.ask(Resources { milli_cpu: 1, memory_mib: 0 }).unwrap().get(), 0);
        assert_eq!(prices.ask(Resources { milli_cpu: 2_000, memory_mib: 2_048 }).unwrap().get(), 2 * (999 + 1_023));
    }

    #[test]
    fn an_ask_beyond_the_limit_is_an_error_not_a_wrap() {
        let prices = Prices { per_vcpu_epoch: Atoms::MAX, per_gib_epoch: Atoms::MAX };
        assert_eq!(prices.ask(Resources { milli_cpu: u32::MAX, memory_mib: u32::MAX }), Err(MoneyError::TooLarge));
    }
}
