//! The one predicate: would the contract open this fill? In integers, in the contract's order of checks, so that the
//! first failing check here is the reason that the contract would give.

use common::{event::Reason, money::Atoms, resources::Resources};

use super::{
    ledger::{FillCost, Ledger, Placement},
    snapshot::{Conditions, Demand, Supply},
};

/// A set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u32);

impl Reasons {
    /// The set with one more.
    #[must_use]
    pub fn with(self, reason: Reason) -> Self {
        Self(self.0 | Self::bit(reason))
    }

    /// Whether `reason` is in it.
    pub fn has(self, reason: Reason) -> bool {
        self.0 & Self::bit(reason) != 0
    }

    /// How many there are.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(reason: Reason) -> u32 {
        1_u32.checked_shl(reason as u32).unwrap_or_default()
    }
}

/// A demand and a supply side by side, with what the fill would cost.
pub(crate) struct Case<'a> {
    pub(crate) demand: &'a Demand,
    pub(crate) supply: &'a Supply,
    /// Of the supply.
    pub(crate) free_capacity: Resources,
    /// Epochs to go.
    pub(crate) remaining: u32,
    /// `None` when the amounts exceed what money can represent.
    pub(crate) cost: Option<FillCost>,
    /// The developer's free balance.
    pub(crate) developer_free: Atoms,
    /// The provider's.
    pub(crate) provider_free: Atoms,
    /// Whether the provider hosts or has hosted a replica of the demand.
    pub(crate) has_hosted: bool,
}

/// Says whether a demand fails the check.
type DemandCheck = fn(&Conditions, Placement, &Demand) -> bool;
/// Says whether a supply fails the check.
type SupplyCheck = fn(&Conditions, &Supply) -> bool;
/// Says whether a pair fails the check.
type PairCheck = fn(&Case<'_>) -> bool;

/// What concerns the developer offer alone, in the contract's order.
const DEMAND_CHECKS: [(Reason, DemandCheck); 7] = [
    (Reason::DeveloperOfferMalformed, |_, _, demand| !demand.well_formed),
    (Reason::DeveloperOfferCancelled, |conditions, _, demand| {
        conditions.cancelled.contains(&(demand.offer.developer, demand.hash))
    }),
    (Reason::DeveloperNonceTooLow, |conditions, _, demand| {
        demand.offer.nonce < conditions.nonce_floor(demand.offer.developer)
    }),
    (Reason::DeveloperOfferExpired, |conditions, _, demand| demand.offer.valid_until < conditions.time),
    (Reason::MatcherNotNamed, |conditions, _, demand| {
        !demand.offer.matcher.is_zero() && demand.offer.matcher != conditions.matcher
    }),
    (Reason::TermOver, |conditions, placement, demand| remaining_under(conditions, placement, demand) == 0),
    (Reason::ReplicasFull, |_, placement, demand| placement.live_replicas >= demand.offer.replicas),
];

/// What concerns the provider offer alone, in the contract's order.
const SUPPLY_CHECKS: [(Reason, SupplyCheck); 4] = [
    (Reason::ProviderOfferMalformed, |_, supply| !supply.well_formed),
    (Reason::ProviderOfferCancelled, |conditions, supply| {
        conditions.cancelled.contains(&(supply.offer.provider, supply.hash))
    }),
    (Reason::ProviderNonceTooLow, |conditions, supply| {
        supply.offer.nonce < conditions.nonce_floor(supply.offer.provider)
    }),
    (Reason::ProviderOfferExpired, |conditions, supply| supply.offer.valid_until < conditions.time),
];

/// What concerns the pair, in the contract's order.
const PAIR_CHECKS: [(Reason, PairCheck); 11] = [
    (Reason::ProviderNotAllowed, |case| {
        let allow = &case.demand.offer.allow;
        !allow.is_empty() && !allow.contains(&case.supply.offer.provider)
    }),
    (Reason::ProviderDenied, |case| case.demand.offer.deny.contains(&case.supply.offer.provider)),
    (Reason::AlreadyHosting, |case| case.has_hosted),
    (Reason::RegionMismatch, |case| {
        let regions = &case.demand.offer.regions;
        !regions.is_empty() && !regions.iter().any(|region| region.contains(case.supply.offer.region))
    }),
    (Reason::FeaturesMissing, |case| !case.supply.offer.features.contains(case.demand.offer.features)),
    (Reason::TermTooLong, |case| {
        let longest = case.supply.offer.max_epochs;
        longest != 0 && longest < case.remaining
    }),
    (Reason::CpuExceedsFree, |case| case.demand.offer.size.milli_cpu > case.free_capacity.milli_cpu),
    (Reason::MemoryExceedsFree, |case| case.demand.offer.size.memory_mib > case.free_capacity.memory_mib),
    (Reason::PriceAboveMaximum, |case| case.cost.is_none_or(|cost| cost.ask > case.demand.offer.max_price_per_epoch)),
    (Reason::FundsTooLow, |case| {
        !case.demand.unlimited_funds && case.cost.is_none_or(|cost| cost.lock > case.developer_free)
    }),
    (Reason::BondTooLow, |case| case.cost.is_none_or(|cost| cost.bond > case.bond_balance(cost))),
];

impl<'a> Case<'a> {
    fn new(conditions: &'a Conditions, ledger: &'a Ledger, demand: &'a Demand, supply: &'a Supply) -> Self {
        Self {
            demand,
            supply,
            free_capacity: supply.offer.capacity.saturating_sub(ledger.used(supply.hash)),
            remaining: remaining_epochs(conditions, ledger, demand),
            cost: cost(conditions, ledger, demand, supply),
            developer_free: ledger.free(demand.offer.developer),
            provider_free: ledger.free(supply.offer.provider),
            has_hosted: ledger.has_hosted(demand.hash, supply.offer.provider),
        }
    }

    /// Every check that fails, each taken alone.
    pub(crate) fn failing(&self) -> Reasons {
        let failing = PAIR_CHECKS.iter().filter(|(_, fails)| fails(self));
        failing.fold(Reasons::default(), |set, (reason, _)| set.with(*reason))
    }

    /// What the bond can be taken of: an account that hosts its own worker has paid the lock before.
    fn bond_balance(&self, cost: FillCost) -> Atoms {
        let free = self.provider_free;
        let pays_itself = self.supply.offer.provider == self.demand.offer.developer;
        if pays_itself { free.checked_sub(cost.lock).unwrap_or_default() } else { free }
    }
}

/// Epochs that a deal opened now would be billed for; 0 when the term is over.
pub fn remaining_epochs(conditions: &Conditions, ledger: &Ledger, demand: &Demand) -> u32 {
    remaining_under(conditions, ledger.placement(demand.hash), demand)
}

/// As [`remaining_epochs`], for a demand of which so much is placed.
pub fn remaining_under(conditions: &Conditions, placement: Placement, demand: &Demand) -> u32 {
    demand.offer.remaining_epochs(conditions.start_epoch(), placement.end_epoch)
}

/// What a fill would cost; `None` when that exceeds what money can represent.
pub fn cost(conditions: &Conditions, ledger: &Ledger, demand: &Demand, supply: &Supply) -> Option<FillCost> {
    let ask = supply.offer.ask(demand.offer.size)?;
    cost_at(conditions, ask, remaining_epochs(conditions, ledger, demand), demand)
}

/// What a fill at this ask would cost with `remaining` epochs to go; `None` when that exceeds what money can represent.
pub fn cost_at(conditions: &Conditions, ask: Atoms, remaining: u32, demand: &Demand) -> Option<FillCost> {
    let lock = conditions.terms.lock(ask, demand.offer.prepaid_epochs, remaining).ok()?;
    let lock = lock.checked_add(demand.offer.matcher_fee).ok()?;
    let bond = conditions.terms.bond(ask).ok()?;
    Some(FillCost { ask, lock, bond })
}

/// Why the demand as such is refused, whoever would host it.
pub fn demand_is_blocked(conditions: &Conditions, ledger: &Ledger, demand: &Demand) -> Option<Reason> {
    demand_is_blocked_under(conditions, ledger.placement(demand.hash), demand)
}

/// As [`demand_is_blocked`], for a demand of which so much is placed.
pub fn demand_is_blocked_under(conditions: &Conditions, placement: Placement, demand: &Demand) -> Option<Reason> {
    DEMAND_CHECKS.iter().find(|(_, fails)| fails(conditions, placement, demand)).map(|(reason, _)| *reason)
}

/// Why the supply as such is refused, whoever asks.
pub fn supply_is_void(conditions: &Conditions, supply: &Supply) -> Option<Reason> {
    SUPPLY_CHECKS.iter().find(|(_, fails)| fails(conditions, supply)).map(|(reason, _)| *reason)
}

/// Why the pair is refused, when demand and supply as such are not.
pub fn pair_is_refused(
    conditions: &Conditions,
    ledger: &Ledger,
    demand: &Demand,
    supply: &Supply,
) -> Result<FillCost, Reason> {
    let case = Case::new(conditions, ledger, demand, supply);
    match PAIR_CHECKS.iter().find(|(_, fails)| fails(&case)) {
        Some((reason, _)) => Err(*reason),
        // The price check has refused amounts that cannot be represented.
        None => case.cost.ok_or(Reason::PriceAboveMaximum),
    }
}

/// The whole predicate: the first reason for which the contract would refuse this fill, or what it costs.
pub fn feasible(
    conditions: &Conditions,
    ledger: &Ledger,
    demand: &Demand,
    supply: &Supply,
) -> Result<FillCost, Reason> {
    if let Some(reason) = demand_is_blocked(conditions, ledger, demand).or_else(|| supply_is_void(conditions, supply)) {
        return Err(reason);
    }
    pair_is_refused(conditions, ledger, demand, supply)
}
