//! An endpoint in front of a real one that does one thing wrong.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// What the endpoint does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never answers.
    Silent,
    /// It names a head that many blocks above its own.
    HeadAbove(u64),
    /// It names a head that many blocks below its own, and has all blocks.
    HeadBelow(u64),
    /// It is that many blocks behind.
    Behind(u64),
    /// It has no blocks.
    NullBlocks,
    /// It gives every log twice.
    RepeatsLogs,
    /// It gives no logs.
    DropsLogs,
    /// It answers 429, perhaps with `Retry-After` in seconds.
    Limited(Option<u64>),
    /// It breaks off in the middle of each answer.
    Truncates,
    /// It refuses logs of more blocks.
    MostBlocks(u64),
    /// It refuses more logs.
    MostLogs(usize),
    /// It takes no batches.
    NoBatches,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    fault: Arc<Mutex<Option<Fault>>>,
    faults: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Upstream {
    url: String,
    client: reqwest::Client,
    fault: Arc<Mutex<Option<Fault>>>,
    faults: Arc<AtomicU64>,
}

impl Proxy {
    pub(crate) async fn start(upstream: String, fault: Fault) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fault = Arc::new(Mutex::new(Some(fault)));
        let faults = Arc::<AtomicU64>::default();
        let state = Upstream {
            url: upstream,
            client: reqwest::Client::new(),
            fault: Arc::clone(&fault),
            faults: Arc::clone(&faults),
        };
        let router = Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, fault, faults }
    }

    /// From now on it does nothing wrong.
    pub(crate) fn heal(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// Requests so far that were answered wrongly.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

async fn answer(State(upstream): State<Upstream>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let fault = *upstream.fault.lock().unwrap();
    let Some(fault) = fault else { return reply(&upstream.forward(&request).await) };
    if matches!(fault, Fault::Silent | Fault::Limited(_) | Fault::Truncates) {
        upstream.faults.fetch_add(1, Ordering::SeqCst);
    }
    match fault {
        Fault::Silent => std::future::pending().await,
        Fault::Limited(None) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        Fault::Limited(Some(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Fault::Truncates => {
            let text = upstream.forward(&request).await.to_string();
            text[..text.len() / 2].to_owned().into_response()
        }
        Fault::NoBatches if request.is_array() => {
            upstream.faults.fetch_add(1, Ordering::SeqCst);
            reply(&error(&Value::Null, -32600, "batches are not supported"))
        }
        fault => {
            let head = quantity(&upstream.forward(&call("eth_blockNumber", json!([]))).await["result"]);
            let answers = match &request {
                Value::Array(calls) => {
                    let mut answers = Vec::new();
                    for call in calls {
                        answers.push(upstream.one(call.clone(), fault, head).await);
                    }
                    Value::Array(answers)
                }
                call => upstream.one(call.clone(), fault, head).await,
            };
            reply(&answers)
        }
    }
}

impl Upstream {
    async fn forward(&self, request: &Value) -> Value {
        self.client.post(&self.url).json(request).send().await.unwrap().json().await.unwrap()
    }

    async fn one(&self, mut call: Value, fault: Fault, head: u64) -> Value {
        let method = call["method"].as_str().unwrap().to_owned();
        let before = call.clone();
        let own_head = match fault {
            Fault::Behind(blocks) | Fault::HeadBelow(blocks) => head.saturating_sub(blocks),
            _ => head,
        };
        if method == "eth_getBlockByNumber" && call["params"][0] == "latest" && own_head < head {
            call["params"][0] = json!(format!("{own_head:#x}"));
        }
        let mut answer = self.forward(&call).await;
        let is_block = method == "eth_getBlockByNumber" && before["params"][0].as_str().unwrap().starts_with("0x");
        let number = if is_block { quantity(&before["params"][0]) } else { 0 };
        let unspoilt = answer.clone();
        match (fault, method.as_str()) {
            (Fault::HeadAbove(blocks), "eth_getBlockByNumber") if before["params"][0] == "latest" => {
                answer["result"]["number"] = json!(format!("{:#x}", head + blocks));
                answer["result"]["hash"] = json!(format!("0x{}", "ab".repeat(32)));
            }
            (Fault::NullBlocks, _) if is_block => answer["result"] = Value::Null,
            (Fault::Behind(_), _) if is_block && number > own_head => answer["result"] = Value::Null,
            (Fault::Behind(_), "eth_getLogs") => {
                logs(&mut answer).retain(|log| quantity(&log["blockNumber"]) <= own_head);
            }
            (Fault::RepeatsLogs, "eth_getLogs") => {
                let found = logs(&mut answer);
                *found = [found.clone(), found.clone()].concat();
            }
            (Fault::DropsLogs, "eth_getLogs") => logs(&mut answer).clear(),
            (Fault::MostBlocks(most), "eth_getLogs") if blocks_asked(&call) > most => {
                answer = error(&call["id"], -32005, "exceed maximum block range");
            }
            (Fault::MostLogs(most), "eth_getLogs") if blocks_asked(&call) > 1 && logs(&mut answer).len() > most => {
                answer = error(&call["id"], -32602, "query returned more than 10000 results");
            }
            _ => (),
        }
        if answer != unspoilt || call != before {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }
}

fn logs(answer: &mut Value) -> &mut Vec<Value> {
    answer["result"].as_array_mut().unwrap()
}

fn blocks_asked(call: &Value) -> u64 {
    let filter = &call["params"][0];
    if filter["blockHash"].is_string() { 1 } else { quantity(&filter["toBlock"]) - quantity(&filter["fromBlock"]) + 1 }
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn call(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

fn reply(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
