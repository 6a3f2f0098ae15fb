//! A demand with changes applied, tried on the snapshot.

use common::{event::Reason, feature::FeatureSet, ids::OfferHash, money::Atoms, region::Region};
use serde::Serialize;

use super::{Outlook, Suggestion};
use crate::{
    feasible::Reasons,
    ledger::Ledger,
    scan::{self, Fill},
    snapshot::{Demand, Supply},
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

    fn apply(&self, demand: &mut Demand, ledger: &mut Option<Ledger>, base: &Ledger) {
        let offer = &mut demand.offer;
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
            Self::Deposit { amount } => {
                ledger.get_or_insert_with(|| base.clone()).deposit(offer.developer, *amount);
            }
            Self::ValidUntil { valid_until } => offer.valid_until = *valid_until,
            Self::Nonce { nonce } => {
                offer.nonce = *nonce;
                // Another offer: what was cancelled under the old hash does not concern it.
                demand.hash = OfferHash::ZERO;
            }
            Self::AnyMatcher => offer.matcher = common::ids::Address::ZERO,
        }
    }
}

/// A demand with changes, and the market to try it on.
#[derive(Clone)]
pub(super) struct Trial<'a> {
    pub(super) outlook: &'a Outlook<'a>,
    /// What every supply fails for the unchanged demand.
    failing: &'a [Reasons],
    original: &'a Demand,
    pub(super) demand: Demand,
    /// The outlook's ledger with a deposit, when there is one.
    ledger: Option<Ledger>,
    changes: Vec<Change>,
    /// Checks that the changes may have lifted: only supplies that fail nothing else are worth a look.
    lifted: Reasons,
}

impl<'a> Trial<'a> {
    pub(super) fn new(outlook: &'a Outlook<'a>, demand: &'a Demand, failing: &'a [Reasons]) -> Self {
        let lifted = Reasons::default();
        Self { outlook, failing, original: demand, demand: demand.clone(), ledger: None, changes: Vec::new(), lifted }
    }

    pub(super) fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap_or(self.outlook.ledger)
    }

    /// The trial with one more change.
    pub(super) fn with(&self, change: Change) -> Self {
        let mut trial = self.clone();
        change.apply(&mut trial.demand, &mut trial.ledger, self.outlook.ledger);
        trial.lifted = trial.lifted.union(lifted_by(&change));
        trial.changes.push(change);
        trial.demand.well_formed =
            trial.demand.offer.validate(self.outlook.conditions.terms.min_prepaid_epochs).is_ok();
        trial
    }

    /// The trial with everything lifted for which the offer as such is refused; `None` when no change can.
    pub(super) fn unblocked(&self, mut blocked: Option<Reason>) -> Option<Self> {
        let conditions = self.outlook.conditions;
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
            trial = trial.with(change);
            blocked = trial.blocked();
        }
        blocked.is_none().then_some(trial)
    }

    fn blocked(&self) -> Option<Reason> {
        crate::feasible::demand_is_blocked(self.outlook.conditions, self.ledger(), &self.demand)
    }

    /// Supplies that fail nothing but what the changes, or those of `also`, may have lifted.
    pub(super) fn relevant(&self, also: Reasons) -> impl Iterator<Item = &'a Supply> {
        let lifted = self.lifted.union(also);
        let pairs = self.outlook.supplies.iter().zip(self.failing);
        pairs.filter(move |(_, failing)| failing.is_within(lifted)).map(|(supply, _)| supply)
    }

    pub(super) fn fills(&self) -> Vec<Fill<'a>> {
        let supplies = self.relevant(Reasons::default());
        scan::place(self.outlook.conditions, self.ledger(), &self.demand, supplies)
    }

    /// Replicas that could be placed, the minimum apart.
    pub(super) fn placeable(&self) -> usize {
        self.fills().len()
    }

    pub(super) fn live_replicas(&self) -> u16 {
        self.ledger().placement(self.demand.hash).live_replicas
    }

    /// The number of hosts to reach: a change of the minimum changes the goal where it was the minimum.
    pub(super) fn goal(&self, goal: u16) -> u16 {
        if goal == self.original.offer.min_replicas { self.demand.offer.min_replicas } else { goal }
    }

    /// Whether `goal` replicas have a host once the engine has placed this demand.
    pub(super) fn is_satisfied(&self, goal: u16) -> bool {
        if self.blocked().is_some() {
            return false;
        }
        let placed = self.placeable();
        scan::reaches_minimum(self.ledger(), &self.demand, placed)
            && usize::from(self.live_replicas()).saturating_add(placed) >= usize::from(goal)
    }

    pub(super) fn suggestion(&self) -> Suggestion {
        let fills = self.fills();
        let total: Result<Atoms, _> = fills.iter().map(|fill| fill.cost.ask).sum();
        let texts = self.changes.iter().map(|change| change.in_words(self.original)).collect::<Vec<_>>();
        Suggestion {
            changes: self.changes.clone(),
            text: texts.join(" and "),
            replicas: usize::from(self.live_replicas()).saturating_add(fills.len()),
            price_per_epoch: total.unwrap_or(Atoms::MAX),
        }
    }
}

/// Checks that a change can make pass.
fn lifted_by(change: &Change) -> Reasons {
    match change {
        Change::MaxPrice { .. } => Reasons::of(&[Reason::PriceAboveMaximum]),
        Change::AddRegion { .. } | Change::AnyRegion => Reasons::of(&[Reason::RegionMismatch]),
        Change::DropFeatures { .. } => Reasons::of(&[Reason::FeaturesMissing]),
        // A shorter term may also lock less, and leaves more for the bond of a developer that hosts itself.
        Change::Epochs { .. } => Reasons::of(&[Reason::TermTooLong, Reason::FundsTooLow, Reason::BondTooLow]),
        Change::MilliCpu { .. } | Change::MemoryMib { .. } => Reasons::of(&[
            Reason::CpuExceedsFree,
            Reason::MemoryExceedsFree,
            // A smaller replica also costs less.
            Reason::PriceAboveMaximum,
            Reason::FundsTooLow,
            Reason::BondTooLow,
        ]),
        Change::AnyProvider => Reasons::of(&[Reason::ProviderNotAllowed, Reason::ProviderDenied]),
        // The bond too, for a developer that hosts itself.
        Change::Deposit { .. } => Reasons::of(&[Reason::FundsTooLow, Reason::BondTooLow]),
        // Another nonce makes another offer, with a term of its own, that nobody has hosted.
        Change::Nonce { .. } => {
            Reasons::of(&[Reason::AlreadyHosting, Reason::TermTooLong, Reason::FundsTooLow, Reason::BondTooLow])
        }
        Change::MinReplicas { .. } | Change::ValidUntil { .. } | Change::AnyMatcher => Reasons::default(),
    }
}
