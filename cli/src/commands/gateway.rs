//! `wharfage gateway`: run an HTTP front door.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use common::shutdown;
use gateway::GatewayConfig;

use super::connection::ApiArgs;

/// What a gateway's operator can do.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Serve until Ctrl-C; running requests are finished first
    Run(RunArgs),
}

/// Options of `wharfage gateway run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage gateway run --listen 127.0.0.1:8081 --allow-private-endpoints
  wharfage gateway run --listen 0.0.0.0:80 --domain run.example.org --api https://market.example.org
  wharfage gateway run --config gateway.toml")]
pub(crate) struct RunArgs {
    /// Settings as TOML, in place of the other options
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "domain", "allow_private_endpoints"])]
    config: Option<PathBuf>,
    /// Where to take requests
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Suffix of deployments' host names
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Dial agents at loopback and private addresses too: for a market on one machine or one network
    #[arg(long)]
    allow_private_endpoints: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(crate) async fn run(command: GatewayCommand) -> anyhow::Result<()> {
    let GatewayCommand::Run(args) = command;
    let config = args.config()?;
    Ok(gateway::run(config, shutdown::on_signals()?).await?)
}

impl RunArgs {
    fn config(&self) -> anyhow::Result<GatewayConfig> {
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            return toml::from_str(&text).with_context(|| path.display().to_string());
        }
        let mut config = GatewayConfig::new(self.listen, &self.api.api);
        config.domain.clone_from(&self.domain);
        config.allow_private_endpoints = self.allow_private_endpoints;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_a_file_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        let text = "listen = \"127.0.0.1:9\"\nindexer_url = \"http://api.test\"\ndomain = \"run.test\"\n";
        std::fs::write(&file, text).unwrap();
        let args = |config| RunArgs {
            config,
            listen: "127.0.0.1:9".parse().unwrap(),
            domain: Some("run.test".to_owned()),
            allow_private_endpoints: false,
            api: ApiArgs { api: "http://api.test".to_owned() },
        };
        assert_eq!(args(None).config().unwrap(), args(Some(file)).config().unwrap());
    }
}
