//! Making a market.

use alloy::sol_types::SolConstructor;
use common::ids::Address;
use contracts::{Market, TestUsdc};
use serde::{Deserialize, Serialize};

use crate::{convert::outward, error::ChainError, sender::TxSender, tx::TxReceipt};

/// Constants of a market to be made; they never change afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployConfig {
    /// Seconds; at least 1.
    pub epoch_length: u32,
    /// An epoch can be attested during this many epochs after it; 1 to 16.
    pub attestation_window: u32,
    /// Consecutive missed epochs after which anyone may evict; at least 1.
    pub evict_after_missed: u32,
    /// Bond in epochs of the deal's price.
    pub bond_epochs: u32,
    /// Least number of epochs that a developer offer locks ahead; at least 1.
    pub min_prepaid_epochs: u32,
    /// Epochs that an unfunded deal may stay open.
    pub grace_epochs: u32,
    /// Epochs between a provider's notice and the end.
    pub notice_epochs: u32,
    /// May pause new matches.
    pub operator: Address,
}

/// Makes a test token, which anyone may mint.
pub async fn deploy_test_token(sender: &TxSender) -> Result<(Address, TxReceipt), ChainError> {
    sender.create("deploy TestUsdc", &TestUsdc::BYTECODE).await
}

/// Makes a market that is paid in `token`.
pub async fn deploy_market(
    sender: &TxSender,
    token: Address,
    config: &DeployConfig,
) -> Result<(Address, TxReceipt), ChainError> {
    let constants = Market::MarketConfig {
        token: outward::address(token),
        operator: outward::address(config.operator),
        epochLength: config.epoch_length,
        attestationWindow: config.attestation_window,
        evictAfterMissed: config.evict_after_missed,
        bondEpochs: config.bond_epochs,
        minPrepaidEpochs: config.min_prepaid_epochs,
        graceEpochs: config.grace_epochs,
        noticeEpochs: config.notice_epochs,
    };
    let arguments = Market::constructorCall { constants }.abi_encode();
    let code = [Market::BYTECODE.as_ref(), &arguments].concat();
    sender.create("deploy Market", &code).await
}
