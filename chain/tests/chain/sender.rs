//! Transactions: reasons of failures, nonces, receipts, crashes between the steps.

use std::time::Duration;

use chain::{ChainError, PreparedTx, calls, testing::TestMarket};
use common::{
    deal::DealRef,
    event::MarketEvent,
    ids::{Address, OfferHash},
};

use crate::offers::{atoms, developer_offer, provider_offer};

#[tokio::test]
async fn a_call_that_would_fail_is_not_sent_and_says_why() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    let error = sender.send(&calls::withdraw(market.market, atoms(10), sender.address())).await.unwrap_err();
    assert_eq!(error.to_string(), "withdraw was reverted: BalanceTooLow(free: 0, needed: 10)");
    assert!(!error.is_transient());

    let unknown =
        DealRef { developer_offer: OfferHash([1; 32]), provider: sender.address(), provider_offer: OfferHash([2; 32]) };
    let id = chain::deal_id(unknown.developer_offer, unknown.provider);
    let error = sender.prepare(&calls::close_deal(market.market, &unknown)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("closeDeal was reverted: DealNotOpen(dealId: {id})"));
    let pause = sender.send(&calls::set_matching_paused(market.market, true)).await.unwrap_err();
    assert!(pause.to_string().contains(&format!("NotOperator(caller: {})", sender.address())), "{pause}");
}

#[tokio::test]
async fn events_come_with_the_receipt() {
    let market = TestMarket::start().await;
    let key = market.anvil.key(1);
    let sender = market.sender(1).await;
    market.mint(key.address(), atoms(100)).await;
    let approved = sender.send(&calls::approve(market.token, market.market, atoms(100))).await.unwrap();
    assert!(approved.success && approved.events.is_empty(), "the token's events are none of the market's");
    let receipt = sender.send(&calls::deposit(market.market, atoms(100))).await.unwrap();
    let account = key.address();
    let deposited = MarketEvent::Deposited { account, from: account, amount: atoms(100) };
    assert_eq!(receipt.events.iter().map(|placed| &placed.event).collect::<Vec<_>>(), [&deposited]);
    assert!(receipt.gas_used > 21_000);
    assert_eq!(receipt.events[0].tx_hash, receipt.tx_hash);
}

#[tokio::test]
async fn many_sends_at_once_use_every_nonce_once() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    let (token, to) = (market.token, sender.address());
    let sends = (0..12).map(|_| {
        let sender = sender.clone();
        async move { sender.send(&calls::mint(token, to, atoms(5))).await }
    });
    for receipt in futures::future::join_all(sends).await {
        assert!(receipt.unwrap().success);
    }
    assert_eq!(market.reader.token_balance(to).await.unwrap(), atoms(60));
}

#[tokio::test]
async fn a_nonce_that_was_lost_does_not_wedge_the_sender() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    let mint = calls::mint(market.token, sender.address(), atoms(5));
    let never_sent = sender.prepare(&mint).await.unwrap();
    // Another process of the same account.
    let other = market.sender(1).await;
    assert_eq!(other.send(&mint).await.unwrap().events, []);
    let error = sender.broadcast(&never_sent).await;
    // The same call with the same nonce and fees is the very same transaction.
    assert!(error.is_ok(), "{error:?}");

    let stale = sender.prepare(&mint).await.unwrap();
    other.send(&calls::mint(market.token, sender.address(), atoms(6))).await.unwrap();
    let error = sender.broadcast(&stale).await.unwrap_err();
    assert!(matches!(error, ChainError::NonceTaken { nonce, .. } if nonce == stale.nonce), "{error}");
    assert!(error.is_transient());
    assert!(sender.send(&mint).await.unwrap().success);
}

#[tokio::test]
async fn a_recorded_transaction_survives_a_crash_at_any_step() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    market.anvil.set_automine(false).await;
    let tx = sender.prepare(&calls::mint(market.token, sender.address(), atoms(5))).await.unwrap();
    let recorded = serde_json::to_string(&tx).unwrap();

    // Crash before the broadcast, and after it: what was recorded is sent again.
    let tx: PreparedTx = serde_json::from_str(&recorded).unwrap();
    assert_eq!(sender.receipt(tx.hash).await.unwrap(), None);
    for _ in 0..2 {
        sender.broadcast(&tx).await.unwrap();
    }
    let error = sender.wait(tx.hash, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, ChainError::NotMined { hash, .. } if hash == tx.hash), "{error}");

    // What is pending counts: the next nonce is another one.
    let next = sender.prepare(&calls::mint(market.token, sender.address(), atoms(6))).await.unwrap();
    assert_eq!(next.nonce, tx.nonce + 1);

    market.anvil.mine(1).await;
    assert!(sender.wait(tx.hash, Duration::from_secs(60)).await.unwrap().success);
    sender.broadcast(&tx).await.unwrap();
    assert_eq!(market.reader.token_balance(sender.address()).await.unwrap(), atoms(5));
}

#[tokio::test]
async fn a_failure_on_the_chain_says_why() {
    let market = TestMarket::start().await;
    let owner = market.anvil.key(1);
    market.mint(owner.address(), atoms(70)).await;
    let permit = market.reader.permit(owner.address(), atoms(70), u64::from(u32::MAX)).await.unwrap();
    let signature = owner.sign_permit(&permit).unwrap();
    let deposit = calls::deposit_with_permit(market.market, owner.address(), atoms(70), permit.deadline, &signature);
    market.anvil.set_automine(false).await;
    // Two relay the same permit: each would succeed alone.
    let relays = [market.sender(4).await, market.sender(5).await];
    let prepared = [relays[0].prepare(&deposit).await.unwrap(), relays[1].prepare(&deposit).await.unwrap()];
    let mut failures = Vec::new();
    for (relay, tx) in relays.iter().zip(&prepared) {
        relay.broadcast(tx).await.unwrap();
    }
    market.anvil.mine(1).await;
    for (relay, tx) in relays.iter().zip(&prepared) {
        let receipt = relay.wait(tx.hash, Duration::from_secs(60)).await.unwrap();
        if !receipt.success {
            failures.push(relay.why_reverted(tx, &receipt).await.unwrap());
        }
    }
    assert_eq!(failures, ["TokenTransferFailed()"]);
}

#[tokio::test]
async fn a_stuck_transaction_is_replaced_by_a_dearer_one() {
    let market = TestMarket::start().await;
    let sender = market.sender(1).await;
    market.anvil.set_automine(false).await;
    let stuck = sender.prepare(&calls::mint(market.token, sender.address(), atoms(5))).await.unwrap();
    sender.broadcast(&stuck).await.unwrap();
    let dearer = sender.reprice(&stuck, u128::MAX).await.unwrap();
    assert_eq!(dearer.nonce, stuck.nonce);
    sender.broadcast(&dearer).await.unwrap();
    market.anvil.mine(1).await;
    assert!(sender.wait(dearer.hash, Duration::from_secs(60)).await.unwrap().success);
    assert_eq!(sender.receipt(stuck.hash).await.unwrap(), None);
    let error = sender.broadcast(&stuck).await.unwrap_err();
    assert!(matches!(error, ChainError::NonceTaken { .. }), "{error}");
    assert_eq!(market.reader.token_balance(sender.address()).await.unwrap(), atoms(5));
}

#[tokio::test]
async fn an_account_without_gas_is_told_so() {
    let market = TestMarket::start().await;
    let key = chain::Key::random();
    let sender = market.sender_of(&key).await;
    let error = sender.send(&calls::mint(market.token, sender.address(), atoms(5))).await.unwrap_err();
    assert!(matches!(error, ChainError::NoGas { account, .. } if account == key.address()), "{error}");
    assert!(error.is_transient(), "somebody may send it some");
}

#[tokio::test]
async fn several_calls_go_in_one_transaction_or_none() {
    let market = TestMarket::start().await;
    let key = market.anvil.key(1);
    let sender = market.sender(1).await;
    market.fund(&key, atoms(1_000_000)).await;
    let (supply, demand) = (provider_offer(key.address()), developer_offer(key.address()));
    let both =
        vec![calls::post_provider_offer(market.market, &supply), calls::post_developer_offer(market.market, &demand)];
    assert_eq!(sender.send(&calls::multicall(market.market, both.clone())).await.unwrap().events.len(), 2);
    let error = sender.send(&calls::multicall(market.market, both)).await.unwrap_err();
    assert!(error.to_string().contains("OfferAlreadyOpened(offerHash: 0x"), "{error}");
}

#[tokio::test]
async fn a_permit_pays_in_without_an_approval() {
    let market = TestMarket::start().await;
    let owner = chain::Key::random();
    market.mint(owner.address(), atoms(70)).await;
    let permit = market.reader.permit(owner.address(), atoms(70), u64::from(u32::MAX)).await.unwrap();
    let signature = owner.sign_permit(&permit).unwrap();
    let deposit =
        calls::deposit_with_permit(market.market, owner.address(), permit.amount, permit.deadline, &signature);
    // The owner has no gas; anyone relays it.
    market.deployer.send(&deposit).await.unwrap();
    assert_eq!(market.reader.free_balance(owner.address()).await.unwrap(), atoms(70));
    assert_eq!(market.reader.free_balance(Address::ZERO).await.unwrap(), atoms(0));
}
