//! The market in dense tables: who could be served, by whom, at what price. Built once for each batch.

use std::collections::BTreeMap;

use common::{ids::Address, resources::Resources};

use super::column::{AccountId, Column, Id, OfferId, PairId, WantId};
use crate::{
    feasible,
    ledger::{FillCost, Ledger},
    snapshot::{Conditions, Demand, Snapshot, Supply},
};

/// A demand that could be served if it were alone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Want {
    /// First of its pairs, which are cheapest first, equal asks in order of registration.
    first: PairId,
    /// How many pairs it has.
    pairs: u32,
    /// Of one replica.
    pub(super) size: Resources,
    /// Fewest new replicas that it takes; at least 1.
    pub(super) least: u32,
    /// Most new replicas that it takes.
    pub(super) most: u32,
    /// Who pays.
    payer: AccountId,
}

/// One replica of a demand at one supply, allowed by the predicate on the untouched ledger.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pair {
    /// Who is hosted.
    pub(super) want: WantId,
    /// Where.
    pub(super) offer: OfferId,
    /// By whom.
    pub(super) provider: AccountId,
    /// Whether an account could run out of money by such pairs, so that they must be counted.
    pub(super) counts_money: bool,
    /// The demand's limit less the ask, in atoms per epoch: below 2⁴⁸.
    pub(super) value: i64,
}

/// The market.
#[derive(Debug)]
pub(super) struct Model<'a> {
    /// What fills are checked against.
    pub(super) conditions: &'a Conditions,
    /// Before any fill of the batch.
    pub(super) ledger: &'a Ledger,
    /// Demands in order of service.
    pub(super) wants: Column<WantId, Want>,
    /// Pairs of one demand after the other.
    pub(super) pairs: Column<PairId, Pair>,
    /// Free capacity of each supply.
    pub(super) free: Column<OfferId, Resources>,
    /// Free balances.
    pub(super) funds: Column<AccountId, u64>,
    pairs_at: Column<OfferId, Vec<PairId>>,
    places: Column<PairId, OfferId>,
    costs: Column<PairId, FillCost>,
    demands: Column<WantId, &'a Demand>,
    supplies: Column<OfferId, &'a Supply>,
}

impl<'a> Model<'a> {
    /// The market of a snapshot. Looks once at every demand and supply together.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut supplies: Vec<&Supply> = snapshot.supplies.iter().collect();
        supplies.sort_by_key(|supply| (supply.place, supply.hash));
        let mut demands: Vec<&Demand> = snapshot.demands.iter().collect();
        demands.sort_by_key(|demand| (demand.place, demand.hash));
        let mut builder = Builder::new(snapshot, supplies);
        let open = |demand: &&Demand| {
            let blocked = feasible::demand_is_blocked(&snapshot.conditions, &snapshot.ledger, demand);
            !snapshot.matching_paused && !demand.held && blocked.is_none()
        };
        for demand in demands.into_iter().filter(open) {
            builder.add(demand);
        }
        let mut model = builder.model;
        model.find_who_may_run_out();
        model
    }

    /// Ids of a demand's pairs, cheapest first.
    fn pairs_of(&self, want: WantId) -> impl Iterator<Item = PairId> + use<> {
        let want = self.wants.of(want);
        let first = want.first.index();
        (first..first.saturating_add(want.pairs as usize)).map(PairId::new)
    }

    /// A demand's pairs with their ids, cheapest first.
    pub(super) fn options(&self, want: WantId) -> impl Iterator<Item = (PairId, &Pair)> {
        let want = self.wants.of(want);
        let first = want.first.index();
        let rows = self.pairs.rows().get(first..first.saturating_add(want.pairs as usize)).unwrap_or_default();
        (first..).map(PairId::new).zip(rows)
    }

    /// Ids of a supply's pairs, in order of service.
    pub(super) fn pairs_at(&self, offer: OfferId) -> &[PairId] {
        self.pairs_at.get(offer).map_or(&[], Vec::as_slice)
    }

    /// How many pairs a demand has.
    pub(super) fn option_count(&self, want: WantId) -> usize {
        self.wants.of(want).pairs as usize
    }

    /// A pair of a demand by its rank.
    pub(super) fn option(&self, want: WantId, rank: usize) -> PairId {
        PairId::new(self.wants.of(want).first.index().saturating_add(rank))
    }

    /// A demand's pairs with their supplies alone, cheapest first: most looks go no further.
    #[inline]
    pub(super) fn places(&self, want: WantId) -> impl Iterator<Item = (PairId, OfferId)> {
        let want = self.wants.of(want);
        let first = want.first.index();
        let rows = self.places.rows().get(first..first.saturating_add(want.pairs as usize)).unwrap_or_default();
        (first..).map(PairId::new).zip(rows.iter().copied())
    }

    /// What a pair costs, in atoms per epoch.
    pub(super) fn ask(&self, pair: PairId) -> u64 {
        self.costs.get(pair).map_or(0, |cost| cost.ask.get())
    }

    /// The demand of a row.
    pub(super) fn demand(&self, want: WantId) -> Option<&'a Demand> {
        self.demands.get(want).copied()
    }

    /// The supply of a row.
    pub(super) fn supply(&self, offer: OfferId) -> Option<&'a Supply> {
        self.supplies.get(offer).copied()
    }

    /// What a pair takes of whom. An account that hosts its own worker pays both, as [`Ledger::enter`] has it.
    pub(super) fn money(&self, pair: PairId) -> [(AccountId, u64); 2] {
        let row = self.pairs.of(pair);
        let payer = self.wants.of(row.want).payer;
        let Some(cost) = self.costs.get(pair) else { return [(payer, 0), (row.provider, 0)] };
        let pays = payer == row.provider || !self.demand(row.want).is_some_and(|demand| demand.unlimited_funds);
        [(payer, if pays { cost.lock.get() } else { 0 }), (row.provider, cost.bond.get())]
    }

    /// Most accounts can pay whatever the batch comes to; the pairs of the others are marked.
    fn find_who_may_run_out(&mut self) {
        let mut worst: Column<AccountId, u128> = self.funds.ids().map(|_| 0).collect();
        for want in self.wants.ids() {
            let (mut lock, mut bonds): (u64, BTreeMap<AccountId, u64>) = (0, BTreeMap::new());
            for pair in self.pairs_of(want) {
                let [(_, taken), (provider, bond)] = self.money(pair);
                lock = lock.max(taken);
                let most = bonds.entry(provider).or_default();
                *most = bond.max(*most);
            }
            let row = self.wants.of(want);
            let locks = u128::from(lock).saturating_mul(u128::from(row.most));
            worst.change(row.payer, |sum| *sum = sum.saturating_add(locks));
            for (provider, bond) in bonds {
                worst.change(provider, |sum| *sum = sum.saturating_add(u128::from(bond)));
            }
        }
        let may_run_out = |account| worst.of(account) > u128::from(self.funds.of(account));
        let marks: Vec<bool> =
            self.pairs.ids().map(|pair| self.money(pair).iter().any(|(account, _)| may_run_out(*account))).collect();
        for (pair, mark) in self.pairs.ids().zip(marks) {
            self.pairs.change(pair, |row| row.counts_money = mark);
        }
    }
}

struct Builder<'a> {
    model: Model<'a>,
    accounts: BTreeMap<Address, AccountId>,
    providers: Vec<AccountId>,
}

impl<'a> Builder<'a> {
    fn new(snapshot: &'a Snapshot, supplies: Vec<&'a Supply>) -> Self {
        let ledger = &snapshot.ledger;
        let free = supplies.iter().map(|supply| supply.offer.capacity.saturating_sub(ledger.used(supply.hash)));
        let model = Model {
            conditions: &snapshot.conditions,
            ledger,
            wants: Column::default(),
            pairs: Column::default(),
            free: free.collect(),
            funds: Column::default(),
            pairs_at: supplies.iter().map(|_| Vec::new()).collect(),
            places: Column::default(),
            costs: Column::default(),
            demands: Column::default(),
            supplies: supplies.iter().copied().collect(),
        };
        let mut builder = Self { model, accounts: BTreeMap::new(), providers: Vec::new() };
        builder.providers = supplies.iter().map(|supply| builder.account(supply.offer.provider)).collect();
        builder
    }

    fn account(&mut self, address: Address) -> AccountId {
        let (funds, free) = (&mut self.model.funds, self.model.ledger.free(address).get());
        *self.accounts.entry(address).or_insert_with(|| funds.push(free))
    }

    /// Adds a demand, unless too few providers could host it.
    fn add(&mut self, demand: &'a Demand) {
        let found = self.find(demand);
        let live = u32::from(self.model.ledger.placement(demand.hash).live_replicas);
        let least = u32::from(demand.offer.min_replicas).saturating_sub(live).max(1);
        let mut providers: Vec<AccountId> = found.iter().map(|(pair, _)| pair.provider).collect();
        providers.sort_unstable();
        providers.dedup();
        if providers.len() < least as usize {
            return;
        }
        let want = Want {
            first: PairId::new(self.model.pairs.len()),
            pairs: u32::try_from(found.len()).unwrap_or(u32::MAX),
            size: demand.offer.size,
            least,
            most: u32::from(demand.offer.replicas).saturating_sub(live),
            payer: self.account(demand.offer.developer),
        };
        self.model.wants.push(want);
        self.model.demands.push(demand);
        for (pair, cost) in found {
            let id = self.model.pairs.push(pair);
            self.model.places.push(pair.offer);
            self.model.costs.push(cost);
            self.model.pairs_at.change(pair.offer, |pairs| pairs.push(id));
        }
    }

    /// The pairs that the predicate allows, cheapest first.
    fn find(&self, demand: &'a Demand) -> Vec<(Pair, FillCost)> {
        let model = &self.model;
        let want = WantId::new(model.wants.len());
        let rows = model.supplies.rows().iter().zip(model.free.rows()).zip(&self.providers).zip(model.free.ids());
        let mut found: Vec<(Pair, FillCost)> = rows
            .filter_map(|(((supply, free), provider), offer)| {
                if !free.contains(demand.offer.size) || !is_worth_asking(demand, supply) {
                    return None;
                }
                let cost = feasible::pair_is_refused(model.conditions, model.ledger, demand, supply).ok()?;
                let value = demand.offer.max_price_per_epoch.to_i64().saturating_sub(cost.ask.to_i64());
                Some((Pair { want, offer, provider: *provider, counts_money: false, value }, cost))
            })
            .collect();
        // Stable: equal asks stay in order of registration.
        found.sort_by_key(|(_, cost)| cost.ask);
        found
    }
}

/// Part of what the predicate looks at, in an order in which most pairs fail soon: it saves asking it.
fn is_worth_asking(demand: &Demand, supply: &Supply) -> bool {
    let (wanted, sold) = (&demand.offer, &supply.offer);
    sold.features.contains(wanted.features)
        && (wanted.regions.is_empty() || wanted.regions.iter().any(|region| region.contains(sold.region)))
        && sold.ask(wanted.size).is_some_and(|ask| ask <= wanted.max_price_per_epoch)
}
