//! The index against an ordered map: what a search finds is what a look at everything finds, in the order of blocks.

use std::collections::BTreeMap;

use super::*;
use crate::engine::{
    bitmap::{BitmapIndex, Bounds, Item, Position, Step, Visit},
    columns::{Columns, Notes, Wanted, low_bits},
};

/// A number with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pebble {
    place: u32,
    weight: u32,
}

/// Heaviest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heaviest(u32);

impl Item for Pebble {
    type Key = u32;
    type Bounds = Heaviest;
    const COLUMNS: usize = 150;

    fn id(&self) -> u32 {
        self.place
    }

    fn key(&self) -> u32 {
        self.place
    }

    /// Up to its weight, and one for what is left when it is divided by 20.
    fn columns(&self) -> Columns {
        let weight = self.weight as usize;
        let at_least =
            Columns::placed(low_bits(weight.min(64)), 0).and(Columns::placed(low_bits(weight.saturating_sub(64)), 64));
        at_least.and(Columns::one(100 + weight % 20))
    }

    fn changing_columns(&self) -> Columns {
        self.columns()
    }

    fn bounds(&self) -> Heaviest {
        Heaviest(self.weight)
    }
}

impl Bounds for Heaviest {
    fn is_edge(&self, item: &Self) -> bool {
        self.0 == item.0
    }

    fn join(&mut self, other: &Self) {
        self.0 = self.0.max(other.0);
    }
}

/// Reads what it is shown, up to a place.
struct Reader {
    until: u32,
    at_least: u32,
    read: Vec<Pebble>,
}

impl Visit<Pebble> for Reader {
    fn judge(&mut self, first: &u32, heaviest: &Heaviest) -> Step {
        match (*first > self.until, heaviest.0 >= self.at_least) {
            (true, _) => Step::Stop,
            (false, true) => Step::Enter,
            (false, false) => Step::Skip,
        }
    }

    fn item(&mut self, item: &Pebble) {
        self.read.push(*item);
    }

    fn looked(&mut self) {}
}

fn search(index: &mut BitmapIndex<Pebble>, note: Option<usize>, weight: u32, rests: &[u32], until: u32) -> Vec<Pebble> {
    let mut wanted = Wanted { note, ..Wanted::default() };
    wanted.common.all(Columns::one(weight as usize - 1));
    rests.iter().for_each(|rest| wanted.own.any(100 + *rest as usize));
    let mut reader = Reader { until, at_least: weight, read: Vec::new() };
    let mut position = index.next(Position::default(), note);
    while let Some(at) = position {
        position = index.search(at, &wanted, &mut reader).and_then(|next| index.next(next, note));
    }
    // A block is read as a whole, and in no order.
    reader.read.retain(|pebble| pebble.place <= until);
    reader.read.sort_unstable_by_key(|pebble| pebble.place);
    reader.read
}

/// What [`check`] searches for: all at least so heavy.
const SEARCHES: [(u32, &[u32], u32, Option<usize>); 4] = [
    (1, &[], u32::MAX, None),
    (40, &[3, 7], 20_000, Some(0)),
    (99, &[], 9_000, Some(1)),
    (70, &[5], u32::MAX, Some(2)),
];

/// The notes that a pebble belies.
fn notes(pebble: &Pebble) -> Notes {
    let mut notes = Notes::default();
    for (weight, _, _, note) in SEARCHES {
        note.into_iter().for_each(|note| notes.set(note, pebble.weight >= weight));
    }
    notes
}

fn check(index: &mut BitmapIndex<Pebble>, model: &BTreeMap<u32, Pebble>) {
    let mut all: Vec<Pebble> = index.iter().copied().collect();
    all.sort_unstable_by_key(|pebble| pebble.place);
    assert_eq!(all, model.values().copied().collect::<Vec<_>>());
    assert_eq!(index.len(), model.len());
    for (weight, rests, until, note) in SEARCHES {
        let fits = |pebble: &&Pebble| {
            pebble.weight >= weight
                && pebble.place <= until
                && (rests.is_empty() || rests.contains(&(pebble.weight % 20)))
        };
        let wanted: Vec<Pebble> = model.values().filter(fits).copied().collect();
        assert_eq!(search(index, note, weight, rests, until), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_search_finds_what_a_look_at_everything_finds(
        steps in proptest::collection::vec((0_u32..40_000, 0_u32..100, 0_u8..8), 1..30_000),
        growing in any::<bool>(),
    ) {
        let (mut index, mut model) = (BitmapIndex::<Pebble>::default(), BTreeMap::new());
        if !growing {
            for place in (0..40_000).step_by(3) {
                let pebble = Pebble { place, weight: place % 100 };
                index.insert(pebble, notes(&pebble));
                model.insert(place, pebble);
            }
        }
        for (at, (place, weight, kind)) in steps.into_iter().enumerate() {
            let pebble = Pebble { place, weight };
            match (model.contains_key(&place), kind) {
                (true, 0..=2) => {
                    index.change(place, &place, |item| item.weight = weight, notes);
                    model.insert(place, pebble);
                }
                (true, _) => prop_assert_eq!(index.remove(place, &place), model.remove(&place)),
                (false, 0..=1) => prop_assert_eq!(index.remove(place, &place), None),
                (false, _) => {
                    index.insert(pebble, notes(&pebble));
                    model.insert(place, pebble);
                }
            }
            if at % 4_000 == 0 {
                check(&mut index, &model);
            }
        }
        check(&mut index, &model);
        for (at, place) in model.keys().copied().collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(index.remove(place, &place), model.remove(&place));
            if at % 5_000 == 0 {
                check(&mut index, &model);
            }
        }
        check(&mut index, &model);
    }
}
