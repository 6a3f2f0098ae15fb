//! `wharfage provider run`: the agent.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use common::{clock::SystemClock, shutdown};
use provider_agent::{AgentConfig, IsolationMode};

use super::init::{KEYSTORE, PASSWORD};
use crate::{commands::connection::KeyArgs, output::Output};

/// Options of `wharfage provider run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharfage provider run --config agent.toml
  WHARFAGE_KEY=0x… wharfage provider run --config agent.toml")]
pub(crate) struct RunArgs {
    /// The agent's configuration
    #[arg(long, value_name = "FILE", default_value = "agent.toml")]
    config: PathBuf,
    /// Where workers run, in place of what the configuration says: process, or in-process for development
    #[arg(long, value_name = "MODE")]
    isolation: Option<IsolationMode>,
    /// The agent's hot key: without it the keystore that `wharfage provider init` has put beside the configuration
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) async fn run(args: RunArgs, output: &Output) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("cannot read {}: `wharfage provider init` writes one", args.config.display()))?;
    let mut config = AgentConfig::from_toml(&text).with_context(|| args.config.display().to_string())?;
    if let Some(mode) = args.isolation {
        config.isolation.mode = mode;
    }
    let key = key_args(&args).load(output)?;
    provider_agent::run(config, key, Arc::new(SystemClock), shutdown::on_signals()?).await?;
    Ok(())
}

/// The key that was named, or else the one that stands beside the configuration.
fn key_args(args: &RunArgs) -> KeyArgs {
    let folder = args.config.parent().unwrap_or(Path::new("."));
    let keystore = folder.join(KEYSTORE);
    if args.key.is_given() || !keystore.exists() {
        return args.key.clone();
    }
    let password = folder.join(PASSWORD);
    let password_file = args.key.password_file.clone().or_else(|| password.exists().then_some(password));
    KeyArgs { keystore: Some(keystore), password_file }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_beside_the_configuration_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("agent.toml");
        let key = KeyArgs { keystore: Some("other.json".into()), password_file: None };
        let named = RunArgs { config: config.clone(), isolation: None, key };
        assert_eq!(key_args(&named).keystore, Some("other.json".into()));
        std::fs::write(folder.path().join(PASSWORD), "secret").unwrap();
        chain::Key::random().save_keystore(&folder.path().join(KEYSTORE), "secret").unwrap();
        assert_eq!(key_args(&named).keystore, Some("other.json".into()));
    }
}
