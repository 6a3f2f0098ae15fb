//! What can be asked of the items of a [`super::bitmap`] index: columns, numbers as columns, and groups of both.

const WORD: usize = 64;

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Columns([u64; 3]);

impl Columns {
    /// How many there can be.
    pub(super) const MOST: usize = 3 * WORD;

    /// So many columns as bits, of which the lowest is `first`.
    pub(super) fn placed(bits: u64, first: usize) -> Self {
        let (at, shift) = (first.div_euclid(WORD), u32::try_from(first.rem_euclid(WORD)).unwrap_or_default());
        let mut columns = Self::default();
        if let Some(word) = columns.0.get_mut(at) {
            *word = bits << shift;
        }
        if let Some(word) = columns.0.get_mut(at.saturating_add(1)) {
            *word = bits.checked_shr(u64::BITS.saturating_sub(shift)).unwrap_or_default();
        }
        columns
    }

    /// One column.
    pub(super) fn one(column: usize) -> Self {
        Self::placed(1, column)
    }

    /// All of either.
    pub(super) fn and(self, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([a | d, b | e, c | f])
    }

    /// Those that are in one set and not in the other.
    pub(super) fn difference(self, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([a ^ d, b ^ e, c ^ f])
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let starts = [0, WORD, WORD.saturating_mul(2)];
        self.0.into_iter().zip(starts).flat_map(|(word, start)| bits(word).map(move |bit| start.saturating_add(bit)))
    }
}

/// The lowest `count` bits.
pub(super) fn low_bits(count: usize) -> u64 {
    u32::try_from(count).ok().and_then(|count| 1_u64.checked_shl(count)).map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

pub(super) fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or_default()
}

/// Places of the bits that are set, from the lowest.
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (at < u64::BITS).then_some(at as usize)
    })
}

/// A number as three digits, of which an index holds each by columns of its own: "at least 1", "at least 2" and so on (range
/// encoding: Chan and Ioannidis, "Bitmap index design and evaluation", 1998). Comparing reads five words at the
/// most, and two where the number is round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Digits([usize; 3]);

impl Digits {
    /// The highest of each.
    const HIGHEST: Self = Self([13, 7, 7]);
    /// Columns of a number.
    pub(super) const COLUMNS: usize = 13 + 7 + 7;

    /// Those of a number; of all that have too many, the highest.
    pub(super) fn of(number: u64) -> Self {
        let digit = |shift: u32| usize::try_from(number.checked_shr(shift).unwrap_or_default()).unwrap_or(usize::MAX);
        Self([digit(6), digit(3) & 7, digit(0) & 7]).min(Self::HIGHEST)
    }

    /// The other way round: the larger a number, the smaller its reverse.
    pub(super) fn reversed(self) -> Self {
        let mut reversed = Self::HIGHEST;
        reversed.0.iter_mut().zip(self.0).for_each(|(digit, own)| *digit = digit.saturating_sub(own));
        reversed
    }

    /// The columns of a number with these digits, the first of which is `first`.
    pub(super) fn columns(self, first: usize) -> Columns {
        let (mut bits, mut start) = (0, 0_u32);
        for (digit, highest) in self.0.into_iter().zip(Self::HIGHEST.0) {
            bits |= low_bits(digit).checked_shl(start).unwrap_or_default();
            start = start.saturating_add(u32::try_from(highest).unwrap_or_default());
        }
        Columns::placed(bits, first)
    }

    /// How to find what is not less, where the columns of the number begin with `first`.
    fn at_least(self, first: usize) -> Comparison {
        let mut comparison = Comparison::default();
        let mut end = first.saturating_add(Self::COLUMNS);
        let mut is_bare = true;
        let digits = self.0.into_iter().zip(Self::HIGHEST.0).rev();
        for ((digit, highest), place) in digits.zip(&mut comparison.0) {
            end = end.saturating_sub(highest);
            let column = |at: usize| u8::try_from(end.saturating_add(at)).ok();
            place.0 = digit.checked_sub(1).and_then(column).unwrap_or(Comparison::NONE);
            // Where nothing is asked of the digits behind, those above are among the same.
            place.1 =
                Some(digit).filter(|digit| !is_bare && *digit < highest).and_then(column).unwrap_or(Comparison::NONE);
            is_bare &= digit == 0;
        }
        comparison
    }
}

/// For each digit, from the last one: the column of those that are not less in it, and of those that are more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Comparison([(u8, u8); 3]);

impl Comparison {
    /// No column; [`Columns`] has fewer.
    const NONE: u8 = u8::MAX;
}

impl Default for Comparison {
    /// What every number is.
    fn default() -> Self {
        Self([(Self::NONE, Self::NONE); 3])
    }
}

/// Numbers that are not less, all of some columns, and of others, where there are any, at least one. It has no memory of
/// its own to allocate: each search makes two.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    /// Those behind `numbers_len` do not count.
    numbers: [Comparison; Self::NUMBERS],
    numbers_len: usize,
    all: Columns,
    any: Columns,
}

impl Group {
    /// How many numbers there can be.
    const NUMBERS: usize = 4;

    /// A number of at least so much, the first column of which is `first`. Of more than four, the others are not asked for.
    pub(super) fn at_least(&mut self, first: usize, digits: Digits) {
        if digits != Digits::default()
            && let Some(number) = self.numbers.get_mut(self.numbers_len)
        {
            *number = digits.at_least(first);
            self.numbers_len = self.numbers_len.saturating_add(1);
        }
    }

    /// These columns.
    pub(super) fn all(&mut self, columns: Columns) {
        self.all = self.all.and(columns);
    }

    /// One of several columns.
    pub(super) fn any(&mut self, column: usize) {
        self.any = self.any.and(Columns::one(column));
    }

    /// The bits of `start` that have all of this, where `words` gives those that have a column. With `N` words it takes `N`
    /// blocks at a time, which costs little more than one.
    pub(super) fn found<'a, const N: usize>(&self, start: [u64; N], words: impl Fn(usize) -> &'a [u64; N]) -> [u64; N] {
        let mut found = start;
        for Comparison(digits) in self.numbers.iter().take(self.numbers_len) {
            if found.iter().fold(0, |any, word| any | word) == 0 {
                return found;
            }
            let mut rest = [u64::MAX; N];
            for (same, above) in digits {
                if *same != Comparison::NONE {
                    and(&mut rest, words(usize::from(*same)));
                }
                if *above != Comparison::NONE {
                    or(&mut rest, words(usize::from(*above)));
                }
            }
            and(&mut found, &rest);
        }
        for column in self.all.iter() {
            and(&mut found, words(column));
        }
        if self.any != Columns::default() {
            let mut any = [0; N];
            self.any.iter().for_each(|column| or(&mut any, words(column)));
            and(&mut found, &any);
        }
        found
    }
}

/// What a search asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// What many searches have in common.
    pub(super) common: Group,
    /// The number of that, below [`Notes::MOST`]: what is without anything that has it is noted, and passed over until
    /// something there gets better.
    pub(super) note: Option<usize>,
    /// The rest.
    pub(super) own: Group,
}

fn and<const N: usize>(words: &mut [u64; N], others: &[u64; N]) {
    words.iter_mut().zip(others).for_each(|(word, other)| *word &= other);
}

fn or<const N: usize>(words: &mut [u64; N], others: &[u64; N]) {
    words.iter_mut().zip(others).for_each(|(word, other)| *word |= other);
}

/// Some of the numbers of [`Wanted::note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Notes([u64; Self::WORDS]);

impl Notes {
    const WORDS: usize = 8;
    /// How many there are at the most.
    pub(super) const MOST: usize = Self::WORDS * WORD;
    /// All of them.
    pub(super) const ALL: Self = Self([u64::MAX; Self::WORDS]);

    pub(super) fn has(&self, note: usize) -> bool {
        self.0.get(note.div_euclid(WORD)).is_some_and(|word| word & bit(note.rem_euclid(WORD)) != 0)
    }

    pub(super) fn set(&mut self, note: usize, whether: bool) {
        if let Some(word) = self.0.get_mut(note.div_euclid(WORD)) {
            let bit = bit(note.rem_euclid(WORD));
            *word = if whether { *word | bit } else { *word & !bit };
        }
    }

    /// Only those that `others` has too.
    pub(super) fn retain(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(word, other)| *word &= other);
    }

    /// Without those of `others`.
    pub(super) fn remove(&mut self, others: &Self) {
        self.0.iter_mut().zip(others.0).for_each(|(word, other)| *word &= !other);
    }
}
