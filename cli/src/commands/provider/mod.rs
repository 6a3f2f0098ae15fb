//! `wharfage provider`: sell this machine's capacity.
//!
//! Layout: `init` writes what an agent needs and makes the offer known, `status` shows how it goes, `run` is the agent.

mod init;
mod run;
mod status;

use clap::Subcommand;

use crate::output::Output;

/// What a provider can do.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// Write the agent's configuration and hot key, and sign or post the provider offer
    Init(Box<init::InitArgs>),
    /// Run the agent: host workers, attest, claim
    Run(run::RunArgs),
    /// Show a provider's offers, deals and earnings
    Status(status::StatusArgs),
}

/// Runs one command.
pub(crate) async fn run(command: ProviderCommand, output: &Output) -> anyhow::Result<()> {
    match command {
        ProviderCommand::Init(args) => init::run(*args, output).await,
        ProviderCommand::Run(args) => run::run(args, output).await,
        ProviderCommand::Status(args) => status::run(args, output).await,
    }
}
