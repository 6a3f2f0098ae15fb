//! An agent that is killed comes back to its worker, and the deal goes on.

use common::deal::DealState;

use crate::market::{UpMarket, eventually, sample_worker, signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_goes_on_when_its_agent_is_killed_in_the_middle_of_an_epoch() {
    let market = UpMarket::start(6).await;
    let worker = sample_worker();
    market.upload(&worker).await;
    market.deposit("50").await;
    let hash = market.submit(&market.offer(&worker, 1)).await;
    let deal = market.matched(hash, 1).await.remove(0);
    market.answered(hash).await;

    let billed = |deal: &common::deal::Deal| deal.settled_until > deal.start_epoch;
    eventually("a first epoch to be paid", async || market.reader.deal(deal.id).await.unwrap().filter(billed)).await;
    let host = market.summary["providers"].as_array().unwrap().iter();
    let host = host.clone().find(|provider| provider["provider"] == deal.provider.to_string()).unwrap();
    let killed_in = market.reader.current_epoch().await.unwrap();
    signal(u32::try_from(host["processId"].as_u64().unwrap()).unwrap(), libc::SIGKILL);

    // The worker answers again, and epochs after the crash are attested and paid.
    market.answered(hash).await;
    let later = eventually("an epoch after the crash to be paid", async || {
        market.reader.deal(deal.id).await.unwrap().filter(|deal| deal.settled_until > killed_in.plus(1))
    })
    .await;
    assert_eq!(later.state, DealState::Active);
    assert_eq!(later.provider, deal.provider, "no other provider took over");
    assert!(market.reader.is_attested(deal.agent, killed_in.plus(1)).await.unwrap());

    // The artifact was not fetched a second time: it came from the agent's cache.
    let url = format!("{}/metrics", host["endpoint"].as_str().unwrap());
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"agent_artifacts_total{origin="cache"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"agent_artifacts_total{origin="network"} 0"#), "{metrics}");
}
