//! Everything that speaks JSON-RPC to the chain, and nothing that decides anything.
//!
//! Layout: [`rpc`] (endpoints; `failover` and `health` choose among them), [`market`] (reads of one market; `blocks` its
//! events, block by block), [`at`] (its storage at a block), [`head`] (new blocks), [`sender`] (transactions of one
//! account), [`calls`] (what to send), [`keys`] (who signs), [`eip712`] (offer hashes), [`deploy`]. The converters between
//! the contract's types and the domain are private: no type of the RPC library leaves this crate.

mod abi;
pub mod at;
mod blocks;
pub mod calls;
mod convert;
mod decode;
pub mod deploy;
pub mod eip712;
pub mod error;
mod failover;
pub mod head;
mod health;
pub mod keys;
mod logs;
pub mod market;
mod permit;
pub mod rpc;
pub mod sender;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;

pub use at::{MarketAt, ReadAtError};
pub use blocks::{LogCheck, Window};
pub use calls::{Call, MatchProposal};
pub use deploy::{DeployConfig, DeterministicDeployment, deploy_market, deploy_test_token};
pub use eip712::{OfferDomain, deal_id, keccak256, recover};
pub use error::ChainError;
pub use head::HeadWatcher;
pub use keys::Key;
pub use market::MarketReader;
pub use permit::{Permit, PermitSignature};
pub use rpc::{EndpointLimits, Rpc};
pub use sender::{GasPrice, TxSender, TxTerms};
pub use tx::{PreparedTx, TxReceipt};
