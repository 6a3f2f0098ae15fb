//! What fills change: balances, capacity, places. The engine works on a copy, the chain has the truth.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    epoch::Epoch,
    ids::{Address, OfferHash},
    money::{Atoms, MoneyError},
    resources::Resources,
    state::{KnownDeveloperOffer, MarketState},
};

use super::snapshot::{Demand, Supply};

/// How much of a demand is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placement {
    /// Replicas that have a host, planned ones included.
    pub live_replicas: u16,
    /// First epoch after the term, once the first match has fixed it.
    pub end_epoch: Option<Epoch>,
}

/// Money that one fill moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FillCost {
    /// The provider's ask for one epoch.
    pub ask: Atoms,
    /// Taken of the developer's free balance: the lock, and the matcher's fee.
    pub lock: Atoms,
    /// Locked of the provider's free balance.
    pub bond: Atoms,
}

/// What is left of a developer's free balance while its hosts are chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purse {
    left: Atoms,
    unlimited: bool,
}

impl Purse {
    pub(crate) const fn new(left: Atoms, unlimited: bool) -> Self {
        Self { left, unlimited }
    }

    /// Whether a developer that hosts itself has the bond when it has paid the lock.
    pub(crate) fn pays_bond_too(self, cost: FillCost) -> bool {
        cost.bond <= self.left.checked_sub(cost.lock).unwrap_or_default()
    }

    /// Takes the lock, and the bond too where the developer hosts itself; `false` and unchanged when it is not there.
    pub(crate) fn pay(&mut self, cost: FillCost, hosts_itself: bool) -> bool {
        if self.unlimited {
            return true;
        }
        let bond = if hosts_itself { cost.bond } else { Atoms::ZERO };
        match self.left.checked_sub(cost.lock).and_then(|left| left.checked_sub(bond)) {
            Ok(left) => {
                self.left = left;
                true
            }
            Err(_) => false,
        }
    }
}

/// Balances, capacity and places at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    free: BTreeMap<Address, Atoms>,
    used: BTreeMap<OfferHash, Resources>,
    placements: BTreeMap<OfferHash, Placement>,
    /// Who hosts or has hosted a replica of which developer offer: it cannot do so twice.
    hosted: BTreeSet<(OfferHash, Address)>,
}

impl Ledger {
    /// The chain's ledger.
    pub fn of(state: &MarketState) -> Self {
        let deals = state.deals.values().map(|known| &known.deal);
        Self {
            free: state.free.clone(),
            used: state.provider_offers.iter().map(|(hash, known)| (*hash, known.used)).collect(),
            placements: state.developer_offers.iter().map(|(hash, known)| (*hash, Placement::of(known))).collect(),
            hosted: deals.map(|deal| (deal.developer_offer, deal.provider)).collect(),
        }
    }

    /// Free balance of `account`.
    pub fn free(&self, account: Address) -> Atoms {
        self.free.get(&account).copied().unwrap_or_default()
    }

    /// Capacity that deals hold of a provider offer.
    pub fn used(&self, provider_offer: OfferHash) -> Resources {
        self.used.get(&provider_offer).copied().unwrap_or_default()
    }

    /// How much of a developer offer is placed.
    pub fn placement(&self, developer_offer: OfferHash) -> Placement {
        self.placements.get(&developer_offer).copied().unwrap_or_default()
    }

    /// Whether `provider` hosts or has hosted a replica of the offer.
    pub fn has_hosted(&self, developer_offer: OfferHash, provider: Address) -> bool {
        self.hosted.contains(&(developer_offer, provider))
    }

    /// All free balances, in order of the accounts.
    pub fn balances(&self) -> impl Iterator<Item = (Address, Atoms)> {
        self.free.iter().map(|(account, free)| (*account, *free))
    }

    /// What deals hold of each provider offer, in order of the hashes.
    pub fn used_capacity(&self) -> impl Iterator<Item = (OfferHash, Resources)> {
        self.used.iter().map(|(offer, used)| (*offer, *used))
    }

    /// How much of each developer offer is placed, in order of the hashes.
    pub fn placements(&self) -> impl Iterator<Item = (OfferHash, Placement)> {
        self.placements.iter().map(|(offer, placement)| (*offer, *placement))
    }

    /// Who hosts or has hosted what, in order.
    pub fn hosted_pairs(&self) -> impl Iterator<Item = (OfferHash, Address)> {
        self.hosted.iter().copied()
    }

    /// Adds to a free balance, up to what money can represent.
    pub fn deposit(&mut self, account: Address, amount: Atoms) {
        let sum = self.free(account).checked_add(amount).unwrap_or(Atoms::MAX);
        self.free.insert(account, sum);
    }

    /// Enters a fill that begins with epoch `start`. On an error nothing is changed.
    pub fn enter(&mut self, demand: &Demand, supply: &Supply, cost: FillCost, start: Epoch) -> Result<(), MoneyError> {
        let (developer, provider) = (demand.offer.developer, supply.offer.provider);
        if developer == provider {
            let left = self.free(developer).checked_sub(cost.lock)?.checked_sub(cost.bond)?;
            self.free.insert(developer, left);
        } else {
            let developer_left = if demand.unlimited_funds {
                self.free(developer)
            } else {
                self.free(developer).checked_sub(cost.lock)?
            };
            let provider_left = self.free(provider).checked_sub(cost.bond)?;
            self.free.insert(developer, developer_left);
            self.free.insert(provider, provider_left);
        }
        let used = self.used.entry(supply.hash).or_default();
        used.milli_cpu = used.milli_cpu.saturating_add(demand.offer.size.milli_cpu);
        used.memory_mib = used.memory_mib.saturating_add(demand.offer.size.memory_mib);
        let placement = self.placements.entry(demand.hash).or_default();
        placement.live_replicas = placement.live_replicas.saturating_add(1);
        placement.end_epoch.get_or_insert(start.plus(demand.offer.epochs));
        self.hosted.insert((demand.hash, provider));
        Ok(())
    }
}

/// Part of a ledger: the entries that some fills change.
impl Ledger {
    /// Brings what a fill of these two reads and changes, where it is not there yet.
    pub(crate) fn bring(&mut self, state: &MarketState, demand: &Demand, supply: &Supply, has_hosted: bool) {
        for account in [demand.offer.developer, supply.offer.provider] {
            self.free.entry(account).or_insert_with(|| state.free_balance(account));
        }
        let used = || state.provider_offers.get(&supply.hash).map(|known| known.used).unwrap_or_default();
        self.used.entry(supply.hash).or_insert_with(used);
        let known = || state.developer_offers.get(&demand.hash).map(Placement::of).unwrap_or_default();
        self.placements.entry(demand.hash).or_insert_with(known);
        if has_hosted {
            self.hosted.insert((demand.hash, supply.offer.provider));
        }
    }

    /// Free balance of `account`, if it is there.
    pub(crate) fn part_free(&self, account: Address) -> Option<Atoms> {
        self.free.get(&account).copied()
    }

    /// What is held of a provider offer, if it is there.
    pub(crate) fn part_used(&self, provider_offer: OfferHash) -> Option<Resources> {
        self.used.get(&provider_offer).copied()
    }

    /// How much of a developer offer is placed, if it is there.
    pub(crate) fn part_placement(&self, developer_offer: OfferHash) -> Option<Placement> {
        self.placements.get(&developer_offer).copied()
    }
}

impl Placement {
    /// As the chain knows it.
    pub(crate) const fn of(known: &KnownDeveloperOffer) -> Self {
        Self { live_replicas: known.live_replicas, end_epoch: known.end_epoch }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Ledger {
    /// Sets a free balance.
    pub fn set_free(&mut self, account: Address, atoms: Atoms) {
        self.free.insert(account, atoms);
    }

    /// Sets what deals hold of a provider offer.
    pub fn set_used(&mut self, provider_offer: OfferHash, used: Resources) {
        self.used.insert(provider_offer, used);
    }

    /// Sets how much of a developer offer is placed.
    pub fn set_placement(&mut self, developer_offer: OfferHash, placement: Placement) {
        self.placements.insert(developer_offer, placement);
    }

    /// Sets whether an account has hosted a replica.
    pub fn set_host(&mut self, developer_offer: OfferHash, provider: Address, hosted: bool) {
        if hosted {
            self.hosted.insert((developer_offer, provider));
        } else {
            self.hosted.remove(&(developer_offer, provider));
        }
    }

    /// Adds a replica that lives until `end_epoch`.
    pub fn set_hosted(&mut self, developer_offer: OfferHash, provider: Address, end_epoch: Epoch) {
        self.hosted.insert((developer_offer, provider));
        let placement = self.placements.entry(developer_offer).or_default();
        placement.live_replicas = placement.live_replicas.saturating_add(1);
        placement.end_epoch = Some(end_epoch);
    }
}
