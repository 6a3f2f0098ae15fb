//! Endpoints that do things wrong, and chains that change their mind: in the end the rows equal the chain.

use std::{sync::Arc, time::Duration};

use chain::{EndpointLimits, MarketReader, Rpc, calls};
use common::{clock::SystemClock, shutdown::Shutdown};
use indexer::{Indexer, Location};
use migrations::testing::Postgres;

use crate::{
    dump::dump,
    proxy::{Fault, Proxy},
    scene::{Scene, config},
};

/// Faults under which one endpoint alone is enough.
const BEARABLE: [Fault; 6] = [
    Fault::RepeatsLogs,
    Fault::DropsLogs,
    Fault::MostBlocks(3),
    Fault::MostLogs(2),
    Fault::NoBatches,
    Fault::HeadAbove(5),
];

/// Faults that must end, or be got round by another endpoint.
const UNBEARABLE: [Fault; 8] = [
    Fault::Silent,
    Fault::HeadBelow(30),
    Fault::Behind(30),
    Fault::NullBlocks,
    Fault::Limited(None),
    Fault::Limited(Some(1)),
    Fault::Truncates,
    Fault::HeadAbove(1_000),
];

/// An indexer of a new database that reads through these endpoints.
async fn indexer(scene: &Scene, endpoints: &[&str], database: Location) -> Indexer {
    let limits = EndpointLimits {
        timeout: Duration::from_secs(2),
        compare_every: Duration::from_millis(50),
        ..EndpointLimits::default()
    };
    let endpoints: Vec<String> = endpoints.iter().map(|url| (*url).to_owned()).collect();
    let rpc = Rpc::with_limits(&endpoints, limits, Arc::new(SystemClock)).unwrap();
    let reader = MarketReader::of(rpc, *scene.market.reader.terms());
    Indexer::start(reader, config(database), Shutdown::new()).await.unwrap()
}

async fn postgres() -> Location {
    Postgres::shared().database().await.parse().unwrap()
}

/// Something happens that the indexer has to follow, also back.
async fn go_on(scene: &Scene) {
    scene.bill().await;
    scene.market.anvil.mine(2).await;
    scene.market.anvil.reorg(4).await;
    scene.bill().await;
}

fn metric(indexer: &Indexer, name: &str) -> u64 {
    let families = indexer.metrics().gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let metric = &family.get_metric()[0];
    // One of the two is zero.
    metric.get_counter().get_value() as u64 + metric.get_gauge().get_value() as u64
}

async fn old_market() -> Scene {
    let scene = Scene::new().await;
    scene.open().await;
    scene.bill().await;
    scene.market.anvil.mine(100).await;
    scene.bill().await;
    scene
}

#[tokio::test]
async fn one_endpoint_that_does_bearable_things_is_enough() {
    let scene = old_market().await;
    let folder = tempfile::tempdir().unwrap();
    for (at, fault) in BEARABLE.into_iter().enumerate() {
        let proxy = Proxy::start(scene.market.anvil.url(), fault).await;
        let indexer = indexer(&scene, &[&proxy.url], folder.path().join(format!("{at}.db")).into()).await;
        scene.agrees(&indexer).await;
        go_on(&scene).await;
        scene.agrees(&indexer).await;
        assert!(proxy.faults() > 0, "{fault:?} never happened");
        // Counted with the next look.
        let mut looks = metric(&indexer, "wharfage_indexer_looks_total");
        let enough = looks + 2;
        while looks < enough {
            tokio::task::yield_now().await;
            looks = metric(&indexer, "wharfage_indexer_looks_total");
        }
        assert_eq!(metric(&indexer, "wharfage_indexer_repeated_logs") > 0, fault == Fault::RepeatsLogs, "{fault:?}");
        assert_eq!(metric(&indexer, "wharfage_indexer_missing_logs") > 0, fault == Fault::DropsLogs, "{fault:?}");
    }
}

#[tokio::test]
async fn what_one_endpoint_cannot_do_is_done_when_it_can_again() {
    let scene = old_market().await;
    let folder = tempfile::tempdir().unwrap();
    for (at, fault) in UNBEARABLE.into_iter().enumerate() {
        let proxy = Proxy::start(scene.market.anvil.url(), fault).await;
        let indexer = indexer(&scene, &[&proxy.url], folder.path().join(format!("{at}.db")).into()).await;
        let readiness = indexer.readiness();
        while proxy.faults() < 2 {
            tokio::task::yield_now().await;
        }
        go_on(&scene).await;
        if !matches!(fault, Fault::Behind(_) | Fault::HeadBelow(_)) {
            assert!(readiness().is_err(), "{fault:?}");
        }
        proxy.heal();
        scene.agrees(&indexer).await;
        let ready = async {
            while readiness().is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap_or_else(|_| panic!("{fault:?}"));
    }
}

#[tokio::test]
async fn another_endpoint_stands_in_for_one_that_does_anything_wrong() {
    let scene = old_market().await;
    let anvil = scene.market.anvil.url();
    for fault in BEARABLE.into_iter().chain(UNBEARABLE) {
        let proxy = Proxy::start(anvil.clone(), fault).await;
        let indexer = indexer(&scene, &[&proxy.url, &anvil], postgres().await).await;
        scene.agrees(&indexer).await;
        go_on(&scene).await;
        scene.agrees(&indexer).await;
        assert!(proxy.faults() > 0, "{fault:?} never happened");
    }
}

#[tokio::test]
async fn two_hundred_reorganizations_leave_no_trace() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.anvil.mine(80).await;
    let folder = tempfile::tempdir().unwrap();
    let anvil = scene.market.anvil.url();
    let seed = 20_260_101;
    let mut random = fastrand::Rng::with_seed(seed);
    let following = postgres().await;
    let follower = indexer(&scene, &[&anvil], following.clone()).await;
    let mut late = None;
    let mut highest = 0;
    for round in 0..200_u64 {
        for _ in 0..random.u64(0..3) {
            scene.market.mint(scene.developer.address(), crate::scene::atoms(1)).await;
        }
        match random.u8(0..4) {
            0 => drop(scene.developer.send(&calls::raise_nonce_floor(scene.market.market, 2 + round)).await),
            1 => scene.market.anvil.mine(random.u64(1..4)).await,
            _ => (),
        }
        let depth = random.u64(1..12);
        let head = scene.head().await.number;
        highest = highest.max(head);
        // Never down to what was final, 64 blocks below the highest head.
        if random.u8(0..4) == 0 && head - depth + 50 > highest {
            scene.market.anvil.call("anvil_rollback", serde_json::json!([depth])).await;
        } else {
            scene.market.anvil.reorg(depth).await;
        }
        if round % 20 == 0 {
            // One that is still filling its database when the next reorganizations come.
            late = Some(indexer(&scene, &[&anvil], folder.path().join(format!("{round}.db")).into()).await);
        }
        if round % 20 == 19 {
            // Above everything that was there before: a chain that only became shorter looks like a node that lags.
            scene.market.anvil.mine(highest + 1 - scene.head().await.number.min(highest)).await;
            scene.agrees(&follower).await;
            scene.agrees(late.as_ref().unwrap()).await;
        }
    }
    scene.agrees(&follower).await;
    let clean: Location = folder.path().join("clean.db").into();
    let once = indexer(&scene, &[&anvil], clean.clone()).await;
    scene.agrees(&once).await;
    let (followed, cleanly) = (dump(&following).await, dump(&clean).await);
    for (table, rows) in &followed {
        assert_eq!(Some(rows), cleanly.get(table), "{table}, seed {seed}");
    }
}

#[tokio::test]
async fn connections_to_the_database_that_are_lost_lose_nothing() {
    let scene = old_market().await;
    let location = postgres().await;
    let Location::Postgres(url) = &location else { unreachable!() };
    let anvil = scene.market.anvil.url();
    let indexer = indexer(&scene, &[&anvil], location.clone()).await;
    for _ in 0..20 {
        // In the middle of whatever is under way: commits follow each block.
        scene.market.anvil.mine(3).await;
        Postgres::shared().disconnect(url).await;
        scene.market.anvil.reorg(2).await;
    }
    go_on(&scene).await;
    scene.agrees(&indexer).await;
    let folder = tempfile::tempdir().unwrap();
    let clean: Location = folder.path().join("clean.db").into();
    let once = self::indexer(&scene, &[&anvil], clean.clone()).await;
    scene.agrees(&once).await;
    assert_eq!(dump(&location).await, dump(&clean).await);
}
