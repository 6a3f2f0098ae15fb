//! Reads of a market's storage as it was after one block.
//!
//! The block is named by its hash (EIP-1898), so that answers of one [`MarketAt`] belong together whatever the chain does
//! meanwhile. Nodes keep the storage of old blocks only for a while, unless they are archives.

use alloy::{
    eips::BlockId,
    primitives::{Bytes, U256},
    rpc::types::TransactionRequest,
    sol_types::SolCall,
};
use common::{
    deal::{Deal, DealRef},
    epoch::Epoch,
    event::BlockRef,
    ids::{Address, Digest, OfferHash, ReceiptRoot},
    resources::Resources,
};
use contracts::{Market, TestUsdc};
use thiserror::Error;

use crate::{
    convert::{inward, outward},
    error::ChainError,
    market::MarketReader,
};

/// Why storage could not be read.
#[derive(Debug, Error)]
pub enum ReadAtError {
    /// The node does not keep the storage of that block.
    #[error(
        "the node does not have the contract's storage at block {block} ({message}): use an archive node, or a later block"
    )]
    StateGone {
        /// Height.
        block: u64,
        /// The node's words.
        message: String,
    },
    /// The contract refuses to show it, or shows what its interface excludes: its storage is not what its code writes.
    #[error("the contract's storage cannot be read")]
    Unreadable(#[source] ChainError),
    /// The node gave no usable answer.
    #[error("the contract's storage was not read")]
    Chain(#[source] ChainError),
}

/// What the contract keeps of an account. Amounts are in atoms and as wide as they are stored: a reader that compares
/// must see whatever is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Neither locked nor bonded.
    pub free: u128,
    /// Offers with a smaller nonce are void.
    pub nonce_floor: u64,
    /// Commitment to all receipt roots that the account has attested as an agent, in their order; zero for none.
    pub receipts: ReceiptRoot,
}

/// What the contract keeps of a provider offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderOfferRecord {
    /// Whose attestations count; zero while the contract does not know the offer.
    pub agent: Address,
    /// Who is paid.
    pub payout: Address,
    /// What deals hold of it.
    pub used: Resources,
    /// Voided by its hash.
    pub cancelled: bool,
}

/// What the contract keeps of a developer offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeveloperOfferRecord {
    /// Who pays; zero while the contract does not know the offer.
    pub developer: Address,
    /// Replicas that have a host.
    pub live_replicas: u16,
    /// First epoch after the term; 0 before the first match.
    pub end_epoch: Epoch,
    /// Epochs locked ahead for each replica.
    pub prepaid_epochs: u32,
    /// Per replica.
    pub size: Resources,
    /// Updates of the artifact that were carried out.
    pub version: u32,
    /// The last update's artifact; zero without one.
    pub artifact: Digest,
    /// The last update's manifest; zero without one.
    pub manifest: Digest,
}

/// A market's storage after one block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MarketAt {
    reader: MarketReader,
    block: BlockRef,
}

impl MarketAt {
    pub(crate) const fn new(reader: MarketReader, block: BlockRef) -> Self {
        Self { reader, block }
    }

    /// The block that is read at.
    pub const fn block(&self) -> BlockRef {
        self.block
    }

    /// One account.
    pub async fn account(&self, owner: Address) -> Result<AccountRecord, ReadAtError> {
        let view = self.view(&Market::accountCall { owner: outward::address(owner) }).await?;
        let receipts = ReceiptRoot(view.receiptsHash.0);
        Ok(AccountRecord { free: wide(view.free), nonce_floor: view.nonceFloor, receipts })
    }

    /// One deal; `None` where the contract has none of this name. It does not keep where a deal started: `start` is
    /// taken over as it is.
    pub async fn deal(&self, reference: &DealRef, start: Epoch) -> Result<Option<Deal>, ReadAtError> {
        let view = self.view(&Market::dealCall { r#ref: outward::deal_ref(reference) }).await?;
        inward::deal(start, &view).map_err(ChainError::inward("deal")).map_err(ReadAtError::Unreadable)
    }

    /// One provider offer.
    pub async fn provider_offer(&self, owner: Address, hash: OfferHash) -> Result<ProviderOfferRecord, ReadAtError> {
        let call = Market::providerOfferCall { provider: outward::address(owner), offerHash: outward::word(hash.0) };
        let view = self.view(&call).await?;
        Ok(ProviderOfferRecord {
            agent: inward::address(view.agent),
            payout: inward::address(view.payout),
            used: Resources { milli_cpu: view.usedMilliCpu, memory_mib: view.usedMemoryMib },
            cancelled: view.cancelled,
        })
    }

    /// One developer offer.
    pub async fn developer_offer(&self, hash: OfferHash) -> Result<DeveloperOfferRecord, ReadAtError> {
        let view = self.view(&Market::developerOfferCall { offerHash: outward::word(hash.0) }).await?;
        Ok(DeveloperOfferRecord {
            developer: inward::address(view.developer),
            live_replicas: view.liveReplicas,
            end_epoch: Epoch(view.endEpoch),
            prepaid_epochs: view.prepaidEpochs,
            size: Resources { milli_cpu: view.milliCpu, memory_mib: view.memoryMib },
            version: view.version,
            artifact: Digest(view.artifact.0),
            manifest: Digest(view.manifest.0),
        })
    }

    /// Whether `owner` has voided this offer by its hash.
    pub async fn is_cancelled(&self, owner: Address, hash: OfferHash) -> Result<bool, ReadAtError> {
        let call = Market::isCancelledCall { owner: outward::address(owner), offerHash: outward::word(hash.0) };
        self.view(&call).await
    }

    /// Number of epochs in `[from, to)` that `agent` has attested. Within one word of the contract's bitmap its bits are
    /// counted; over several, the counts that the words carry are believed, as the contract does.
    pub async fn attested_epochs(&self, agent: Address, from: Epoch, to: Epoch) -> Result<u128, ReadAtError> {
        let call = Market::attestedEpochsCall { agent: outward::address(agent), from: from.0, to: to.0 };
        self.view(&call).await.map(wide)
    }

    /// Whether new matches are stopped.
    pub async fn matching_paused(&self) -> Result<bool, ReadAtError> {
        self.view(&Market::matchingPausedCall {}).await
    }

    /// Atoms of the market's token that the contract holds, by the token.
    pub async fn tokens_held(&self) -> Result<u128, ReadAtError> {
        let terms = self.reader.terms();
        let call = TestUsdc::balanceOfCall { owner: outward::address(terms.market) };
        self.call(terms.token, &call).await.map(wide)
    }

    async fn view<C: SolCall>(&self, call: &C) -> Result<C::Return, ReadAtError> {
        self.call(self.reader.terms().market, call).await
    }

    async fn call<C: SolCall>(&self, contract: Address, call: &C) -> Result<C::Return, ReadAtError> {
        let request = TransactionRequest::default().to(outward::address(contract)).input(call.abi_encode().into());
        let block = BlockId::hash(outward::word(self.block.hash.0));
        let answer: Result<Bytes, ChainError> = self.reader.rpc().request("eth_call", (request, block)).await;
        let answer = answer.map_err(|error| classified(self.block.number, error.labelled(C::SIGNATURE)))?;
        C::abi_decode_returns(&answer)
            .map_err(|error| ReadAtError::Unreadable(ChainError::invalid_answer(C::SIGNATURE, error)))
    }
}

/// Larger than any amount of atoms there can be reads as the largest.
fn wide(value: U256) -> u128 {
    u128::try_from(value).unwrap_or(u128::MAX)
}

fn classified(block: u64, error: ChainError) -> ReadAtError {
    match error {
        ChainError::Refused { message, .. } if means_state_is_gone(&message) => {
            ReadAtError::StateGone { block, message }
        }
        error @ ChainError::Reverted { .. } => ReadAtError::Unreadable(error),
        error => ReadAtError::Chain(error),
    }
}

/// Whether a node's error says that it does not keep that block's storage. There is no code for it; these are the words of
/// the common clients and public providers.
pub fn means_state_is_gone(message: &str) -> bool {
    const WORDS: [&str; 13] = [
        "missing trie node",
        "header not found",
        "historical state",
        "state not available",
        "state is not available",
        "state unavailable",
        "state already discarded",
        "state histories",
        "no state available",
        "pruned",
        "archive",
        "world state",
        "blockoutofrange",
    ];
    let message = message.to_ascii_lowercase();
    WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_nodes_without_old_states_are_known() {
        for message in [
            "missing trie node 3f…a1 (path ) state 0x3f…a1 is not available",
            "header not found",
            "historical state 0x12 is not available, not found",
            "No state available for block 0x12",
            "pruned history unavailable",
            "This request is not supported because your node is running with state pruning. Run with --pruning=archive.",
            "World state unavailable",
            "BlockOutOfRangeError: block height is 105 but requested was 50",
        ] {
            let refused =
                ChainError::Refused { method: "eth_call", code: -32000, message: message.into(), transient: true };
            let error = classified(7, refused);
            assert!(matches!(&error, ReadAtError::StateGone { block: 7, .. }), "{message}");
            assert!(error.to_string().contains("archive node"), "{error}");
        }
        let refused = |message: &str| ChainError::Refused {
            method: "eth_call",
            code: -32005,
            message: message.to_owned(),
            transient: true,
        };
        assert!(matches!(classified(7, refused("rate limit exceeded")), ReadAtError::Chain(_)));
        let reverted = ChainError::Reverted { label: "deal".to_owned(), reason: "ProviderOfferMismatch".to_owned() };
        assert!(matches!(classified(7, reverted), ReadAtError::Unreadable(_)));
    }
}
