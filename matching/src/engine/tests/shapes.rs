//! What is noted as sold out: an entry that has room for a shape is always said to.

use super::*;
use crate::engine::{
    shapes::{Shape, Shapes},
    supplies::Entry,
};

fn any_size() -> impl Strategy<Value = Resources> {
    let number = || prop_oneof![0_u32..40, 500_u32..9_000, any::<u32>()];
    (number(), number()).prop_map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
}

proptest! {
    #[test]
    fn what_an_entry_has_room_for_is_never_taken_for_sold_out(
        wanted in proptest::collection::vec((any_size(), 0_u64..8), 1..60),
        free in any_size(),
        features in 0_u64..8,
    ) {
        let mut offer = provider_offer(10, 70);
        offer.features = common::feature::FeatureSet(features);
        let supply = &market(Vec::new(), vec![offer]).supplies[0];
        let mut shapes = Shapes::default();
        for (size, needed) in wanted {
            // Another shape may have taken the number of an earlier one since: each is looked at when it is the last.
            let Some((note, _)) = shapes.note_of(Shape::new(size, needed)) else { continue };
            let has_room = size.milli_cpu <= free.milli_cpu && size.memory_mib <= free.memory_mib;
            let within = shapes.within(&Entry::new(supply, 0, 0, free));
            prop_assert!(within.has(note) || !has_room || needed & !features != 0);
        }
    }
}
