//! The rows that a run of blocks works on: read once, changed in memory, written once. For each block it remembers what
//! every changed row was before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    future::Future,
};

use common::event::MarketBlock;

use super::{
    ProjectionError,
    mentions::{Mention, Mentions},
    payments::{Payment, Payments},
    rows::{Row, RowKey},
    touched,
};

/// Where rows are read from.
pub trait RowSource {
    /// Why a row could not be read.
    type Error: From<ProjectionError>;

    /// The rows under `keys` as they are stored, those that there are.
    fn load(&mut self, keys: Vec<RowKey>) -> impl Future<Output = Result<HashMap<RowKey, Row>, Self::Error>> + Send;
}

/// Images of the rows that one block changed, as they were before it; `None` for rows that it created.
pub type UndoImages = BTreeMap<RowKey, Option<Row>>;

/// Rows as they are after some block; `None` for rows that there are not.
pub type WorkingRows = HashMap<RowKey, Option<Row>>;

/// Working set over a [`RowSource`].
pub struct Ledger<'a, S> {
    source: &'a mut S,
    /// Bond of a deal in epochs of its price: the market's constant.
    pub(super) bond_epochs: u32,
    rows: WorkingRows,
    changed: HashSet<RowKey>,
    /// None where nobody will ask for them.
    block: Option<UndoImages>,
    pub(super) payments: Payments,
    pub(super) mentions: Mentions,
}

impl<'a, S: RowSource> Ledger<'a, S> {
    /// A working set for a market with this constant, which need not read `rows`.
    pub fn new(source: &'a mut S, bond_epochs: u32, rows: WorkingRows) -> Self {
        Self {
            source,
            bond_epochs,
            rows,
            changed: HashSet::new(),
            block: Some(BTreeMap::new()),
            payments: Payments::default(),
            mentions: Mentions::default(),
        }
    }

    /// The row under `key` as the blocks so far have left it.
    pub async fn get(&mut self, key: RowKey) -> Result<Option<&Row>, S::Error> {
        if !self.rows.contains_key(&key) {
            let row = self.source.load(vec![key]).await?.remove(&key);
            self.rows.insert(key, row);
        }
        Ok(self.rows.get(&key).and_then(Option::as_ref))
    }

    /// Reads at once, by kinds, what `blocks` will ask for one by one. It need not be all of it.
    pub async fn read_ahead(&mut self, blocks: &[MarketBlock]) -> Result<(), S::Error> {
        let events = || blocks.iter().flat_map(|block| &block.events).map(|placed| &placed.event);
        self.read(events().flat_map(touched::by_event).collect()).await?;
        // What a deal touches is known once the deal is, and the account that it pays once its provider offer is.
        for _ in 0..2 {
            let known = self.rows.values().flatten().flat_map(touched::by_row);
            self.read(known.chain(events().flat_map(touched::by_offer)).collect()).await?;
        }
        Ok(())
    }

    async fn read(&mut self, mut keys: BTreeSet<RowKey>) -> Result<(), S::Error> {
        keys.retain(|key| !self.rows.contains_key(key));
        if keys.is_empty() {
            return Ok(());
        }
        let mut found = self.source.load(keys.iter().copied().collect()).await?;
        self.rows.extend(keys.into_iter().map(|key| (key, found.remove(&key))));
        Ok(())
    }

    /// Replaces the row under `key`.
    pub async fn put(&mut self, key: RowKey, row: Row) -> Result<(), S::Error> {
        self.remember(key).await?;
        self.rows.insert(key, Some(row));
        Ok(())
    }

    /// The row under `key`, to be changed.
    pub async fn change(&mut self, key: RowKey) -> Result<Option<&mut Row>, S::Error> {
        self.get(key).await?;
        self.remember(key).await?;
        Ok(self.rows.get_mut(&key).and_then(Option::as_mut))
    }

    /// The row under `key`, to be changed; `new` where there is none yet.
    pub async fn change_or(&mut self, key: RowKey, new: Row) -> Result<&mut Row, S::Error> {
        self.get(key).await?;
        self.remember(key).await?;
        Ok(self.rows.entry(key).or_default().get_or_insert(new))
    }

    /// The row under `key` changes: what it was before this block is remembered.
    async fn remember(&mut self, key: RowKey) -> Result<(), S::Error> {
        if self.block.as_ref().is_some_and(|images| !images.contains_key(&key)) {
            let before = self.get(key).await?.cloned();
            self.block.get_or_insert_default().insert(key, before);
        }
        self.changed.insert(key);
        Ok(())
    }

    /// Begins a block: whether it is remembered what its rows were before it.
    pub fn begin_block(&mut self, with_images: bool) {
        self.block = with_images.then(UndoImages::new);
    }

    /// Ends a block: what its rows were before it, as far as that was to be remembered.
    pub fn end_block(&mut self) -> UndoImages {
        self.block.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The payments since they were last taken, in the order in which they happened.
    pub fn take_payments(&mut self) -> Vec<Payment> {
        self.payments.take()
    }

    /// The mentions since they were last taken, in the order of their events.
    pub fn take_mentions(&mut self) -> Vec<Mention> {
        self.mentions.take()
    }

    /// Keys of the rows that were changed, in order, and all rows that are known.
    pub fn into_rows(self) -> (Vec<RowKey>, WorkingRows) {
        let mut changed: Vec<RowKey> = self.changed.into_iter().collect();
        changed.sort_unstable();
        (changed, self.rows)
    }
}
