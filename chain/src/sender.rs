//! Transactions of one account.
//!
//! The nonce is the larger of what the node counts as mined and as pending, asked anew under a lock for every
//! transaction: a nonce that is only counted here goes wrong for ever after one failed send, and one that only the node
//! counts is given out twice. Who records transactions before they are sent names the nonces of those as well
//! ([`TxTerms::taken`]): a node that was just asked instead of another may not have heard of them yet.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use alloy::{
    consensus::{SignableTransaction, Transaction, TxEip1559, TxEnvelope},
    eips::{BlockId, eip2718::Encodable2718},
    primitives::{B256, Bytes, TxKind, U64, U128, U256},
    rpc::types::{TransactionInput, TransactionRequest},
    signers::SignerSync,
};
use common::ids::{Address, TxHash};
use tokio::{sync::Mutex, time::Instant};
use tracing::debug;

use crate::{
    calls::Call,
    convert::{inward, outward},
    error::ChainError,
    keys::Key,
    rpc::Rpc,
    tx::{PreparedTx, RawReceipt, TxReceipt},
};

/// How long [`TxSender::send`] waits for a transaction to be mined.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a transaction that is waited for is asked for.
const RECEIPT_INTERVAL: Duration = Duration::from_millis(200);

/// How often [`TxSender::send`] prepares a call whose nonce somebody else took.
const NONCE_ATTEMPTS: u32 = 3;

/// Tip where the node proposes none: 1 gwei.
const DEFAULT_TIP: u128 = 1_000_000_000;

/// Most gas of one transaction where EIP-7825 holds.
pub const TRANSACTION_GAS_CAP: u64 = 1 << 24;

/// Sends transactions of one account. Clones share the account's lock; a second sender of the same account, in this
/// process or another, is noticed by its nonces.
#[derive(Debug, Clone)]
pub struct TxSender {
    rpc: Rpc,
    key: Key,
    chain_id: u64,
    lock: Arc<Mutex<()>>,
}

/// What is to be sent; without a receiver it makes a contract.
pub(crate) struct Draft<'a> {
    pub(crate) to: Option<Address>,
    pub(crate) data: &'a [u8],
    /// Wei that go with it.
    pub(crate) value: U256,
    pub(crate) label: &'a str,
}

/// What gas costs, as of the latest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasPrice {
    /// Wei per unit that the next block burns, give or take an eighth.
    pub base: u128,
    /// Wei per unit that the node proposes as a tip.
    pub tip: u128,
    /// Most gas of one block.
    pub block_gas_limit: u64,
}

/// What a transaction may be like. [`TxTerms::default`] sets no limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxTerms {
    /// Nonces of the account's own transactions that are recorded and not mined.
    pub taken: BTreeSet<u64>,
    /// Least gas limit, whatever the estimate: for calls that may need more in the block that they come to be in.
    pub least_gas: u64,
    /// Most gas, as estimated and as limit.
    pub most_gas: u64,
    /// Most wei that are paid for a unit of gas.
    pub max_fee_per_gas: u128,
}

/// Wei per unit of gas that a transaction offers.
struct Fees {
    most: u128,
    tip: u128,
}

impl TxSender {
    /// A sender for `key`'s account on the chain that `rpc` serves.
    pub async fn new(rpc: Rpc, key: Key) -> Result<Self, ChainError> {
        let chain_id = rpc.chain_id().await?;
        Ok(Self { rpc, key, chain_id, lock: Arc::default() })
    }

    /// The account.
    pub fn address(&self) -> Address {
        self.key.address()
    }

    /// The endpoints that are sent to.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Simulates a call, estimates its gas and signs it with the next nonce. Nothing is sent: preparing twice without a
    /// broadcast in between uses the same nonce twice, and only one of the two can be mined.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] with the contract's reason when the call would fail now.
    pub async fn prepare(&self, call: &Call) -> Result<PreparedTx, ChainError> {
        self.prepare_within(call, &TxTerms::default()).await
    }

    /// Like [`TxSender::prepare`], within limits. The nonce is the lowest one that neither the node nor `terms` names as
    /// taken, so that a gap is filled before anything is put behind it.
    ///
    /// # Errors
    /// Those of [`TxSender::prepare`]; [`ChainError::GasAboveBudget`]; [`ChainError::FeeAboveCeiling`] while the base fee
    /// is above what may be paid.
    pub async fn prepare_within(&self, call: &Call, terms: &TxTerms) -> Result<PreparedTx, ChainError> {
        let _guard = self.lock.lock().await;
        self.prepare_draft(&Draft::from(call), terms).await
    }

    /// The same transaction with the same nonce at today's fees, and at least an eighth above its own, which is enough for
    /// nodes to take it in the other's place: for one that is not mined because fees rose. Where the ceiling leaves less
    /// room, a tenth, which is the least that nodes take.
    ///
    /// # Errors
    /// [`ChainError::FeeAboveCeiling`] where that is more than `max_fee_per_gas`; [`ChainError::InvalidAnswer`] where `tx`
    /// is no transaction of a sender like this one.
    pub async fn reprice(&self, tx: &PreparedTx, max_fee_per_gas: u128) -> Result<PreparedTx, ChainError> {
        let mut fields = tx.fields()?;
        let price = self.gas_price().await?;
        let least = raised(fields.max_fee_per_gas, 10);
        let needed = least.max(price.base);
        if needed > max_fee_per_gas {
            return Err(ChainError::FeeAboveCeiling { label: tx.label.clone(), needed, ceiling: max_fee_per_gas });
        }
        let fees = price.offered();
        fields.max_fee_per_gas = fees.most.max(raised(fields.max_fee_per_gas, 8)).min(max_fee_per_gas);
        let tip = fees.tip.max(raised(fields.max_priority_fee_per_gas, 8));
        fields.max_priority_fee_per_gas = tip.min(fields.max_fee_per_gas);
        self.sign(fields, &tx.label)
    }

    /// What gas costs now.
    ///
    /// # Errors
    /// [`ChainError::InvalidAnswer`] on chains without EIP-1559.
    pub async fn gas_price(&self) -> Result<GasPrice, ChainError> {
        let header = self.rpc.latest_header().await?;
        let tip = self.tip().await?;
        let base = header.base_fee_per_gas.ok_or_else(|| {
            ChainError::invalid_answer("eth_getBlockByNumber", "no baseFeePerGas: the chain must have EIP-1559")
        })?;
        Ok(GasPrice { base: base.to(), tip, block_gas_limit: header.gas_limit.to() })
    }

    /// Hands a transaction to the node. One that the node or the chain has already is fine.
    ///
    /// # Errors
    /// [`ChainError::NonceTaken`] when another transaction was mined in its place: prepare the call again.
    /// [`ChainError::Underpriced`] when the node does not even keep it, since the base fee is above what it offers.
    pub async fn broadcast(&self, tx: &PreparedTx) -> Result<(), ChainError> {
        let sent = self.rpc.request::<_, B256>("eth_sendRawTransaction", (Bytes::from(tx.raw.clone()),)).await;
        let (message, error) = match sent {
            Ok(_) => return Ok(()),
            Err(ChainError::Refused { method, code, message, transient }) => {
                (message.to_ascii_lowercase(), ChainError::Refused { method, code, message, transient })
            }
            Err(error) => return Err(error.labelled(&tx.label)),
        };
        let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
        if says(&["already known", "already imported", "known transaction", "already exists", "already in mempool"]) {
            return Ok(());
        }
        if says(&["insufficient funds"]) {
            return Err(ChainError::NoGas { account: self.address(), label: tx.label.clone() });
        }
        if says(&["less than block base fee", "fee cap too low", "feecap too low"]) {
            return Err(ChainError::Underpriced { label: tx.label.clone(), hash: tx.hash });
        }
        if says(&["nonce too low", "underpriced", "replacement", "nonce has already been used", "invalid nonce"]) {
            return match self.receipt(tx.hash).await? {
                Some(_) => Ok(()),
                None => {
                    Err(ChainError::NonceTaken { account: self.address(), nonce: tx.nonce, label: tx.label.clone() })
                }
            };
        }
        Err(error)
    }

    /// The receipt of a transaction; `None` while it is not mined.
    pub async fn receipt(&self, hash: TxHash) -> Result<Option<TxReceipt>, ChainError> {
        match self.raw_receipt(hash).await? {
            Some(raw) => raw.readable(self.chain_id).map(Some),
            None => Ok(None),
        }
    }

    /// Waits until a transaction is mined.
    ///
    /// # Errors
    /// [`ChainError::NotMined`] after `timeout`; what the node says when it cannot be asked at that moment.
    pub async fn wait(&self, hash: TxHash, timeout: Duration) -> Result<TxReceipt, ChainError> {
        let raw = self.wait_raw(hash, timeout).await?;
        raw.readable(self.chain_id)
    }

    /// Sends a call and waits up to 60 s until it is mined. The account's lock is held until the broadcast.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] when it would fail, or failed on the chain.
    pub async fn send(&self, call: &Call) -> Result<TxReceipt, ChainError> {
        let raw = self.send_draft(&Draft::from(call)).await?;
        raw.readable(self.chain_id)
    }

    /// Sends native tokens.
    pub(crate) async fn send_value(&self, label: &str, to: Address, wei: u128) -> Result<TxReceipt, ChainError> {
        let draft = Draft { to: Some(to), data: &[], value: U256::from(wei), label };
        self.send_draft(&draft).await?.readable(self.chain_id)
    }

    /// Makes a contract; its address and the receipt.
    pub(crate) async fn create(&self, label: &str, code: &[u8]) -> Result<(Address, TxReceipt), ChainError> {
        let raw = self.send_draft(&Draft { to: None, data: code, value: U256::ZERO, label }).await?;
        let made = raw.contract_address.map(inward::address);
        let address = made.ok_or_else(|| ChainError::invalid_answer("eth_getTransactionReceipt", "no contract"))?;
        Ok((address, raw.readable(self.chain_id)?))
    }

    /// Why a mined transaction failed, by calling it again on the state after its block: close enough, but not certain
    /// where other transactions of that block mattered.
    ///
    /// # Errors
    /// [`ChainError::InvalidAnswer`] where `tx` is no transaction; what the node says when it cannot be asked.
    pub async fn why_reverted(&self, tx: &PreparedTx, receipt: &TxReceipt) -> Result<String, ChainError> {
        let envelope = tx.envelope()?;
        let to = envelope.to().map(inward::address);
        let draft = Draft { to, data: envelope.input(), value: envelope.value(), label: &tx.label };
        let block = BlockId::number(receipt.block);
        match self.rpc.request::<_, Bytes>("eth_call", (self.request(&draft), block)).await {
            Err(ChainError::Reverted { reason, .. }) => Ok(reason),
            Err(error) if error.is_transient() => Err(error),
            _ => Ok("out of gas, or a reason that held only at its place in the block".to_owned()),
        }
    }

    async fn send_draft(&self, draft: &Draft<'_>) -> Result<RawReceipt, ChainError> {
        let tx = self.prepare_and_broadcast(draft).await?;
        let raw = self.wait_raw(tx.hash, SEND_TIMEOUT).await?;
        if raw.status.is_zero() {
            let reason = self.why_reverted(&tx, &raw.readable(self.chain_id)?).await;
            let reason = reason.unwrap_or_else(|error| format!("for a reason that cannot be asked for: {error}"));
            return Err(ChainError::Reverted { label: draft.label.to_owned(), reason });
        }
        Ok(raw)
    }

    async fn prepare_and_broadcast(&self, draft: &Draft<'_>) -> Result<PreparedTx, ChainError> {
        let _guard = self.lock.lock().await;
        let mut attempt = 1;
        loop {
            let tx = self.prepare_draft(draft, &TxTerms::default()).await?;
            match self.broadcast(&tx).await {
                Ok(()) => return Ok(tx),
                Err(ChainError::NonceTaken { nonce, .. }) if attempt < NONCE_ATTEMPTS => {
                    debug!(nonce, label = draft.label, "nonce was taken, preparing again");
                    attempt = attempt.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn prepare_draft(&self, draft: &Draft<'_>, terms: &TxTerms) -> Result<PreparedTx, ChainError> {
        let estimate = self.estimate(draft).await?;
        if estimate > terms.most_gas {
            let (label, budget) = (draft.label.to_owned(), terms.most_gas);
            return Err(ChainError::GasAboveBudget { label, estimate, budget });
        }
        let price = self.gas_price().await?;
        if price.base > terms.max_fee_per_gas {
            let (label, ceiling) = (draft.label.to_owned(), terms.max_fee_per_gas);
            return Err(ChainError::FeeAboveCeiling { label, needed: price.base, ceiling });
        }
        let fees = price.offered();
        let most = fees.most.min(terms.max_fee_per_gas);
        let tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.next_nonce(&terms.taken).await?,
            gas_limit: terms.gas_limit(estimate, price.block_gas_limit),
            max_fee_per_gas: most,
            max_priority_fee_per_gas: fees.tip.min(most),
            to: draft.to.map_or(TxKind::Create, |to| TxKind::Call(outward::address(to))),
            value: draft.value,
            access_list: Default::default(),
            input: Bytes::copy_from_slice(draft.data),
        };
        self.sign(tx, draft.label)
    }

    fn sign(&self, tx: TxEip1559, label: &str) -> Result<PreparedTx, ChainError> {
        let signature = self.key.signer().sign_hash_sync(&tx.signature_hash()).map_err(ChainError::key)?;
        let nonce = tx.nonce;
        let envelope = TxEnvelope::from(tx.into_signed(signature));
        let (hash, raw) = (TxHash(envelope.tx_hash().0), envelope.encoded_2718());
        Ok(PreparedTx { hash, raw, nonce, label: label.to_owned() })
    }

    async fn estimate(&self, draft: &Draft<'_>) -> Result<u64, ChainError> {
        match self.rpc.request::<_, U64>("eth_estimateGas", (self.request(draft),)).await {
            Ok(gas) => Ok(gas.to()),
            Err(error @ (ChainError::Reverted { .. } | ChainError::Refused { transient: false, .. })) => {
                // Some nodes tell the reason to a call only.
                let called: Result<Bytes, _> =
                    self.rpc.request("eth_call", (self.request(draft), BlockId::latest())).await;
                let reason = called.err().filter(|error| matches!(error, ChainError::Reverted { .. }));
                Err(reason.unwrap_or(error).labelled(draft.label))
            }
            Err(error) => Err(error),
        }
    }

    async fn tip(&self) -> Result<u128, ChainError> {
        match self.rpc.request::<_, U128>("eth_maxPriorityFeePerGas", ()).await {
            Ok(tip) => Ok(tip.to()),
            Err(ChainError::Refused { transient: false, .. }) => Ok(DEFAULT_TIP),
            Err(error) => Err(error),
        }
    }

    async fn next_nonce(&self, taken: &BTreeSet<u64>) -> Result<u64, ChainError> {
        let account = outward::address(self.address());
        let (mined, pending) = tokio::try_join!(
            self.rpc.request::<_, U64>("eth_getTransactionCount", (account, BlockId::latest())),
            self.rpc.request::<_, U64>("eth_getTransactionCount", (account, BlockId::pending())),
        )?;
        let mut nonce: u64 = mined.max(pending).to();
        while taken.contains(&nonce) {
            nonce = nonce.saturating_add(1);
        }
        Ok(nonce)
    }

    fn request(&self, draft: &Draft<'_>) -> TransactionRequest {
        TransactionRequest {
            from: Some(outward::address(self.address())),
            to: Some(draft.to.map_or(TxKind::Create, |to| TxKind::Call(outward::address(to)))),
            input: TransactionInput::new(Bytes::copy_from_slice(draft.data)),
            value: Some(draft.value),
            ..Default::default()
        }
    }

    async fn raw_receipt(&self, hash: TxHash) -> Result<Option<RawReceipt>, ChainError> {
        self.rpc.request("eth_getTransactionReceipt", (outward::word(hash.0),)).await
    }

    async fn wait_raw(&self, hash: TxHash, timeout: Duration) -> Result<RawReceipt, ChainError> {
        let deadline = Instant::now().checked_add(timeout);
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        loop {
            match self.raw_receipt(hash).await {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) if is_over() => return Err(ChainError::NotMined { hash, seconds: timeout.as_secs() }),
                Err(error) if is_over() || !error.is_transient() => return Err(error),
                Ok(None) | Err(_) => tokio::time::sleep(RECEIPT_INTERVAL).await,
            }
        }
    }
}

impl<'a> From<&'a Call> for Draft<'a> {
    fn from(call: &'a Call) -> Self {
        Self { to: Some(call.to), data: &call.data, value: U256::ZERO, label: call.label }
    }
}

impl Default for TxTerms {
    fn default() -> Self {
        Self { taken: BTreeSet::new(), least_gas: 0, most_gas: u64::MAX, max_fee_per_gas: u128::MAX }
    }
}

impl TxTerms {
    /// A quarter more than estimated, since the state may change until it is mined, within what a block and a transaction
    /// may use.
    fn gas_limit(&self, estimate: u64, block_limit: u64) -> u64 {
        let wanted = estimate.saturating_add(estimate.div_euclid(4)).max(self.least_gas);
        let wanted = wanted.min(self.most_gas).min(block_limit);
        // Chains without the cap may well estimate more than it.
        if estimate <= TRANSACTION_GAS_CAP { wanted.min(TRANSACTION_GAS_CAP) } else { wanted }
    }
}

impl GasPrice {
    /// Twice the base fee outlasts five full blocks in a row, each of which raises it by an eighth.
    const fn offered(&self) -> Fees {
        Fees { most: self.base.saturating_mul(2).saturating_add(self.tip), tip: self.tip }
    }
}

/// A fee and one `part`th of it more, and one wei, for what the division drops.
const fn raised(fee: u128, part: u128) -> u128 {
    match fee.checked_div(part) {
        Some(more) => fee.saturating_add(more).saturating_add(1),
        None => fee,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gas_limit_has_room_within_the_caps() {
        let free = TxTerms::default();
        assert_eq!(free.gas_limit(100_000, 30_000_000), 125_000);
        assert_eq!(free.gas_limit(100_000, 110_000), 110_000);
        assert_eq!(free.gas_limit(16_000_000, 30_000_000), TRANSACTION_GAS_CAP);
        assert_eq!(free.gas_limit(20_000_000, 30_000_000), 25_000_000);
        let bound = TxTerms { least_gas: 300_000, most_gas: 1_000_000, ..TxTerms::default() };
        assert_eq!(bound.gas_limit(100_000, 30_000_000), 300_000);
        assert_eq!(bound.gas_limit(900_000, 30_000_000), 1_000_000);
        assert_eq!(bound.gas_limit(100_000, 200_000), 200_000);
    }

    #[test]
    fn a_raised_fee_is_more_than_its_part_more() {
        assert_eq!(raised(0, 8), 1);
        assert_eq!(raised(79, 8), 89);
        assert_eq!(raised(u128::MAX, 8), u128::MAX);
    }
}
