//! What an agent is told when it starts. TOML with the field names below; [`AgentConfig::from_toml`] reads it.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use common::{ids::Address, offer::ProviderOffer, region::Region};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::{HOST_FEATURES, Mechanism};

/// A provider offer with its owner's signature: whoever holds it can register it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedProviderOffer {
    /// The offer, field names as in the web API.
    pub offer: ProviderOffer,
    /// Signature of `offer.provider`: `0x` and hex digits.
    pub signature: String,
}

/// Everything that an agent is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Folder for the database, artifacts and compiled modules; made when missing. One agent at a time.
    pub data_dir: PathBuf,
    /// Where workers, `/status`, `/metrics`, `/healthz` and `/readyz` are served; port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// HTTP endpoints of the chain, tried in this order.
    pub rpc: Vec<String>,
    /// The Market contract.
    pub market: Address,
    /// Block that the market was deployed in; searched for when not given.
    #[serde(default)]
    pub market_deployed_at: Option<u64>,
    /// Web API of a matcher, without a trailing slash: where `offer` is registered. Artifacts are fetched from there too.
    #[serde(default)]
    pub matcher_url: Option<String>,
    /// Further content stores, without a trailing slash; `/v1/artifacts/{digest}` is asked of each in turn when the
    /// URL of a developer offer does not deliver.
    #[serde(default)]
    pub content_stores: Vec<String>,
    /// The offer to register with `matcher_url`. Leave it out when its owner posted it on chain.
    #[serde(default)]
    pub offer: Option<SignedProviderOffer>,
    /// Told to workers and callers; that of `offer` when not given.
    #[serde(default)]
    pub region: Option<Region>,
    /// Milliseconds between two looks at the chain, 50 to 60,000.
    #[serde(default = "default_poll_interval_ms")]
    pub poll_interval_ms: u64,
    /// Blocks that may be replaced: deals are looked for again this far back, and one that vanished from the chain is stopped
    /// only after as many.
    #[serde(default = "default_reorg_margin")]
    pub reorg_margin_blocks: u64,
    /// Limits on what strangers can make this machine do.
    #[serde(default)]
    pub limits: HostLimits,
    /// What stands between workers and this machine.
    #[serde(default)]
    pub isolation: Isolation,
}

/// Limits of hosting. Each is named in the error that it causes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostLimits {
    /// Bytes of all names and values of a request's headers; at least 1,024.
    pub max_header_bytes: usize,
    /// Bytes of a request's body.
    pub max_request_body_bytes: u64,
    /// CPU time of one request, in milliseconds, on the clock of the thread that runs it. Checked every 5 ms.
    pub cpu_ms_per_request: u64,
    /// Wall time of one request from its arrival to its last byte, in milliseconds.
    pub request_timeout_ms: u64,
    /// CPU time that a deal may use at once beyond the share that was bought, after it was idle for long enough, in
    /// milliseconds; at least 10. What it uses beyond that it waits for.
    pub cpu_burst_ms: u64,
    /// Requests of one deal that run at once; at least 1.
    pub max_concurrent_requests: usize,
    /// Requests of one deal that wait for their turn.
    pub max_queued_requests: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Instances that live at once in one process: of one deal, or of all with `isolation.mode = "in-process"`. Address
    /// space is reserved for them. 1 to 4,096.
    pub max_live_instances: u32,
    /// Bytes of an artifact.
    pub max_artifact_bytes: u64,
    /// Time for fetching one artifact from one source, in milliseconds.
    pub artifact_timeout_ms: u64,
    /// Address space of the process that compiles one artifact, in MiB; at least 64.
    pub compile_memory_mib: u64,
    /// CPU time of the process that compiles one artifact, in seconds over all its threads.
    pub compile_cpu_seconds: u64,
    /// Wall time of compiling one artifact, in seconds.
    pub compile_timeout_seconds: u64,
    /// Size of one artifact's compiled code, in MiB.
    pub max_code_mib: u64,
    /// Size of all compiled code that is kept, in MiB: beyond it the longest unused is deleted.
    pub compiled_cache_mib: u64,
    /// Time for starting a worker's process and its first instance, in milliseconds.
    pub start_timeout_ms: u64,
    /// Time that running requests get at shutdown, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            max_header_bytes: 128 << 10,
            max_request_body_bytes: 100 << 20,
            cpu_ms_per_request: 5_000,
            request_timeout_ms: 15_000,
            cpu_burst_ms: 500,
            max_concurrent_requests: 64,
            max_queued_requests: 256,
            max_connections: 4_096,
            max_live_instances: 512,
            max_artifact_bytes: 64 << 20,
            artifact_timeout_ms: 120_000,
            compile_memory_mib: 2_048,
            compile_cpu_seconds: 60,
            compile_timeout_seconds: 300,
            max_code_mib: 256,
            compiled_cache_mib: 4_096,
            start_timeout_ms: 30_000,
            drain_timeout_ms: 15_000,
        }
    }
}

impl HostLimits {
    /// Wall time of one request.
    pub const fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// When a request that comes now must be through.
    pub fn deadline(&self) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        now.checked_add(self.request_timeout()).unwrap_or(now)
    }

    /// CPU time that may be used at once beyond the share that was bought.
    pub const fn cpu_burst(&self) -> Duration {
        Duration::from_millis(self.cpu_burst_ms)
    }

    /// CPU time of one request.
    pub const fn cpu_per_request(&self) -> Duration {
        Duration::from_millis(self.cpu_ms_per_request)
    }
}

/// Where workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationMode {
    /// Each deal in a process of its own, and each compilation. Linux only.
    Process,
    /// All in the agent's process: for development, where strangers' code never comes.
    InProcess,
}

impl IsolationMode {
    /// The name in configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::InProcess => "in-process",
        }
    }
}

impl std::str::FromStr for IsolationMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [Self::Process, Self::InProcess];
        modes.into_iter().find(|mode| mode.name() == text).ok_or_else(|| "process or in-process".to_owned())
    }
}

/// What stands between workers and this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// Where workers run; `process` on Linux and `in-process` elsewhere unless set.
    pub mode: IsolationMode,
    /// Mechanisms without which the agent refuses to start; what is not here is used where the machine has it.
    pub required: Vec<Mechanism>,
    /// The program that the processes run; without it the one that runs the agent.
    pub program: Option<PathBuf>,
}

impl Default for Isolation {
    fn default() -> Self {
        let mode = if cfg!(target_os = "linux") { IsolationMode::Process } else { IsolationMode::InProcess };
        Self { mode, required: Vec::new(), program: None }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8090))
}

const fn default_poll_interval_ms() -> u64 {
    1_000
}

const fn default_reorg_margin() -> u64 {
    64
}

/// A configuration that no agent can run with.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not TOML, or fields are missing, unknown or of another type.
    #[error("the agent's configuration cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A field outside its limits.
    #[error("{field} must be {limit}, got {value}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// What is allowed.
        limit: String,
        /// What was given.
        value: String,
    },
}

fn require(holds: bool, field: &'static str, limit: impl ToString, value: impl ToString) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { field, limit: limit.to_string(), value: value.to_string() })
}

impl AgentConfig {
    /// Reads and checks a configuration.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.rpc.is_empty(), "rpc", "at least one URL", "none")?;
        let poll = self.poll_interval_ms;
        require((50..=60_000).contains(&poll), "poll_interval_ms", "50 to 60000", poll)?;
        let limits = &self.limits;
        let headers = limits.max_header_bytes;
        require(headers >= 1_024, "limits.max_header_bytes", "at least 1024", headers)?;
        let concurrent = limits.max_concurrent_requests;
        require(concurrent > 0, "limits.max_concurrent_requests", "at least 1", concurrent)?;
        let instances = limits.max_live_instances;
        require((1..=4_096).contains(&instances), "limits.max_live_instances", "1 to 4096", instances)?;
        require(limits.cpu_ms_per_request > 0, "limits.cpu_ms_per_request", "at least 1", 0)?;
        require(limits.request_timeout_ms > 0, "limits.request_timeout_ms", "at least 1", 0)?;
        require(limits.max_connections > 0, "limits.max_connections", "at least 1", 0)?;
        require(limits.cpu_burst_ms >= 10, "limits.cpu_burst_ms", "at least 10", limits.cpu_burst_ms)?;
        let memory = limits.compile_memory_mib;
        require(memory >= 64, "limits.compile_memory_mib", "at least 64", memory)?;
        require(limits.compile_cpu_seconds > 0, "limits.compile_cpu_seconds", "at least 1", 0)?;
        require(limits.compile_timeout_seconds > 0, "limits.compile_timeout_seconds", "at least 1", 0)?;
        require(limits.max_code_mib > 0, "limits.max_code_mib", "at least 1", 0)?;
        require(limits.start_timeout_ms > 0, "limits.start_timeout_ms", "at least 1", 0)?;
        let required = &self.isolation.required;
        let is_process = self.isolation.mode == IsolationMode::Process;
        let names = || required.iter().map(|mechanism| mechanism.name()).collect::<Vec<_>>().join(", ");
        require(is_process || required.is_empty(), "isolation.required", "empty with mode in-process", names())?;
        self.offer.as_ref().map_or(Ok(()), |signed| {
            let offer = &signed.offer;
            offer.validate().map_err(|invalid| ConfigError::OutOfRange {
                field: "offer",
                limit: "valid".to_owned(),
                value: invalid.to_string(),
            })?;
            let lacking = offer.features.without(HOST_FEATURES);
            let known = format!("among what this agent can do: {:?}", HOST_FEATURES.names());
            require(lacking.0 == 0, "offer.features", known, format!("{:?}", offer.features.names()))
        })
    }

    /// The region that workers and callers are told.
    pub fn region(&self) -> Option<Region> {
        self.region.or(self.offer.as_ref().map(|signed| signed.offer.region))
    }

    /// Time between two looks at the chain.
    pub const fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        data_dir = "agent-data"
        rpc = ["http://127.0.0.1:8545"]
        market = "0x00000000000000000000000000000000000000aa"
    "#;

    #[test]
    fn three_fields_are_enough() {
        let config = AgentConfig::from_toml(LEAST).unwrap();
        assert_eq!(config.limits, HostLimits::default());
        assert_eq!(config.listen.port(), 8090);
        let again = AgentConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_offer_is_read_with_the_names_of_the_web_api() {
        let text = format!(
            r#"{LEAST}
            [offer]
            signature = "0x00"
            [offer.offer]
            provider = "0x00000000000000000000000000000000000000a1"
            agent = "0x00000000000000000000000000000000000000a2"
            payout = "0x00000000000000000000000000000000000000a3"
            region = "eu-de-fra1"
            capacity = {{ milliCpu = 2000, memoryMib = 4096 }}
            features = []
            prices = {{ perVcpuEpoch = "1000", perGibEpoch = "500" }}
            maxEpochs = 0
            validUntil = 4000000000
            nonce = 1
            endpoint = "http://127.0.0.1:8090"
            "#
        );
        let config = AgentConfig::from_toml(&text).unwrap();
        assert_eq!(config.region().unwrap().to_string(), "eu-de-fra1");
        let promising = text.replace("features = []", r#"features = ["wasi:keyvalue"]"#);
        let error = AgentConfig::from_toml(&promising).unwrap_err().to_string();
        assert!(error.contains("offer.features") && error.contains("wasi:keyvalue"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (extra, says) in [
            ("poll_interval_ms = 1", "poll_interval_ms must be 50 to 60000, got 1"),
            ("[limits]\nmax_concurrent_requests = 0", "limits.max_concurrent_requests"),
            ("colour = 1", "colour"),
            ("[isolation]\nmode = \"in-process\"\nrequired = [\"seccomp\"]", "isolation.required"),
            ("[isolation]\nrequired = [\"luck\"]", "luck"),
        ] {
            let error = AgentConfig::from_toml(&format!("{LEAST}\n{extra}")).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
