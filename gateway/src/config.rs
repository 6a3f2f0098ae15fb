//! What an operator sets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Settings of a gateway. Everything but `listen` and `indexer_url` has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where to take requests; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Base URL of the indexer's read API, such as `http://127.0.0.1:8080`.
    pub indexer_url: String,
    /// Suffix of deployments' host names, such as `run.example.org`; without it only the path form is served.
    #[serde(default)]
    pub domain: Option<String>,
    /// Milliseconds between two looks at the indexer. 100 to 600,000.
    #[serde(default = "default_refresh")]
    pub refresh_interval_ms: u64,
    /// Milliseconds between two probes of each replica. 100 to 600,000.
    #[serde(default = "default_probe")]
    pub probe_interval_ms: u64,
    /// Whether agents at loopback, private and link-local addresses are dialled. Endpoints are set by strangers, so on a
    /// machine with anything private within its reach this stays off; a market on one machine needs it on.
    #[serde(default)]
    pub allow_private_endpoints: bool,
    /// Limits on what a stranger can send or hold up.
    #[serde(default)]
    pub limits: Limits,
}

/// Limits on requests. Each is named in the error that it causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Bytes of a request's headers. At least 8,192.
    pub max_header_bytes: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: u64,
    /// Bodies up to this many bytes are kept until there is an answer, so that another replica can be tried.
    pub max_kept_body_bytes: u64,
    /// Replicas that one request is offered to.
    pub max_attempts: usize,
    /// Milliseconds in which a client must send its headers.
    pub header_timeout_ms: u64,
    /// Milliseconds in which a connection to an agent must stand.
    pub connect_timeout_ms: u64,
    /// Milliseconds from the request's arrival to the beginning of an answer.
    pub response_timeout_ms: u64,
    /// Milliseconds from the request's arrival to the end of the answer.
    pub overall_timeout_ms: u64,
    /// Milliseconds that running requests are given at shutdown.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_header_bytes: 128 << 10,
            max_body_bytes: 100 << 20,
            max_kept_body_bytes: 64 << 10,
            max_attempts: 3,
            header_timeout_ms: 15_000,
            connect_timeout_ms: 2_000,
            response_timeout_ms: 30_000,
            overall_timeout_ms: 300_000,
            drain_timeout_ms: 10_000,
        }
    }
}

const fn default_refresh() -> u64 {
    1_000
}

const fn default_probe() -> u64 {
    2_000
}

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} must be {limit}, got {value}")]
pub struct ConfigError {
    field: &'static str,
    limit: String,
    value: String,
}

impl Default for GatewayConfig {
    /// A gateway at the usual port of this machine, in front of an indexer at its usual port.
    fn default() -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)), "http://127.0.0.1:8080")
    }
}

impl GatewayConfig {
    /// Settings with defaults that suit a public machine.
    pub fn new(listen: SocketAddr, indexer_url: impl Into<String>) -> Self {
        Self {
            listen,
            indexer_url: indexer_url.into(),
            domain: None,
            refresh_interval_ms: default_refresh(),
            probe_interval_ms: default_probe(),
            allow_private_endpoints: false,
            limits: Limits::default(),
        }
    }

    /// Checks every field against its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(self.indexer_url.starts_with("http"), "indexer_url", "an http:// or https:// URL", &self.indexer_url)?;
        let domain = self.domain.as_deref().unwrap_or("a");
        let is_name = !domain.is_empty() && !domain.starts_with('.') && domain.bytes().all(is_host_byte);
        require(is_name, "domain", "a host name without port", domain)?;
        for (field, value) in
            [("refresh_interval_ms", self.refresh_interval_ms), ("probe_interval_ms", self.probe_interval_ms)]
        {
            require((100..=600_000).contains(&value), field, "100 to 600000", value)?;
        }
        let limits = &self.limits;
        require(limits.max_header_bytes >= 8_192, "limits.max_header_bytes", "at least 8192", limits.max_header_bytes)?;
        let kept = limits.max_kept_body_bytes;
        require(kept <= 16 << 20, "limits.max_kept_body_bytes", "at most 16777216", kept)?;
        require(limits.max_attempts > 0, "limits.max_attempts", "at least 1", limits.max_attempts)?;
        require(limits.max_connections > 0, "limits.max_connections", "at least 1", limits.max_connections)
    }

    pub(crate) fn refresh_interval(&self) -> Duration {
        Duration::from_millis(self.refresh_interval_ms)
    }

    pub(crate) fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.probe_interval_ms)
    }
}

const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.'
}

fn require(holds: bool, field: &'static str, limit: &str, value: impl ToString) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError { field, limit: limit.to_owned(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_settings_are_enough() {
        let json = r#"{"listen": "127.0.0.1:0", "indexer_url": "http://127.0.0.1:8080"}"#;
        let config: GatewayConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config, GatewayConfig::new("127.0.0.1:0".parse().unwrap(), "http://127.0.0.1:8080"));
        config.validate().unwrap();
    }

    #[test]
    fn wrong_settings_are_named() {
        let config = GatewayConfig::new("127.0.0.1:0".parse().unwrap(), "http://127.0.0.1:8080");
        let wrong = [
            (GatewayConfig { indexer_url: "localhost".to_owned(), ..config.clone() }, "indexer_url"),
            (GatewayConfig { domain: Some("a:80".to_owned()), ..config.clone() }, "domain"),
            (GatewayConfig { refresh_interval_ms: 0, ..config.clone() }, "refresh_interval_ms"),
            (
                GatewayConfig { limits: Limits { max_attempts: 0, ..Limits::default() }, ..config },
                "limits.max_attempts",
            ),
        ];
        for (config, field) in wrong {
            assert!(config.validate().unwrap_err().to_string().starts_with(field), "{field}");
        }
    }
}
