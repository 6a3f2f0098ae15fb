//! Which addresses may be dialled. Endpoints come from provider offers, so a stranger chooses them: without this check
//! the gateway would carry requests into its own network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use crate::domain::table::Endpoint;

/// Whether the internet at large can reach `address` (IANA's special-purpose registries, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        // IPv4 in IPv6 (mapped, compatible), NAT64 and 6to4 lead to an IPv4 address.
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x2002, high, low, ..) => embedded(high, low),
        (0x2001, 0..=0x1ff | 0xdb8, ..) | (0x3fff, 0..=0xfff, ..) => false,
        // Global unicast is 2000::/3 alone: unique local, link-local and multicast lie outside.
        _ => a & 0xe000 == 0x2000,
    }
}

/// Whether requests may go to `endpoint`, as far as its text says: names are checked again when they are resolved.
pub(crate) fn may_dial(endpoint: &Endpoint, allow_private: bool) -> bool {
    let host = endpoint.authority().host();
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    allow_private || literal.parse::<IpAddr>().map_or(true, is_public)
}

/// Resolves names through the system and leaves out the addresses that may not be dialled.
#[derive(Clone)]
pub(crate) struct PolicyResolver {
    system: GaiResolver,
    allow_private: bool,
}

impl PolicyResolver {
    pub(crate) fn new(allow_private: bool) -> Self {
        Self { system: GaiResolver::new(), allow_private }
    }
}

impl Service<Name> for PolicyResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        let resolving = self.system.call(name);
        Box::pin(async move {
            let allowed: Vec<_> = resolving.await?.filter(|to| allow_private || is_public(to.ip())).collect();
            if allowed.is_empty() {
                return Err(std::io::Error::other("the name leads to no public address"));
            }
            Ok(allowed.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_dialled() {
        for text in ["1.1.1.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn address_literals_are_checked_before_dialling() {
        let endpoint = |text| Endpoint::parse(text).unwrap();
        for text in ["http://127.0.0.1:9001", "http://[::1]:9001", "http://169.254.169.254"] {
            assert!(!may_dial(&endpoint(text), false), "{text}");
            assert!(may_dial(&endpoint(text), true), "{text}");
        }
        assert!(may_dial(&endpoint("http://agent.test"), false));
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused_when_resolved() {
        let name: Name = "localhost".parse().unwrap();
        assert!(PolicyResolver::new(false).call(name.clone()).await.is_err());
        assert!(PolicyResolver::new(true).call(name).await.unwrap().next().is_some());
    }
}
