//! Shapes of demands that are asked for most, of which lists note what is sold out.

use common::resources::Resources;

use super::{
    columns::{Notes, bits},
    places::{self, FEATURES},
    supplies::Entry,
};

/// How far one shape can be ahead of the others of its number, and how far it is at first: to forget what was noted of
/// another one takes long.
const LEADS: (u32, u32) = (64, 4);
/// Quarters of a doubling, and zero.
const STEPS: usize = 129;

/// At the least what a replica takes, and which features it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// As [`places::cpu`] counts it, rounded down to quarters of a doubling: odd sizes share what is noted.
    pub(super) cpu: u32,
    /// In MiB, rounded down likewise.
    pub(super) memory_mib: u32,
    pub(super) features: u64,
}

impl Shape {
    pub(super) fn new(size: Resources, features: u64) -> Self {
        let rounded = |number: u32| {
            let quarter = number.checked_ilog2().and_then(|log| log.checked_sub(2));
            quarter.map_or(number, |quarter| number >> quarter << quarter)
        };
        Self { cpu: rounded(places::cpu(size.milli_cpu)), memory_mib: rounded(size.memory_mib), features }
    }

    /// One of [`Notes::MOST`], the same on every machine.
    fn number(self) -> usize {
        // Fibonacci hashing: the highest bits of products with 2⁶⁴ over the golden ratio.
        let mix = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        let size = u64::from(self.cpu) << 32 | u64::from(self.memory_mib);
        let [.., third, last] = mix(mix(size) ^ self.features).to_be_bytes();
        usize::from(u16::from_be_bytes([third, last])) & Notes::MOST.saturating_sub(1)
    }
}

/// The shapes that are noted, each under the number of its hash.
#[derive(Debug)]
pub(super) struct Shapes {
    /// With how much oftener it was asked for than others of its number.
    known: Vec<Option<(Shape, u32)>>,
    /// By the step of a number: the shapes that need no more CPU.
    within_cpu: Vec<Notes>,
    /// By the step of a number: the shapes that need no more memory.
    within_memory: Vec<Notes>,
    /// Features that a shape needs or needed.
    needed: u64,
    /// By feature: the shapes that need it.
    needing: [Notes; FEATURES],
}

impl Default for Shapes {
    fn default() -> Self {
        Self {
            known: vec![None; Notes::MOST],
            within_cpu: vec![Notes::default(); STEPS],
            within_memory: vec![Notes::default(); STEPS],
            needed: 0,
            needing: [Notes::default(); FEATURES],
        }
    }
}

/// What has more is not on a lower step.
fn step(number: u32) -> usize {
    let Some(log) = number.checked_ilog2() else { return 0 };
    let quarter = u64::from(number).saturating_mul(4).checked_shr(log).unwrap_or_default() & 3;
    (log as usize).saturating_mul(4).saturating_add(quarter as usize).saturating_add(1)
}

impl Shapes {
    /// The number of a shape, and whether it is new; `None` where another one of its number is asked for more often.
    pub(super) fn note_of(&mut self, shape: Shape) -> Option<(usize, bool)> {
        let note = shape.number();
        match self.known.get_mut(note)? {
            Some((known, lead)) if *known == shape => {
                *lead = lead.saturating_add(1).min(LEADS.0);
                return Some((note, false));
            }
            Some((_, lead)) if *lead > 0 => {
                *lead = lead.saturating_sub(1);
                return None;
            }
            free => *free = Some((shape, LEADS.1)),
        }
        let Shape { cpu, memory_mib, features } = shape;
        self.needed |= features;
        for (at, notes) in self.within_cpu.iter_mut().enumerate() {
            notes.set(note, at >= step(cpu));
        }
        for (at, notes) in self.within_memory.iter_mut().enumerate() {
            notes.set(note, at >= step(memory_mib));
        }
        for (feature, notes) in self.needing.iter_mut().enumerate() {
            notes.set(note, features >> feature & 1 == 1);
        }
        Some((note, true))
    }

    /// The numbers of the shapes for which an entry has room and features, and perhaps of some others.
    pub(super) fn within(&self, entry: &Entry) -> Notes {
        let mut notes = Notes::ALL;
        let free = [(&self.within_cpu, places::cpu(entry.milli_cpu)), (&self.within_memory, entry.memory_mib)];
        for (within, free) in free {
            notes.retain(within.get(step(free)).unwrap_or(&Notes::ALL));
        }
        for feature in bits(self.needed & !u64::from(entry.features)) {
            notes.remove(self.needing.get(feature).unwrap_or(&Notes::default()));
        }
        notes
    }
}
