//! Starting and stopping.

use std::sync::Arc;

use axum::body::Bytes;
use common::shutdown::Shutdown;
use gateway::{Gateway, GatewayError};

use crate::support::{config, offer, setup, setup_with};

#[tokio::test]
async fn an_address_that_is_taken_is_said_to_be() {
    let setup = setup().await;
    let mut config = config(setup.indexer.url());
    config.listen = setup.gateway.local_addr();
    let error = Gateway::start(config, Shutdown::new()).await.unwrap_err();
    assert!(matches!(error, GatewayError::Bind { .. }));
    assert!(error.to_string().contains(&setup.gateway.local_addr().to_string()), "{error}");
}

#[tokio::test]
async fn before_the_indexer_has_answered_it_is_not_ready() {
    // Nothing listens there any more.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let shutdown = Shutdown::new();
    let gateway = Gateway::start(config(format!("http://{gone}")), shutdown.clone()).await.unwrap();
    let base = format!("http://{}", gateway.local_addr());
    for (path, status) in [("/healthz", 200), ("/readyz", 503), (&*format!("/d/{}/", offer(0x11)), 503)] {
        assert_eq!(reqwest::get(format!("{base}{path}")).await.unwrap().status(), status, "{path}");
    }
    shutdown.cancel();
    gateway.stopped().await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_is_running() {
    let setup = setup().await;
    let mut senders = Vec::new();
    for agent in &setup.agents {
        let (send, receive) = tokio::sync::mpsc::channel(4);
        *agent.state.chunks.lock().unwrap() = Some(receive);
        send.send(Bytes::from_static(b"first")).await.unwrap();
        senders.push(send);
    }
    let mut response = setup.get(setup.at(offer(0x11), "/stream")).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
    setup.shutdown.cancel();
    let address = setup.gateway.local_addr();
    crate::support::eventually("nobody new is served", || async {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    for send in senders {
        let _ = send.send(Bytes::from_static(b"last")).await;
    }
    assert_eq!(response.chunk().await.unwrap().unwrap(), "last");
    assert_eq!(response.chunk().await.unwrap(), None);
    setup.gateway.stopped().await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let setup = setup_with(|config| config.limits.drain_timeout_ms = 100).await;
    setup.agents.iter().for_each(|agent| agent.set(crate::support::Mood::Hangs));
    let (client, url) = (setup.client.clone(), setup.at(offer(0x11), "/"));
    let request = tokio::spawn(async move { client.get(url).send().await });
    let agents = Arc::new(setup.agents);
    let busy = || agents.iter().map(crate::support::Agent::in_flight).sum::<usize>();
    crate::support::eventually("the request has arrived", || async { busy() == 1 }).await;
    setup.shutdown.cancel();
    setup.gateway.stopped().await.unwrap();
    assert!(request.await.unwrap().is_err());
}
