//! Deals as they are looked for: by offer, by provider, and by when they may have to be ended.

use std::collections::{BTreeMap, BTreeSet};

use common::{
    deal::{Deal, DealState},
    epoch::Epoch,
    ids::{Address, DealId, OfferHash},
    market::MarketTerms,
    state::MarketState,
};

use crate::ends::{self, Due};

/// Most deals that one look for due ones reads: what is behind them is read by the next looks.
const MAX_READ: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Deals {
    /// All deals of developer offers.
    of_demand: BTreeSet<(OfferHash, DealId)>,
    /// Deals of provider offers that have not ended.
    open_of_supply: BTreeSet<(OfferHash, DealId)>,
    open_of_agent: BTreeSet<(Address, DealId)>,
    /// How many deals each provider has or had.
    hosts: BTreeMap<Address, u64>,
    /// Open deals by the epoch before which they need not be looked at.
    checks: BTreeSet<(Epoch, DealId)>,
    check_of: BTreeMap<DealId, Epoch>,
    /// Up to where the last look for due ones has read.
    read_up_to: Option<(Epoch, DealId)>,
}

impl Deals {
    pub(super) fn of(state: &MarketState) -> Self {
        let mut deals = Self::default();
        state.deals.values().for_each(|known| deals.replace(None, Some(&known.deal)));
        deals
    }

    /// A deal was like this, and is like that.
    pub(super) fn replace(&mut self, before: Option<&Deal>, after: Option<&Deal>) {
        if let Some(deal) = before.filter(|_| after.is_none()) {
            self.of_demand.remove(&(deal.developer_offer, deal.id));
            let count = self.hosts.entry(deal.provider).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.hosts.remove(&deal.provider);
            }
        }
        if let Some(deal) = after.filter(|_| before.is_none()) {
            self.of_demand.insert((deal.developer_offer, deal.id));
            let count = self.hosts.entry(deal.provider).or_default();
            *count = count.saturating_add(1);
        }
        if let Some(deal) = before {
            self.open_of_supply.remove(&(deal.provider_offer, deal.id));
            self.open_of_agent.remove(&(deal.agent, deal.id));
            self.check_at(deal.id, None);
        }
        if let Some(deal) = after.filter(|deal| deal.state != DealState::Ended) {
            self.open_of_supply.insert((deal.provider_offer, deal.id));
            self.open_of_agent.insert((deal.agent, deal.id));
            self.check_at(deal.id, Some(Epoch(0)));
        }
    }

    fn check_at(&mut self, deal: DealId, epoch: Option<Epoch>) {
        let before = match epoch {
            Some(epoch) => self.check_of.insert(deal, epoch),
            None => self.check_of.remove(&deal),
        };
        if let Some(before) = before {
            self.checks.remove(&(before, deal));
        }
        self.checks.extend(epoch.map(|epoch| (epoch, deal)));
    }

    /// An attestation was taken back: what it put off may be due after all.
    pub(super) fn attested_less(&mut self, agent: Address) {
        let deals: Vec<DealId> = of(&self.open_of_agent, agent, DealId::ZERO).collect();
        deals.into_iter().for_each(|deal| self.check_at(deal, Some(Epoch(0))));
    }

    pub(super) fn of_demand(&self, offer: OfferHash) -> impl Iterator<Item = DealId> {
        of(&self.of_demand, offer, DealId::ZERO)
    }

    pub(super) fn open_of_supply(&self, offer: OfferHash) -> impl Iterator<Item = DealId> {
        of(&self.open_of_supply, offer, DealId::ZERO)
    }

    /// Whether the account hosts or has ever hosted anything.
    pub(super) fn hosts_anything(&self, provider: Address) -> bool {
        self.hosts.contains_key(&provider)
    }

    /// Deals that can be ended now and that `wanted` takes, at most `limit`. One look reads a bounded number of deals, so
    /// that right after a start and in an epoch in which many end it takes several to find all.
    pub(super) fn due(
        &mut self,
        state: &MarketState,
        (terms, epoch): (&MarketTerms, Epoch),
        limit: usize,
        wanted: impl Fn(DealId) -> bool,
    ) -> Vec<Due> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let last = (epoch, DealId([0xff; 32]));
        let from = self.read_up_to.filter(|read| *read < last);
        let rest = self.checks.range((from.map_or(Unbounded, Excluded), Included(last)));
        let read_before = self.checks.range((Unbounded, Included(from.unwrap_or_default())));
        let read_before = read_before.take_while(|_| from.is_some());
        let (mut due, mut later, mut read_up_to) = (Vec::new(), Vec::new(), None);
        for (check, id) in rest.chain(read_before).take(MAX_READ) {
            read_up_to = Some((*check, *id));
            let Some(known) = state.deals.get(id) else { continue };
            match ends::check(state, terms, epoch, &known.deal) {
                Ok(found) if wanted(*id) => due.push(found),
                Ok(_) => (),
                Err(next) if next > epoch => later.push((*id, next)),
                Err(_) => (),
            }
            if due.len() >= limit {
                break;
            }
        }
        self.read_up_to = read_up_to;
        later.into_iter().for_each(|(deal, epoch)| self.check_at(deal, Some(epoch)));
        due
    }
}

/// The deals of one key.
fn of<K: Ord + Copy>(set: &BTreeSet<(K, DealId)>, key: K, first: DealId) -> impl Iterator<Item = DealId> {
    set.range((key, first)..).take_while(move |(other, _)| *other == key).map(|(_, deal)| *deal)
}
