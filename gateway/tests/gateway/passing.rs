//! What goes through, and how.

use std::collections::HashSet;

use axum::body::Bytes;
use tokio::sync::mpsc;

use crate::support::{offer, setup};

#[tokio::test]
async fn both_replicas_answer() {
    let setup = setup().await;
    let mut deals = HashSet::new();
    while deals.len() < 2 {
        let response = setup.get(setup.at(offer(0x11), "/hello?a=b%20c")).await;
        assert_eq!(response.status(), 200);
        let deal = response.headers()["x-wharfage-deal"].to_str().unwrap().to_owned();
        // The agent sees the deal in place of the deployment, and the rest untouched.
        assert_eq!(response.text().await.unwrap(), format!("/d/{deal}/hello?a=b%20c"));
        deals.insert(deal);
    }
}

#[tokio::test]
async fn paths_are_passed_on_as_they_are() {
    let setup = setup().await;
    // A client that does not tidy paths up: they are the worker's business.
    let mut stream = tokio::net::TcpStream::connect(setup.gateway.local_addr()).await.unwrap();
    let request = format!("GET /d/{}/a/../b//c%2Fd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", offer(0x11));
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("/a/../b//c%2Fd"), "{answer}");
}

#[tokio::test]
async fn headers_of_a_hop_end_there_and_the_trace_goes_on() {
    let setup = setup().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = setup.client.get(setup.at(offer(0x11), "/")).header("te", "trailers").header("traceparent", trace);
    let response = request.header("x-own", "kept").send().await.unwrap();
    assert!(!response.headers().contains_key("keep-alive"));
    let timing = response.headers()["server-timing"].to_str().unwrap();
    assert!(timing.starts_with("gateway;dur=") && timing.contains(", agent;dur="), "{timing}");

    setup.get(setup.at(offer(0x11), "/")).await;
    let seen: Vec<_> = setup.agents.iter().flat_map(|agent| agent.state.seen.lock().unwrap().clone()).collect();
    let mut traces = Vec::new();
    for (_, _, headers) in &seen {
        assert!(!headers.contains_key("te"));
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-host"], setup.base.trim_start_matches("http://"));
        traces.push(headers["traceparent"].to_str().unwrap().to_owned());
    }
    assert_eq!(seen.iter().filter(|(_, _, headers)| headers.contains_key("x-own")).count(), 1);
    assert!(traces.iter().any(|seen| seen == trace), "{traces:?}");
    assert!(traces.iter().all(|seen| seen.len() == trace.len()), "{traces:?}");
    assert_ne!(traces[0], traces[1]);
}

#[tokio::test]
async fn the_first_byte_of_an_answer_does_not_wait_for_the_last() {
    let setup = setup().await;
    let mut senders = Vec::new();
    for agent in &setup.agents {
        let (send, receive) = mpsc::channel(4);
        *agent.state.chunks.lock().unwrap() = Some(receive);
        senders.push(send);
    }
    for send in &senders {
        send.send(Bytes::from_static(b"first")).await.unwrap();
    }
    let mut response = setup.get(setup.at(offer(0x11), "/stream")).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
    // Only now is there anything more to send.
    for send in senders {
        let _ = send.send(Bytes::from_static(b"last")).await;
    }
    assert_eq!(response.chunk().await.unwrap().unwrap(), "last");
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_long_upload_is_passed_on_while_it_arrives() {
    let setup = setup().await;
    let (report, mut arrived) = mpsc::unbounded_channel();
    for agent in &setup.agents {
        *agent.state.uploads.lock().unwrap() = Some(report.clone());
    }
    let (send, receive) = mpsc::channel::<Bytes>(1);
    let body = futures::stream::unfold(receive, |mut receive| async {
        Some((Ok::<_, std::io::Error>(receive.recv().await?), receive))
    });
    let request = setup.client.post(setup.at(offer(0x11), "/upload")).body(reqwest::Body::wrap_stream(body));
    let answer = tokio::spawn(request.send());
    for chunk in ["one", "two"] {
        send.send(Bytes::from(chunk)).await.unwrap();
        // The second is not sent before the first has arrived.
        assert_eq!(arrived.recv().await.unwrap(), chunk);
    }
    drop(send);
    assert_eq!(answer.await.unwrap().unwrap().text().await.unwrap(), "received");
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole() {
    let setup = setup().await;
    for size in [0, 1, 64 << 10, (64 << 10) + 1, 3 << 20] {
        let body = vec![b'x'; size];
        let response = setup.client.post(setup.at(offer(0x11), "/echo")).body(body.clone()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        if size > 0 {
            assert_eq!(response.bytes().await.unwrap(), body, "{size}");
        }
    }
}

#[tokio::test]
async fn a_head_request_has_an_answer_without_a_body() {
    let setup = setup().await;
    let response = setup.client.head(setup.at(offer(0x11), "/")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap().is_empty());
}
