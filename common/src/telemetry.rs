//! Logs and metrics, the same way in every service.

use prometheus::{Encoder, Registry, TextEncoder};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Sends logs to standard error. `RUST_LOG` overrides `default_filter` (`info`, `warn,matcher=debug` …).
/// A second call changes nothing.
pub fn init_logs(default_filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_filter));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => registry.with(layer.with_target(true)).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "logs were set up before");
    }
}

/// All metrics of `registries` in the Prometheus text format.
pub fn render(registries: &[Registry]) -> Result<String, prometheus::Error> {
    let families: Vec<_> = registries.iter().flat_map(Registry::gather).collect();
    let mut buffer = Vec::new();
    TextEncoder::new().encode(&families, &mut buffer)?;
    String::from_utf8(buffer).map_err(|error| prometheus::Error::Msg(error.to_string()))
}
