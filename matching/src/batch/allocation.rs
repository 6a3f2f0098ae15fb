//! Who is hosted where, with what is left of capacity and money, and a journal by which changes are taken back.

use common::resources::Resources;

use super::{
    column::{AccountId, Column, Id, OfferId, PairId, WantId},
    model::{Model, Pair},
};

/// Counts looks at pairs, the unit of every budget here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meter {
    /// Looks so far.
    pub(super) used: u64,
    /// Looks allowed.
    pub(super) limit: u64,
}

impl Meter {
    /// Counts some.
    #[inline]
    pub(super) const fn count(&mut self, looks: u64) {
        self.used = self.used.saturating_add(looks);
    }

    /// Whether none are left.
    pub(super) const fn is_spent(&self) -> bool {
        self.used >= self.limit
    }
}

/// The pairs that are placed, and nothing else: what is remembered of the best answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Placed {
    /// Room for as many pairs as each demand wants, one demand after the other.
    slots: Vec<PairId>,
    /// First slot and number of hosts of each demand.
    spans: Column<WantId, Span>,
    /// Σ of the values of all placed pairs.
    pub(super) welfare: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    first: u32,
    hosts: u32,
}

impl Placed {
    /// The hosts of a demand.
    #[inline]
    pub(super) fn hosts(&self, want: WantId) -> &[PairId] {
        let span = self.spans.of(want);
        let first = span.first as usize;
        self.slots.get(first..first.saturating_add(span.hosts as usize)).unwrap_or_default()
    }

    /// Takes over another answer, without a new allocation.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.slots.clone_from(&other.slots);
        self.spans.copy_from(&other.spans);
        self.welfare = other.welfare;
    }

    fn push(&mut self, want: WantId, pair: PairId) {
        let span = self.spans.of(want);
        if let Some(slot) = self.slots.get_mut((span.first as usize).saturating_add(span.hosts as usize)) {
            *slot = pair;
        }
        self.spans.change(want, |span| span.hosts = span.hosts.saturating_add(1));
    }

    fn take(&mut self, want: WantId, pair: PairId) {
        let span = self.spans.of(want);
        let last = (span.first as usize).saturating_add(span.hosts as usize).saturating_sub(1);
        let slots = self.slots.get_mut(span.first as usize..=last).unwrap_or_default();
        if let Some(at) = slots.iter().position(|slot| *slot == pair) {
            slots.swap(at, slots.len().saturating_sub(1));
            self.spans.change(want, |span| span.hosts = span.hosts.saturating_sub(1));
        }
    }
}

/// A change of an [`Allocation`].
#[derive(Debug, Clone, Copy)]
enum Change {
    Placed(PairId),
    Removed(PairId),
}

/// A state of the search. Between moves every demand in it has its minimum of hosts or none.
#[derive(Debug)]
pub(super) struct Allocation<'m, 'a> {
    pub(super) model: &'m Model<'a>,
    pub(super) placed: Placed,
    free: Column<OfferId, Resources>,
    funds: Column<AccountId, u64>,
    guests: Column<OfferId, Vec<PairId>>,
    journal: Vec<Change>,
}

impl<'m, 'a> Allocation<'m, 'a> {
    /// Nobody is placed.
    pub(super) fn new(model: &'m Model<'a>) -> Self {
        let mut first = 0_u32;
        let spans = model.wants.rows().iter().map(|want| {
            let span = Span { first, hosts: 0 };
            first = first.saturating_add(want.most);
            span
        });
        let spans = spans.collect();
        Self {
            model,
            placed: Placed { slots: vec![PairId::new(0); first as usize], spans, welfare: 0 },
            free: model.free.clone(),
            funds: model.funds.clone(),
            guests: model.free.ids().map(|_| Vec::new()).collect(),
            journal: Vec::new(),
        }
    }

    /// The state in which exactly these are placed, which must have been a state of the same model.
    pub(super) fn of(model: &'m Model<'a>, placed: &Placed) -> Self {
        let mut allocation = Self::new(model);
        for want in model.wants.ids() {
            placed.hosts(want).iter().for_each(|pair| allocation.place(*pair));
        }
        allocation.commit();
        allocation
    }

    /// The pairs placed at a supply.
    pub(super) fn guests(&self, offer: OfferId) -> &[PairId] {
        self.guests.get(offer).map_or(&[], Vec::as_slice)
    }

    /// How many hosts a demand has.
    #[inline]
    pub(super) fn count(&self, want: WantId) -> u32 {
        self.placed.spans.of(want).hosts
    }

    /// Whether a supply has the capacity.
    #[inline]
    pub(super) fn fits(&self, size: Resources, offer: OfferId) -> bool {
        // As `Resources::contains`, in place: nothing else is asked as often.
        let free = self.free.of(offer);
        size.milli_cpu <= free.milli_cpu && size.memory_mib <= free.memory_mib
    }

    /// Whether, where the capacity is there, the provider hosts no other replica of the demand and the money is there.
    #[inline]
    pub(super) fn may_host(&self, id: PairId, pair: &Pair) -> bool {
        self.placed.hosts(pair.want).iter().all(|host| self.model.pairs.of(*host).provider != pair.provider)
            && (!pair.counts_money || self.can_pay(id))
    }

    fn can_pay(&self, pair: PairId) -> bool {
        let [(payer, lock), (provider, bond)] = self.model.money(pair);
        if payer == provider {
            return lock.saturating_add(bond) <= self.funds.of(payer);
        }
        lock <= self.funds.of(payer) && bond <= self.funds.of(provider)
    }

    /// Places a pair that [`Self::fits`] and [`Self::may_host`].
    pub(super) fn place(&mut self, pair: PairId) {
        self.apply(pair, true);
        self.journal.push(Change::Placed(pair));
    }

    /// Takes a placed pair away.
    pub(super) fn remove(&mut self, pair: PairId) {
        self.apply(pair, false);
        self.journal.push(Change::Removed(pair));
    }

    /// Takes all hosts of a demand away.
    pub(super) fn clear(&mut self, want: WantId) {
        while let Some(pair) = self.placed.hosts(want).last().copied() {
            self.remove(pair);
        }
    }

    /// Makes all changes final.
    pub(super) fn commit(&mut self) {
        self.journal.clear();
    }

    /// Takes back all changes since the last commit.
    pub(super) fn roll_back(&mut self) {
        while let Some(change) = self.journal.pop() {
            match change {
                Change::Placed(pair) => self.apply(pair, false),
                Change::Removed(pair) => self.apply(pair, true),
            }
        }
    }

    fn apply(&mut self, id: PairId, comes: bool) {
        let pair = self.model.pairs.of(id);
        let size = self.model.wants.of(pair.want).size;
        let value = i128::from(pair.value);
        if comes {
            self.free.change(pair.offer, |free| {
                free.milli_cpu = free.milli_cpu.saturating_sub(size.milli_cpu);
                free.memory_mib = free.memory_mib.saturating_sub(size.memory_mib);
            });
            self.guests.change(pair.offer, |guests| guests.push(id));
            self.placed.push(pair.want, id);
            self.placed.welfare = self.placed.welfare.saturating_add(value);
        } else {
            self.free.change(pair.offer, |free| {
                free.milli_cpu = free.milli_cpu.saturating_add(size.milli_cpu);
                free.memory_mib = free.memory_mib.saturating_add(size.memory_mib);
            });
            self.guests.change(pair.offer, |guests| {
                if let Some(at) = guests.iter().position(|guest| *guest == id) {
                    guests.swap_remove(at);
                }
            });
            self.placed.take(pair.want, id);
            self.placed.welfare = self.placed.welfare.saturating_sub(value);
        }
        if pair.counts_money {
            for (account, amount) in self.model.money(id) {
                self.funds.change(account, |free| {
                    *free = if comes { free.saturating_sub(amount) } else { free.saturating_add(amount) };
                });
            }
        }
    }
}
