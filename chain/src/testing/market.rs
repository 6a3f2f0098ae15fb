//! A market on a chain of its own.

use common::{epoch::Epoch, ids::Address, money::Atoms};

use super::Anvil;
use crate::{
    calls,
    deploy::{self, DeployConfig},
    keys::Key,
    market::MarketReader,
    sender::TxSender,
};

/// A market whose account 0 is the operator.
///
/// Time stands still but for one second a block, so that no test depends on how fast it runs: [`TestMarket::next_epoch`]
/// moves it on.
#[derive(Debug)]
pub struct TestMarket {
    /// The chain.
    pub anvil: Anvil,
    /// Reads the market.
    pub reader: MarketReader,
    /// The test token.
    pub token: Address,
    /// The market.
    pub market: Address,
    /// Account 0, which made both contracts.
    pub deployer: TxSender,
}

impl TestMarket {
    /// Epochs of 60 s, attestable for 2 epochs; evicted after 3; bond, notice, grace and least prepayment of 2 epochs.
    pub async fn start() -> Self {
        let anvil = Anvil::start().await;
        anvil.set_block_timestamp_interval(1).await;
        let operator = anvil.key(0).address();
        let config = DeployConfig {
            epoch_length: 60,
            attestation_window: 2,
            evict_after_missed: 3,
            bond_epochs: 2,
            min_prepaid_epochs: 2,
            grace_epochs: 2,
            notice_epochs: 2,
            operator,
        };
        Self::deploy(anvil, &config).await
    }

    /// A market with other constants on a chain that is there, in that chain's own time.
    pub async fn deploy(anvil: Anvil, config: &DeployConfig) -> Self {
        let deployer = TxSender::new(anvil.rpc(), anvil.key(0)).await.unwrap();
        let (token, _) = deploy::deploy_test_token(&deployer).await.unwrap();
        let (market, receipt) = deploy::deploy_market(&deployer, token, config).await.unwrap();
        let reader = MarketReader::connect(anvil.rpc(), market, Some(receipt.block)).await.unwrap();
        Self { anvil, reader, token, market, deployer }
    }

    /// A sender for anvil's account `n`, 0 to 19.
    pub async fn sender(&self, n: usize) -> TxSender {
        self.sender_of(&self.anvil.key(n)).await
    }

    /// A sender for any key; it needs gas, see [`TestMarket::fund`] and [`Anvil::give_gas`].
    pub async fn sender_of(&self, key: &Key) -> TxSender {
        TxSender::new(self.anvil.rpc(), key.clone()).await.unwrap()
    }

    /// Gives a key's account gas and a free balance of `atoms` more in the market.
    pub async fn fund(&self, key: &Key, atoms: Atoms) {
        self.anvil.give_gas(key.address()).await;
        let sender = self.sender_of(key).await;
        self.mint(key.address(), atoms).await;
        sender.send(&calls::approve(self.token, self.market, atoms)).await.unwrap();
        sender.send(&calls::deposit(self.market, atoms)).await.unwrap();
    }

    /// Gives an account tokens outside the market.
    pub async fn mint(&self, account: Address, atoms: Atoms) {
        self.deployer.send(&calls::mint(self.token, account, atoms)).await.unwrap();
    }

    /// Mines the first block of the next epoch.
    pub async fn next_epoch(&self) -> Epoch {
        let next = self.reader.current_epoch().await.unwrap().plus(1);
        self.anvil.mine_at(self.reader.terms().schedule.start_of(next)).await;
        next
    }
}
