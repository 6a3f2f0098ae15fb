//! The book of served requests: counted in memory as they are answered, written to the database with every look at the chain.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use common::{epoch::Epoch, ids::DealId};

use crate::domain::receipts::{Rolling, Served};

#[derive(Default)]
struct Pages {
    now: Epoch,
    pages: BTreeMap<(Epoch, DealId), Rolling>,
}

/// Requests by epoch and deal.
#[derive(Default)]
pub(crate) struct Book {
    inner: Mutex<Pages>,
}

impl Book {
    /// A book that goes on where an earlier one was written.
    pub(crate) fn resume(now: Epoch, pages: Vec<Rolling>) -> Self {
        let pages = pages.into_iter().map(|page| ((page.epoch, page.deal), page)).collect();
        Self { inner: Mutex::new(Pages { now, pages }) }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on requests belong to epoch `now`; it never goes back, so that pages that were attested stay as they are.
    pub(crate) fn turn_to(&self, now: Epoch) {
        let mut inner = self.lock();
        inner.now = inner.now.max(now);
    }

    /// Adds a request.
    pub(crate) fn add(&self, deal: DealId, served: Served<'_>) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.pages.entry((now, deal)).or_insert_with(|| Rolling::new(deal, now)).add(served);
    }

    /// What is to be written.
    pub(crate) fn pages(&self) -> Vec<Rolling> {
        self.lock().pages.values().copied().collect()
    }

    /// Lets go of pages of past epochs that were written just so.
    pub(crate) fn written(&self, pages: &[Rolling]) {
        let mut inner = self.lock();
        let now = inner.now;
        for page in pages.iter().filter(|page| page.epoch < now) {
            if inner.pages.get(&(page.epoch, page.deal)) == Some(page) {
                inner.pages.remove(&(page.epoch, page.deal));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: Served<'_> = Served { method: "GET", target: "/", status: 200 };

    #[test]
    fn pages_of_the_present_stay_and_written_ones_of_the_past_go() {
        let deal = DealId([1; 32]);
        let book = Book::default();
        book.turn_to(Epoch(3));
        book.add(deal, SERVED);
        let first = book.pages();
        book.add(deal, SERVED);
        book.turn_to(Epoch(4));
        book.turn_to(Epoch(2));
        book.add(deal, SERVED);
        book.written(&first);
        let pages = book.pages();
        assert_eq!(pages.iter().map(|page| (page.epoch.0, page.count)).collect::<Vec<_>>(), [(3, 2), (4, 1)]);
        book.written(&pages);
        assert_eq!(book.pages().len(), 1);
    }

    #[test]
    fn a_resumed_book_counts_on() {
        let deal = DealId([1; 32]);
        let whole = Book::default();
        whole.add(deal, SERVED);
        let resumed = Book::resume(Epoch(0), whole.pages());
        whole.add(deal, SERVED);
        resumed.add(deal, SERVED);
        assert_eq!(whole.pages(), resumed.pages());
    }
}
