//! An endpoint in front of anvil that misbehaves on demand.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use alloy::transports::http::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What to do with a request.
pub(crate) enum Verdict {
    /// Hand it on.
    Forward,
    /// Hand it on after this other request, whose answer nobody sees.
    After(Value),
    /// Answer with an error.
    Refuse(i64, &'static str),
}

type Judge = dyn Fn(&Value) -> Verdict + Send + Sync;

pub(crate) struct Proxy {
    pub(crate) url: String,
    requests: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn start(upstream: String, judge: impl Fn(&Value) -> Verdict + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (judge, requests): (Arc<Judge>, Arc<AtomicU64>) = (Arc::new(judge), Arc::default());
        let counter = requests.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, upstream.clone(), judge.clone(), counter.clone()));
            }
        });
        Self { url, requests }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, upstream: String, judge: Arc<Judge>, requests: Arc<AtomicU64>) {
    let client = Client::new();
    while let Some(request) = read_request(&mut stream).await {
        requests.fetch_add(1, Ordering::SeqCst);
        let answer = match judge(&request) {
            Verdict::Forward => forward(&client, &upstream, &request).await,
            Verdict::After(first) => {
                forward(&client, &upstream, &first).await;
                forward(&client, &upstream, &request).await
            }
            Verdict::Refuse(code, message) => {
                json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message } })
            }
        };
        let body = answer.to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    }
}

async fn forward(client: &Client, upstream: &str, request: &Value) -> Value {
    client.post(upstream).json(request).send().await.unwrap().json().await.unwrap()
}

/// The body of the next request; `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<Value> {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(serde_json::from_str(body).unwrap());
            }
        }
        let mut part = [0; 4_096];
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => received.extend_from_slice(&part[..read]),
        }
    }
}
