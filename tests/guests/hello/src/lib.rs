//! A small worker: says hello, tells who it is, echoes, and misbehaves on request so that limits can be seen to hold.

use std::hint::black_box;

use wasip2::{
    cli::environment::get_environment,
    exports::http::incoming_handler::Guest,
    http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam},
    io::streams::{InputStream, OutputStream, StreamError},
};

const PAGE: usize = 4_096;
const MIB: usize = 1 << 20;
/// Largest write that `blocking-write-and-flush` takes.
const WRITE: usize = 4_096;
const SPLICE: u64 = 64 << 10;

struct Worker;

wasip2::http::proxy::export!(Worker);

impl Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match (request.method(), path) {
            (_, "/whoami") => answer(out, 200, "application/json", &who_am_i()),
            (Method::Post, "/echo") => echo(&request, out),
            (_, "/spin") => loop {
                black_box(0);
            },
            (_, "/alloc") => {
                let mib = query.strip_prefix("mib=").and_then(|n| n.parse::<usize>().ok()).unwrap_or(1);
                answer(out, 200, "text/plain", &format!("{} MiB touched\n", allocate(mib)));
            }
            (_, "/trap") => panic!("asked to"),
            _ => answer(out, 200, "text/plain", &format!("Hello from a Wharfage worker! You asked for {target}\n")),
        }
    }
}

/// Who this replica is, from what its host says in the environment.
fn who_am_i() -> String {
    let variables = get_environment();
    let value = |name: &str| variables.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
    format!("{{\"deal\":{:?},\"region\":{:?}}}\n", value("WHARFAGE_DEAL"), value("WHARFAGE_REPLICA_REGION"))
}

/// Writes to every page of `mib` MiB, as memory that is only reserved costs nothing.
fn allocate(mib: usize) -> usize {
    let mut memory: Vec<u8> = Vec::with_capacity(mib * MIB);
    for page in memory.spare_capacity_mut().chunks_mut(PAGE) {
        page[0].write(1);
    }
    black_box(&memory);
    mib
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let (body, writer) = open(out, 200, "application/octet-stream");
    if let Ok(incoming) = request.consume()
        && let Ok(reader) = incoming.stream()
    {
        copy(&reader, &writer);
    }
    drop(writer);
    let _ = OutgoingBody::finish(body, None);
}

/// Moves bytes as they come, so that a body larger than the worker's memory passes through.
fn copy(from: &InputStream, to: &OutputStream) {
    loop {
        match to.blocking_splice(from, SPLICE) {
            Ok(_) => (),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => panic!("{error}"),
        }
    }
    let _ = to.blocking_flush();
}

fn answer(out: ResponseOutparam, status: u16, content_type: &str, text: &str) {
    let (body, writer) = open(out, status, content_type);
    for part in text.as_bytes().chunks(WRITE) {
        if writer.blocking_write_and_flush(part).is_err() {
            break;
        }
    }
    drop(writer);
    let _ = OutgoingBody::finish(body, None);
}

fn open(out: ResponseOutparam, status: u16, content_type: &str) -> (OutgoingBody, OutputStream) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[content_type.as_bytes().to_vec()]);
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let body = response.body().expect("a new response has a body");
    ResponseOutparam::set(out, Ok(response));
    let writer = body.write().expect("a new body has a stream");
    (body, writer)
}
