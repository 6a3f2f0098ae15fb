//! Everything that a plan depends on, as of one block.
//!
//! Order. Offers that the chain knows have their place there: block and log index. Signed offers that it does not know
//! have the block that was last indexed when they were accepted, behind all of its events, and among themselves the
//! number of their acceptance, which is public. A signed offer takes its chain place once a match has recorded it.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    epoch::Epoch,
    event::BlockRef,
    ids::{Address, OfferHash},
    market::MarketTerms,
    offer::{DeveloperOffer, ProviderOffer},
    state::{MarketState, Place},
};

use super::{feasible, ledger::Ledger};

/// Log indices of signed offers begin here: behind every event of a block.
pub const SIGNED_LOG_INDEX: u64 = 1 << 62;

/// An offer that came signed, not through the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// Its EIP-712 hash.
    pub hash: OfferHash,
    /// Its terms.
    pub offer: T,
    /// Of its owner.
    pub signature: Vec<u8>,
    /// Block that was indexed last when it was accepted.
    pub accepted_block: u64,
    /// Number of its acceptance, counted over both kinds of offers.
    pub sequence: u64,
}

impl<T> Signed<T> {
    /// Its place in the order of service.
    pub fn place(&self) -> Place {
        Place { block: self.accepted_block, log_index: SIGNED_LOG_INDEX.saturating_add(self.sequence) }
    }
}

/// A developer offer that may want hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Its hash; zero for a draft.
    pub hash: OfferHash,
    /// Its terms.
    pub offer: DeveloperOffer,
    /// Empty when the chain knows the offer.
    pub signature: Vec<u8>,
    /// Its place in the order of service.
    pub place: Place,
    /// Whether the contract would call it well-formed.
    pub well_formed: bool,
    /// A match of it is under way or was refused a moment ago: not to be proposed now.
    pub held: bool,
    /// A draft that names no developer: money is left out of the question.
    pub unlimited_funds: bool,
}

impl Demand {
    /// A demand that nothing holds back.
    pub fn new(hash: OfferHash, offer: DeveloperOffer, signature: Vec<u8>, place: Place, terms: &MarketTerms) -> Self {
        let well_formed = offer.validate(terms.min_prepaid_epochs).is_ok();
        Self { hash, offer, signature, place, well_formed, held: false, unlimited_funds: false }
    }
}

/// A provider offer that may host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supply {
    /// Its hash.
    pub hash: OfferHash,
    /// Its terms.
    pub offer: ProviderOffer,
    /// Empty when the chain knows the offer.
    pub signature: Vec<u8>,
    /// Its place in the order of registration.
    pub place: Place,
    /// Whether the contract would call it well-formed.
    pub well_formed: bool,
}

impl Supply {
    /// A supply.
    pub fn new(hash: OfferHash, offer: ProviderOffer, signature: Vec<u8>, place: Place) -> Self {
        let well_formed = offer.validate().is_ok();
        Self { hash, offer, signature, place, well_formed }
    }
}

/// What every fill is checked against, besides the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// The market's constants.
    pub terms: MarketTerms,
    /// Seconds since 1970 that validity is judged by.
    pub time: u64,
    /// Epoch of `time`.
    pub epoch: Epoch,
    /// The account that sends the match.
    pub matcher: Address,
    /// Offers that their owners voided.
    pub cancelled: BTreeSet<(Address, OfferHash)>,
    /// Offers with a smaller nonce are void.
    pub nonce_floors: BTreeMap<Address, u64>,
}

impl Conditions {
    /// First billed epoch of a deal that is opened now.
    pub const fn start_epoch(&self) -> Epoch {
        self.epoch.plus(1)
    }

    /// Smallest nonce that is not void.
    pub fn nonce_floor(&self, owner: Address) -> u64 {
        self.nonce_floors.get(&owner).copied().unwrap_or_default()
    }
}

/// A fill that was sent and is not yet seen in the indexed chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingFill {
    /// The demand.
    pub developer_offer: OfferHash,
    /// The supply.
    pub provider_offer: OfferHash,
}

/// What a snapshot is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The market's constants.
    pub terms: MarketTerms,
    /// The indexed chain.
    pub state: &'a MarketState,
    /// The account that sends matches.
    pub matcher: Address,
    /// Seconds since 1970 that validity is judged by.
    pub time: u64,
    /// Signed developer offers; those that the chain knows are ignored.
    pub developer_offers: Vec<Signed<DeveloperOffer>>,
    /// Signed provider offers; those that the chain knows are ignored.
    pub provider_offers: Vec<Signed<ProviderOffer>>,
    /// Fills under way: entered into the ledger, their demands held.
    pub pending: &'a [PendingFill],
    /// Demands to leave alone for now.
    pub held: &'a BTreeSet<OfferHash>,
}

/// The market as of one block, with the signed offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The block.
    pub as_of: Option<BlockRef>,
    /// What fills are checked against.
    pub conditions: Conditions,
    /// Balances, capacity and places, fills under way included.
    pub ledger: Ledger,
    /// Demands in order of service.
    pub demands: Vec<Demand>,
    /// Supplies in order of registration, void ones left out.
    pub supplies: Vec<Supply>,
    /// Whether the operator has stopped new matches.
    pub matching_paused: bool,
}

impl Snapshot {
    /// Puts it together.
    pub fn build(inputs: Inputs<'_>) -> Self {
        let state = inputs.state;
        let conditions = Conditions {
            terms: inputs.terms,
            time: inputs.time,
            epoch: inputs.terms.schedule.epoch_at(inputs.time),
            matcher: inputs.matcher,
            cancelled: state.cancelled.clone(),
            nonce_floors: state.nonce_floors.clone(),
        };
        let mut snapshot = Self {
            as_of: state.as_of,
            demands: demands(&inputs),
            supplies: supplies(&inputs, &conditions),
            conditions,
            ledger: Ledger::of(state),
            matching_paused: state.matching_paused,
        };
        snapshot.enter_all(inputs.pending);
        for demand in &mut snapshot.demands {
            demand.held |= inputs.held.contains(&demand.hash);
        }
        snapshot
    }

    /// The demand with this hash.
    pub fn demand(&self, hash: OfferHash) -> Option<&Demand> {
        self.demands.iter().find(|demand| demand.hash == hash)
    }

    fn enter_all(&mut self, pending: &[PendingFill]) {
        for fill in pending {
            let Some(demand) = self.demands.iter_mut().find(|demand| demand.hash == fill.developer_offer) else {
                continue;
            };
            demand.held = true;
            let Some(supply) = self.supplies.iter().find(|supply| supply.hash == fill.provider_offer) else { continue };
            enter_pending(&self.conditions, &mut self.ledger, demand, supply);
        }
    }
}

/// Enters a fill under way, unless the chain's ledger has it already.
pub(crate) fn enter_pending(conditions: &Conditions, ledger: &mut Ledger, demand: &Demand, supply: &Supply) {
    if ledger.has_hosted(demand.hash, supply.offer.provider) {
        return;
    }
    // Money that is gone meanwhile cannot be spent a second time: the contract will refuse that fill.
    if let Some(cost) = feasible::cost(conditions, ledger, demand, supply) {
        let _refused = ledger.enter(demand, supply, cost, conditions.start_epoch());
    }
}

fn demands(inputs: &Inputs<'_>) -> Vec<Demand> {
    let known = inputs
        .state
        .developer_offers
        .iter()
        .map(|(hash, known)| Demand::new(*hash, known.offer.clone(), Vec::new(), known.opened_at, &inputs.terms));
    let signed = inputs.developer_offers.iter();
    let waiting = signed.filter(|signed| !inputs.state.developer_offers.contains_key(&signed.hash)).map(|signed| {
        Demand::new(signed.hash, signed.offer.clone(), signed.signature.clone(), signed.place(), &inputs.terms)
    });
    let mut demands: Vec<_> = known.chain(waiting).collect();
    demands.sort_by_key(|demand| (demand.place, demand.hash));
    demands
}

fn supplies(inputs: &Inputs<'_>, conditions: &Conditions) -> Vec<Supply> {
    let known = inputs.state.provider_offers.iter();
    let known = known.map(|(hash, known)| Supply::new(*hash, known.offer.clone(), Vec::new(), known.opened_at));
    let signed = inputs.provider_offers.iter();
    let waiting = signed
        .filter(|signed| !inputs.state.provider_offers.contains_key(&signed.hash))
        .map(|signed| Supply::new(signed.hash, signed.offer.clone(), signed.signature.clone(), signed.place()));
    let open = |supply: &Supply| feasible::supply_is_void(conditions, supply).is_none();
    let mut supplies: Vec<_> = known.chain(waiting).filter(open).collect();
    supplies.sort_by_key(|supply| (supply.place, supply.hash));
    supplies
}
