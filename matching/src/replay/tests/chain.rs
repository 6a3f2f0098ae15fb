//! A chain without a node: events that follow from each other as the contract makes them, blocks that are taken back, and
//! matchers that plan on it.

use std::collections::BTreeSet;

use common::{
    deal::EndCause,
    epoch::Epoch,
    event::{BlockId, BlockRef, DealChanged, DealOpened, MarketBlock, MarketEvent, PlacedEvent},
    ids::{Address, BlockHash, DealId, Digest, OfferHash, ReceiptRoot, TxHash},
    offer::{DeveloperOffer, ProviderOffer},
    state::MarketState,
};

use crate::{
    feasible,
    market::{Market, Planner},
    replay::SignedOffers,
    samples::{self, TIME, account, atoms, hash},
    scan,
    snapshot::{Demand, Inputs, PendingFill, Signed, Snapshot, Supply},
};

/// The account of the matcher.
pub(crate) fn matcher() -> Address {
    account(99)
}

/// A demand, and the supplies that are proposed to it.
pub(crate) type Proposal = (OfferHash, Vec<OfferHash>);

/// Something that somebody does. Numbers choose among what there is.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Supply(Box<ProviderOffer>, bool),
    Demand(Box<DeveloperOffer>, bool),
    Deposit(u8, u64),
    Withdraw(u8, u64),
    Cancel(bool, usize),
    NonceFloor(u8, u64),
    EndDeal(usize),
    Paused(bool),
    /// Something else that happens to a deal: what, and to which.
    Change(Change, usize),
}

/// What can happen to a deal while it lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Fund,
    Settle,
    Unfund,
    Refund,
    Ending,
    Resize,
    Attest,
    Update,
}

/// The market around one match.
#[derive(Debug, Clone)]
pub(crate) struct Matched {
    pub(crate) block: u64,
    pub(crate) demand: OfferHash,
    pub(crate) supplies: Vec<OfferHash>,
    pub(crate) refused: Vec<OfferHash>,
    /// Demands that the transaction had proposed in vain.
    pub(crate) tried: Vec<OfferHash>,
    pub(crate) before: Snapshot,
    pub(crate) after: Snapshot,
    pub(crate) states: (MarketState, MarketState),
}

#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) blocks: Vec<MarketBlock>,
    /// After each block.
    pub(crate) states: Vec<MarketState>,
    pub(crate) matched: Vec<Matched>,
    pub(crate) supplies: Vec<Signed<ProviderOffer>>,
    pub(crate) demands: Vec<Signed<DeveloperOffer>>,
    state: MarketState,
    events: Vec<PlacedEvent>,
    next: usize,
    /// Makes blocks of forks different.
    transactions: u32,
    time: u64,
}

impl Chain {
    /// Everybody has some money.
    pub(crate) fn new(money: &[u64]) -> Self {
        let mut chain = Self {
            blocks: Vec::new(),
            states: Vec::new(),
            matched: Vec::new(),
            supplies: Vec::new(),
            demands: Vec::new(),
            state: MarketState::new(&samples::terms()),
            events: Vec::new(),
            next: 0,
            transactions: 0,
            time: TIME - 40,
        };
        let accounts = [1_u8, 2, 3, 10, 11, 12, 13, 14, 15, 16];
        for (who, amount) in accounts.into_iter().zip(money) {
            chain.act(&Act::Deposit(who, *amount));
        }
        chain.mine();
        chain
    }

    pub(crate) fn head(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Time goes by before the next block.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.time += seconds;
    }

    /// Closes the block.
    pub(crate) fn mine(&mut self) {
        let number = self.head() + 1;
        self.time += 1;
        let mut hash = BlockHash([number as u8; 32]);
        hash.0[28..].copy_from_slice(&self.transactions.to_be_bytes());
        let block = BlockRef { number, hash, parent_hash: BlockHash::ZERO, timestamp: self.time };
        self.state.as_of = Some(block);
        self.blocks.push(MarketBlock { block, events: std::mem::take(&mut self.events) });
        self.states.push(self.state.clone());
    }

    /// Takes back so many blocks, but not the first one. What was signed and accepted since is forgotten as well.
    pub(crate) fn reorganize(&mut self, depth: usize) {
        // The blocks that come instead are others, also where nothing happens in them.
        self.transactions += 1;
        let left = self.blocks.len().saturating_sub(depth).max(1);
        self.blocks.truncate(left);
        self.states.truncate(left);
        self.state = self.states[left - 1].clone();
        self.time = self.blocks[left - 1].block.timestamp;
        let head = self.head();
        self.matched.retain(|matched| matched.block <= head);
        self.supplies.retain(|signed| signed.accepted_block <= head);
        self.demands.retain(|signed| signed.accepted_block <= head);
    }

    /// The market as the matcher sees it at the end of the last block.
    pub(crate) fn seen(&self) -> Snapshot {
        self.snapshot(&self.states[self.states.len() - 1], self.blocks[self.blocks.len() - 1].block.timestamp)
    }

    /// The market at the end of a block.
    pub(crate) fn seen_at(&self, block: u64) -> Option<Snapshot> {
        let at = usize::try_from(block.checked_sub(1)?).unwrap();
        Some(self.snapshot_at(block, &self.states[at], self.blocks[at].block.timestamp))
    }

    /// A state with what was signed when this block was the last one.
    pub(crate) fn snapshot_at(&self, block: u64, state: &MarketState, time: u64) -> Snapshot {
        let mut seen = self.clone();
        seen.supplies.retain(|signed| signed.accepted_block <= block);
        seen.demands.retain(|signed| signed.accepted_block <= block);
        seen.snapshot(state, time)
    }

    pub(crate) fn signed(&self) -> SignedOffers {
        SignedOffers { provider: self.supplies.clone(), developer: self.demands.clone() }
    }

    fn snapshot(&self, state: &MarketState, time: u64) -> Snapshot {
        self.snapshot_with(state, time, &[], &BTreeSet::new())
    }

    fn snapshot_with(
        &self,
        state: &MarketState,
        time: u64,
        pending: &[PendingFill],
        held: &BTreeSet<OfferHash>,
    ) -> Snapshot {
        Snapshot::build(Inputs {
            terms: samples::terms(),
            state,
            matcher: matcher(),
            time,
            developer_offers: self.demands.clone(),
            provider_offers: self.supplies.clone(),
            pending,
            held,
        })
    }

    /// The market as the matcher sees it, with what only it knows.
    pub(crate) fn seen_with(&self, pending: &[PendingFill], held: &BTreeSet<OfferHash>) -> Snapshot {
        let head = &self.blocks[self.blocks.len() - 1];
        self.snapshot_with(&self.states[self.states.len() - 1], head.block.timestamp, pending, held)
    }

    fn emit(&mut self, event: MarketEvent) {
        let block_number = self.head() + 1;
        let tx_hash = TxHash([0; 32].map(|_: u8| self.transactions as u8));
        let log_index = self.events.len() as u64;
        let placed = PlacedEvent { block_number, block_hash: BlockHash::ZERO, log_index, tx_hash, event };
        self.state.apply(&placed).unwrap();
        self.events.push(placed);
    }

    pub(crate) fn act(&mut self, act: &Act) {
        self.transactions += 1;
        self.next += 1;
        let (next, sequence, accepted_block) = (self.next, self.next as u64, self.head());
        match act {
            Act::Supply(offer, false) => {
                self.emit(MarketEvent::ProviderOfferOpened { offer_hash: hash(2, next), offer: offer.clone() });
            }
            Act::Demand(offer, false) if offer.validate(samples::terms().min_prepaid_epochs).is_ok() => {
                self.emit(MarketEvent::DeveloperOfferOpened { offer_hash: hash(1, next), offer: offer.clone() });
            }
            Act::Supply(offer, true) => {
                let (hash, offer, signature) = (hash(2, next), *offer.clone(), vec![1]);
                self.supplies.push(Signed { hash, offer, signature, accepted_block, sequence });
            }
            Act::Demand(offer, true) => {
                let (hash, offer, signature) = (hash(1, next), *offer.clone(), vec![1]);
                self.demands.push(Signed { hash, offer, signature, accepted_block, sequence });
            }
            Act::Deposit(who, amount) => {
                let (account, amount) = (account(*who), atoms(*amount));
                self.emit(MarketEvent::Deposited { account, from: account, amount });
            }
            Act::Withdraw(who, amount) => {
                let account = account(*who);
                let amount = self.state.free_balance(account).min(atoms(*amount));
                self.emit(MarketEvent::Withdrawn { account, to: account, amount });
            }
            Act::Cancel(demand, at) => self.cancel(*demand, *at),
            Act::NonceFloor(who, floor) => {
                let owner = account(*who);
                let before = self.state.nonce_floors.get(&owner).copied().unwrap_or_default();
                if *floor > before {
                    self.emit(MarketEvent::NonceFloorRaised { owner, floor: *floor });
                }
            }
            Act::EndDeal(at) => self.end_deal(*at),
            Act::Paused(paused) => self.emit(MarketEvent::MatchingPaused { paused: *paused }),
            Act::Change(change, at) => self.change(*change, *at),
            Act::Demand(..) => (),
        }
    }

    fn change(&mut self, change: Change, at: usize) {
        let live = self.state.deals.values().map(|known| &known.deal);
        let live: Vec<_> = live.filter(|deal| deal.state != common::deal::DealState::Ended).cloned().collect();
        let Some(deal) = live.get(at % live.len().max(1)) else { return };
        let (deal_id, epoch) = (deal.id, samples::terms().schedule.epoch_at(self.time));
        let free = self.state.free_balance(deal.developer);
        let (little, next) = (free.min(atoms(7)), Epoch(epoch.0 + 1));
        self.emit(match change {
            Change::Fund => MarketEvent::DealFunded { deal_id, from: deal.developer, amount: little, paid_until: next },
            Change::Settle => {
                let paid = deal.locked.min(deal.price_per_epoch);
                MarketEvent::DealSettled { deal_id, paid, topped_up: little, settled_until: next }
            }
            Change::Unfund => MarketEvent::DealUnfunded { deal_id, since: epoch },
            Change::Refund => {
                MarketEvent::DealRefunded { deal_id, refunded: deal.locked.min(atoms(3)), paid_until: epoch }
            }
            Change::Ending => {
                let (cause, refunded) = (EndCause::ProviderLeft, deal.locked.min(atoms(2)));
                MarketEvent::DealEnding { deal_id, cause, end_epoch: next, refunded }
            }
            Change::Resize => {
                let mut size = deal.size;
                size.memory_mib += 64;
                MarketEvent::DealChanged(Box::new(DealChanged {
                    deal_id,
                    sequence: deal.changes + 1,
                    from: next,
                    end_epoch: Epoch(deal.end_epoch.0 + 1),
                    price_per_epoch: deal.price_per_epoch,
                    size,
                    bond: deal.bond.min(atoms(1)),
                    paid_until: deal.paid_until,
                }))
            }
            Change::Attest => {
                let (receipt_root, rolling_hash) = (ReceiptRoot::ZERO, ReceiptRoot::ZERO);
                MarketEvent::Attested { agent: deal.agent, epoch, receipt_root, rolling_hash }
            }
            Change::Update => MarketEvent::ArtifactUpdated {
                developer_offer: deal.developer_offer,
                version: 1,
                artifact: Digest([at as u8; 32]),
                manifest: Digest::ZERO,
                artifact_url: String::new(),
            },
        });
    }

    fn cancel(&mut self, demand: bool, at: usize) {
        let (owner, offer_hash) = if demand {
            let Some((hash, known)) = self.state.developer_offers.iter().nth(at) else { return };
            (known.offer.developer, *hash)
        } else {
            let Some((hash, known)) = self.state.provider_offers.iter().nth(at) else { return };
            (known.offer.provider, *hash)
        };
        self.emit(MarketEvent::OfferCancelled { owner, offer_hash });
    }

    fn end_deal(&mut self, at: usize) {
        let live = self.state.deals.values().map(|known| &known.deal);
        let live: Vec<_> = live.filter(|deal| deal.state != common::deal::DealState::Ended).cloned().collect();
        let Some(deal) = live.get(at % live.len().max(1)) else { return };
        self.emit(MarketEvent::DealEnded {
            deal_id: deal.id,
            cause: EndCause::TermOver,
            refunded: deal.locked,
            bond_to: deal.provider,
            bond: deal.bond,
        });
    }

    /// A match transaction, carried out as the contract does it.
    pub(crate) fn execute(&mut self, proposals: &[Proposal]) {
        self.transactions += 1;
        if self.state.matching_paused {
            return;
        }
        let mut tried = Vec::new();
        for (demand, supplies) in proposals {
            let (before, state) = (self.snapshot(&self.state, self.time + 1), self.state.clone());
            let (fills, refused) = self.execute_one(&before, *demand, supplies);
            if fills.len() < supplies.len() {
                tried.push(*demand);
            }
            if !fills.is_empty() {
                let tried = tried.clone();
                let after = self.snapshot(&self.state, self.time + 1);
                let (block, demand, supplies) = (self.head() + 1, *demand, fills);
                let states = (state, self.state.clone());
                self.matched.push(Matched { block, demand, supplies, refused, tried, before, after, states });
            }
        }
    }

    fn execute_one(
        &mut self,
        market: &Snapshot,
        demand: OfferHash,
        supplies: &[OfferHash],
    ) -> (Vec<OfferHash>, Vec<OfferHash>) {
        let conditions = &market.conditions;
        let Some(wanted) = market.demand(demand) else { return Default::default() };
        if let Some(reason) = feasible::demand_is_blocked(conditions, &market.ledger, wanted) {
            self.emit(MarketEvent::MatchSkipped { developer_offer: demand, reason });
            return Default::default();
        }
        let (mut ledger, mut fills, mut refused) = (market.ledger.clone(), Vec::new(), Vec::new());
        for supply in supplies {
            let supply = self.supply(*supply);
            match feasible::feasible(conditions, &ledger, wanted, &supply) {
                Ok(cost) => {
                    ledger.enter(wanted, &supply, cost, conditions.start_epoch()).unwrap();
                    fills.push((supply, cost));
                }
                Err(reason) => {
                    refused.push(supply.hash);
                    let (developer_offer, provider_offer) = (demand, supply.hash);
                    self.emit(MarketEvent::FillSkipped { developer_offer, provider_offer, reason });
                }
            }
        }
        if !scan::reaches_minimum(&market.ledger, wanted, fills.len()) {
            let reason = common::event::Reason::TooFewReplicas;
            self.emit(MarketEvent::MatchSkipped { developer_offer: demand, reason });
            return Default::default();
        }
        self.open(market, wanted, &fills);
        (fills.into_iter().map(|(supply, _)| supply.hash).collect(), refused)
    }

    fn open(&mut self, market: &Snapshot, wanted: &Demand, fills: &[(Supply, crate::ledger::FillCost)]) {
        let (developer_offer, fee) = (wanted.hash, wanted.offer.matcher_fee);
        if !fills.is_empty() && !self.state.developer_offers.contains_key(&developer_offer) {
            let offer = Box::new(wanted.offer.clone());
            self.emit(MarketEvent::DeveloperOfferOpened { offer_hash: developer_offer, offer });
        }
        let start_epoch = market.conditions.start_epoch();
        let fixed = market.ledger.placement(wanted.hash).end_epoch;
        for (supply, cost) in fills {
            if !self.state.provider_offers.contains_key(&supply.hash) {
                let (offer_hash, offer) = (supply.hash, Box::new(supply.offer.clone()));
                self.emit(MarketEvent::ProviderOfferOpened { offer_hash, offer });
            }
            let mut deal_id = DealId(developer_offer.0);
            deal_id.0[0] = supply.offer.provider.0[0];
            self.emit(MarketEvent::DealOpened(Box::new(DealOpened {
                deal_id,
                developer_offer,
                provider_offer: supply.hash,
                price_per_epoch: cost.ask,
                start_epoch,
                end_epoch: fixed.unwrap_or(start_epoch.plus(wanted.offer.epochs)),
                locked: cost.lock.checked_sub(fee).unwrap(),
            })));
        }
        if fee.get() > 0 && !fills.is_empty() {
            let amount = fee.checked_mul(fills.len() as u64).unwrap();
            self.emit(MarketEvent::MatcherPaid { developer_offer, matcher: matcher(), amount });
        }
    }

    /// A supply, void or not.
    fn supply(&self, hash: OfferHash) -> Supply {
        let known = self.state.provider_offers.get(&hash);
        let known = known.map(|known| Supply::new(hash, known.offer.clone(), Vec::new(), known.opened_at));
        known.unwrap_or_else(|| {
            let signed = self.supplies.iter().find(|signed| signed.hash == hash).unwrap();
            Supply::new(hash, signed.offer.clone(), signed.signature.clone(), signed.place())
        })
    }
}

/// A market that follows a chain as a matcher's does.
pub(crate) struct Follower {
    pub(crate) market: Market,
    /// How often it had to be loaded.
    pub(crate) loaded: usize,
    remembered: usize,
    /// Signed offers that it was told of, with their numbers.
    accepted: BTreeSet<(OfferHash, u64)>,
}

impl Follower {
    pub(crate) fn new(remembered: usize) -> Self {
        let market = Market::new(samples::terms(), Planner::Account(matcher()), remembered);
        Self { market, loaded: 0, remembered, accepted: BTreeSet::new() }
    }

    /// As after a start of the process.
    pub(crate) fn load(&mut self, chain: &Chain) {
        let base = chain.blocks.iter().rev().find(|block| !block.events.is_empty());
        let base = base.map(|block| block.block.id());
        let state = chain.states[chain.states.len() - 1].clone();
        self.market = Market::of(state, base, samples::terms(), Planner::Account(matcher()), self.remembered);
        self.accepted.clear();
        self.loaded += 1;
    }

    pub(crate) fn follow(&mut self, chain: &Chain, pending: &[PendingFill], held: &BTreeSet<OfferHash>) {
        let is_there = |anchor: &BlockId| chain.blocks.iter().any(|block| block.block.id() == *anchor);
        let anchor = self.market.anchors().find(|anchor| anchor.as_ref().is_none_or(is_there));
        match anchor {
            Some(anchor) => {
                self.market.take_back_to(anchor);
                let height = anchor.map_or(0, |anchor| anchor.number);
                let later = chain.blocks.iter().filter(|block| block.block.number > height);
                later.for_each(|block| self.market.apply(block).unwrap());
            }
            None => self.load(chain),
        }
        self.market.stand_at(chain.blocks.last().map(|block| block.block), 0);
        self.follow_signed(chain);
        self.market.set_pending(pending.to_vec());
        self.market.set_held(held.clone());
        self.market.settle();
    }

    fn follow_signed(&mut self, chain: &Chain) {
        let supplies = chain.supplies.iter().map(|signed| (signed.hash, signed.sequence));
        let now: BTreeSet<_> =
            supplies.chain(chain.demands.iter().map(|signed| (signed.hash, signed.sequence))).collect();
        self.accepted.difference(&now).for_each(|(hash, _)| self.market.close_signed(*hash));
        for signed in chain.supplies.iter().filter(|signed| !self.accepted.contains(&(signed.hash, signed.sequence))) {
            self.market.accept_supply(signed.clone(), false);
        }
        for signed in chain.demands.iter().filter(|signed| !self.accepted.contains(&(signed.hash, signed.sequence))) {
            self.market.accept_demand(signed.clone(), false);
        }
        self.accepted = now;
    }
}

/// The matcher as it runs: its market follows the chain.
pub(crate) struct Live(Follower);

impl Live {
    pub(crate) fn new(chain: &Chain) -> Self {
        let mut follower = Follower::new(1_000);
        follower.follow(chain, &[], &BTreeSet::new());
        Self(follower)
    }

    /// What it sends next; with a `restart` it knows nothing of before.
    pub(crate) fn plan(&mut self, chain: &Chain, restart: bool, budget: usize) -> Vec<Proposal> {
        if restart {
            self.0.load(chain);
        }
        self.0.follow(chain, &[], &BTreeSet::new());
        let plan = self.0.market.plan(budget);
        let supplies = |found: &crate::engine::Match| found.fills.iter().map(|fill| fill.supply).collect();
        plan.matches.iter().map(|found| (found.demand, supplies(found))).collect()
    }
}
