//! A local market that is stopped goes on from its data.

use common::deal::DealState;

use crate::market::{UpMarket, eventually, sample_worker};

#[tokio::test(flavor = "multi_thread")]
async fn deals_survive_a_restart_of_the_whole_market() {
    let market = UpMarket::start(6).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    market.deposit("50").await;
    let hash = market.submit(&market.offer(&worker, 2)).await;
    let deals = market.matched(hash, 2).await;
    market.answered(hash).await;
    let contract = market.market();

    let mut market = market.restart().await;
    assert_eq!(market.market(), contract, "the same contract goes on");
    assert!(market.data_dir().join("market.json").is_file());
    market.answered(hash).await;
    for deal in deals {
        let later = eventually("an epoch after the restart to be paid", async || {
            market.reader.deal(deal.id).await.unwrap().filter(|later| later.settled_until > deal.start_epoch)
        })
        .await;
        assert_ne!(later.state, DealState::Ended);
    }
    market.interrupt().await;
}
