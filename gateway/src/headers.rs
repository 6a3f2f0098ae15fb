//! What happens to headers on their way through.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Names the deal that a worker's answer comes from; set by agents.
pub(crate) const DEAL_HEADER: HeaderName = HeaderName::from_static("x-wharfage-deal");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that belong to one connection (RFC 9110, section 7.6.1, with the older ones of RFC 2616).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Removes what belongs to one connection, and what `Connection` says belongs to it.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Makes a client's headers those of the request to an agent.
pub(crate) fn for_agent(headers: &mut HeaderMap, client: IpAddr) {
    remove_hop_by_hop(headers);
    // The gateway has answered 100 itself if that was asked for.
    headers.remove(header::EXPECT);
    let before = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let chain = before.map_or_else(|| client.to_string(), |before| format!("{before}, {client}"));
    if let Ok(value) = chain.parse() {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = headers.remove(header::HOST) {
        headers.insert(FORWARDED_HOST, host);
    }
    let is_traced = headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes()));
    if !is_traced && let Ok(value) = new_traceparent().parse() {
        headers.insert(TRACEPARENT, value);
    }
}

/// Whether this is a version 00 `traceparent` (W3C Trace Context) with ids that are not zero.
fn is_traceparent(value: &[u8]) -> bool {
    let parts: Vec<&[u8]> = value.split(|byte| *byte == b'-').collect();
    let is_hex = |part: &[u8], len: usize| {
        part.len() == len && part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    let is_id = |part: &[u8], len| is_hex(part, len) && part.iter().any(|byte| *byte != b'0');
    match parts.as_slice() {
        [version, trace, parent, flags] => {
            *version == b"00" && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)
        }
        _ => false,
    }
}

fn new_traceparent() -> String {
    format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..))
}

/// Makes an agent's headers those of the answer to the client.
pub(crate) fn for_client(headers: &mut HeaderMap, total: Duration, at_agent: Duration) {
    remove_hop_by_hop(headers);
    let own = milliseconds(total.saturating_sub(at_agent));
    let timing = format!("gateway;dur={own}, agent;dur={}", milliseconds(at_agent));
    if let Ok(value) = timing.parse() {
        headers.append(SERVER_TIMING, value);
    }
}

fn milliseconds(duration: Duration) -> String {
    let micros = duration.as_micros();
    format!("{}.{:03}", micros.div_euclid(1_000), micros.rem_euclid(1_000))
}

/// Bytes of all names and values, with the four that separate them on the wire.
pub(crate) fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4))
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn headers_of_one_connection_stay_behind() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn the_agent_learns_who_asked_and_which_trace_it_is_part_of() {
        let mut map = headers(&[("host", "a.test"), ("x-forwarded-for", "1.1.1.1"), ("traceparent", "garbage")]);
        for_agent(&mut map, "2.2.2.2".parse().unwrap());
        assert_eq!(map["x-forwarded-for"], "1.1.1.1, 2.2.2.2");
        assert_eq!(map["x-forwarded-host"], "a.test");
        assert!(!map.contains_key("host"));
        assert!(is_traceparent(map["traceparent"].as_bytes()), "{:?}", map["traceparent"]);

        let own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut map = headers(&[("traceparent", own)]);
        for_agent(&mut map, "2.2.2.2".parse().unwrap());
        assert_eq!(map["traceparent"], own);
    }

    #[test]
    fn timings_are_told_in_milliseconds() {
        let mut map = headers(&[("server-timing", "worker;dur=1")]);
        for_client(&mut map, Duration::from_micros(2_500), Duration::from_micros(1_450));
        let timings: Vec<_> = map.get_all("server-timing").iter().collect();
        assert_eq!(timings, ["worker;dur=1", "gateway;dur=1.050, agent;dur=1.450"]);
    }
}
