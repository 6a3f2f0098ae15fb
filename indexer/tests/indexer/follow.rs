//! The indexer on a real chain: reorganizations, crashes, restarts, and chains that are not what they were.

use chain::calls;
use common::shutdown::Shutdown;
use indexer::{Indexer, IndexerError, Store, StoreError, source::SourceError};

use crate::scene::{Scene, atoms, config};

#[tokio::test]
async fn it_follows_a_market_through_reorganizations() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let shutdown = Shutdown::new();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &shutdown).await.unwrap();
    scene.agrees(&indexer).await;
    scene.open().await;
    scene.agrees(&indexer).await;
    scene.bill().await;
    scene.bill().await;
    scene.agrees(&indexer).await;
    let billed = indexer.store().market_state().await.unwrap();
    assert_eq!(billed.deals.len(), 2);
    assert!(billed.deals.values().all(|known| known.paid > atoms(0)));

    // The last claim, then a whole epoch, then the match and the offers never happened.
    for depth in [1, 4, 12] {
        scene.market.anvil.reorg(depth).await;
        scene.agrees(&indexer).await;
    }
    let state = indexer.store().market_state().await.unwrap();
    assert!(state.deals.is_empty() && state.developer_offers.is_empty(), "everything was taken back");

    // The market goes on where it was set back to.
    scene.open().await;
    scene.bill().await;
    scene.developer.send(&calls::cancel_deals(scene.market.market, &[scene.deal_ref(0).await])).await.unwrap();
    scene.agrees(&indexer).await;
    shutdown.cancel();
    indexer.stopped().await.unwrap();
}

#[tokio::test]
async fn it_converges_after_being_killed_at_any_time() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.bill().await;
    // Enough blocks for windows below the last final block and for hashes above it.
    scene.market.anvil.mine(300).await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("indexer.db");
    for spins in [0_u32, 1, 10, 100, 1_000] {
        let reader = scene.market.reader.clone();
        let config = config(database.clone());
        // A process of its own, as far as the indexer can tell: its runtime is dropped with everything in flight.
        let killed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let indexer = runtime.block_on(async {
                let indexer = Indexer::start(reader, config, Shutdown::new()).await.unwrap();
                for _ in 0..spins {
                    tokio::task::yield_now().await;
                }
                indexer
            });
            runtime.shutdown_background();
            drop(indexer);
        });
        tokio::task::spawn_blocking(move || killed.join().unwrap()).await.unwrap();
    }
    // While it was down the chain moved back and on.
    scene.market.anvil.reorg(5).await;
    scene.market.anvil.mine(3).await;
    let indexer = scene.indexer(&database, &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let checkpoint = indexer.store().checkpoint().await.unwrap();
    assert!(checkpoint.finalized.unwrap() > 200, "{checkpoint:?}");
    drop(indexer);

    // Killed when it was done; reorganized across market transactions while it was down.
    scene.bill().await;
    let indexer = scene.indexer(&database, &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    drop(indexer);
    scene.market.anvil.reorg(2).await;
    let indexer = scene.indexer(&database, &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
}

#[tokio::test]
async fn a_chain_that_breaks_its_finality_stops_it_loudly() {
    let scene = Scene::new().await;
    scene.open().await;
    scene.market.anvil.mine(150).await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let readiness = indexer.readiness();
    let router = indexer.router();
    assert_eq!(readiness(), Ok(()));
    let before = indexer.store().market_state().await.unwrap();

    scene.market.anvil.reorg(100).await;
    let store = indexer.store().clone();
    let error = indexer.stopped().await.unwrap_err();
    assert!(matches!(error, IndexerError::Source(SourceError::Diverged { .. })), "{error}");
    assert!(readiness().unwrap_err().contains("was final"));
    assert_eq!(store.market_state().await.unwrap(), before, "nothing was guessed");
    let (status, problem) = crate::api::get(&router, "/v1/totals").await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("indexer_stopped")));
    let (status, body) = crate::api::get(&router, "/v1/status").await;
    assert_eq!((status, body["ready"].as_bool()), (200, Some(false)));

    // The way out is the one that the error names.
    assert!(readiness().unwrap_err().contains("`wharfage indexer rebuild`"));
    store.forget().await.unwrap();
    assert_eq!(store.as_of().await.unwrap(), None);
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    assert_eq!(indexer.store().market_state().await.unwrap().deals.len(), 2, "all of it, from the first block on");
}

#[tokio::test]
async fn a_database_belongs_to_one_market() {
    let first = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("indexer.db");
    let indexer = first.indexer(&database, &Shutdown::new()).await.unwrap();
    first.agrees(&indexer).await;
    drop(indexer);
    let mut terms = *first.market.reader.terms();
    terms.market = first.market.token;
    let store = Store::open(&database.clone().into()).await.unwrap();
    let error = store.bind(&terms).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherMarket { .. }), "{error}");
    assert!(error.to_string().contains(&first.market.market.to_string()));
}
