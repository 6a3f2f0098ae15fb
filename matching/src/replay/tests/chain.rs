//! A chain without a node: events that follow from each other as the contract makes them, blocks that are taken back, and
//! matchers that plan on it.

use common::{
    deal::EndCause,
    event::{BlockRef, DealOpened, MarketBlock, MarketEvent, PlacedEvent},
    ids::{Address, BlockHash, DealId, OfferHash, TxHash},
    offer::{DeveloperOffer, ProviderOffer},
    state::MarketState,
};

use crate::{
    engine::Engine,
    feasible,
    replay::SignedOffers,
    samples::{self, TIME, account, atoms, hash},
    scan,
    snapshot::{Demand, Inputs, Signed, Snapshot, Supply},
};

/// The account of the matcher.
pub(super) fn matcher() -> Address {
    account(99)
}

/// A demand, and the supplies that are proposed to it.
pub(super) type Proposal = (OfferHash, Vec<OfferHash>);

/// Something that somebody does. Numbers choose among what there is.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Supply(Box<ProviderOffer>, bool),
    Demand(Box<DeveloperOffer>, bool),
    Deposit(u8, u64),
    Withdraw(u8, u64),
    Cancel(bool, usize),
    NonceFloor(u8, u64),
    EndDeal(usize),
    Paused(bool),
}

/// The market around one match.
#[derive(Debug, Clone)]
pub(super) struct Matched {
    pub(super) block: u64,
    pub(super) demand: OfferHash,
    pub(super) supplies: Vec<OfferHash>,
    pub(super) refused: Vec<OfferHash>,
    /// Demands that the transaction had proposed in vain.
    pub(super) tried: Vec<OfferHash>,
    pub(super) before: Snapshot,
    pub(super) after: Snapshot,
    pub(super) states: (MarketState, MarketState),
}

#[derive(Clone)]
pub(super) struct Chain {
    pub(super) blocks: Vec<MarketBlock>,
    /// After each block.
    pub(super) states: Vec<MarketState>,
    pub(super) matched: Vec<Matched>,
    pub(super) supplies: Vec<Signed<ProviderOffer>>,
    pub(super) demands: Vec<Signed<DeveloperOffer>>,
    state: MarketState,
    events: Vec<PlacedEvent>,
    next: usize,
    /// Makes blocks of forks different.
    transactions: u32,
    time: u64,
}

impl Chain {
    /// Everybody has some money.
    pub(super) fn new(money: &[u64]) -> Self {
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

    pub(super) fn head(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Time goes by before the next block.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.time += seconds;
    }

    /// Closes the block.
    pub(super) fn mine(&mut self) {
        let number = self.head() + 1;
        self.time += 1;
        let hash = BlockHash([number as u8; 32]);
        let block = BlockRef { number, hash, parent_hash: BlockHash::ZERO, timestamp: self.time };
        self.state.as_of = Some(block);
        self.blocks.push(MarketBlock { block, events: std::mem::take(&mut self.events) });
        self.states.push(self.state.clone());
    }

    /// Takes back so many blocks, but not the first one. What was signed and accepted since is forgotten as well.
    pub(super) fn reorganize(&mut self, depth: usize) {
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
    pub(super) fn seen(&self) -> Snapshot {
        self.snapshot(&self.states[self.states.len() - 1], self.blocks[self.blocks.len() - 1].block.timestamp)
    }

    /// The market at the end of a block.
    pub(super) fn seen_at(&self, block: u64) -> Option<Snapshot> {
        let at = usize::try_from(block.checked_sub(1)?).unwrap();
        Some(self.snapshot_at(block, &self.states[at], self.blocks[at].block.timestamp))
    }

    /// A state with what was signed when this block was the last one.
    pub(super) fn snapshot_at(&self, block: u64, state: &MarketState, time: u64) -> Snapshot {
        let mut seen = self.clone();
        seen.supplies.retain(|signed| signed.accepted_block <= block);
        seen.demands.retain(|signed| signed.accepted_block <= block);
        seen.snapshot(state, time)
    }

    pub(super) fn signed(&self) -> SignedOffers {
        SignedOffers { provider: self.supplies.clone(), developer: self.demands.clone() }
    }

    fn snapshot(&self, state: &MarketState, time: u64) -> Snapshot {
        Snapshot::build(Inputs {
            terms: samples::terms(),
            state,
            matcher: matcher(),
            time,
            developer_offers: self.demands.clone(),
            provider_offers: self.supplies.clone(),
            pending: &[],
            held: &Default::default(),
        })
    }

    fn emit(&mut self, event: MarketEvent) {
        let block_number = self.head() + 1;
        let tx_hash = TxHash([0; 32].map(|_: u8| self.transactions as u8));
        let log_index = self.events.len() as u64;
        let placed = PlacedEvent { block_number, block_hash: BlockHash::ZERO, log_index, tx_hash, event };
        self.state.apply(&placed).unwrap();
        self.events.push(placed);
    }

    pub(super) fn act(&mut self, act: &Act) {
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
            Act::Demand(..) => (),
        }
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
    pub(super) fn execute(&mut self, proposals: &[Proposal]) {
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

/// The matcher as it runs: its engine follows the chain.
pub(super) struct Live {
    engine: Engine,
    stands_at: Snapshot,
}

impl Live {
    pub(super) fn new(chain: &Chain) -> Self {
        let stands_at = chain.seen();
        Self { engine: Engine::of(&stands_at), stands_at }
    }

    /// What it sends next; with a `restart` it knows nothing of before.
    pub(super) fn plan(&mut self, chain: &Chain, restart: bool, budget: usize) -> Vec<Proposal> {
        let now = chain.seen();
        if restart {
            self.engine = Engine::of(&now);
        } else {
            self.engine.follow(&self.stands_at, &now);
        }
        self.stands_at = now;
        let plan = self.engine.plan(budget);
        let supplies = |found: &crate::engine::Match| found.fills.iter().map(|fill| fill.supply).collect();
        plan.matches.iter().map(|found| (found.demand, supplies(found))).collect()
    }
}
