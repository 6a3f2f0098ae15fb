//! Money: atoms of the payment token (10⁻⁶ USDC), always integers. Decimals exist only where a person reads or types.

use std::{fmt, iter::Sum, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Decimals of the payment token: one USDC is 10⁶ atoms.
pub const TOKEN_DECIMALS: u32 = 6;

/// An amount of the payment token, 0 to 2⁶³ − 1, so that it fits a database `BIGINT`. The contract keeps to the same
/// limit. JSON form: a decimal string of atoms, since JSON numbers lose digits above 2⁵³.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Atoms(u64);

/// Arithmetic on money that left its range, or text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// A sum, product or conversion above 2⁶³ − 1 atoms.
    #[error("amount above the limit of {} atoms", Atoms::MAX.0)]
    TooLarge,
    /// A difference below zero.
    #[error("cannot take {taken} from {from}")]
    Negative {
        /// What was there.
        from: Atoms,
        /// What should have been taken.
        taken: Atoms,
    },
    /// Text that is not an amount.
    #[error("{text:?} is not an amount: write a number with at most {TOKEN_DECIMALS} decimals, such as 1.25")]
    NotAnAmount {
        /// The text, cut to a readable length.
        text: String,
    },
}

impl Atoms {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be represented.
    pub const MAX: Self = Self(i64::MAX as u64);
    /// The largest price of one replica for one epoch: a deal's word in the contract has 48 bits for it.
    pub const MAX_PRICE: Self = Self((1 << 48) - 1);

    /// An amount of `atoms`.
    pub const fn new(atoms: u64) -> Result<Self, MoneyError> {
        if atoms > Self::MAX.0 { Err(MoneyError::TooLarge) } else { Ok(Self(atoms)) }
    }

    /// The amount in atoms.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The amount as databases keep it.
    pub const fn to_i64(self) -> i64 {
        // Lossless: the constructor keeps every amount within `i64`.
        self.0.cast_signed()
    }

    /// An amount as databases keep it.
    pub fn from_i64(atoms: i64) -> Result<Self, MoneyError> {
        u64::try_from(atoms).map_err(|_| MoneyError::TooLarge).and_then(Self::new)
    }

    /// Sum.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).ok_or(MoneyError::TooLarge).and_then(Self::new)
    }

    /// Difference.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_sub(other.0).map(Self).ok_or(MoneyError::Negative { from: self, taken: other })
    }

    /// Product with a count, such as a number of epochs.
    pub fn checked_mul(self, count: u64) -> Result<Self, MoneyError> {
        self.0.checked_mul(count).ok_or(MoneyError::TooLarge).and_then(Self::new)
    }

    /// Reads a decimal amount of tokens as a person types it: `1.25` is 1,250,000 atoms.
    pub fn parse_tokens(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError::NotAnAmount { text: text.chars().take(40).collect() };
        let scale = Decimal::from(10_u64.pow(TOKEN_DECIMALS));
        let atoms = Decimal::from_str(text.trim())
            .ok()
            .and_then(|tokens| tokens.checked_mul(scale))
            .filter(|atoms| atoms.fract().is_zero())
            .ok_or_else(wrong)?;
        u64::try_from(atoms).map_err(|_| wrong()).and_then(Self::new)
    }
}

impl fmt::Display for Atoms {
    /// As a person reads it: tokens with all six decimals and the token's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_u64.pow(TOKEN_DECIMALS);
        write!(f, "{}.{:06} USDC", self.0.div_euclid(scale), self.0.rem_euclid(scale))
    }
}

impl fmt::Debug for Atoms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} atoms", self.0)
    }
}

impl Sum<Atoms> for Result<Atoms, MoneyError> {
    fn sum<I: Iterator<Item = Atoms>>(mut iter: I) -> Self {
        iter.try_fold(Atoms::ZERO, Atoms::checked_add)
    }
}

crate::schema::text!(Atoms, "Atoms of the payment token: a whole number in a string.", "^(0|[1-9][0-9]{0,18})$");

impl Serialize for Atoms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Atoms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let atoms = text
            .parse::<u64>()
            .map_err(|_| D::Error::custom(format!("amount {text:?} is not a whole number of atoms in a string")))?;
        Self::new(atoms).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_read_and_type_tokens() {
        assert_eq!(Atoms::parse_tokens("1.25").unwrap().get(), 1_250_000);
        assert_eq!(Atoms(1_250_000).to_string(), "1.250000 USDC");
        for text in ["", "-1", "1.0000001", "one", "99999999999999999999"] {
            assert!(Atoms::parse_tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_limit_is_that_of_a_database_bigint() {
        assert_eq!(Atoms::MAX.to_i64(), i64::MAX);
        assert_eq!(Atoms::new(1 << 63), Err(MoneyError::TooLarge));
        assert_eq!(Atoms::from_i64(-1), Err(MoneyError::TooLarge));
        assert_eq!(Atoms::MAX.checked_add(Atoms(1)), Err(MoneyError::TooLarge));
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_wide_integers(a in 0..=Atoms::MAX.0, b in 0..=Atoms::MAX.0) {
            let (x, y) = (Atoms(a), Atoms(b));
            let sum = u128::from(a).saturating_add(u128::from(b));
            prop_assert_eq!(x.checked_add(y).ok().map(|s| u128::from(s.0)), Some(sum).filter(|s| *s <= u128::from(Atoms::MAX.0)));
            prop_assert_eq!(x.checked_sub(y).ok().map(Atoms::get), a.checked_sub(b));
            let json = serde_json::to_string(&x).unwrap();
            prop_assert_eq!(serde_json::from_str::<Atoms>(&json).unwrap(), x);
        }
    }
}
