//! Limits, each named in the error that it causes.

use axum::{body::Bytes, http::Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Mood, offer, setup_with};

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_or_while_it_is_sent() {
    let setup = setup_with(|config| config.limits.max_body_bytes = 200_000).await;
    let url = setup.at(offer(0x11), "/echo");
    assert_eq!(setup.client.post(&url).body(vec![0; 200_000]).send().await.unwrap().status(), 200);
    let before = setup.agents.iter().map(|agent| agent.count(Method::POST)).sum::<usize>();
    let (problem, _) = setup.problem(setup.client.post(&url).body(vec![0; 200_001])).await;
    assert_eq!((problem.status, problem.code.as_str()), (413, "request_body_too_large"));
    assert!(problem.detail.contains("200000"), "{}", problem.detail);
    assert_eq!(setup.agents.iter().map(|agent| agent.count(Method::POST)).sum::<usize>(), before);
    // Without an announced length it shows on the way.
    let chunks = (0..30).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 10_000])));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let (problem, _) = setup.problem(setup.client.post(&url).body(body)).await;
    assert_eq!(problem.code, "request_body_too_large");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let setup = setup_with(|config| config.limits.max_header_bytes = 8_192).await;
    let request = setup.client.get(setup.at(offer(0x11), "/")).header("x-large", "x".repeat(8_192));
    let (problem, _) = setup.problem(request).await;
    assert_eq!((problem.status, problem.code.as_str()), (431, "request_headers_too_large"));
    assert!(problem.detail.contains("8192"), "{}", problem.detail);
    let request = setup.client.get(setup.at(offer(0x11), "/")).header("x-large", "x".repeat(100_000));
    assert_eq!(request.send().await.unwrap().status(), 431);
}

#[tokio::test]
async fn a_worker_that_never_answers_is_given_up() {
    let setup = setup_with(|config| config.limits.response_timeout_ms = 200).await;
    setup.agents.iter().for_each(|agent| agent.set(Mood::Hangs));
    let (problem, _) = setup.problem(setup.client.get(setup.at(offer(0x11), "/"))).await;
    assert_eq!((problem.status, problem.code.as_str()), (504, "replica_timeout"));
    assert!(problem.detail.contains("200 ms"), "{}", problem.detail);
    // It may still be at work: nobody else was asked.
    assert_eq!(setup.agents.iter().map(|agent| agent.count(Method::GET)).sum::<usize>(), 1);
    let outcome = r#"wharfage_gateway_requests_total{outcome="replica_timeout"}"#;
    assert_eq!(setup.metric(outcome).await, "1");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let setup = setup_with(|config| config.limits.overall_timeout_ms = 300).await;
    let mut senders = Vec::new();
    for agent in &setup.agents {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        *agent.state.chunks.lock().unwrap() = Some(receive);
        send.send(Bytes::from_static(b"first")).await.unwrap();
        senders.push(send);
    }
    let response = setup.get(setup.at(offer(0x11), "/stream")).await;
    assert_eq!(response.status(), 200);
    // The end is an error, not a short answer that looks whole.
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn a_client_that_dawdles_is_disconnected() {
    let setup = setup_with(|config| config.limits.header_timeout_ms = 200).await;
    let mut stream = tokio::net::TcpStream::connect(setup.gateway.local_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx-slow:").await.unwrap();
    let mut answer = Vec::new();
    // Ends without us having sent any more.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let setup = setup_with(|config| config.limits.response_timeout_ms = 200).await;
    let mut stream = tokio::net::TcpStream::connect(setup.gateway.local_addr()).await.unwrap();
    let head = format!("POST /d/{}/ HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf", offer(0x11));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(setup.agents.iter().map(|agent| agent.count(Method::POST)).sum::<usize>(), 0);
}

#[tokio::test]
async fn it_is_no_forward_proxy() {
    let setup = setup_with(|_| ()).await;
    let mut stream = tokio::net::TcpStream::connect(setup.gateway.local_addr()).await.unwrap();
    stream.write_all(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
}
