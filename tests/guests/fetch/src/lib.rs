//! A worker that fetches `http://…` given as `?url=`. It imports the outgoing handler, and so it can only be hosted where
//! that feature is on.

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, IncomingRequest, IncomingResponse, OutgoingBody, OutgoingRequest, OutgoingResponse,
            ResponseOutparam, Scheme,
        },
    },
};

struct Worker;

wasip2::http::proxy::export!(Worker);

impl Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (status, text) = match target.split_once("?url=") {
            None => (400, "say which: /fetch?url=http://host/path\n".to_owned()),
            Some((_, url)) => match fetch(url) {
                Ok(response) => (200, format!("status {}\n", response.status())),
                Err(error) => (502, format!("refused: {error:?}\n")),
            },
        };
        let response = OutgoingResponse::new(Fields::new());
        let _ = response.set_status_code(status);
        let body = response.body().expect("a new response has a body");
        ResponseOutparam::set(out, Ok(response));
        let writer = body.write().expect("a new body has a stream");
        for part in text.as_bytes().chunks(4_096) {
            let _ = writer.blocking_write_and_flush(part);
        }
        drop(writer);
        let _ = OutgoingBody::finish(body, None);
    }
}

fn fetch(url: &str) -> Result<IncomingResponse, ErrorCode> {
    let rest = url.strip_prefix("http://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(invalid)?;
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    pending.get().ok_or(ErrorCode::ConnectionReadTimeout)?.map_err(|()| ErrorCode::InternalError(None))?
}
