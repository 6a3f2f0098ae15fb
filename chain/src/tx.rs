//! Transactions before and after they are mined.

use alloy::{
    consensus::{TxEip1559, TxEnvelope},
    eips::eip2718::Decodable2718,
    primitives::{B256, U64},
};
use common::{event::PlacedEvent, ids::TxHash};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{convert::inward, decode, eip712::OfferDomain, error::ChainError, logs::RawLog};

/// What errors call a recorded transaction.
pub(crate) const PREPARED: &str = "prepared transaction";

/// A signed transaction: to be recorded before it is sent, so that a crash neither loses nor doubles it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedTx {
    /// Its hash, known before it is sent.
    pub hash: TxHash,
    /// What is broadcast. JSON form: hex.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub raw: Vec<u8>,
    /// Nonce of the account.
    pub nonce: u64,
    /// What it is, for errors and logs.
    pub label: String,
}

/// A mined transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxReceipt {
    /// The transaction.
    pub tx_hash: TxHash,
    /// Height of the block that has it.
    pub block: u64,
    /// Gas that it used.
    pub gas_used: u64,
    /// Whether it did what it should; false when it was reverted.
    pub success: bool,
    /// Events of the market, when the transaction called the market itself.
    pub events: Vec<PlacedEvent>,
}

/// A receipt as nodes give it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawReceipt {
    transaction_hash: B256,
    block_number: U64,
    gas_used: U64,
    pub(crate) status: U64,
    to: Option<alloy::primitives::Address>,
    pub(crate) contract_address: Option<alloy::primitives::Address>,
    logs: Vec<RawLog>,
}

impl PreparedTx {
    /// Most wei that it pays for a unit of gas.
    ///
    /// # Errors
    /// [`ChainError::InvalidAnswer`] where it is no transaction of a [`TxSender`](crate::TxSender).
    pub fn max_fee_per_gas(&self) -> Result<u128, ChainError> {
        Ok(self.fields()?.max_fee_per_gas)
    }

    /// Most gas that it uses.
    ///
    /// # Errors
    /// [`ChainError::InvalidAnswer`] where it is no transaction of a [`TxSender`](crate::TxSender).
    pub fn gas_limit(&self) -> Result<u64, ChainError> {
        Ok(self.fields()?.gas_limit)
    }

    pub(crate) fn fields(&self) -> Result<TxEip1559, ChainError> {
        let envelope = self.envelope()?;
        let fields = envelope.as_eip1559().map(|signed| signed.tx().clone());
        fields.ok_or_else(|| ChainError::invalid_answer(PREPARED, "no EIP-1559 transaction"))
    }

    pub(crate) fn envelope(&self) -> Result<TxEnvelope, ChainError> {
        TxEnvelope::decode_2718_exact(&self.raw).map_err(|error| ChainError::invalid_answer(PREPARED, error))
    }
}

impl RawReceipt {
    pub(crate) fn readable(&self, chain_id: u64) -> Result<TxReceipt, ChainError> {
        // Only what the called contract itself said: other contracts may imitate its events.
        let to = self.to.unwrap_or_default();
        let domain = OfferDomain { chain_id, market: inward::address(to) };
        let logs = self.logs.iter().filter(|log| log.address == to);
        let events = logs
            .filter_map(|log| decode::log(&domain, log).transpose())
            .map(|decoded| decoded.map(|decoded| decoded.placed))
            .collect::<Result<_, _>>()?;
        Ok(TxReceipt {
            tx_hash: TxHash(self.transaction_hash.0),
            block: self.block_number.to(),
            gas_used: self.gas_used.to(),
            success: !self.status.is_zero(),
            events,
        })
    }
}

fn to_hex<S: Serializer>(raw: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode_prefixed(raw))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}
