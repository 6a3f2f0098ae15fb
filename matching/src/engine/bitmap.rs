//! A bitmap index: items in the order of a key, in blocks of 64, with a bitmap of each block for each thing that can be
//! asked of an item (a *column*: "has at least 2 vCPU free", "is in Europe").
//!
//! What has all of several columns is found by ANDing words, 64 items at a time, and nothing that lacks one is ever read
//! (O'Neil and Quass, "Improved query performance with variant indexes", 1997). Blocks lie in pages of up to 64; a page knows
//! for each column which of its blocks have an item with it, so that one word passes over 4,096 items. An item
//! keeps its place in its block for as long as its key stays, so that changing what it can do is flipping a few bits.
//!
//! Searches that have something in common note which blocks have nothing of it, and pass those over until an item
//! there gets better: what was sold out stays unread.
//!
//! With *n* items and *k* columns: to change one costs O(log *n*) to find it and O(1) for each column that turns; to insert or
//! remove one O(log *n* + *k*), and now and then the O(64 *k*) of rearranging two blocks. A search costs a word for each
//! page, then a word for each block that may have something, then the items that have all columns.

use std::fmt;

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
    /// How many different things many searches may have in common.
    const NOTES: usize;

    /// Its number, by which it is found in its block.
    fn id(&self) -> u32;
    /// Where it stands.
    fn key(&self) -> Self::Key;
    /// What it has.
    fn columns(&self) -> Columns;
    /// Bounds on it alone.
    fn bounds(&self) -> Self::Bounds;
}

/// Bounds on a set of items. They hold, but need not be the tightest: items that leave do not tighten them.
pub(super) trait Bounds: Copy + fmt::Debug {
    /// Widens the bounds so that they hold for those of `other` too.
    fn join(&mut self, other: &Self);
}

/// A set of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Columns([u64; 3]);

impl Columns {
    /// With those of `first..end` too.
    #[must_use]
    pub(super) fn with(mut self, first: usize, end: usize) -> Self {
        for (at, word) in self.0.iter_mut().enumerate() {
            let start = at.saturating_mul(WORD);
            let (from, to) = (first.saturating_sub(start).min(WORD), end.saturating_sub(start).min(WORD));
            *word |= low_bits(to) & !low_bits(from);
        }
        self
    }

    /// All of either.
    pub(super) fn and(self, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([a | d, b | e, c | f])
    }

    /// Those that are in one set and not in the other.
    fn difference(self, other: Self) -> Self {
        let [a, b, c] = self.0;
        let [d, e, f] = other.0;
        Self([a ^ d, b ^ e, c ^ f])
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        let starts = [0, WORD, WORD.saturating_mul(2)];
        self.0.into_iter().zip(starts).flat_map(|(word, start)| bits(word).map(move |bit| start.saturating_add(bit)))
    }
}

/// The lowest `count` bits.
fn low_bits(count: usize) -> u64 {
    u32::try_from(count).ok().and_then(|count| 1_u64.checked_shl(count)).map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

/// The blocks of a tile that have no bit, as bits of a page.
fn empty_ones(words: &[u64; TILE], tile: usize) -> u64 {
    let start = tile.saturating_mul(TILE);
    let empty = words.iter().enumerate().filter(|(_, word)| **word == 0);
    empty.fold(0, |empty, (at, _)| empty | bit(start.saturating_add(at)))
}

/// The columns of an item, that of being there too.
fn columns_of<T: Item>(item: &T) -> Columns {
    item.columns().with(T::COLUMNS, T::COLUMNS.saturating_add(1))
}

fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or_default()
}

/// Places of the bits that are set, from the lowest.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
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
        let mut start = first;
        self.0.into_iter().zip(Self::HIGHEST.0).fold(Columns::default(), |columns, (digit, highest)| {
            let columns = columns.with(start, start.saturating_add(digit));
            start = start.saturating_add(highest);
            columns
        })
    }

    /// How to find what is not less, where the columns of the number begin with `first`.
    fn at_least(self, first: usize) -> Comparison {
        let mut comparison = Comparison::default();
        let mut end = first.saturating_add(Self::COLUMNS);
        let mut is_bare = true;
        let digits = self.0.into_iter().zip(Self::HIGHEST.0).rev();
        for ((digit, highest), place) in digits.zip(&mut comparison.0) {
            end = end.saturating_sub(highest);
            place.0 = digit.checked_sub(1).map(|at| end.saturating_add(at));
            // Where nothing is asked of the digits behind, those above are among the same.
            place.1 = (!is_bare && digit < highest).then(|| end.saturating_add(digit));
            is_bare &= digit == 0;
        }
        comparison
    }
}

/// For each digit, from the last one: the column of those that are not less in it, and of those that are more.
#[derive(Debug, Clone, Copy, Default)]
struct Comparison([(Option<usize>, Option<usize>); 3]);

/// Numbers that are not less, all of some columns, and of others, where there are any, at least one.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    numbers: Vec<Comparison>,
    all: Vec<usize>,
    any: Vec<usize>,
}

impl Group {
    /// A number of at least so much, the first column of which is `first`.
    pub(super) fn at_least(&mut self, first: usize, digits: Digits) {
        if digits != Digits::default() {
            self.numbers.push(digits.at_least(first));
        }
    }

    /// A column.
    pub(super) fn all(&mut self, column: usize) {
        self.all.push(column);
    }

    /// One of several columns.
    pub(super) fn any(&mut self, column: usize) {
        if !self.any.contains(&column) {
            self.any.push(column);
        }
    }

    /// The bits of `start` that have all of this, where `words` gives those that have a column. With `N` words it takes `N`
    /// blocks at a time, which costs little more than one.
    fn found<'a, const N: usize>(&self, start: [u64; N], words: impl Fn(usize) -> &'a [u64; N]) -> [u64; N] {
        let mut found = start;
        for Comparison(digits) in &self.numbers {
            if found == [0; N] {
                return found;
            }
            let mut rest = [u64::MAX; N];
            for (same, above) in digits {
                same.iter().for_each(|column| and(&mut rest, words(*column)));
                above.iter().for_each(|column| or(&mut rest, words(*column)));
            }
            and(&mut found, &rest);
        }
        for column in &self.all {
            and(&mut found, words(*column));
        }
        if let Some((first, others)) = self.any.split_first() {
            let mut any = *words(*first);
            others.iter().for_each(|column| or(&mut any, words(*column)));
            and(&mut found, &any);
        }
        found
    }
}

/// What a search asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// What many searches have in common.
    pub(super) common: Group,
    /// The number of that, below [`Item::NOTES`]: blocks without anything that has it are noted, and passed over until
    /// something in them gets better.
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

/// What a search does with what lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Look into it.
    Enter,
    /// Nothing in it will do.
    Skip,
    /// Nothing here or behind it will do.
    Stop,
}

/// A search: judges blocks and reads items.
pub(super) trait Visit<T: Item> {
    /// Whether to look into a block or page whose items have at least this key and these bounds.
    fn judge(&mut self, first: &T::Key, bounds: &T::Bounds) -> Step;
    /// An item that has all that is wanted.
    fn item(&mut self, item: &T);
    /// So many blocks are looked at.
    fn looked(&mut self, blocks: u32);
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
    /// By tile, column and block: which items have it. The last column is that of being there.
    words: Vec<[u64; TILE]>,
    /// By column: which blocks have an item with it.
    summary: Vec<u64>,
    /// By [`Wanted::note`]: which blocks had nothing.
    notes: Vec<u64>,
}

impl<T: Item> Page<T> {
    const COLUMNS: usize = T::COLUMNS.saturating_add(1);

    fn new() -> Self {
        Self {
            firsts: Vec::new(),
            blocks: Vec::new(),
            bounds: None,
            words: vec![[0; TILE]; Self::COLUMNS.saturating_mul(WORD.div_euclid(TILE))],
            summary: vec![0; Self::COLUMNS],
            notes: vec![0; T::NOTES],
        }
    }

    /// What is known of its items.
    pub(super) const fn bounds(&self) -> Option<&T::Bounds> {
        self.bounds.as_ref()
    }

    /// Searches it in the order of its blocks; the items of a block come in no order. `false` when the search is over.
    pub(super) fn search(&mut self, wanted: &Wanted, visit: &mut impl Visit<T>) -> bool {
        let summary = |column: usize| self.summary.get(column).map_or(&[0], std::array::from_ref);
        let noted = wanted.note.and_then(|note| self.notes.get(note)).copied().unwrap_or_default();
        let start = [low_bits(self.blocks.len()) & !noted];
        let [blocks] = wanted.own.found(wanted.common.found(start, summary), summary);
        visit.looked(blocks.count_ones());
        let mut tile = (usize::MAX, [0; TILE]);
        let mut without = 0;
        let mut is_over = false;
        for at in bits(blocks) {
            let number = at.div_euclid(TILE);
            if tile.0 != number {
                let there = *self.column(number, T::COLUMNS);
                let common = wanted.common.found(there, |column| self.column(number, column));
                without |= empty_ones(&common, number);
                tile = (number, wanted.own.found(common, |column| self.column(number, column)));
            }
            let hits = tile.1.get(at.rem_euclid(TILE)).copied().unwrap_or_default();
            if hits == 0 {
                continue;
            }
            let (Some(block), Some(first)) = (self.blocks.get(at), self.firsts.get(at)) else { continue };
            match block.bounds.as_ref().map_or(Step::Skip, |bounds| visit.judge(first, bounds)) {
                Step::Enter => bits(hits).filter_map(|place| block.items.get(place)).for_each(|item| visit.item(item)),
                Step::Skip => (),
                Step::Stop => {
                    is_over = true;
                    break;
                }
            }
        }
        if let Some(note) = wanted.note.and_then(|note| self.notes.get_mut(note)) {
            *note |= without;
        }
        !is_over
    }

    /// Forgets what was noted of a block.
    fn forget(&mut self, block: usize) {
        let others = !bit(block);
        self.notes.iter_mut().for_each(|note| *note &= others);
    }

    fn column(&self, tile: usize, column: usize) -> &[u64; TILE] {
        self.words.get(tile.saturating_mul(Self::COLUMNS).saturating_add(column)).unwrap_or(&[0; TILE])
    }

    fn word_mut(&mut self, block: usize, column: usize) -> Option<&mut u64> {
        let tile = block.div_euclid(TILE).saturating_mul(Self::COLUMNS);
        self.words.get_mut(tile.saturating_add(column))?.get_mut(block.rem_euclid(TILE))
    }

    /// Moves the words of the blocks from `at` on by one block, up or down; what is moved out of the way is lost.
    fn shift(&mut self, at: usize, up: bool) {
        self.notes.fill(0);
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

    fn insert(&mut self, item: T) {
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
        self.forget(at);
        self.turn(at, place, columns_of(&item));
    }

    fn remove(&mut self, id: u32, key: &T::Key) -> Option<T> {
        let at = self.block_of(key);
        let block = self.blocks.get_mut(at)?;
        let place = block.find(id)?;
        let item = *block.items.get(place)?;
        block.used &= !bit(place);
        self.turn(at, place, columns_of(&item));
        match self.size(at) {
            0 => drop(self.take_block(at)),
            size if size <= SPARSE => self.join(at),
            _ => (),
        }
        Some(item)
    }

    fn change(&mut self, id: u32, key: &T::Key, change: impl FnOnce(&mut T)) -> Option<()> {
        let at = self.block_of(key);
        let block = self.blocks.get_mut(at)?;
        let place = block.find(id)?;
        let item = block.items.get_mut(place)?;
        let before = item.columns();
        change(item);
        let item = *item;
        let after = item.columns();
        block.widen(&item);
        self.widen(&item);
        if after.and(before) != before {
            self.forget(at);
        }
        self.turn(at, place, after.difference(before));
        Some(())
    }

    /// Turns bits of one item.
    fn turn(&mut self, block: usize, place: usize, columns: Columns) {
        let (item, whole) = (bit(place), bit(block));
        for column in columns.iter() {
            let Some(word) = self.word_mut(block, column) else { continue };
            *word ^= item;
            let is_there = *word != 0;
            if let Some(summary) = self.summary.get_mut(column) {
                *summary = if is_there { *summary | whole } else { *summary & !whole };
            }
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
        for column in 0..Self::COLUMNS {
            if let Some(word) = self.word_mut(at, column) {
                *word = 0;
            }
        }
        self.summary.iter_mut().for_each(|summary| *summary &= !whole);
        items
    }

    /// Puts items into a block that is empty.
    fn fill(&mut self, at: usize, items: &[T]) {
        self.forget(at);
        let Some(block) = self.blocks.get_mut(at) else { return };
        let places: Vec<usize> = items.iter().map(|item| block.put(*item)).collect();
        for (item, place) in items.iter().zip(places) {
            self.turn(at, place, columns_of(item));
        }
    }

    /// Makes a block at a place, with items that belong there.
    fn add_block(&mut self, at: usize, items: Vec<T>) {
        let at = at.min(self.blocks.len());
        let first = items.iter().map(Item::key).min().or_else(|| self.firsts.get(at.saturating_sub(1)).copied());
        let Some(first) = first else { return };
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
        let mut bounds: Option<T::Bounds> = None;
        for block in self.blocks.iter().filter_map(|block| block.bounds.as_ref()) {
            match &mut bounds {
                Some(all) => all.join(block),
                none => *none = Some(*block),
            }
        }
        self.bounds = bounds;
    }

    fn memory_bytes(&self) -> usize {
        let item = size_of::<T>().saturating_add(size_of::<u32>());
        let items: usize = self.blocks.iter().map(|block| block.items.capacity().saturating_mul(item)).sum();
        let blocks = self.blocks.capacity().saturating_mul(size_of::<Block<T>>());
        let firsts = self.firsts.capacity().saturating_mul(size_of::<T::Key>());
        let words = self.words.capacity().saturating_mul(TILE).saturating_add(self.summary.capacity());
        let words = words.saturating_add(self.notes.capacity());
        let words = words.saturating_mul(size_of::<u64>());
        items.saturating_add(blocks).saturating_add(firsts).saturating_add(words)
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct BitmapIndex<T: Item> {
    /// As the first keys of blocks.
    firsts: Vec<T::Key>,
    pages: Vec<Page<T>>,
    len: usize,
}

impl<T: Item> Default for BitmapIndex<T> {
    fn default() -> Self {
        Self { firsts: Vec::new(), pages: Vec::new(), len: 0 }
    }
}

impl<T: Item> BitmapIndex<T> {
    /// Items.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// A key that none of the items of a page and those behind it is below.
    pub(super) fn first(&self, page: usize) -> Option<&T::Key> {
        self.firsts.get(page)
    }

    /// A page, with its first key.
    pub(super) fn page(&mut self, at: usize) -> Option<(&T::Key, &mut Page<T>)> {
        self.firsts.get(at).zip(self.pages.get_mut(at))
    }

    /// Pages with their first keys, in order.
    pub(super) fn pages(&mut self) -> impl Iterator<Item = (&T::Key, &mut Page<T>)> {
        self.firsts.iter().zip(&mut self.pages)
    }

    /// Forgets what was noted under a number.
    pub(super) fn forget(&mut self, note: usize) {
        for noted in self.pages.iter_mut().filter_map(|page| page.notes.get_mut(note)) {
            *noted = 0;
        }
    }

    /// All items, in the order of their blocks.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.blocks.iter().flat_map(Block::iter))
    }

    pub(super) fn insert(&mut self, item: T) {
        self.len = self.len.saturating_add(1);
        let mut at = self.page_of(&item.key());
        if self.pages.get(at).is_some_and(|page| page.blocks.len() >= WORD) {
            self.split(at);
            at = self.page_of(&item.key());
        }
        match (self.pages.get_mut(at), self.firsts.get_mut(at)) {
            (Some(page), Some(first)) => {
                *first = (*first).min(item.key());
                page.insert(item);
            }
            _ => {
                let mut page = Page::new();
                page.insert(item);
                self.pages.push(page);
                self.firsts.push(item.key());
            }
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

    /// Changes the item with this number and key, which stays as it is.
    pub(super) fn change(&mut self, id: u32, key: &T::Key, change: impl FnOnce(&mut T)) {
        let at = self.page_of(key);
        if let Some(page) = self.pages.get_mut(at) {
            page.change(id, key, change);
        }
    }

    /// Bytes that the index has allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let page = size_of::<Page<T>>().saturating_add(size_of::<T::Key>());
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
        }
    }
}
