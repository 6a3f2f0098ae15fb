//! What goes into one match transaction: as many of the next matches as its gas and its bytes allow, in the order of
//! service. Nobody overtakes: what does not fit waits, and all behind it.
//!
//! Gas is reckoned from above by the figures of `docs/gas.md`, as if no earlier transaction under way had been mined: an
//! offer that is new to the chain costs most. So the sum holds whatever state the transaction meets, and is its gas
//! limit; the node's estimate, which is made on another state than the one it will be mined on, can only be lower.

use std::{collections::BTreeSet, iter::Peekable};

use chain::{Call, MatchProposal, calls, eip712};
use common::{
    ids::{Address, OfferHash},
    money::Atoms,
};
use matching::snapshot::{PendingFill, Supply};

use crate::view::PlannedMatch;

/// Longest call data of one transaction, in bytes: nodes take transactions of up to 128 KiB.
const MAX_CALL_BYTES: usize = 120_000;
/// Most matches of one transaction: each has more than 1,000 bytes.
pub(crate) const MAX_MATCHES: usize = MAX_CALL_BYTES / 1_000;
/// Gas of the transaction itself: 21,000, the switch that is read, and the loop.
const GAS_BASE: u64 = 25_000;
/// Gas of a match apart from its fills: a first replica is 149,634 in all, of which 73,796 are its fill.
const GAS_PER_MATCH: u64 = 56_000;
/// Gas of a fill whose provider offer the chain does not know: 73,796, and 22,222 where it is paid to another account.
const GAS_PER_NEW_FILL: u64 = 97_000;
/// Gas of a fill whose provider offer the chain knows: 45,636.
const GAS_PER_KNOWN_FILL: u64 = 47_000;
/// Gas of a fee for the matcher, to an account that may be new.
const GAS_OF_FEE: u64 = 25_000;
/// Gas of asking a contract about its signature: the contract's ceiling of 500,000, and the call.
const GAS_OF_CONTRACT_SIGNATURE: u64 = 512_000;
/// Gas of a byte beyond those of plain offers: 16 as call data, 8 in an event, the rest for hashing and copying.
const GAS_PER_BYTE: u64 = 30;
/// Gas of looking at one entry of a list of providers, for each fill.
const GAS_PER_LISTED: u64 = 300;
/// Bytes of a match and of a fill with plain offers.
const PLAIN_MATCH_BYTES: u64 = 1_156;
const PLAIN_FILL_BYTES: u64 = 672;

/// Gas that any offer needs at most whose hosts are all plain: a budget must not be smaller.
pub(crate) const fn gas_of_replicas(replicas: u64) -> u64 {
    GAS_BASE.saturating_add(GAS_PER_MATCH).saturating_add(GAS_PER_NEW_FILL.saturating_mul(replicas))
}

/// A planned match, ready to be encoded.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    proposal: MatchProposal,
    demand: OfferHash,
    is_signed_by_contract: bool,
    hosts: Vec<Host>,
    /// Fewest hosts that the contract takes now.
    needed: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Host {
    offer: OfferHash,
    is_new: bool,
    is_signed_by_contract: bool,
}

/// The content of one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    market: Address,
    planned: Vec<Planned>,
    /// What is sent.
    pub(crate) call: Call,
    /// Gas that it needs at most.
    pub(crate) gas: u64,
}

/// A match that no transaction can hold.
#[derive(Debug)]
pub(crate) struct TooLarge {
    /// Whose.
    pub(crate) demand: OfferHash,
    /// Gas of the fewest hosts that the contract would take.
    pub(crate) gas: u64,
    /// Its bytes.
    pub(crate) bytes: usize,
}

impl Planned {
    /// Encodes a match.
    pub(crate) fn of(planned: &PlannedMatch, market: Address) -> Self {
        let demand = &planned.demand;
        let host = |supply: &Supply| Host {
            offer: supply.hash,
            is_new: !supply.signature.is_empty(),
            is_signed_by_contract: is_signed_by_contract(supply.hash, supply.offer.provider, &supply.signature),
        };
        let signed = |supply: &Supply| {
            (supply.offer.clone(), eip712::compact(supply.hash, supply.offer.provider, &supply.signature))
        };
        let mut made = Self {
            proposal: MatchProposal {
                developer: demand.offer.clone(),
                developer_signature: eip712::compact(demand.hash, demand.offer.developer, &demand.signature),
                providers: planned.fills.iter().map(|(supply, _)| signed(supply)).collect(),
            },
            demand: demand.hash,
            is_signed_by_contract: is_signed_by_contract(demand.hash, demand.offer.developer, &demand.signature),
            hosts: planned.fills.iter().map(|(supply, _)| host(supply)).collect(),
            needed: usize::from(demand.offer.min_replicas.saturating_sub(planned.live)).max(1),
            bytes: 0,
        };
        made.measure(market);
        made
    }

    fn measure(&mut self, market: Address) {
        self.bytes = calls::match_offers(market, std::slice::from_ref(&self.proposal)).data.len();
    }

    /// Leaves the dearest hosts for another transaction; false where the contract would not take fewer.
    fn keep(&mut self, hosts: usize, market: Address) -> bool {
        let hosts = hosts.max(self.needed);
        if hosts >= self.hosts.len() {
            return false;
        }
        self.hosts.truncate(hosts);
        self.proposal.providers.truncate(hosts);
        self.measure(market);
        true
    }

    /// As many of the cheapest hosts as fit.
    fn cut_to(mut self, market: Address, budget: u64) -> Result<Self, TooLarge> {
        loop {
            let gas = GAS_BASE.saturating_add(self.gas(&BTreeSet::new()));
            if gas <= budget && self.bytes <= MAX_CALL_BYTES {
                return Ok(self);
            }
            if !self.keep(self.hosts.len().saturating_sub(1), market) {
                return Err(TooLarge { demand: self.demand, gas, bytes: self.bytes });
            }
        }
    }

    /// Gas behind matches that make `known` provider offers known.
    fn gas(&self, known: &BTreeSet<OfferHash>) -> u64 {
        let asked = |is_asked: bool| if is_asked { GAS_OF_CONTRACT_SIGNATURE } else { 0 };
        let of_host = |host: &Host| {
            let is_new = host.is_new && !known.contains(&host.offer);
            let gas = if is_new { GAS_PER_NEW_FILL } else { GAS_PER_KNOWN_FILL };
            gas.saturating_add(asked(is_new && host.is_signed_by_contract))
        };
        let hosts = count(self.hosts.len());
        let listed = count(self.proposal.developer.allow.len().saturating_add(self.proposal.developer.deny.len()));
        let plain = PLAIN_MATCH_BYTES.saturating_add(PLAIN_FILL_BYTES.saturating_mul(hosts));
        [
            GAS_PER_MATCH,
            if self.proposal.developer.matcher_fee == Atoms::ZERO { 0 } else { GAS_OF_FEE },
            asked(self.is_signed_by_contract),
            GAS_PER_BYTE.saturating_mul(count(self.bytes).saturating_sub(plain)),
            GAS_PER_LISTED.saturating_mul(listed).saturating_mul(hosts),
        ]
        .into_iter()
        .chain(self.hosts.iter().map(of_host))
        .fold(0, u64::saturating_add)
    }
}

impl Batch {
    /// Takes the next matches off the line, up to `budget` gas. The last of them may be left with fewer hosts than it
    /// could have when it is the only one.
    ///
    /// # Errors
    /// [`TooLarge`] when the first one alone is too large. It is off the line then.
    pub(crate) fn take(
        line: &mut Peekable<impl Iterator<Item = Planned>>,
        market: Address,
        budget: u64,
    ) -> Result<Option<Self>, TooLarge> {
        let (mut gas, mut bytes, mut known) = (GAS_BASE, 0_usize, BTreeSet::new());
        let mut planned: Vec<Planned> = Vec::new();
        while let Some(next) = line.peek() {
            let (with, long) = (gas.saturating_add(next.gas(&known)), bytes.saturating_add(next.bytes));
            if with > budget || long > MAX_CALL_BYTES {
                break;
            }
            (gas, bytes) = (with, long);
            known.extend(next.hosts.iter().map(|host| host.offer));
            planned.extend(line.next());
        }
        if planned.is_empty() {
            let Some(first) = line.next() else { return Ok(None) };
            planned.push(first.cut_to(market, budget)?);
        }
        Ok(Some(Self::of(market, planned)))
    }

    fn of(market: Address, planned: Vec<Planned>) -> Self {
        let mut known = BTreeSet::new();
        let gas = planned.iter().fold(GAS_BASE, |gas, planned| {
            let with = gas.saturating_add(planned.gas(&known));
            known.extend(planned.hosts.iter().map(|host| host.offer));
            with
        });
        let proposals: Vec<MatchProposal> = planned.iter().map(|planned| planned.proposal.clone()).collect();
        Self { market, planned, call: calls::match_offers(market, &proposals), gas }
    }

    /// The first half of it, or half of the hosts of its only match; itself again where there is no less.
    pub(crate) fn halved(mut self) -> Result<Self, Self> {
        let half = self.planned.len().div_ceil(2);
        if half < self.planned.len() {
            self.planned.truncate(half);
            return Ok(Self::of(self.market, self.planned));
        }
        let market = self.market;
        let is_less = self.planned.first_mut().is_some_and(|only| only.keep(only.hosts.len().div_ceil(2), market));
        if is_less { Ok(Self::of(market, self.planned)) } else { Err(self) }
    }

    /// What it proposes.
    pub(crate) fn fills(&self) -> Vec<PendingFill> {
        let fills = self.planned.iter().flat_map(|planned| {
            planned.hosts.iter().map(|host| PendingFill { developer_offer: planned.demand, provider_offer: host.offer })
        });
        fills.collect()
    }

    /// For whom.
    pub(crate) fn demands(&self) -> impl Iterator<Item = OfferHash> {
        self.planned.iter().map(|planned| planned.demand)
    }
}

/// Whether the contract has to ask another one about the signature; none is needed of an offer that the chain knows.
fn is_signed_by_contract(hash: OfferHash, owner: Address, signature: &[u8]) -> bool {
    !signature.is_empty() && eip712::recover(hash, signature) != Some(owner)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use matching::{
        ledger::FillCost,
        samples::{self, atoms},
        snapshot::Demand,
    };

    use super::*;

    const MARKET: Address = Address([7; 20]);
    const BUDGET: u64 = 10_000_000;

    /// A match of a new demand with these supplies; `is_new` ones come with a signature.
    fn planned(demand: usize, supplies: impl IntoIterator<Item = usize>, is_new: bool, least: u16) -> Planned {
        let mut offer = samples::developer_offer();
        (offer.min_replicas, offer.replicas) = (least, 100);
        let (place, signature) = (Default::default(), vec![1; 65]);
        let cost = FillCost { ask: atoms(1), lock: atoms(1), bond: atoms(1) };
        let supply = |number| {
            let offer = samples::provider_offer(10, 70);
            let signature = if is_new { signature.clone() } else { Vec::new() };
            (Supply { hash: samples::hash(2, number), offer, signature, place, well_formed: true }, cost)
        };
        let made = PlannedMatch {
            demand: Demand {
                hash: samples::hash(1, demand),
                offer,
                signature: Vec::new(),
                place,
                well_formed: true,
                held: false,
                unlimited_funds: false,
            },
            fills: supplies.into_iter().map(supply).collect(),
            live: 0,
        };
        let mut planned = Planned::of(&made, MARKET);
        // No signature of the samples is real; these stand for an account's own.
        planned.hosts.iter_mut().for_each(|host| host.is_signed_by_contract = false);
        planned
    }

    fn batches(line: Vec<Planned>, budget: u64) -> Vec<Batch> {
        let mut line = line.into_iter().peekable();
        std::iter::from_fn(|| Batch::take(&mut line, MARKET, budget).unwrap()).collect()
    }

    #[test]
    fn a_long_line_is_cut_in_order_within_gas_and_bytes() {
        let line: Vec<_> = (0..300).map(|number| planned(number, [number], true, 1)).collect();
        let made = batches(line, BUDGET);
        assert!((4..=8).contains(&made.len()), "{}", made.len());
        let served: Vec<_> = made.iter().flat_map(|batch| batch.demands().collect::<Vec<_>>()).collect();
        assert_eq!(served, (0..300).map(|number| samples::hash(1, number)).collect::<Vec<_>>());
        for batch in &made {
            assert!(batch.gas <= BUDGET && batch.call.data.len() <= MAX_CALL_BYTES, "{batch:?}");
            // Never less than what docs/gas.md says of first replicas.
            let first = u64::try_from(batch.planned.len()).unwrap() * (149_634 - 21_000) + 21_000;
            assert!(batch.gas >= first, "{} is below {first}", batch.gas);
        }
    }

    #[test]
    fn an_offer_is_new_to_the_chain_once() {
        let gas = |line| batches(line, BUDGET)[0].gas;
        let one = gas(vec![planned(1, [1], true, 1)]);
        let same = gas(vec![planned(1, [1], true, 1), planned(2, [1], true, 1)]);
        let other = gas(vec![planned(1, [1], true, 1), planned(2, [2], true, 1)]);
        assert_eq!(other - same, GAS_PER_NEW_FILL - GAS_PER_KNOWN_FILL);
        assert!(gas(vec![planned(1, [1], false, 1)]) < one);
        let mut contract = planned(1, [1], true, 1);
        contract.hosts[0].is_signed_by_contract = true;
        assert_eq!(gas(vec![contract]), one + GAS_OF_CONTRACT_SIGNATURE);
    }

    #[test]
    fn one_that_is_too_large_alone_starts_with_fewer_hosts_or_not_at_all() {
        // And the bytes that these offers have beyond plain ones.
        let budget = gas_of_replicas(12) + 50_000;
        let made = batches(vec![planned(1, 0..40, true, 5), planned(2, [50], true, 1)], budget);
        assert_eq!(made[0].fills().len(), 12);
        assert_eq!(made[1].demands().collect::<Vec<_>>(), [samples::hash(1, 2)]);

        let mut line = vec![planned(1, 0..40, true, 13), planned(2, [50], true, 1)].into_iter().peekable();
        let error = Batch::take(&mut line, MARKET, budget).unwrap_err();
        assert_eq!((error.demand, error.gas > budget), (samples::hash(1, 1), true));
        assert_eq!(batches(line.collect(), budget).len(), 1, "the next in line is served");
    }

    #[test]
    fn halves_come_down_to_the_fewest_hosts_of_the_first() {
        let mut batch = batches(vec![planned(1, 0..5, true, 2), planned(2, [9], true, 1)], BUDGET).remove(0);
        let mut sizes = Vec::new();
        loop {
            sizes.push((batch.planned.len(), batch.fills().len()));
            batch = match batch.halved() {
                Ok(less) => less,
                Err(_) => break,
            };
        }
        assert_eq!(sizes, [(2, 6), (1, 5), (1, 3), (1, 2)]);
    }
}
