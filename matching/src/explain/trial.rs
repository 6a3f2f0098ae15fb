//! A demand with changes applied, tried on the market.

use common::{
    event::Reason,
    feature::FeatureSet,
    ids::{Address, OfferHash},
    money::Atoms,
    offer::DeveloperOffer,
    region::Region,
};
use serde::Serialize;

use super::Suggestion;
use crate::{
    engine::{Engine, Part, Situation},
    feasible,
    ledger::FillCost,
    snapshot::Demand,
};

/// How long an expired offer is suggested to be valid again, in seconds: a day.
const RENEWED_FOR: u64 = 86_400;

/// One change of a developer offer, or a deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Change {
    /// Pay up to this much for a replica and epoch.
    MaxPrice {
        /// The new maximum.
        max_price_per_epoch: Atoms,
    },
    /// Also accept this place.
    AddRegion {
        /// The place.
        region: Region,
    },
    /// Accept any place.
    AnyRegion,
    /// Do without these host capabilities; the worker must then no longer import them.
    DropFeatures {
        /// What to do without.
        features: FeatureSet,
    },
    /// A shorter term.
    Epochs {
        /// The new term.
        epochs: u32,
    },
    /// Less CPU for each replica.
    MilliCpu {
        /// Thousandths of a CPU.
        milli_cpu: u32,
    },
    /// Less memory for each replica.
    MemoryMib {
        /// MiB.
        memory_mib: u32,
    },
    /// Start with fewer replicas.
    MinReplicas {
        /// The new minimum.
        min_replicas: u16,
    },
    /// Empty the allow list and the deny list.
    AnyProvider,
    /// Put this much more into the developer's free balance.
    Deposit {
        /// On top of what is there.
        amount: Atoms,
    },
    /// Sign again with a later end of validity.
    ValidUntil {
        /// Seconds since 1970.
        valid_until: u64,
    },
    /// Sign again with another nonce.
    Nonce {
        /// Smallest nonce that will do.
        nonce: u64,
    },
    /// Let anybody match it.
    AnyMatcher,
}

impl Change {
    fn in_words(&self, before: &Demand) -> String {
        let offer = &before.offer;
        match self {
            Self::MaxPrice { max_price_per_epoch } => {
                format!("raise maxPricePerEpoch from {} to {max_price_per_epoch}", offer.max_price_per_epoch)
            }
            Self::AddRegion { region } => format!("also accept region {region}"),
            Self::AnyRegion => "accept any region".to_owned(),
            Self::DropFeatures { features } => format!("do without {}", features.names().join(", ")),
            Self::Epochs { epochs } => format!("shorten epochs from {} to {epochs}", offer.epochs),
            Self::MilliCpu { milli_cpu } => format!("lower size.milliCpu from {} to {milli_cpu}", offer.size.milli_cpu),
            Self::MemoryMib { memory_mib } => {
                format!("lower size.memoryMib from {} to {memory_mib}", offer.size.memory_mib)
            }
            Self::MinReplicas { min_replicas } => {
                format!("lower minReplicas from {} to {min_replicas}", offer.min_replicas)
            }
            Self::AnyProvider => "empty allow and deny".to_owned(),
            Self::Deposit { amount } => format!("deposit {amount} more"),
            Self::ValidUntil { valid_until } => format!("sign again with validUntil {valid_until}"),
            Self::Nonce { nonce } => format!("sign again with nonce {nonce} or higher"),
            Self::AnyMatcher => "leave matcher zero".to_owned(),
        }
    }

    /// Carries the change out on the offer; a deposit changes nothing of it.
    pub fn apply(&self, offer: &mut DeveloperOffer) {
        match self {
            Self::MaxPrice { max_price_per_epoch } => offer.max_price_per_epoch = *max_price_per_epoch,
            Self::AddRegion { region } => offer.regions.push(*region),
            Self::AnyRegion => offer.regions.clear(),
            Self::DropFeatures { features } => offer.features = offer.features.without(*features),
            Self::Epochs { epochs } => offer.epochs = *epochs,
            Self::MilliCpu { milli_cpu } => offer.size.milli_cpu = *milli_cpu,
            Self::MemoryMib { memory_mib } => offer.size.memory_mib = *memory_mib,
            Self::MinReplicas { min_replicas } => offer.min_replicas = *min_replicas,
            Self::AnyProvider => {
                offer.allow.clear();
                offer.deny.clear();
            }
            Self::Deposit { .. } => (),
            Self::ValidUntil { valid_until } => offer.valid_until = *valid_until,
            Self::Nonce { nonce } => offer.nonce = *nonce,
            Self::AnyMatcher => offer.matcher = Address::ZERO,
        }
    }
}

/// A demand with changes.
#[derive(Clone)]
pub(super) struct Trial<'a> {
    original: &'a Demand,
    pub(super) demand: Demand,
    pub(super) situation: Situation,
    changes: Vec<Change>,
    /// Whether a change that takes long to find is to be found all the same.
    patient: bool,
}

impl<'a> Trial<'a> {
    pub(super) fn new(engine: &Engine, demand: &'a Demand) -> Self {
        let situation = engine.situation(demand);
        Self { original: demand, demand: demand.clone(), situation, changes: Vec::new(), patient: false }
    }

    /// The same, in which changes are found however long it takes.
    pub(super) fn patiently(&self) -> Self {
        Self { patient: true, ..self.clone() }
    }

    /// The most that enough hosts have of one thing.
    pub(super) fn most_of(&self, engine: &mut Engine, part: Part, goal: u16) -> Option<u32> {
        engine.most_of(part, &self.demand, &self.situation, (self.needed(goal), self.patient))
    }

    /// The trial with one more change.
    pub(super) fn with(&self, engine: &Engine, change: Change) -> Self {
        let mut trial = self.clone();
        change.apply(&mut trial.demand.offer);
        match &change {
            Change::Deposit { amount } => {
                trial.situation.free = trial.situation.free.checked_add(*amount).unwrap_or(Atoms::MAX);
            }
            Change::Nonce { .. } => {
                // Another offer: what was cancelled or hosted under the old hash does not concern it.
                trial.demand.hash = OfferHash::ZERO;
                trial.situation = trial.situation.unhosted();
            }
            _ => (),
        }
        trial.changes.push(change);
        trial.demand.well_formed = trial.demand.offer.validate(engine.conditions().terms.min_prepaid_epochs).is_ok();
        trial
    }

    /// The trial with everything lifted for which the offer as such is refused; `None` when no change can.
    pub(super) fn unblocked(&self, engine: &Engine, mut blocked: Option<Reason>) -> Option<Self> {
        let conditions = engine.conditions();
        let mut trial = self.clone();
        // Four checks can be lifted, each once.
        for _ in 0..4 {
            let offer = &trial.demand.offer;
            let floor = conditions.nonce_floor(offer.developer);
            let change = match blocked {
                None => return Some(trial),
                Some(Reason::DeveloperOfferCancelled) => {
                    Change::Nonce { nonce: floor.max(offer.nonce.saturating_add(1)) }
                }
                Some(Reason::DeveloperNonceTooLow) => Change::Nonce { nonce: floor },
                Some(Reason::DeveloperOfferExpired) => {
                    Change::ValidUntil { valid_until: conditions.time.saturating_add(RENEWED_FOR) }
                }
                Some(Reason::MatcherNotNamed) => Change::AnyMatcher,
                Some(_) => return None,
            };
            trial = trial.with(engine, change);
            blocked = trial.blocked(engine);
        }
        blocked.is_none().then_some(trial)
    }

    pub(super) fn blocked(&self, engine: &Engine) -> Option<Reason> {
        feasible::demand_is_blocked_under(engine.conditions(), self.situation.placement, &self.demand)
    }

    /// The cheapest hosts for so many replicas, or as many as there are: number of the supply, and what moves.
    pub(super) fn hosts(&self, engine: &mut Engine, wanted: usize) -> Vec<(u32, FillCost)> {
        let placed = engine.probe(&self.demand, &self.situation, wanted);
        placed.fills.into_iter().map(|(supply, _, cost)| (supply, cost)).collect()
    }

    /// The hosts of all missing replicas, the minimum apart.
    pub(super) fn fills(&self, engine: &mut Engine) -> Vec<(u32, FillCost)> {
        self.hosts(engine, self.missing(self.demand.offer.replicas))
    }

    /// Replicas that live now.
    pub(super) const fn live_replicas(&self) -> u16 {
        self.situation.placement.live_replicas
    }

    /// Hosts that `goal` replicas still lack.
    pub(super) fn missing(&self, goal: u16) -> usize {
        usize::from(goal.saturating_sub(self.live_replicas()))
    }

    /// Hosts that must be found for `goal` replicas: one at the least, else nothing is better than before.
    pub(super) fn needed(&self, goal: u16) -> usize {
        self.missing(goal.max(self.demand.offer.min_replicas)).max(1)
    }

    /// Whether so many hosts more are enough to start with.
    pub(super) fn reaches_minimum(&self, placed: usize) -> bool {
        placed >= self.missing(self.demand.offer.min_replicas)
    }

    /// The number of hosts to reach: a change of the minimum changes the goal where it was the minimum.
    pub(super) fn goal(&self, goal: u16) -> u16 {
        if goal == self.original.offer.min_replicas { self.demand.offer.min_replicas } else { goal }
    }

    /// Whether `goal` replicas have a host once the engine has placed this demand.
    pub(super) fn is_satisfied(&self, engine: &mut Engine, goal: u16) -> bool {
        if self.blocked(engine).is_some() {
            return false;
        }
        let needed = self.needed(goal);
        self.hosts(engine, needed).len() >= needed
    }

    /// The demand placed, where `goal` replicas then have a host.
    pub(super) fn placed(self, engine: &mut Engine, goal: u16) -> Option<PlacedTrial<'a>> {
        if self.blocked(engine).is_some() {
            return None;
        }
        let fills = self.fills(engine);
        (fills.len() >= self.needed(goal)).then_some(PlacedTrial { trial: self, fills })
    }
}

/// A demand with changes, and the hosts that it has found.
pub(super) struct PlacedTrial<'a> {
    trial: Trial<'a>,
    fills: Vec<(u32, FillCost)>,
}

impl PlacedTrial<'_> {
    /// The change that was made last.
    pub(super) fn last_change(&self) -> Option<&Change> {
        self.trial.changes.last()
    }

    /// What the first so many hosts ask together.
    pub(super) fn asks(&self, hosts: usize) -> Atoms {
        let total: Result<Atoms, _> = self.fills.iter().take(hosts).map(|(_, cost)| cost.ask).sum();
        total.unwrap_or(Atoms::MAX)
    }

    pub(super) fn suggestion(&self) -> Suggestion {
        let changes = self.trial.changes.clone();
        let texts = changes.iter().map(|change| change.in_words(self.trial.original)).collect::<Vec<_>>();
        Suggestion {
            changes,
            text: texts.join(" and "),
            replicas: usize::from(self.trial.live_replicas()).saturating_add(self.fills.len()),
            price_per_epoch: self.asks(usize::MAX),
        }
    }
}
