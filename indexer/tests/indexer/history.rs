//! Random histories of a market that never was: events that a contract could have emitted, in blocks that link.
//!
//! Validity is [`MarketState`]'s: an event that it refuses does not happen. What it would forgive and a contract would not
//! do (opening an offer twice, ending a deal twice) is not generated.

use common::{
    deal::{DealState, EndCause},
    epoch::{Epoch, EpochSchedule},
    event::{BlockRef, DealChanged, DealOpened, MarketBlock, MarketEvent, PlacedEvent, Reason},
    feature::FeatureSet,
    ids::{Address, BlockHash, DealId, Digest, OfferHash, ReceiptRoot, TxHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::{Prices, Resources},
    state::MarketState,
};
use proptest::prelude::*;

/// Something that somebody tries; the numbers pick accounts, offers, deals and amounts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    kind: u8,
    a: u8,
    b: u8,
    amount: u32,
}

/// What happens to the chain.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Blocks are added, all seen at once.
    Blocks(Vec<Vec<Attempt>>),
    /// The last blocks are replaced.
    Reorg { depth: u8, blocks: Vec<Vec<Attempt>> },
    /// More of the blocks become final.
    Finalize(u8),
}

/// Kinds of events, as [`Chain::event`] numbers them; those that need others to go before come more often.
const KINDS: [u8; 41] = [
    0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 6, 7, 8, 9, 9, 9, 9, 10, 10, 11, 12, 12, 13, 14, 14, 14, 15, 15, 15, 16, 16, 17, 18,
    19, 19, 20, 21, 22, 23, 23, 24,
];

pub(crate) fn attempts() -> impl Strategy<Value = Vec<Attempt>> {
    let attempt = (prop::sample::select(&KINDS), any::<u8>(), any::<u8>(), 0..5_000_u32);
    prop::collection::vec(attempt.prop_map(|(kind, a, b, amount)| Attempt { kind, a, b, amount }), 0..10)
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let blocks = || prop::collection::vec(attempts(), 1..5);
    let action = prop_oneof![
        6 => blocks().prop_map(Action::Blocks),
        3 => (1..8_u8, prop::collection::vec(attempts(), 0..6))
            .prop_map(|(depth, blocks)| Action::Reorg { depth, blocks }),
        1 => (0..6_u8).prop_map(Action::Finalize),
    ];
    prop::collection::vec(action, 1..16)
}

/// A chain that can be forked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub(crate) blocks: Vec<MarketBlock>,
    /// Height of the last final block, if there is one.
    pub(crate) finalized: Option<u64>,
    forks: u8,
    offers: u32,
}

pub(crate) fn account(n: u8) -> Address {
    let mut bytes = [0; 20];
    bytes[19] = n % 5 + 1;
    Address(bytes)
}

fn word(kind: u8, n: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = kind;
    bytes[28..].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn pick<T>(items: impl IntoIterator<Item = T>, n: u8) -> Option<T> {
    let items: Vec<T> = items.into_iter().collect();
    let at = usize::from(n).checked_rem(items.len())?;
    items.into_iter().nth(at)
}

/// A market whose deals are bonded with one epoch's price.
pub(crate) fn terms() -> MarketTerms {
    MarketTerms {
        chain_id: 31_337,
        market: Address([9; 20]),
        deployed_at_block: 0,
        token: Address([8; 20]),
        operator: Address([7; 20]),
        schedule: EpochSchedule { genesis: 0, length: 60 },
        attestation_window: 2,
        evict_after_missed: 3,
        bond_epochs: 1,
        min_prepaid_epochs: 2,
        grace_epochs: 2,
        notice_epochs: 2,
    }
}

impl Chain {
    /// The state that all events of the chain add up to.
    pub(crate) fn state(&self) -> MarketState {
        let mut state = MarketState::new(&terms());
        self.blocks.iter().for_each(|block| state.apply_block(block).unwrap());
        state
    }

    pub(crate) fn last(&self) -> Option<BlockRef> {
        self.blocks.last().map(|block| block.block)
    }

    /// Adds a block in which these attempts are made.
    pub(crate) fn mine(&mut self, attempts: &[Attempt]) {
        self.mine_at(self.last().map_or(1, |last| last.number + 1), attempts);
    }

    /// Adds blocks of these heights, in each of which there is some of everything.
    pub(crate) fn busy_at(&mut self, heights: &[u64]) {
        for (n, height) in (0..).zip(heights) {
            let some = |kind: u8, b: u8| Attempt { kind, a: n, b, amount: 4_000 + u32::from(n) };
            let deposits = (0..5).map(|a| Attempt { kind: 0, a, b: n, amount: 5_000 });
            let others = KINDS.into_iter().chain(KINDS).enumerate();
            let others = others.map(|(at, kind)| some(kind, n.wrapping_add(u8::try_from(at).unwrap())));
            self.mine_at(*height, &deposits.chain(others).collect::<Vec<_>>());
        }
    }

    fn mine_at(&mut self, number: u64, attempts: &[Attempt]) {
        let mut state = self.state();
        let mut hash = word(b'b', u32::try_from(number).unwrap());
        hash[1] = self.forks;
        let block = BlockRef {
            number,
            hash: BlockHash(hash),
            parent_hash: self.last().map_or(BlockHash::ZERO, |last| last.hash),
            timestamp: 1_000 + number * 12,
        };
        let mut events = Vec::new();
        for attempt in attempts {
            let log_index = u64::try_from(events.len()).unwrap() * 2;
            let Some(event) = self.event(attempt, &state) else { continue };
            let tx_hash = TxHash(word(b't', u32::try_from(number).unwrap()));
            let placed = PlacedEvent { block_number: number, block_hash: block.hash, log_index, tx_hash, event };
            let mut next = state.clone();
            if next.apply(&placed).is_ok() {
                state = next;
                events.push(placed);
            }
        }
        self.blocks.push(MarketBlock { block, events });
    }

    /// Drops the last `depth` blocks, final ones apart, and returns them.
    pub(crate) fn fork(&mut self, depth: u8) -> Vec<BlockRef> {
        let lowest = self.finalized.map_or(0, |finalized| usize::try_from(finalized).unwrap());
        let keep = self.blocks.len().saturating_sub(usize::from(depth)).max(lowest);
        self.forks += 1;
        self.blocks.split_off(keep).into_iter().map(|block| block.block).collect()
    }

    /// Makes `more` blocks final.
    pub(crate) fn finalize(&mut self, more: u8) {
        let head = self.last().map_or(0, |last| last.number);
        let finalized = self.finalized.unwrap_or(0).saturating_add(u64::from(more)).min(head);
        self.finalized = (finalized > 0).then_some(finalized);
    }

    fn event(&mut self, attempt: &Attempt, state: &MarketState) -> Option<MarketEvent> {
        let Attempt { kind, a, b, amount } = *attempt;
        let atoms = |n: u32| Atoms::new(n.into()).unwrap();
        let who = account(a);
        Some(match kind {
            0..=2 => MarketEvent::Deposited { account: who, from: account(b), amount: atoms(amount * 8) },
            3 => MarketEvent::Withdrawn { account: who, to: account(b), amount: atoms(amount / 4) },
            4 => {
                self.offers += 1;
                let offer = Box::new(supply(who, account(b), self.offers));
                MarketEvent::ProviderOfferOpened { offer_hash: OfferHash(word(b'p', self.offers)), offer }
            }
            5 => {
                self.offers += 1;
                let offer = Box::new(demand(who, self.offers));
                MarketEvent::DeveloperOfferOpened { offer_hash: OfferHash(word(b'd', self.offers)), offer }
            }
            6 => {
                let known = state.provider_offers.iter().map(|(hash, known)| (known.offer.provider, *hash));
                let known = known.chain(state.developer_offers.iter().map(|(hash, k)| (k.offer.developer, *hash)));
                let (owner, offer_hash) = pick(known, b).unwrap_or((who, OfferHash(word(b'x', amount))));
                MarketEvent::OfferCancelled { owner, offer_hash }
            }
            // Any 64-bit number can be a floor.
            7 => MarketEvent::NonceFloorRaised { owner: who, floor: u64::MAX - u64::from(amount) },
            8 => MarketEvent::NonceFloorRaised { owner: who, floor: u64::from(amount % 8) },
            9 | 10 => open_deal(state, a, b, amount)?,
            11 => MarketEvent::MatchingPaused { paused: a % 2 == 0 },
            12 => MarketEvent::Attested {
                agent: account(a),
                epoch: Some(Epoch(amount % 20)).filter(|epoch| !has_attested(state, account(a), *epoch))?,
                receipt_root: ReceiptRoot(word(b'r', amount)),
                rolling_hash: ReceiptRoot(word(b'h', amount)),
            },
            13 => MarketEvent::FillSkipped {
                developer_offer: OfferHash(word(b'd', amount)),
                provider_offer: OfferHash(word(b'p', amount)),
                reason: Reason::PriceAboveMaximum,
            },
            21 => MarketEvent::ArtifactUpdated {
                developer_offer: pick(state.developer_offers.keys().copied(), b)?,
                version: amount + 1,
                artifact: Digest(word(b'a', amount)),
                manifest: Digest::ZERO,
                artifact_url: format!("http://127.0.0.1/{amount}"),
            },
            // Anybody may name a deal, also one that is opened later.
            23 => match open_deal(state, a, b, amount)? {
                MarketEvent::DealOpened(opened) => {
                    MarketEvent::ClaimSkipped { deal_id: opened.deal_id, reason: Reason::DealUnknown }
                }
                _ => return None,
            },
            24 => MarketEvent::MatchSkipped {
                developer_offer: pick(state.developer_offers.keys().copied(), b)?,
                reason: Reason::FundsTooLow,
            },
            22 => MarketEvent::MatcherPaid {
                developer_offer: pick(state.developer_offers.keys().copied(), b)?,
                matcher: who,
                amount: atoms(amount / 8),
            },
            kind => return deal_event(kind, state, a, b, amount),
        })
    }
}

fn has_attested(state: &MarketState, agent: Address, epoch: Epoch) -> bool {
    state.attested.get(&agent).is_some_and(|epochs| epochs.contains(&epoch))
}

fn supply(provider: Address, agent: Address, n: u32) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent,
        payout: account(n.to_be_bytes()[3]),
        region: ["eu-de-fra1", "eu-fr-par1", "na-us-east"][n as usize % 3].parse().unwrap(),
        capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
        features: FeatureSet(u64::MAX),
        prices: Prices {
            per_vcpu_epoch: Atoms::new(u64::from(n % 7) * 10).unwrap(),
            per_gib_epoch: Atoms::new(u64::from(n % 5) * 3).unwrap(),
        },
        max_epochs: 0,
        valid_until: u64::MAX,
        nonce: u64::from(n),
        endpoint: format!("http://127.0.0.1:{n}"),
    }
}

fn demand(developer: Address, n: u32) -> DeveloperOffer {
    DeveloperOffer {
        developer,
        artifact: Digest(word(b'a', n)),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 100 * (1 + n % 3), memory_mib: 64 * (1 + n % 2) },
        features: FeatureSet::EMPTY,
        regions: vec!["eu".parse().unwrap()],
        min_replicas: 1,
        replicas: 3,
        max_price_per_epoch: Atoms::MAX,
        epochs: 10,
        prepaid_epochs: 2,
        valid_until: u64::MAX,
        nonce: u64::from(n),
        matcher: if n.is_multiple_of(3) { account(n.to_be_bytes()[3] / 3) } else { Address::ZERO },
        matcher_fee: Atoms::ZERO,
        allow: vec![account(1)],
        deny: Vec::new(),
        artifact_url: String::new(),
    }
}

fn open_deal(state: &MarketState, a: u8, b: u8, amount: u32) -> Option<MarketEvent> {
    let (developer_offer, _) = pick(&state.developer_offers, a)?;
    let (provider_offer, supply) = pick(&state.provider_offers, b)?;
    let mut id = developer_offer.0;
    id[1] = supply.offer.provider.0[19];
    let atoms = |n: u32| Atoms::new(n.into()).unwrap();
    // Now and then for nothing.
    let price = amount % 50;
    Some(MarketEvent::DealOpened(Box::new(DealOpened {
        deal_id: DealId(id),
        developer_offer: *developer_offer,
        provider_offer: *provider_offer,
        price_per_epoch: atoms(price),
        start_epoch: Epoch(amount % 7),
        end_epoch: Epoch(amount % 7 + 10),
        locked: atoms(price * 2),
    })))
}

fn deal_event(kind: u8, state: &MarketState, a: u8, b: u8, amount: u32) -> Option<MarketEvent> {
    let open = state.deals.values().filter(|known| known.deal.state != DealState::Ended);
    let deal = &pick(open, a)?.deal;
    let atoms = |n: u64| Atoms::new(n).unwrap();
    let part_of_lock = atoms(deal.locked.get() * u64::from(b) / 255);
    let (deal_id, paid_until) = (deal.id, deal.paid_until.plus(u32::from(b) % 4));
    let causes = [EndCause::TermOver, EndCause::DeveloperCancelled, EndCause::ProviderEvicted, EndCause::Unfunded];
    Some(match kind {
        14 => MarketEvent::DealFunded { deal_id, from: account(b), amount: atoms(amount.into()), paid_until },
        15 => MarketEvent::DealSettled {
            deal_id,
            paid: part_of_lock,
            topped_up: atoms(u64::from(amount) / 8),
            settled_until: deal.settled_until.plus(1),
        },
        19 => MarketEvent::DealChanged(Box::new(DealChanged {
            deal_id,
            sequence: deal.changes + 1,
            from: deal.settled_until.plus(1),
            end_epoch: deal.end_epoch.plus(u32::from(b) % 5),
            price_per_epoch: atoms(u64::from(amount % 60)),
            size: Resources { milli_cpu: 50 + u32::from(b), memory_mib: 64 },
            bond: atoms(u64::from(amount % 60)),
            paid_until,
        })),
        20 => MarketEvent::DealRefunded { deal_id, refunded: part_of_lock, paid_until },
        16 => MarketEvent::DealUnfunded { deal_id, since: deal.paid_until },
        17 if deal.state == DealState::Active => {
            let cause = causes[usize::from(b) % 4];
            MarketEvent::DealEnding { deal_id, cause, end_epoch: deal.end_epoch.minus(2), refunded: part_of_lock }
        }
        18 => {
            let bond_to = if b.is_multiple_of(2) { deal.provider } else { deal.developer };
            let cause = causes[usize::from(b) % 4];
            MarketEvent::DealEnded { deal_id, cause, refunded: deal.locked, bond_to, bond: deal.bond }
        }
        _ => return None,
    })
}
