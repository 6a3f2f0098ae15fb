//! Endpoints that are down, slow, broken or over their limit.

use std::time::Duration;

use chain::{ChainError, Rpc, testing::Anvil};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// An endpoint that answers every request with this status and body; with `None` it accepts and never answers.
async fn endpoint(answer: Option<(u16, &'static str)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let Some((status, body)) = answer else {
                silent.push(stream);
                continue;
            };
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                // Requests are small and come in one piece.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
                    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
                }
            });
        }
    });
    url
}

/// A port where nobody listens.
async fn down() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn error_answer(code: i64, message: &str) -> &'static str {
    let body = format!(r#"{{"jsonrpc":"2.0","id":0,"error":{{"code":{code},"message":"{message}"}}}}"#);
    Box::leak(body.into_boxed_str())
}

#[tokio::test]
async fn the_next_endpoint_answers_for_one_that_cannot() {
    let anvil = Anvil::start().await;
    let bad = [
        down().await,
        endpoint(Some((503, "overloaded"))).await,
        endpoint(Some((429, "slow down"))).await,
        endpoint(Some((200, "<html>a proxy's login page</html>"))).await,
        endpoint(Some((200, error_answer(-32005, "daily request count exceeded, request rate limited")))).await,
    ];
    for url in bad {
        let rpc = Rpc::new(&[url.clone(), anvil.url()]).unwrap();
        assert_eq!(rpc.chain_id().await.unwrap(), 31_337, "{url}");
    }
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_given_up() {
    let anvil = Anvil::start().await;
    // Long enough for a slow machine to connect, short enough to wait for.
    let rpc = Rpc::with_timeout(&[endpoint(None).await, anvil.url()], Duration::from_secs(2)).unwrap();
    assert_eq!(rpc.chain_id().await.unwrap(), 31_337);
}

#[tokio::test]
async fn an_error_answer_is_an_answer() {
    let anvil = Anvil::start().await;
    let refusing = endpoint(Some((200, error_answer(-32601, "the method does not exist")))).await;
    let rpc = Rpc::new(&[refusing, anvil.url()]).unwrap();
    let error = rpc.chain_id().await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { code: -32601, .. }), "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn without_any_endpoint_the_error_is_transient_and_keeps_secrets() {
    let url = format!("{}/v2/secret-key", down().await);
    let error = Rpc::new(&[url]).unwrap().head().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { method: "eth_getBlockByNumber", .. }), "{error}");
    assert!(error.is_transient());
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    assert!(!text.contains("secret-key"), "{text}");
}

#[test]
fn endpoints_must_be_http_urls() {
    for endpoints in [&[][..], &["127.0.0.1:8545".to_owned()][..], &["ws://127.0.0.1".to_owned()][..]] {
        assert!(matches!(Rpc::new(endpoints), Err(ChainError::InvalidEndpoint { .. })), "{endpoints:?}");
    }
}

#[tokio::test]
async fn another_chain_is_noticed() {
    let anvil = Anvil::start_with(&["--chain-id", "5"]).await;
    let error = anvil.rpc().require_chain(1).await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: 1, actual: 5 }), "{error}");
    anvil.rpc().require_chain(5).await.unwrap();
}
