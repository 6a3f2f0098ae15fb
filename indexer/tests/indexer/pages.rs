//! Lists read as a client reads them: page by page, each after the cursor of the one before.

use indexer::{
    StoreError,
    store::Listed,
    view::{Order, Part},
};

/// All pages of a list, in the order of the chain whichever way they were read.
pub(crate) async fn all_pages<T>(
    limit: u32,
    order: Order,
    mut page: impl AsyncFnMut(Part) -> Result<Listed<T>, StoreError>,
) -> Vec<T> {
    let (mut list, mut after) = (Vec::new(), None);
    loop {
        let found = page(Part { limit, after, order }).await.unwrap();
        assert!(found.items.len() <= limit as usize);
        assert!(found.next.is_none() || found.items.len() == limit as usize);
        list.extend(found.items);
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    if order == Order::Desc {
        list.reverse();
    }
    list
}
