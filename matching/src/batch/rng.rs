//! A random sequence that is the same on every machine: SplitMix64, of Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators" (OOPSLA 2014), with the constants of Vigna's public-domain `splitmix64.c`.

/// Bits behind the point of [`Rng::exponential`].
pub(super) const EXPONENTIAL_BITS: u32 = 16;

/// The generator.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// The sequence of a seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub(super) const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 when that is 0. The bias is below 2⁻³².
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        ((self.bits() >> 32).wrapping_mul(u64::from(limit)) >> 32) as usize
    }

    /// One of `items`.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    /// Exponentially distributed with mean 1, with [`EXPONENTIAL_BITS`] behind the point: −ln u, where the logarithm is
    /// a straight line between powers of two (its error is below 0.06).
    pub(super) const fn exponential(&mut self) -> u64 {
        // ln 2 with 16 bits behind the point.
        const LN_2: u64 = 45_426;
        let bits = self.bits() | 1;
        let zeros = bits.leading_zeros();
        // The bits behind the leading one: how far u lies between its powers of two.
        let mantissa = (bits << zeros) << 1 >> 48;
        let log2 = ((zeros as u64).wrapping_add(1) << EXPONENTIAL_BITS).wrapping_sub(mantissa);
        log2.wrapping_mul(LN_2) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference_code() {
        // First outputs of Vigna's splitmix64.c for seed 1234567, as widely published.
        let mut rng = Rng::new(1_234_567);
        let first = [rng.bits(), rng.bits(), rng.bits(), rng.bits(), rng.bits()];
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn numbers_stay_below_their_limit_and_the_exponential_has_mean_one() {
        let mut rng = Rng::new(1);
        assert!((0..1_000).all(|limit| rng.below(limit) < limit.max(1)));
        let sum: u64 = (0..100_000).map(|_| rng.exponential()).sum();
        let mean = sum / 100_000;
        assert!((60_000..71_000).contains(&mean), "{mean}");
    }
}
