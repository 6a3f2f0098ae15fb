//! Everything by dense numbers: supplies, demands and accounts each have a slot, which is found by hash or address and
//! used again when it is free. Numbers never decide anything: what is equal goes by order of registration.

use std::hash::{BuildHasher, Hash};

use common::{
    ids::{Address, OfferHash},
    money::Atoms,
    resources::Resources,
};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::open_demands::Turn;
use crate::{
    ledger::Placement,
    snapshot::{Demand, Supply},
};

/// What a table finds its slots by.
pub(super) trait Slot {
    type Key: Copy + Eq + Hash;

    fn key(&self) -> Self::Key;
}

/// Slots with numbers. The hash function has a random key, so that nobody can choose offers that fall together; nothing
/// is ever read in the order of the hashes.
#[derive(Debug)]
pub(super) struct Table<S: Slot> {
    slots: Vec<Option<S>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<S: Slot> Default for Table<S> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<S: Slot> Table<S> {
    pub(super) fn get(&self, number: u32) -> Option<&S> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut S> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn find(&self, key: S::Key) -> Option<u32> {
        let is_it = |number: &u32| self.get(*number).is_some_and(|slot| slot.key() == key);
        self.by_key.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// The number of the slot with this key, which is made where there is none.
    pub(super) fn find_or_insert(&mut self, key: S::Key, make: impl FnOnce() -> S) -> u32 {
        self.find(key).unwrap_or_else(|| self.insert(make()))
    }

    /// A slot for something that has none.
    pub(super) fn insert(&mut self, slot: S) -> u32 {
        let hash = self.hasher.hash_one(slot.key());
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.slots.get_mut(number as usize) {
                    *place = Some(slot);
                }
                number
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    // By an eighth: a large table is not to be half empty.
                    self.slots.reserve_exact(self.slots.len().div_euclid(8).saturating_add(16));
                }
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash_of = |number: &u32| {
            slots.get(*number as usize).and_then(Option::as_ref).map_or(0, |slot| hasher.hash_one(slot.key()))
        };
        self.by_key.insert_unique(hash, number, hash_of);
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<S> {
        let slot = self.slots.get_mut(number as usize)?.take()?;
        let hash = self.hasher.hash_one(slot.key());
        if let Ok(found) = self.by_key.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        self.free.push(number);
        Some(slot)
    }

    /// Numbers are below this.
    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Slots in use, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &S)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((u32::try_from(at).ok()?, slot.as_ref()?)))
    }

    /// Bytes that the table has allocated, what the slots point to apart.
    pub(super) fn memory_bytes(&self) -> usize {
        let slots = self.slots.capacity().saturating_mul(size_of::<Option<S>>());
        let keys = self.by_key.allocation_size();
        slots.saturating_add(keys).saturating_add(self.free.capacity().saturating_mul(4))
    }
}

/// A supply.
#[derive(Debug)]
pub(super) struct SupplySlot {
    pub(super) terms: Box<Supply>,
    pub(super) used: Resources,
    /// Number of its account.
    pub(super) provider: u32,
    /// Place in the account's list.
    pub(super) at: u32,
    /// Whether it is in the index.
    pub(super) active: bool,
}

impl Slot for SupplySlot {
    type Key = OfferHash;

    fn key(&self) -> OfferHash {
        self.terms.hash
    }
}

/// How a demand stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not known, held, void or full.
    Closed,
    /// To be looked at in the next plan.
    Due,
    /// Looked at and not matched: only the change of something else can help.
    Waiting,
}

/// A demand, or what is known of one whose terms are not.
#[derive(Debug)]
pub(super) struct DemandSlot {
    pub(super) hash: OfferHash,
    pub(super) terms: Option<Box<Demand>>,
    pub(super) placement: Placement,
    /// Accounts that host or have hosted a replica, sorted.
    pub(super) hosts: Vec<u32>,
    /// Number of its account.
    pub(super) developer: u32,
    /// Place in the account's list.
    pub(super) at: u32,
    pub(super) standing: Standing,
    /// Hosts that it lacked when it was looked at.
    pub(super) missing: usize,
    /// Accounts that could host it when it was looked at, fewer than needed.
    pub(super) found: Vec<u32>,
    /// Other accounts that have called it since, with their supplies.
    pub(super) helpers: Vec<(u32, u32)>,
    /// Whether more money might have helped when it was looked at.
    pub(super) lacks_funds: bool,
}

impl DemandSlot {
    pub(super) fn unknown(hash: OfferHash) -> Self {
        Self {
            hash,
            terms: None,
            placement: Placement::default(),
            hosts: Vec::new(),
            developer: 0,
            at: 0,
            standing: Standing::Closed,
            missing: 0,
            found: Vec::new(),
            helpers: Vec::new(),
            lacks_funds: false,
        }
    }

    /// Whether nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_none() && self.placement == Placement::default() && self.hosts.is_empty()
    }

    pub(super) fn turn(&self) -> Option<Turn> {
        self.terms.as_ref().map(|terms| Turn { place: terms.place, hash: self.hash })
    }
}

impl Slot for DemandSlot {
    type Key = OfferHash;

    fn key(&self) -> OfferHash {
        self.hash
    }
}

/// An account; once seen it keeps its number.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) address: Address,
    pub(super) free: Atoms,
    /// No offer of it can ask for more: with the bond for this much its balance stands in nobody's way.
    pub(super) highest_ask: u64,
    /// The least that one of its entries has as its limit of affordable asks, or less.
    pub(super) least_affordable: u64,
    pub(super) supplies: Vec<u32>,
    pub(super) demands: Vec<u32>,
}

impl Slot for Account {
    type Key = Address;

    fn key(&self) -> Address {
        self.address
    }
}

/// Puts `number` into a list of an account and says where.
pub(super) fn enlist(list: &mut Vec<u32>, number: u32) -> u32 {
    list.push(number);
    u32::try_from(list.len().saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Takes the entry at `at` out of a list and gives the number that has moved to its place.
pub(super) fn delist(list: &mut Vec<u32>, at: u32) -> Option<u32> {
    if (at as usize) < list.len() {
        list.swap_remove(at as usize);
    }
    list.get(at as usize).copied()
}
