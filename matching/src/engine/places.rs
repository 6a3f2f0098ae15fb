//! Sizes, terms and places as columns of a bitmap index, for both sides of the market.

use common::region::{CONTINENTS, Region};

use super::columns::{Digits, low_bits};

/// A scale of 64 steps for each doubling, which bitmap indexes hold as [`Digits`]. What is round, a power of two times a
/// small whole number, is at the beginning of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The first step begins at this power of two; below it there is one that is step 0.
    lowest_log: u32,
}

/// CPU as [`cpu`] counts it, and what [`joint`] says: from 1/16 vCPU to 256.
pub(super) const CPU: Scale = Scale { lowest_log: 6 };
/// MiB: from 128 to 512 GiB.
pub(super) const MEMORY: Scale = Scale { lowest_log: 7 };
/// Epochs: from 1 to 4,096.
pub(super) const TERM: Scale = Scale { lowest_log: 0 };
/// Features with columns of their own.
pub(super) const FEATURES: usize = 16;
/// Continents, and one for what is on none of them.
pub(super) const CONTINENT_COLUMNS: usize = CONTINENTS.len().saturating_add(1);
/// Countries with much hosting have columns of their own; the others share [`SHARED_COLUMNS`].
const OWN: &str = "usdefrgbnliesechitesplnofibedkatcabrclmxjpkrinsgauhkidmythtwcnaeqasailzanztrczptro";
/// A power of two.
const SHARED_COLUMNS: usize = 8;
/// Columns of countries.
pub(super) const COUNTRY_COLUMNS: usize = OWN.len().div_euclid(2).saturating_add(SHARED_COLUMNS);

impl Scale {
    /// The step that a number is in.
    pub(super) fn step(self, number: u32) -> Digits {
        let Some(doublings) = number.checked_ilog2().and_then(|log| log.checked_sub(self.lowest_log)) else {
            return Digits::default();
        };
        // The six bits behind the highest.
        let log = doublings.saturating_add(self.lowest_log);
        let shifted = u64::from(number).checked_shl(6).and_then(|number| number.checked_shr(log)).unwrap_or_default();
        let step = u64::from(doublings).saturating_mul(64).saturating_add(shifted & 63).saturating_add(64);
        Digits::of(step)
    }
}

/// CPU in parts of which a vCPU has 1,024, so that one vCPU is a power of two.
pub(super) fn cpu(milli_cpu: u32) -> u32 {
    let parts = u64::from(milli_cpu).saturating_mul(128).div_euclid(125);
    u32::try_from(parts).unwrap_or(u32::MAX)
}

/// What a machine has of both: CPU, or half the MiB where that is less. A replica fits only where its own is not more.
pub(super) fn joint(milli_cpu: u32, memory_mib: u32) -> u32 {
    cpu(milli_cpu).min(memory_mib.div_euclid(2))
}

/// The number of a region's continent; behind those that there are, for what is on none of them.
pub(super) fn continent_of(region: u64) -> usize {
    let [first, second, ..] = region.to_be_bytes();
    CONTINENTS.iter().position(|name| name.as_bytes() == [first, second]).unwrap_or(CONTINENTS.len())
}

/// Which columns of places a region has: its continent's, from 0, and its country's, behind those of the continents.
pub(super) fn columns_of(region: u64) -> (usize, usize) {
    let [_, _, third, fourth, ..] = region.to_be_bytes();
    let own = OWN.as_bytes().chunks_exact(2).position(|name| name == [third, fourth]);
    let country = own.unwrap_or_else(|| {
        let shared = usize::from(third.wrapping_mul(31).wrapping_add(fourth)) & SHARED_COLUMNS.saturating_sub(1);
        COUNTRY_COLUMNS.saturating_sub(SHARED_COLUMNS).saturating_add(shared)
    });
    let country = CONTINENT_COLUMNS.saturating_add(country);
    (continent_of(region), country)
}

/// The one column that everything in a region has.
pub(super) fn column_within(region: Region) -> usize {
    let region = number(region);
    let (continent, country) = columns_of(region);
    if region >> 32 & 0xff == 0 { continent } else { country }
}

/// The columns of places in these regions, as bits.
pub(super) fn columns_within(regions: &[Region]) -> u64 {
    regions.iter().fold(0, |places, region| places | place_bit(column_within(*region)))
}

/// A column of places.
pub(super) fn place_bit(column: usize) -> u64 {
    u32::try_from(column).ok().and_then(|column| 1_u64.checked_shl(column)).unwrap_or_default()
}

/// Its bytes, the first one highest.
pub(super) fn number(region: Region) -> u64 {
    u64::from_be_bytes(region.to_bytes())
}

/// Whether a place, by its number, lies in a region.
pub(super) fn is_within(place: u64, region: Region) -> bool {
    let first = number(region);
    // What a region does not say are zeroes at its end.
    let last = first | low_bits((first.trailing_zeros() & !7) as usize);
    (first..=last).contains(&place)
}
