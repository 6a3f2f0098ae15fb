//! Dense tables, each with an index type of its own, so that no row is taken of the wrong table. A row that is not
//! there reads as the default and swallows changes: nothing here can panic, and nothing asks for such a row.

use std::marker::PhantomData;

/// Names a row of one kind of table.
pub(super) trait Id: Copy + Eq {
    /// Row by its number.
    fn new(number: usize) -> Self;
    /// Number of the row.
    fn index(self) -> usize;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
        pub(super) struct $name(u32);

        impl Id for $name {
            fn new(number: usize) -> Self {
                Self(u32::try_from(number).unwrap_or(u32::MAX))
            }

            fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// A demand that could be served, in order of service.
    WantId
);
id!(
    /// A supply, in order of registration.
    OfferId
);
id!(
    /// A replica of a demand at a supply.
    PairId
);
id!(
    /// An account, as provider or as payer.
    AccountId
);

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column<I, T> {
    rows: Vec<T>,
    id: PhantomData<I>,
}

impl<I, T> Default for Column<I, T> {
    fn default() -> Self {
        Self { rows: Vec::new(), id: PhantomData }
    }
}

impl<I: Id, T> FromIterator<T> for Column<I, T> {
    fn from_iter<R: IntoIterator<Item = T>>(rows: R) -> Self {
        Self { rows: rows.into_iter().collect(), id: PhantomData }
    }
}

impl<I: Id, T> Column<I, T> {
    /// Number of rows.
    pub(super) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: T) -> I {
        self.rows.push(row);
        I::new(self.rows.len().saturating_sub(1))
    }

    /// All ids, ascending.
    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = I> + use<I, T> {
        (0..self.rows.len()).map(I::new)
    }

    /// All rows in order.
    pub(super) fn rows(&self) -> &[T] {
        &self.rows
    }

    /// The row.
    pub(super) fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())
    }

    /// Changes a row.
    #[inline]
    pub(super) fn change(&mut self, id: I, change: impl FnOnce(&mut T)) {
        if let Some(row) = self.rows.get_mut(id.index()) {
            change(row);
        }
    }

    /// Takes over the rows of another table, without a new allocation where possible.
    pub(super) fn copy_from(&mut self, other: &Self)
    where
        T: Clone,
    {
        self.rows.clone_from(&other.rows);
    }
}

impl<I: Id, T: Copy + Default> Column<I, T> {
    /// A copy of the row.
    #[inline]
    pub(super) fn of(&self, id: I) -> T {
        self.rows.get(id.index()).copied().unwrap_or_default()
    }

    /// Sets a row.
    #[inline]
    pub(super) fn set(&mut self, id: I, value: T) {
        self.change(id, |row| *row = value);
    }

    /// Sets all rows.
    pub(super) fn fill(&mut self, value: T) {
        self.rows.fill(value);
    }
}
