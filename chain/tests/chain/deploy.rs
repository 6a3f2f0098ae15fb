//! Deployments whose addresses are known before.

use chain::{DeployConfig, DeterministicDeployment, MarketReader, deploy_test_token, testing::Anvil};
use common::{epoch::EpochSchedule, ids::Address};
use serde_json::json;

const FACTORY: &str = "0x4e59b44847b379578588920ca78fbf26c0b4956c";

fn config(operator: Address) -> DeployConfig {
    DeployConfig {
        epoch_length: 60,
        attestation_window: 2,
        evict_after_missed: 3,
        bond_epochs: 4,
        min_prepaid_epochs: 5,
        grace_epochs: 6,
        notice_epochs: 7,
        operator,
    }
}

#[tokio::test]
async fn a_market_stands_where_its_parameters_say_and_is_made_once() {
    let anvil = Anvil::start().await;
    let sender = chain::TxSender::new(anvil.rpc(), anvil.key(0)).await.unwrap();
    let (token, _) = deploy_test_token(&sender).await.unwrap();
    let genesis = anvil.rpc().head().await.unwrap().timestamp - 100;
    let operator = anvil.key(5).address();
    let deployment = DeterministicDeployment::new(token, genesis, &config(operator), [3; 32]);
    assert_eq!(deployment.deploy(&sender).await.unwrap().len(), 2);

    let reader = MarketReader::connect(anvil.rpc(), deployment.market, None).await.unwrap();
    let terms = reader.terms();
    assert_eq!((terms.token, terms.operator, terms.schedule), (token, operator, EpochSchedule { genesis, length: 60 }));
    assert_eq!((terms.attestation_window, terms.evict_after_missed, terms.bond_epochs), (2, 3, 4));
    assert_eq!((terms.min_prepaid_epochs, terms.grace_epochs, terms.notice_epochs), (5, 6, 7));

    // From another account, and again: nothing is left to do.
    let other = chain::TxSender::new(anvil.rpc(), anvil.key(1)).await.unwrap();
    assert!(deployment.deploy(&other).await.unwrap().is_empty());
    let elsewhere = DeterministicDeployment::new(token, genesis, &config(operator), [4; 32]);
    assert_ne!(elsewhere.market, deployment.market);
    assert_eq!(DeterministicDeployment::new(token, genesis, &config(operator), [3; 32]), deployment);
}

#[tokio::test]
async fn a_chain_without_the_factory_gets_it_first() {
    let anvil = Anvil::start().await;
    anvil.call("anvil_setCode", json!([FACTORY, "0x"])).await;
    let sender = chain::TxSender::new(anvil.rpc(), anvil.key(0)).await.unwrap();
    let (token, _) = deploy_test_token(&sender).await.unwrap();
    let genesis = anvil.rpc().head().await.unwrap().timestamp;
    let deployment = DeterministicDeployment::new(token, genesis, &config(sender.address()), [0; 32]);
    assert_eq!(deployment.deploy(&sender).await.unwrap().len(), 3);
    assert!(MarketReader::connect(anvil.rpc(), deployment.market, None).await.is_ok());
    // The factory is the one that everybody uses: its code is known.
    let code = anvil.call("eth_getCode", json!([FACTORY, "latest"])).await;
    assert!(code.as_str().unwrap().starts_with("0x7fffffff"), "{code}");
}
