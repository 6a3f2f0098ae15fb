//! Reads of one market: its events and its views.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy::{
    eips::BlockId,
    primitives::B256,
    rpc::types::Filter,
    sol_types::{SolCall, SolEvent},
};
use common::{
    deal::{Deal, DealRef},
    epoch::{Epoch, EpochSchedule},
    event::{BlockRef, MarketEvent, PlacedEvent, Reason},
    ids::{Address, DealId, OfferHash},
    market::MarketTerms,
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    resources::Resources,
};
use contracts::{Market, TestUsdc};
use tracing::warn;

use crate::{
    abi::IERC1271,
    at::MarketAt,
    convert::{inward, outward},
    decode,
    eip712::{self, OfferDomain},
    error::ChainError,
    logs::{self, LogStats, RawLog},
    rpc::Rpc,
};

/// Blocks behind the head within which an event may yet be replaced, as far as what is remembered is concerned.
const REORG_MARGIN: u64 = 256;

/// What a contract answers to EIP-1271 when a signature is valid.
const ERC1271_MAGIC: [u8; 4] = IERC1271::isValidSignatureCall::SELECTOR;

/// Gas that a contract may spend on saying whether a signature is its own; passkey wallets need some 400,000.
const ERC1271_GAS: u64 = 3_000_000;

/// Reads one Market contract. Cheap to clone.
///
/// # Offers that the domain cannot hold
/// Anyone may post an offer whose region is no known place or whose text is no UTF-8, and have it matched. Such an offer
/// is read with what money and capacity depend on (accounts, sizes, epochs) and as *closed*, with `valid_until` 0, so that
/// every fold over events stays whole and nobody matches it here. [`MarketReader::inexact_offers`] counts them.
#[derive(Debug, Clone)]
pub struct MarketReader {
    rpc: Rpc,
    terms: Arc<MarketTerms>,
    inexact_offers: Arc<AtomicU64>,
    pub(crate) log_stats: Arc<LogStats>,
    memory: Arc<Mutex<Memory>>,
}

/// What was looked up in the events before.
#[derive(Debug, Default)]
struct Memory {
    /// What old deals were made of, and their first billed epoch.
    deals: BTreeMap<DealId, (DealRef, Epoch)>,
    /// By agent: the block that was searched to, and the provider offers that name it.
    agents: BTreeMap<Address, (u64, BTreeSet<OfferHash>)>,
}

impl MarketReader {
    /// Reads the market's constants. `deployed_at` is the block to index from; `None` finds it by bisecting
    /// `eth_getCode`, for which the node must have old states.
    ///
    /// # Errors
    /// [`ChainError::NoMarket`] where there is no such contract.
    pub async fn connect(rpc: Rpc, market: Address, deployed_at: Option<u64>) -> Result<Self, ChainError> {
        let chain_id = rpc.chain_id().await?;
        if rpc.code(market, BlockId::latest()).await?.is_empty() {
            return Err(ChainError::NoMarket { address: market });
        }
        let config = rpc.view(market, &Market::configCall {}).await.map_err(|error| not_a_market(error, market))?;
        let deployed_at_block = match deployed_at {
            Some(block) => block,
            None => deployment_block(&rpc, market).await?,
        };
        let terms = MarketTerms {
            chain_id,
            market,
            deployed_at_block,
            token: inward::address(config.token),
            operator: inward::address(config.operator),
            schedule: EpochSchedule { genesis: config.genesis, length: config.epochLength },
            attestation_window: config.attestationWindow,
            evict_after_missed: config.evictAfterMissed,
            bond_epochs: config.bondEpochs,
            min_prepaid_epochs: config.minPrepaidEpochs,
            grace_epochs: config.graceEpochs,
            notice_epochs: config.noticeEpochs,
        };
        Ok(Self::of(rpc, terms))
    }

    /// A reader of a market whose constants are known; nothing is asked yet.
    pub fn of(rpc: Rpc, terms: MarketTerms) -> Self {
        Self {
            rpc,
            terms: Arc::new(terms),
            inexact_offers: Arc::default(),
            log_stats: Arc::default(),
            memory: Arc::default(),
        }
    }

    /// The endpoints that are read from.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// The market's constants.
    pub fn terms(&self) -> &MarketTerms {
        &self.terms
    }

    /// The market's storage as it was after `block`.
    pub fn at(&self, block: BlockRef) -> MarketAt {
        MarketAt::new(self.clone(), block)
    }

    /// What offers of this market are signed for.
    pub fn domain(&self) -> OfferDomain {
        OfferDomain { chain_id: self.terms.chain_id, market: self.terms.market }
    }

    /// Reads of offers so far, by this reader and its clones, that the domain cannot hold exactly.
    pub fn inexact_offers(&self) -> u64 {
        self.inexact_offers.load(Ordering::Relaxed)
    }

    /// Logs so far that a node gave this reader or its clones twice.
    pub fn repeated_logs(&self) -> u64 {
        self.log_stats.repeated.load(Ordering::Relaxed)
    }

    /// Logs so far that a node left out of its answers to this reader or its clones.
    pub fn missing_logs(&self) -> u64 {
        self.log_stats.missing.load(Ordering::Relaxed)
    }

    /// Openings of deals under provider offers that name `agent`, from block `from` to the head, in order.
    pub async fn deals_of_agent(&self, agent: Address, from: u64) -> Result<Vec<PlacedEvent>, ChainError> {
        let head = self.rpc.head().await?.number;
        let offers = self.offers_of_agent(agent, head).await?;
        if offers.is_empty() {
            return Ok(Vec::new());
        }
        let offers: Vec<B256> = offers.into_iter().map(|hash| outward::word(hash.0)).collect();
        let filter = self.filter().event_signature(Market::DealOpened::SIGNATURE_HASH).topic3(offers);
        self.events_until_head(&filter, from).await
    }

    /// Provider offers that name `agent`. Those found before are remembered and looked for again no further back than
    /// [`REORG_MARGIN`]: one that a reorganisation took back has no deals, and does no harm.
    async fn offers_of_agent(&self, agent: Address, head: u64) -> Result<BTreeSet<OfferHash>, ChainError> {
        let deployed = self.terms.deployed_at_block;
        let (searched_to, mut offers) =
            self.memory().agents.get(&agent).cloned().unwrap_or((deployed, BTreeSet::new()));
        let topic = outward::address(agent).into_word();
        let filter = self.filter().event_signature(Market::ProviderOfferOpened::SIGNATURE_HASH).topic2(topic);
        let found = self.events_until_head(&filter, searched_to.saturating_sub(REORG_MARGIN).max(deployed)).await?;
        offers.extend(found.into_iter().filter_map(|placed| match placed.event {
            MarketEvent::ProviderOfferOpened { offer_hash, .. } => Some(offer_hash),
            _ => None,
        }));
        self.memory().agents.insert(agent, (head, offers.clone()));
        Ok(offers)
    }

    /// Terms of a developer offer, from the event that made it known to the chain.
    pub async fn developer_offer(&self, hash: OfferHash) -> Result<Option<DeveloperOffer>, ChainError> {
        let events = self.opening(Market::DeveloperOfferOpened::SIGNATURE_HASH, hash.0).await?;
        Ok(events.into_iter().find_map(|placed| match placed.event {
            MarketEvent::DeveloperOfferOpened { offer, .. } => Some(*offer),
            _ => None,
        }))
    }

    /// Terms of a provider offer, from the event that made it known to the chain.
    pub async fn provider_offer(&self, hash: OfferHash) -> Result<Option<ProviderOffer>, ChainError> {
        let events = self.opening(Market::ProviderOfferOpened::SIGNATURE_HASH, hash.0).await?;
        Ok(events.into_iter().find_map(|placed| match placed.event {
            MarketEvent::ProviderOfferOpened { offer, .. } => Some(*offer),
            _ => None,
        }))
    }

    /// A deal as of the latest block; `None` for one that never was. What it was made of is looked up in the events and
    /// remembered once it lies deep enough.
    pub async fn deal(&self, id: DealId) -> Result<Option<Deal>, ChainError> {
        let head = self.rpc.head().await?.number;
        let Some((reference, start)) = self.opening_of_deal(id, head).await? else { return Ok(None) };
        let view = self.view(&Market::dealCall { r#ref: outward::deal_ref(&reference) }).await?;
        inward::deal(start, &view).map_err(ChainError::inward("deal"))
    }

    async fn opening_of_deal(&self, id: DealId, head: u64) -> Result<Option<(DealRef, Epoch)>, ChainError> {
        if let Some(known) = self.memory().deals.get(&id) {
            return Ok(Some(*known));
        }
        let events = self.opening(Market::DealOpened::SIGNATURE_HASH, id.0).await?;
        let opened = events.into_iter().find_map(|placed| match placed.event {
            MarketEvent::DealOpened(opened) => Some((placed.block_number, opened)),
            _ => None,
        });
        let Some((block, opened)) = opened else { return Ok(None) };
        let Some(supply) = self.provider_offer(opened.provider_offer).await? else { return Ok(None) };
        let reference = DealRef {
            developer_offer: opened.developer_offer,
            provider: supply.provider,
            provider_offer: opened.provider_offer,
        };
        if head.saturating_sub(block) >= REORG_MARGIN {
            self.memory().deals.insert(id, (reference, opened.start_epoch));
        }
        Ok(Some((reference, opened.start_epoch)))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held, and all it holds can be looked up again.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `account` has in the market that is neither locked nor bonded.
    pub async fn free_balance(&self, account: Address) -> Result<Atoms, ChainError> {
        let free = self.view(&Market::freeBalanceCall { account: outward::address(account) }).await?;
        inward::wide_atoms("free balance", free).map_err(ChainError::inward("freeBalance"))
    }

    /// What `account` has of the market's token, outside the market. Above [`Atoms::MAX`] it reads as that.
    pub async fn token_balance(&self, account: Address) -> Result<Atoms, ChainError> {
        let call = TestUsdc::balanceOfCall { owner: outward::address(account) };
        let balance = self.rpc.view(self.terms.token, &call).await?;
        Ok(inward::wide_atoms("balance", balance).unwrap_or(Atoms::MAX))
    }

    /// Whether `agent` has attested `epoch`.
    pub async fn is_attested(&self, agent: Address, epoch: Epoch) -> Result<bool, ChainError> {
        self.view(&Market::isAttestedCall { agent: outward::address(agent), epoch: epoch.0 }).await
    }

    /// Whether `owner` has voided this offer.
    pub async fn is_cancelled(&self, owner: Address, hash: OfferHash) -> Result<bool, ChainError> {
        let call = Market::isCancelledCall { owner: outward::address(owner), offerHash: outward::word(hash.0) };
        self.view(&call).await
    }

    /// Offers of `owner` with a smaller nonce are void.
    pub async fn nonce_floor(&self, owner: Address) -> Result<u64, ChainError> {
        Ok(self.view(&Market::accountCall { owner: outward::address(owner) }).await?.nonceFloor)
    }

    /// What deals hold of a provider offer.
    pub async fn used_capacity(&self, provider: Address, offer: OfferHash) -> Result<Resources, ChainError> {
        let call =
            Market::providerOfferCall { provider: outward::address(provider), offerHash: outward::word(offer.0) };
        let shown = self.view(&call).await?;
        Ok(Resources { milli_cpu: shown.usedMilliCpu, memory_mib: shown.usedMemoryMib })
    }

    /// What the contract would refuse this fill for now, signatures and the least number of replicas apart;
    /// [`Reason::None`] if nothing.
    pub async fn check_fill(&self, developer: &DeveloperOffer, provider: &ProviderOffer) -> Result<Reason, ChainError> {
        let call = Market::checkFillCall {
            wanted: outward::developer_offer(developer),
            offered: outward::provider_offer(provider),
        };
        inward::reason(self.view(&call).await?).map_err(ChainError::inward("checkFill"))
    }

    /// The epoch of the latest block.
    pub async fn current_epoch(&self) -> Result<Epoch, ChainError> {
        Ok(self.terms.schedule.epoch_at(self.rpc.head().await?.timestamp))
    }

    /// Whether `signature` is `signer`'s over an offer: an account's own, or one that a contract accepts (EIP-1271).
    pub async fn is_valid_signature(
        &self,
        signer: Address,
        hash: OfferHash,
        signature: &[u8],
    ) -> Result<bool, ChainError> {
        if eip712::recover(hash, signature) == Some(signer) {
            return Ok(true);
        }
        if self.rpc.code(signer, BlockId::latest()).await?.is_empty() {
            return Ok(false);
        }
        let call = IERC1271::isValidSignatureCall { hash: outward::word(hash.0), signature: signature.to_vec().into() };
        match self.rpc.view_within(signer, &call, Some(ERC1271_GAS)).await {
            Ok(answer) => Ok(answer == ERC1271_MAGIC),
            Err(error) if error.is_transient() => Err(error),
            // Whatever else the contract does is a no.
            Err(_) => Ok(false),
        }
    }

    async fn view<C: SolCall>(&self, call: &C) -> Result<C::Return, ChainError> {
        self.rpc.view(self.terms.market, call).await
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter::new().address(outward::address(self.terms.market))
    }

    async fn opening(&self, event: B256, id: [u8; 32]) -> Result<Vec<PlacedEvent>, ChainError> {
        let filter = self.filter().event_signature(event).topic1(outward::word(id));
        self.events_until_head(&filter, self.terms.deployed_at_block).await
    }

    async fn events_until_head(&self, filter: &Filter, from: u64) -> Result<Vec<PlacedEvent>, ChainError> {
        let head = self.rpc.head().await?;
        if from > head.number {
            return Ok(Vec::new());
        }
        self.decode(&logs::in_range(&self.rpc, filter, (from, head.number), &self.log_stats).await?.logs)
    }

    pub(crate) fn decode(&self, logs: &[RawLog]) -> Result<Vec<PlacedEvent>, ChainError> {
        let domain = self.domain();
        let mut events = Vec::with_capacity(logs.len());
        for decoded in logs.iter().filter_map(|log| decode::log(&domain, log).transpose()) {
            let decoded = decoded?;
            if decoded.inexact {
                self.inexact_offers.fetch_add(1, Ordering::Relaxed);
                let (block, log_index) = (decoded.placed.block_number, decoded.placed.log_index);
                warn!(block, log_index, "an offer on the chain has values that no offer can have: read as closed");
            }
            events.push(decoded.placed);
        }
        Ok(events)
    }
}

fn not_a_market(error: ChainError, address: Address) -> ChainError {
    match error {
        ChainError::Reverted { .. } | ChainError::InvalidAnswer { .. } => ChainError::NoMarket { address },
        other => other,
    }
}

/// The first block at which the contract has code.
async fn deployment_block(rpc: &Rpc, market: Address) -> Result<u64, ChainError> {
    let (mut before, mut there) = (0, rpc.head().await?.number);
    while before < there {
        let middle = before.midpoint(there);
        if rpc.code(market, BlockId::number(middle)).await?.is_empty() {
            before = middle.saturating_add(1);
        } else {
            there = middle;
        }
    }
    Ok(there)
}
