//! Making a market.

use std::time::{Duration, Instant};

use alloy::{
    eips::BlockId,
    primitives::{B256, Bytes, hex},
    sol_types::SolValue,
};
use common::ids::Address;
use contracts::{Market, MarketExtension, TestUsdc};
use serde::{Deserialize, Serialize};

use crate::{
    calls::Call,
    convert::{inward, outward},
    error::ChainError,
    sender::TxSender,
    tx::TxReceipt,
};

/// The CREATE2 factory that stands at the same address on most chains: it deploys the code behind the first 32 bytes of its
/// input, which are the salt.
const FACTORY: Address = Address(hex!("4e59b44847b379578588920cA78FbF26c0B4956C"));
/// The account whose one transaction makes the factory; nobody has its key.
const FACTORY_MAKER: Address = Address(hex!("3fab184622dc19b6109349b94811493bf2a45362"));
/// Gas of that transaction, 100,000 units at 100 gwei.
const FACTORY_WEI: u128 = 10_000_000_000_000_000;
/// That transaction, signed for every chain.
const FACTORY_TRANSACTION: [u8; 167] = hex!(
    "f8a58085174876e800830186a08080b853604580600e600039806000f350fe7fffffffffffffffffffffffffffffffffffff"
    "ffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
    "1ba02222222222222222222222222222222222222222222222222222222222222222a0222222222222222222222222222222"
    "2222222222222222222222222222222222"
);
/// How long the factory may take to appear.
const FACTORY_TIMEOUT: Duration = Duration::from_secs(120);
const FACTORY_POLL: Duration = Duration::from_millis(250);

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

/// Makes a market that is paid in `token`: its extension, then the market itself. Epoch 0 begins with the latest block.
pub async fn deploy_market(
    sender: &TxSender,
    token: Address,
    config: &DeployConfig,
) -> Result<(Address, TxReceipt), ChainError> {
    let genesis = sender.rpc().head().await?.timestamp;
    let constants = constants(token, genesis, config);
    let (extension, _) = sender.create("deploy MarketExtension", &extension_code(&constants)).await?;
    sender.create("deploy Market", &market_code(&constants, extension)).await
}

/// A deployment whose addresses follow from what is deployed: the same constants and the same salt give the same addresses
/// on every chain, whoever sends the transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeterministicDeployment {
    /// Where the market's extension will stand.
    pub extension: Address,
    /// Where the market will stand.
    pub market: Address,
    salt: [u8; 32],
    extension_code: Vec<u8>,
    market_code: Vec<u8>,
}

impl DeterministicDeployment {
    /// What a market with these constants would be. `genesis` is the second at which its epoch 0 begins.
    pub fn new(token: Address, genesis: u64, config: &DeployConfig, salt: [u8; 32]) -> Self {
        let constants = constants(token, genesis, config);
        let extension_code = extension_code(&constants);
        let extension = created(salt, &extension_code);
        let market_code = market_code(&constants, extension);
        Self { extension, market: created(salt, &market_code), salt, extension_code, market_code }
    }

    /// Deploys what is not there yet, the factory included, and says what it sent. Safe to repeat: the addresses bind the
    /// code, so that whatever stands there is what was meant.
    pub async fn deploy(&self, sender: &TxSender) -> Result<Vec<TxReceipt>, ChainError> {
        let mut sent = Vec::new();
        if !is_deployed(sender, FACTORY).await? {
            sent.push(deploy_factory(sender).await?);
        }
        let contracts = [
            ("deploy MarketExtension", self.extension, &self.extension_code),
            ("deploy Market", self.market, &self.market_code),
        ];
        for (label, address, code) in contracts {
            if is_deployed(sender, address).await? {
                continue;
            }
            let data = [self.salt.as_slice(), code].concat();
            sent.push(sender.send(&Call { to: FACTORY, data, label }).await?);
            if !is_deployed(sender, address).await? {
                return Err(ChainError::invalid_answer("eth_getCode", "no contract where one was just deployed"));
            }
        }
        Ok(sent)
    }
}

/// Makes the factory by its author's transaction, whose one-time account is given the gas that it needs.
async fn deploy_factory(sender: &TxSender) -> Result<TxReceipt, ChainError> {
    let funded = sender.send_value("fund the CREATE2 factory", FACTORY_MAKER, FACTORY_WEI).await?;
    let raw = Bytes::from_static(&FACTORY_TRANSACTION);
    sender.rpc().request::<_, B256>("eth_sendRawTransaction", (raw,)).await?;
    let deadline = Instant::now().checked_add(FACTORY_TIMEOUT);
    while !is_deployed(sender, FACTORY).await? {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ChainError::invalid_answer("eth_getCode", "the CREATE2 factory was sent and does not appear"));
        }
        tokio::time::sleep(FACTORY_POLL).await;
    }
    Ok(funded)
}

async fn is_deployed(sender: &TxSender, address: Address) -> Result<bool, ChainError> {
    Ok(!sender.rpc().code(address, BlockId::latest()).await?.is_empty())
}

fn created(salt: [u8; 32], code: &[u8]) -> Address {
    inward::address(outward::address(FACTORY).create2_from_code(salt, code))
}

fn constants(token: Address, genesis: u64, config: &DeployConfig) -> Vec<u8> {
    let constants = Market::MarketConfig {
        token: outward::address(token),
        operator: outward::address(config.operator),
        genesis,
        epochLength: config.epoch_length,
        attestationWindow: config.attestation_window,
        evictAfterMissed: config.evict_after_missed,
        bondEpochs: config.bond_epochs,
        minPrepaidEpochs: config.min_prepaid_epochs,
        graceEpochs: config.grace_epochs,
        noticeEpochs: config.notice_epochs,
    };
    constants.abi_encode()
}

fn extension_code(constants: &[u8]) -> Vec<u8> {
    [MarketExtension::BYTECODE.as_ref(), constants].concat()
}

fn market_code(constants: &[u8], extension: Address) -> Vec<u8> {
    [Market::BYTECODE.as_ref(), constants, outward::address(extension).into_word().as_slice()].concat()
}
