//! The hosts that a demand would get: of a demand in the market, or of one that somebody only thinks about.

use common::{ids::Address, money::Atoms};

use super::{
    Engine,
    calls::Among,
    search::{Market, Query, Search},
    supplies::Supplies,
    tables::{Account, SupplySlot, Table},
};
use crate::{
    feasible::{self, Case, Reasons},
    ledger::{FillCost, Placement, Purse},
    snapshot::{Conditions, Demand, Supply},
};

/// What was found for one demand: number of the supply, number of its account, what moves.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) fills: Vec<(u32, u32, FillCost)>,
    /// Whether more money might have found more.
    pub(super) lacks_funds: bool,
}

/// A demand and what is known of it.
pub(super) struct Seeker<'a> {
    pub(super) demand: &'a Demand,
    pub(super) placement: Placement,
    /// Accounts that host or have hosted a replica.
    pub(super) hosts: &'a [u32],
    /// Number of its account; more than any where it has none.
    pub(super) developer: u32,
    /// The developer's free balance.
    pub(super) free: Atoms,
    /// Hosts wanted.
    pub(super) wanted: usize,
}

impl Seeker<'_> {
    /// The developer's money, and the highest ask that it can pay the first lock for; `None` where it cannot even pay the
    /// matcher's fee.
    pub(super) fn means(&self, term: u32) -> Option<(Purse, u64)> {
        let money = if self.demand.unlimited_funds { Atoms::MAX } else { self.free };
        let for_lock = money.checked_sub(self.demand.offer.matcher_fee).ok()?;
        let prepaid = u64::from(self.demand.offer.prepaid_epochs.min(term));
        let most = for_lock.get().checked_div(prepaid).unwrap_or(u64::MAX);
        Some((Purse::new(self.free, self.demand.unlimited_funds), most))
    }
}

/// What hosts are found with.
pub(super) struct Finder<'a> {
    pub(super) conditions: &'a Conditions,
    pub(super) accounts: &'a Table<Account>,
    pub(super) supplies: &'a Table<SupplySlot>,
    pub(super) affordable: &'a [u64],
    pub(super) index: &'a mut Supplies,
    pub(super) search: &'a mut Search,
}

impl<'a> Finder<'a> {
    pub(super) const fn market(&self) -> Market<'a> {
        Market { supplies: self.supplies, affordable: self.affordable }
    }

    /// The cheapest hosts, as [`crate::scan::place`] finds them, at most as many as are wanted.
    pub(super) fn hosts(&mut self, seeker: &Seeker<'_>, among: &Among) -> Placed {
        let demand = seeker.demand;
        let term = feasible::remaining_under(self.conditions, seeker.placement, demand);
        let Some((purse, most)) = seeker.means(term) else { return Placed { lacks_funds: true, ..Placed::default() } };
        let offer = &demand.offer;
        let reads_index = offer.allow.is_empty() && matches!(among, Among::All);
        let index = reads_index.then_some(&mut *self.index);
        let mut query = Query::new(index, offer.size, offer.features.0, term, &offer.regions);
        query.limit = most.min(offer.max_price_per_epoch.get());
        query.wanted = seeker.wanted;
        query.developer = seeker.developer;
        query.excluded = self.excluded(seeker);
        let cost = |ask: u64| feasible::cost_at(self.conditions, Atoms::new(ask).ok()?, term, demand);
        let own_may = |ask: u64| cost(ask).is_some_and(|cost| purse.pays_bond_too(cost));
        let market = self.market();
        let found = match among {
            _ if !offer.allow.is_empty() => self.search.run_among(market, &query, own_may, self.allowed(demand)),
            Among::All => self.search.run(self.index, market, &query, own_may),
            Among::These(supplies) => self.search.run_among(market, &query, own_may, supplies.iter().copied()),
        };
        let lacks_funds = !demand.unlimited_funds && most < offer.max_price_per_epoch.get();
        let mut placed = Placed { fills: Vec::new(), lacks_funds };
        let mut left = purse;
        for found in found {
            if placed.fills.len() >= query.wanted {
                break;
            }
            let Some(cost) = cost(found.ask) else { break };
            let is_own = found.provider == query.developer;
            if left.pay(cost, is_own) {
                placed.fills.push((found.supply, found.provider, cost));
                continue;
            }
            placed.lacks_funds = true;
            if !is_own {
                // Whoever comes later asks as much or more.
                break;
            }
        }
        placed
    }

    /// Numbers of accounts that may not host.
    pub(super) fn excluded(&self, seeker: &Seeker<'_>) -> Vec<u32> {
        let denied = seeker.demand.offer.deny.iter().filter_map(|address| self.accounts.find(*address));
        seeker.hosts.iter().copied().chain(denied).collect()
    }

    /// The supplies of the providers that a demand allows.
    pub(super) fn allowed<'d>(&self, demand: &'d Demand) -> impl Iterator<Item = u32> + use<'a, 'd> {
        let accounts = self.accounts;
        let providers = demand.offer.allow.iter().filter_map(|address| accounts.get(accounts.find(*address)?));
        providers.flat_map(|account| account.supplies.iter().copied())
    }
}

/// How a demand stands in the market, apart from its terms.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    pub(crate) placement: Placement,
    /// Accounts that host or have hosted a replica.
    hosts: Vec<u32>,
    /// Number of its account, where it has one.
    developer: Option<u32>,
    /// The developer's free balance.
    pub(crate) free: Atoms,
}

impl Situation {
    /// As of an offer that nobody has hosted.
    pub(crate) fn unhosted(&self) -> Self {
        Self { placement: Placement::default(), hosts: Vec::new(), ..self.clone() }
    }

    fn seeker<'a>(&'a self, demand: &'a Demand, wanted: usize) -> Seeker<'a> {
        let developer = self.developer.unwrap_or(u32::MAX);
        Seeker { demand, placement: self.placement, hosts: &self.hosts, developer, free: self.free, wanted }
    }
}

impl Engine {
    /// How a demand stands, known to the market or not.
    pub(crate) fn situation(&self, demand: &Demand) -> Situation {
        let known = self.demands.find(demand.hash).and_then(|number| self.demands.get(number));
        let developer = self.accounts.find(demand.offer.developer);
        Situation {
            placement: known.map_or_else(Placement::default, |slot| slot.placement),
            hosts: known.map_or_else(Vec::new, |slot| slot.hosts.clone()),
            developer,
            free: developer.and_then(|number| self.accounts.get(number)).map_or(Atoms::ZERO, |account| account.free),
        }
    }

    /// The cheapest hosts for a demand that is not blocked, at most so many; the minimum is not looked at.
    pub(crate) fn probe(&mut self, demand: &Demand, situation: &Situation, wanted: usize) -> Placed {
        self.with_balance(situation, |engine| {
            let placed = engine.finder().hosts(&situation.seeker(demand, wanted), &Among::All);
            engine.restate();
            placed
        })
    }

    /// The most that `wanted` hosts have of one thing, up to what the demand asks for less one, everything else as the
    /// demand has it; what the hosts cost together is not looked at. In a large market it may be less than the most, and
    /// nothing where one is not `patient`.
    pub(crate) fn most_of(
        &mut self,
        part: super::Part,
        demand: &Demand,
        situation: &Situation,
        (wanted, patient): (usize, bool),
    ) -> Option<u32> {
        self.with_balance(situation, |engine| engine.finder().largest(part, &situation.seeker(demand, wanted), patient))
    }

    /// A supply by its number.
    pub(crate) fn supply_at(&self, number: u32) -> Option<&Supply> {
        self.supplies.get(number).map(|slot| &*slot.terms)
    }

    /// Whether an account has offers of its own.
    pub(crate) fn is_provider(&self, account: Address) -> bool {
        let account = self.accounts.find(account).and_then(|number| self.accounts.get(number));
        account.is_some_and(|account| !account.supplies.is_empty())
    }

    /// Every check that the pair of a demand and a supply fails, each taken alone.
    pub(crate) fn failing(&self, demand: &Demand, situation: &Situation, supply: u32) -> Option<Reasons> {
        let slot = self.supplies.get(supply)?;
        let remaining = feasible::remaining_under(&self.conditions, situation.placement, demand);
        let ask = slot.terms.offer.ask(demand.offer.size);
        let case = Case {
            demand,
            supply: &slot.terms,
            free_capacity: slot.free(),
            remaining,
            cost: ask.and_then(|ask| feasible::cost_at(&self.conditions, ask, remaining, demand)),
            developer_free: situation.free,
            provider_free: self.accounts.get(slot.provider).map_or(Atoms::ZERO, |account| account.free),
            has_hosted: situation.hosts.contains(&slot.provider),
        };
        Some(case.failing())
    }

    fn finder(&mut self) -> Finder<'_> {
        Finder {
            conditions: &self.conditions,
            accounts: &self.accounts,
            supplies: &self.supplies,
            affordable: &self.affordable,
            index: &mut self.index,
            search: &mut self.search,
        }
    }

    /// Looks at the market with the developer's balance as the situation has it: where it has offers of its own, they
    /// depend on that.
    fn with_balance<T>(&mut self, situation: &Situation, look: impl FnOnce(&mut Self) -> T) -> T {
        let account = situation.developer.and_then(|number| Some((number, self.accounts.get(number)?)));
        let changed = account.filter(|(_, account)| !account.supplies.is_empty() && account.free != situation.free);
        let Some((number, free)) = changed.map(|(number, account)| (number, account.free)) else { return look(self) };
        self.set_balance(number, situation.free);
        let seen = look(self);
        self.set_balance(number, free);
        seen
    }
}
