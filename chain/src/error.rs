//! What can go wrong between here and the chain. The first question is always [`ChainError::is_transient`].

use alloy::{
    rpc::json_rpc::RpcError,
    transports::{TransportError, TransportErrorKind},
};
use common::ids::{Address, TxHash};
use thiserror::Error;

use crate::{abi, convert::ConvertError};

/// A failed request, transaction, decoding or key.
#[derive(Debug, Error)]
pub enum ChainError {
    /// No endpoint answered `method` in time.
    #[error("no RPC endpoint answered {method}")]
    Unreachable {
        /// JSON-RPC method.
        method: &'static str,
        /// What the last endpoint said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A node answered `method` with an error.
    #[error("the node refused {method}: {message} (code {code})")]
    Refused {
        /// JSON-RPC method.
        method: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// The node's words, at most 500 characters.
        message: String,
        /// Whether it is a rate limit or a passing condition of the node.
        transient: bool,
    },
    /// A node's answer to `what` is not what the protocol or the contract's interface says.
    #[error("unexpected answer to {what}: {detail}")]
    InvalidAnswer {
        /// Method or contract function.
        what: &'static str,
        /// What is wrong with it, at most 500 characters.
        detail: String,
    },
    /// The endpoints serve another chain than the one configured.
    #[error("the RPC endpoint serves chain {actual}, but chain {expected} is configured: change one of them")]
    WrongChain {
        /// Chain id that was asked for.
        expected: u64,
        /// Chain id that the endpoint names.
        actual: u64,
    },
    /// There is no Market contract at the address.
    #[error("there is no Market contract at {address} on this chain: check the address and the endpoint")]
    NoMarket {
        /// Where it should be.
        address: Address,
    },
    /// The node left out logs of a block.
    #[error(
        "the node left out logs of block {block}: its other answers and the block's bloom tell so; add another endpoint"
    )]
    LogsMissing {
        /// The block.
        block: u64,
    },
    /// An endpoint that is no HTTP URL, or none at all.
    #[error("RPC endpoint {endpoint:?} {problem}")]
    InvalidEndpoint {
        /// The text, at most 80 characters.
        endpoint: String,
        /// What is wrong with it and what to write.
        problem: &'static str,
    },
    /// A log of the market that its interface cannot have emitted.
    #[error("event {event} in block {block}, log {log_index}, cannot be decoded: {detail}")]
    InvalidEvent {
        /// Height.
        block: u64,
        /// Place in the block.
        log_index: u64,
        /// Name of the event.
        event: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The node refuses to return the logs of even this one block.
    #[error("block {block} has more logs than the RPC endpoint returns: use another endpoint")]
    TooManyLogs {
        /// Height.
        block: u64,
    },
    /// A block is not, or no longer, on the canonical chain.
    #[error("block {number} is not on the canonical chain: the chain was reorganised or the node lags")]
    BlockGone {
        /// Height.
        number: u64,
    },
    /// A call or transaction was reverted by the contract.
    #[error("{label} was reverted: {reason}")]
    Reverted {
        /// What was called.
        label: String,
        /// The contract's error, such as `BalanceTooLow(free: 5, needed: 10)`.
        reason: String,
    },
    /// Another transaction of the account took the nonce first: prepare the call anew.
    #[error("nonce {nonce} of {account} is taken by another transaction: prepare {label} again")]
    NonceTaken {
        /// The sender.
        account: Address,
        /// The nonce.
        nonce: u64,
        /// What should have been sent.
        label: String,
    },
    /// The sender cannot pay for gas.
    #[error("{account} has too little of the chain's own currency to pay for the gas of {label}: send it some")]
    NoGas {
        /// The sender.
        account: Address,
        /// What should have been sent.
        label: String,
    },
    /// A unit of gas costs more than may be paid.
    #[error(
        "gas for {label} needs {needed} wei a unit, which is above the ceiling of {ceiling} wei: wait until it is cheaper, \
         or raise the ceiling"
    )]
    FeeAboveCeiling {
        /// What should be sent.
        label: String,
        /// Wei a unit, at least.
        needed: u128,
        /// Wei a unit, at most.
        ceiling: u128,
    },
    /// The node does not take a transaction that offers less than the base fee.
    #[error("transaction {hash} ({label}) offers less than the base fee, and the node does not keep it")]
    Underpriced {
        /// What should be sent.
        label: String,
        /// The transaction.
        hash: TxHash,
    },
    /// A call needs more gas than it may.
    #[error("{label} needs {estimate} gas, which is above its budget of {budget}")]
    GasAboveBudget {
        /// What should be sent.
        label: String,
        /// As estimated.
        estimate: u64,
        /// At most.
        budget: u64,
    },
    /// A transaction was sent and is not mined yet.
    #[error("transaction {hash} is not mined after {seconds} s; it may still be")]
    NotMined {
        /// The transaction.
        hash: TxHash,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A private key, keystore or signature is unusable.
    #[error("{0}")]
    Key(String),
}

impl ChainError {
    /// Whether the same thing may succeed when it is tried again later.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::BlockGone { .. }
            | Self::LogsMissing { .. }
            | Self::NonceTaken { .. }
            | Self::NoGas { .. }
            | Self::FeeAboveCeiling { .. }
            | Self::Underpriced { .. }
            | Self::NotMined { .. } => true,
            Self::Refused { transient, .. } => *transient,
            Self::InvalidAnswer { .. }
            | Self::WrongChain { .. }
            | Self::NoMarket { .. }
            | Self::InvalidEndpoint { .. }
            | Self::InvalidEvent { .. }
            | Self::TooManyLogs { .. }
            | Self::Reverted { .. }
            | Self::GasAboveBudget { .. }
            | Self::Key(_) => false,
        }
    }

    pub(crate) fn from_rpc(method: &'static str, error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => match payload.as_revert_data() {
                Some(data) if !data.is_empty() => {
                    Self::Reverted { label: method.to_owned(), reason: abi::revert_reason(&data) }
                }
                _ if is_revert(&payload.message) => {
                    Self::Reverted { label: method.to_owned(), reason: cut(&payload.message) }
                }
                _ => Self::Refused {
                    method,
                    code: payload.code,
                    transient: payload.is_retry_err(),
                    message: cut(&payload.message),
                },
            },
            RpcError::NullResp => Self::invalid_answer(method, "null"),
            RpcError::DeserError { err, .. } => Self::invalid_answer(method, err),
            RpcError::Transport(TransportErrorKind::Custom(source)) => Self::Unreachable { method, source },
            other => Self::Unreachable { method, source: Box::new(other) },
        }
    }

    pub(crate) fn invalid_answer(what: &'static str, detail: impl ToString) -> Self {
        Self::InvalidAnswer { what, detail: cut(&detail.to_string()) }
    }

    pub(crate) fn inward(what: &'static str) -> impl FnOnce(ConvertError) -> Self {
        move |error| Self::invalid_answer(what, error)
    }

    pub(crate) fn key(problem: impl ToString) -> Self {
        Self::Key(problem.to_string())
    }

    /// Says what was being called when it was reverted.
    pub(crate) fn labelled(self, name: &str) -> Self {
        match self {
            Self::Reverted { reason, .. } => Self::Reverted { label: name.to_owned(), reason },
            other => other,
        }
    }
}

fn is_revert(message: &str) -> bool {
    message.to_ascii_lowercase().contains("revert")
}

fn cut(text: &str) -> String {
    text.chars().take(500).collect()
}
