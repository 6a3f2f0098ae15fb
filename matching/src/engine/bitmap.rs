//! A bitmap index: items in the order of a key, in blocks of 64, with a bitmap of each block for each thing that can be
//! asked of an item (a *column*: "has at least 2 vCPU free", "is in Europe").
//!
//! What has all of several columns is found by ANDing words, 64 items at a time, and nothing that lacks one is ever read
//! (O'Neil and Quass, "Improved query performance with variant indexes", 1997). Blocks lie in pages of up to 64; a page knows
//! for each column which of its blocks have an item with it, so that one word passes over 4,096 items. An item
//! keeps its place in its block for as long as its key stays, so that changing what it can do is flipping a few bits.
//!
//! Searches that have something in common note which pages and tiles (eight blocks) have nothing of it, and pass those
//! over until an item there gets better that may have it: what was sold out stays unread.
//!
//! With *n* items and *k* columns: to change one costs O(log *n*) to find it and O(1) for each column that turns; to insert or
//! remove one O(log *n* + *k*), and now and then the O(64 *k*) of rearranging two blocks. A search costs a word for each
//! page, then a word for each block that may have something, then the items that have all columns.

use std::fmt;

use super::columns::{Columns, Notes, Wanted, bit, bits, low_bits};

/// Items of a block and blocks of a page.
const WORD: usize = 64;
/// Places by which a block grows.
const MORE: usize = 8;
/// A block with so many items takes some of a full neighbour's.
const ROOMY: usize = 40;
/// Blocks whose words of a column lie together, in one line of the processor's cache.
const TILE: usize = 8;
/// A block or page with so few looks for a neighbour to join.
const SPARSE: usize = 16;

/// What an index holds.
pub(super) trait Item: Copy + fmt::Debug {
    /// Where it stands; no two items have the same.
    type Key: Copy + Ord + fmt::Debug;
    /// Bounds on many of them.
    type Bounds: Bounds;
    /// How many columns there are, less than [`Columns`] has bits.
    const COLUMNS: usize;

    /// Its number, by which it is found in its block.
    fn id(&self) -> u32;
    /// Where it stands.
    fn key(&self) -> Self::Key;
    /// What it has.
    fn columns(&self) -> Columns;
    /// What of that can become other while its key stays.
    fn changing_columns(&self) -> Columns;
    /// Bounds on it alone.
    fn bounds(&self) -> Self::Bounds;
}

/// Bounds on a set of items. They hold, but need not be the tightest: what leaves tightens those of its block where it
/// stood at their edge, and no others.
pub(super) trait Bounds: Copy + fmt::Debug {
    /// Whether those without an item, whose own are `item`, are to be found anew.
    fn is_edge(&self, item: &Self) -> bool;
    /// Widens the bounds so that they hold for those of `other` too.
    fn join(&mut self, other: &Self);
}

/// Bounds on everything that some bounds hold for.
fn joined<B: Bounds>(bounds: impl Iterator<Item = B>) -> Option<B> {
    bounds.reduce(|mut all, other| {
        all.join(&other);
        all
    })
}

/// The columns of an item, that of being there too.
fn columns_of<T: Item>(item: &T) -> Columns {
    item.columns().and(Columns::one(T::COLUMNS))
}

/// What a search does with what lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Look into it.
    Enter,
    /// Nothing in it will do.
    Skip,
    /// Look elsewhere first, and here again later.
    Pause,
    /// Nothing here or behind it will do.
    Stop,
}

/// How far a search has come: the next page and its next block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    page: usize,
    block: usize,
}

/// A search: judges blocks and reads items.
pub(super) trait Visit<T: Item> {
    /// Whether to look into a block or page whose items have at least this key and these bounds.
    fn judge(&mut self, first: &T::Key, bounds: &T::Bounds) -> Step;
    /// An item that has all that is wanted.
    fn item(&mut self, item: &T);
    /// A block is looked at.
    fn looked(&mut self);
}

/// Up to 64 items, each in a place of its own.
#[derive(Debug)]
struct Block<T: Item> {
    /// Places that are in use.
    used: u64,
    bounds: Option<T::Bounds>,
    /// Of the items, apart so that one is found without reading them all.
    ids: Vec<u32>,
    items: Vec<T>,
}

impl<T: Item> Block<T> {
    fn len(&self) -> usize {
        self.used.count_ones() as usize
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        bits(self.used).filter_map(|at| self.items.get(at))
    }

    fn find(&self, id: u32) -> Option<usize> {
        self.ids.iter().enumerate().find(|(at, other)| **other == id && self.used & bit(*at) != 0).map(|(at, _)| at)
    }

    /// Puts an item into the first free place and says which.
    fn put(&mut self, item: T) -> usize {
        let at = self.used.trailing_ones() as usize;
        match (self.items.get_mut(at), self.ids.get_mut(at)) {
            (Some(place), Some(id)) => (*place, *id) = (item, item.id()),
            _ => {
                if self.items.len() == self.items.capacity() {
                    self.items.reserve_exact(MORE);
                    self.ids.reserve_exact(MORE);
                }
                self.items.push(item);
                self.ids.push(item.id());
            }
        }
        self.used |= bit(at);
        self.widen(&item);
        at
    }

    fn widen(&mut self, item: &T) {
        match &mut self.bounds {
            Some(bounds) => bounds.join(&item.bounds()),
            none => *none = Some(item.bounds()),
        }
    }
}

/// Up to 64 blocks in order, with the bitmaps of all their items.
#[derive(Debug)]
pub(super) struct Page<T: Item> {
    /// A key that no item of the block is below, nor any item of the block before above.
    firsts: Vec<T::Key>,
    blocks: Vec<Block<T>>,
    bounds: Option<T::Bounds>,
    /// By tile, as many as there are blocks for, then by column and block: which items have it. The last column is that of
    /// being there.
    words: Vec<[u64; TILE]>,
    /// By column: which blocks have an item with it.
    summary: Vec<u64>,
    /// By tile: the notes of which it has nothing.
    without: Vec<Notes>,
}

impl<T: Item> Page<T> {
    const COLUMNS: usize = T::COLUMNS.saturating_add(1);

    fn new() -> Self {
        Self {
            firsts: Vec::new(),
            blocks: Vec::new(),
            bounds: None,
            words: Vec::new(),
            summary: vec![0; Self::COLUMNS],
            without: Vec::new(),
        }
    }

    /// Searches it in the order of its blocks, from one on; the items of a block come in no order. Says why it ended before
    /// the last block, and where.
    fn search(&mut self, from: usize, wanted: &Wanted, visit: &mut impl Visit<T>) -> Option<(Step, usize)> {
        let summary = |column: usize| self.summary.get(column).map_or(&[0], std::array::from_ref);
        let common = wanted.common.found([low_bits(self.blocks.len())], summary);
        let [blocks] = wanted.own.found(common, summary);
        let ([common], blocks) = (common, blocks & !low_bits(from));
        for tile in 0..self.without.len() {
            let start = tile.saturating_mul(TILE);
            let in_tile = low_bits(start.saturating_add(TILE)) & !low_bits(start);
            let is_without = |without: &Notes| wanted.note.is_some_and(|note| without.has(note));
            let mut ended = None;
            let is_empty = if common & in_tile == 0 {
                true
            } else if blocks & in_tile == 0 || self.without.get(tile).is_some_and(is_without) {
                false
            } else {
                let is_empty;
                (ended, is_empty) = self.search_tile(tile, blocks & in_tile, wanted, visit);
                is_empty
            };
            if is_empty && let (Some(note), Some(without)) = (wanted.note, self.without.get_mut(tile)) {
                without.set(note, true);
            }
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// Searches some blocks of a tile. Says why and where it ended, and whether the tile has nothing of what is wanted in
    /// common.
    fn search_tile(
        &self,
        tile: usize,
        blocks: u64,
        wanted: &Wanted,
        visit: &mut impl Visit<T>,
    ) -> (Option<(Step, usize)>, bool) {
        let (mut hits, mut is_empty) = (None, false);
        for at in bits(blocks) {
            visit.looked();
            let of_block = |hits: &[u64; TILE]| hits.get(at.rem_euclid(TILE)).copied().unwrap_or_default();
            if hits.as_ref().is_some_and(|hits| of_block(hits) == 0) {
                continue;
            }
            let (Some(block), Some(first)) = (self.blocks.get(at), self.firsts.get(at)) else { continue };
            match block.bounds.as_ref().map_or(Step::Skip, |bounds| visit.judge(first, bounds)) {
                Step::Enter => (),
                Step::Skip => continue,
                step => return (Some((step, at)), is_empty),
            }
            let hits = hits.get_or_insert_with(|| {
                let common = wanted.common.found(*self.column(tile, T::COLUMNS), |column| self.column(tile, column));
                is_empty = common.iter().fold(0, |any, word| any | word) == 0;
                wanted.own.found(common, |column| self.column(tile, column))
            });
            bits(of_block(hits)).filter_map(|place| block.items.get(place)).for_each(|item| visit.item(item));
        }
        (None, is_empty)
    }

    /// Whether nothing in it has what is noted under a number.
    fn is_without(&self, note: usize) -> bool {
        self.without.iter().all(|without| without.has(note))
    }

    /// Forgets what was noted under some numbers where a block is.
    fn forget(&mut self, block: usize, notes: &Notes) {
        if let Some(without) = self.without.get_mut(block.div_euclid(TILE)) {
            without.remove(notes);
        }
    }

    fn column(&self, tile: usize, column: usize) -> &[u64; TILE] {
        self.words.get(tile.saturating_mul(Self::COLUMNS).saturating_add(column)).unwrap_or(&[0; TILE])
    }

    /// The words of the columns of a block.
    fn words_mut(&mut self, block: usize) -> impl Iterator<Item = &mut u64> {
        let start = block.div_euclid(TILE).saturating_mul(Self::COLUMNS);
        let tile = self.words.get_mut(start..start.saturating_add(Self::COLUMNS)).unwrap_or_default();
        tile.iter_mut().filter_map(move |words| words.get_mut(block.rem_euclid(TILE)))
    }

    /// Has words for so many blocks, and for not many more.
    fn fit_words(&mut self, blocks: usize) {
        let words = blocks.div_ceil(TILE).saturating_mul(Self::COLUMNS);
        self.words.reserve_exact(words.saturating_sub(self.words.len()));
        self.words.resize(words, [0; TILE]);
        self.words.shrink_to_fit();
        self.without.resize(blocks.div_ceil(TILE), Notes::default());
    }

    /// Moves the words of the blocks from `at` on by one block, up or down; what is moved out of the way is lost.
    fn shift(&mut self, at: usize, up: bool) {
        self.without.fill(Notes::default());
        for (column, summary) in self.summary.iter_mut().enumerate() {
            let low = *summary & low_bits(at);
            let high = if up { (*summary & !low) << 1 } else { (*summary & !low & !bit(at)) >> 1 };
            *summary = low | high;
            let tiles = self.words.iter_mut().skip(column).step_by(Self::COLUMNS).enumerate();
            let tiles = tiles.skip(at.div_euclid(TILE));
            let from = |tile: usize| at.saturating_sub(tile.saturating_mul(TILE)).min(TILE);
            let mut carried = 0;
            if up {
                for (tile, words) in tiles {
                    let moved = words.get_mut(from(tile)..).unwrap_or_default();
                    moved.iter_mut().for_each(|word| carried = std::mem::replace(word, carried));
                }
            } else {
                for (tile, words) in tiles.rev() {
                    let moved = words.get_mut(from(tile)..).unwrap_or_default();
                    moved.iter_mut().rev().for_each(|word| carried = std::mem::replace(word, carried));
                }
            }
        }
    }

    fn block_of(&self, key: &T::Key) -> usize {
        self.firsts.partition_point(|first| first <= key).saturating_sub(1)
    }

    fn insert(&mut self, item: T, notes: Notes) {
        if self.blocks.is_empty() {
            self.add_block(0, vec![item]);
            return;
        }
        let mut at = self.block_of(&item.key());
        if self.size(at) >= WORD {
            self.make_room(at);
            at = self.block_of(&item.key());
        }
        let Some(block) = self.blocks.get_mut(at) else { return };
        let place = block.put(item);
        if let Some(first) = self.firsts.get_mut(at) {
            *first = (*first).min(item.key());
        }
        self.widen(&item);
        self.forget(at, &notes);
        self.turn(at, place, columns_of(&item));
    }

    fn remove(&mut self, id: u32, key: &T::Key) -> Option<T> {
        let at = self.block_of(key);
        let block = self.blocks.get_mut(at)?;
        let place = block.find(id)?;
        let item = *block.items.get(place)?;
        block.used &= !bit(place);
        if block.bounds.as_ref().is_some_and(|bounds| bounds.is_edge(&item.bounds())) {
            block.bounds = joined(block.iter().map(Item::bounds));
        }
        self.turn(at, place, columns_of(&item));
        match self.size(at) {
            0 => drop(self.take_block(at)),
            size if size <= SPARSE => self.join(at),
            _ => (),
        }
        Some(item)
    }

    /// Changes an item, and gives the notes that it may belie now.
    fn change(
        &mut self,
        id: u32,
        key: &T::Key,
        change: impl FnOnce(&mut T),
        notes: impl FnOnce(&T) -> Notes,
    ) -> Option<Notes> {
        let at = self.block_of(key);
        let block = self.blocks.get_mut(at)?;
        let place = block.find(id)?;
        let item = block.items.get_mut(place)?;
        let before = item.changing_columns();
        change(item);
        let item = *item;
        let after = item.changing_columns();
        block.widen(&item);
        self.widen(&item);
        self.turn(at, place, after.difference(before));
        if after.and(before) == before {
            return None;
        }
        let notes = notes(&item);
        self.forget(at, &notes);
        Some(notes)
    }

    /// Turns bits of one item.
    fn turn(&mut self, block: usize, place: usize, columns: Columns) {
        let (item, whole) = (bit(place), bit(block));
        let start = block.div_euclid(TILE).saturating_mul(Self::COLUMNS);
        let tile = self.words.get_mut(start..start.saturating_add(Self::COLUMNS)).unwrap_or_default();
        for column in columns.iter() {
            let words = tile.get_mut(column).and_then(|words| words.get_mut(block.rem_euclid(TILE)));
            let (Some(word), Some(summary)) = (words, self.summary.get_mut(column)) else { continue };
            *word ^= item;
            *summary = if *word == 0 { *summary & !whole } else { *summary | whole };
        }
    }

    fn widen(&mut self, item: &T) {
        match &mut self.bounds {
            Some(bounds) => bounds.join(&item.bounds()),
            none => *none = Some(item.bounds()),
        }
    }

    fn size(&self, block: usize) -> usize {
        self.blocks.get(block).map_or(0, Block::len)
    }

    /// Shares the items of a full block with a roomy neighbour, or parts it in two.
    fn make_room(&mut self, at: usize) {
        let after = at.saturating_add(1);
        let is_roomy = |block: usize| (1..=ROOMY).contains(&self.size(block));
        if is_roomy(after) {
            self.share(at);
        } else if let Some(before) = at.checked_sub(1).filter(|before| is_roomy(*before)) {
            self.share(before);
        } else {
            self.add_block(after, Vec::new());
            self.share(at);
        }
    }

    /// Puts a block with few items together with a neighbour, where that leaves room.
    fn join(&mut self, at: usize) {
        let left = if self.size(at.saturating_add(1)) > 0 { Some(at) } else { at.checked_sub(1) };
        let Some(left) = left else { return };
        let right = left.saturating_add(1);
        if self.size(left).saturating_add(self.size(right)) > ROOMY {
            return;
        }
        let mut items = self.take_block(right);
        items.extend(self.empty(left));
        self.fill(left, &items);
    }

    /// Divides the items of a block and the next one evenly.
    fn share(&mut self, left: usize) {
        let right = left.saturating_add(1);
        let mut items = self.empty(left);
        items.extend(self.empty(right));
        items.sort_unstable_by_key(Item::key);
        let (low, high) = items.split_at(items.len().div_euclid(2));
        if let (Some(first), Some(item)) = (self.firsts.get_mut(right), high.first()) {
            *first = item.key();
        }
        self.fill(left, low);
        self.fill(right, high);
    }

    /// Takes all items out of a block.
    fn empty(&mut self, at: usize) -> Vec<T> {
        let Some(block) = self.blocks.get_mut(at) else { return Vec::new() };
        let items: Vec<T> = block.iter().copied().collect();
        // Their room too: the block may have half as many from now on.
        *block = Block { used: 0, bounds: None, ids: Vec::new(), items: Vec::new() };
        let whole = bit(at);
        self.words_mut(at).for_each(|word| *word = 0);
        self.summary.iter_mut().for_each(|summary| *summary &= !whole);
        items
    }

    /// Puts items into a block that is empty.
    fn fill(&mut self, at: usize, items: &[T]) {
        self.forget(at, &Notes::ALL);
        let Some(block) = self.blocks.get_mut(at) else { return };
        // All columns together, since each lies in another line of the processor's cache.
        let mut filled = [0_u64; Columns::MOST];
        for item in items {
            let item_bit = bit(block.put(*item));
            for column in columns_of(item).iter() {
                if let Some(word) = filled.get_mut(column) {
                    *word |= item_bit;
                }
            }
        }
        self.words_mut(at).zip(filled).for_each(|(word, filled)| *word = filled);
        let whole = bit(at);
        for (summary, _) in self.summary.iter_mut().zip(filled).filter(|(_, word)| *word != 0) {
            *summary |= whole;
        }
    }

    /// Makes a block at a place, with items that belong there.
    fn add_block(&mut self, at: usize, items: Vec<T>) {
        let at = at.min(self.blocks.len());
        let first = items.iter().map(Item::key).min().or_else(|| self.firsts.get(at.saturating_sub(1)).copied());
        let Some(first) = first else { return };
        self.fit_words(self.blocks.len().saturating_add(1));
        if at < self.blocks.len() {
            self.shift(at, true);
        }
        self.firsts.insert(at, first);
        self.blocks.insert(at, Block { used: 0, bounds: None, ids: Vec::new(), items: Vec::new() });
        items.iter().for_each(|item| self.widen(item));
        self.fill(at, &items);
    }

    /// Removes a block and gives its items.
    fn take_block(&mut self, at: usize) -> Vec<T> {
        let items = self.empty(at);
        if at < self.blocks.len() {
            self.blocks.remove(at);
            self.firsts.remove(at);
        }
        if at < self.blocks.len() {
            self.shift(at, false);
        }
        self.fit_words(self.blocks.len());
        items
    }

    /// Moves the blocks from `at` on to another page, behind the blocks that it has.
    fn move_blocks(&mut self, at: usize, to: &mut Self) {
        while self.blocks.len() > at {
            let Some(first) = self.firsts.get(at).copied() else { return };
            let items = self.take_block(at);
            let place = to.blocks.len();
            to.add_block(place, items);
            if let Some(moved) = to.firsts.get_mut(place) {
                *moved = first;
            }
        }
        self.bounds = joined(self.blocks.iter().filter_map(|block| block.bounds));
    }

    fn memory_bytes(&self) -> usize {
        let item = size_of::<T>().saturating_add(size_of::<u32>());
        let items: usize = self.blocks.iter().map(|block| block.items.capacity().saturating_mul(item)).sum();
        let blocks = self.blocks.capacity().saturating_mul(size_of::<Block<T>>());
        let firsts = self.firsts.capacity().saturating_mul(size_of::<T::Key>());
        let words = self.words.capacity().saturating_mul(TILE).saturating_add(self.summary.capacity());
        let words = words.saturating_mul(size_of::<u64>());
        let notes = self.without.capacity().saturating_mul(size_of::<Notes>());
        [blocks, firsts, words, notes].into_iter().fold(items, usize::saturating_add)
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct BitmapIndex<T: Item> {
    /// As the first keys of blocks.
    firsts: Vec<T::Key>,
    pages: Vec<Page<T>>,
    /// By page: the notes of which it has nothing.
    without: Vec<Notes>,
    len: usize,
}

impl<T: Item> Default for BitmapIndex<T> {
    fn default() -> Self {
        Self { firsts: Vec::new(), pages: Vec::new(), without: Vec::new(), len: 0 }
    }
}

impl<T: Item> BitmapIndex<T> {
    /// Items.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// A key that none of the items from a position on is below.
    pub(super) fn first(&self, at: Position) -> Option<&T::Key> {
        if at.block == 0 { self.firsts.get(at.page) } else { self.pages.get(at.page)?.firsts.get(at.block) }
    }

    /// The first position from `at` on where there may be what is noted under a number.
    pub(super) fn next(&self, at: Position, note: Option<usize>) -> Option<Position> {
        let is_without = |page: &Notes| note.is_some_and(|note| page.has(note));
        let passed = self.without.get(at.page..)?.iter().position(|page| !is_without(page))?;
        if passed == 0 { Some(at) } else { Some(Position { page: at.page.saturating_add(passed), block: 0 }) }
    }

    /// Searches a page from a position on, and says where to go on; nowhere when the search is over.
    pub(super) fn search(&mut self, at: Position, wanted: &Wanted, visit: &mut impl Visit<T>) -> Option<Position> {
        let (first, page) = (self.firsts.get(at.page)?, self.pages.get_mut(at.page)?);
        let ended = match page.bounds.as_ref().map_or(Step::Skip, |bounds| visit.judge(first, bounds)) {
            Step::Enter => {
                let ended = page.search(at.block, wanted, visit);
                if let (Some(note), Some(without)) = (wanted.note, self.without.get_mut(at.page)) {
                    without.set(note, page.is_without(note));
                }
                ended
            }
            Step::Skip => None,
            step => Some((step, at.block)),
        };
        match ended {
            None => Some(Position { page: at.page.saturating_add(1), block: 0 }),
            Some((Step::Pause, block)) => Some(Position { block, ..at }),
            Some(_) => None,
        }
    }

    /// Forgets what was noted under a number.
    pub(super) fn forget(&mut self, note: usize) {
        let pages = self.pages.iter_mut().flat_map(|page| &mut page.without);
        pages.chain(&mut self.without).for_each(|without| without.set(note, false));
    }

    /// All items, in the order of their blocks.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.blocks.iter().flat_map(Block::iter))
    }

    /// Puts an item in, which may belie some notes.
    pub(super) fn insert(&mut self, item: T, notes: Notes) {
        self.len = self.len.saturating_add(1);
        let mut at = self.page_of(&item.key());
        if self.pages.get(at).is_some_and(|page| page.blocks.len() >= WORD) {
            self.split(at);
            at = self.page_of(&item.key());
        }
        match (self.pages.get_mut(at), self.firsts.get_mut(at)) {
            (Some(page), Some(first)) => {
                *first = (*first).min(item.key());
                page.insert(item, notes);
                self.belie(at, notes);
            }
            _ => {
                let mut page = Page::new();
                page.insert(item, notes);
                self.pages.push(page);
                self.firsts.push(item.key());
                self.without.push(Notes::default());
            }
        }
    }

    fn belie(&mut self, page: usize, notes: Notes) {
        if let Some(without) = self.without.get_mut(page) {
            without.remove(&notes);
        }
    }

    /// Takes out the item with this number and key.
    pub(super) fn remove(&mut self, id: u32, key: &T::Key) -> Option<T> {
        let at = self.page_of(key);
        let page = self.pages.get_mut(at)?;
        let removed = page.remove(id, key)?;
        self.len = self.len.saturating_sub(1);
        match page.blocks.len() {
            0 => self.drop_page(at),
            blocks if blocks <= SPARSE => self.join(at),
            _ => (),
        }
        Some(removed)
    }

    /// Changes the item with this number and key, which stays as it is; `notes` says which of them it may then belie.
    pub(super) fn change(
        &mut self,
        id: u32,
        key: &T::Key,
        change: impl FnOnce(&mut T),
        notes: impl FnOnce(&T) -> Notes,
    ) {
        let at = self.page_of(key);
        if let Some(notes) = self.pages.get_mut(at).and_then(|page| page.change(id, key, change, notes)) {
            self.belie(at, notes);
        }
    }

    /// Bytes that the index has allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let page = size_of::<Page<T>>().saturating_add(size_of::<T::Key>()).saturating_add(size_of::<Notes>());
        let own = self.pages.capacity().saturating_mul(page);
        self.pages.iter().map(Page::memory_bytes).fold(own, usize::saturating_add)
    }

    fn page_of(&self, key: &T::Key) -> usize {
        self.firsts.partition_point(|first| first <= key).saturating_sub(1)
    }

    fn split(&mut self, at: usize) {
        let mut right = Page::new();
        let Some(page) = self.pages.get_mut(at) else { return };
        page.move_blocks(WORD.div_euclid(2), &mut right);
        let Some(first) = right.firsts.first().copied() else { return };
        let after = at.saturating_add(1);
        self.firsts.insert(after, first);
        self.pages.insert(after, right);
        self.without.insert(after, self.without.get(at).copied().unwrap_or_default());
    }

    /// Puts a page with few blocks together with a neighbour, where that leaves room.
    fn join(&mut self, at: usize) {
        let left = if at.saturating_add(1) < self.pages.len() { Some(at) } else { at.checked_sub(1) };
        let Some(left) = left else { return };
        let right = left.saturating_add(1);
        let blocks = |page: usize| self.pages.get(page).map_or(WORD, |page| page.blocks.len());
        if blocks(left).saturating_add(blocks(right)) > ROOMY {
            return;
        }
        self.firsts.remove(right);
        self.without.remove(right);
        self.belie(left, Notes::ALL);
        let mut moved = self.pages.remove(right);
        if let Some(page) = self.pages.get_mut(left) {
            moved.move_blocks(0, page);
        }
    }

    /// The last page stays: whoever holds now one item and now none does not make it anew each time.
    fn drop_page(&mut self, at: usize) {
        if at < self.pages.len() && self.pages.len() > 1 {
            self.pages.remove(at);
            self.firsts.remove(at);
            self.without.remove(at);
        }
    }
}
