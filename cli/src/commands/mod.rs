//! The commands of developers, providers and operators against a market that runs.
//!
//! Layout: [`connection`] and [`amount`] are what they share (where the market is, whose key, how amounts are typed),
//! `draft` an offer as options, `audit` a folder of its own, and each other file a command or a few of one subject.

pub(crate) mod amount;
mod audit;
mod cancel;
pub(crate) mod connection;
mod contracts;
mod deploy;
mod depth;
mod draft;
mod explain;
mod follow;
mod gateway;
mod indexer;
mod invoke;
mod keys;
mod list;
mod money;
mod prices;
pub(crate) mod provider;
mod status;

use std::process::ExitCode;

use clap::Subcommand;

use crate::output::Output;

/// Commands against a running market.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put a worker on the market and wait until it answers
    Deploy(Box<deploy::DeployArgs>),
    /// Say who would host a worker, or why nobody would and what would help
    Explain(Box<explain::ExplainArgs>),
    /// Show a deployment: where it stands, its hosts, its money
    Status(status::StatusArgs),
    /// Send a request to a deployment through the gateway
    Invoke(invoke::InvokeArgs),
    /// End a deployment at the next epoch and get the unused money back
    Cancel(cancel::CancelArgs),
    /// Show how much of a size can be had, where and at which prices
    Depth(depth::DepthArgs),
    /// Show what deals were opened at, over time
    Prices(prices::PricesArgs),
    /// List offers
    Offers(list::OffersArgs),
    /// List deals, or show one deal's history
    Deals(list::DealsArgs),
    /// Show an account's money
    Balance(money::BalanceArgs),
    /// Move tokens from the wallet into the market
    Deposit(money::DepositArgs),
    /// Take free money out of the market
    Withdraw(money::WithdrawArgs),
    /// Pay a deal further ahead
    Fund(money::FundArgs),
    /// Get test tokens, and gas where the chain gives it away
    Faucet(money::FaucetArgs),
    /// Make keys and show their addresses
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Recompute everything from the chain's events and compare it with the contract and with indexers
    Audit(audit::AuditArgs),
    /// Sell this machine's capacity
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Follow a market's chain and serve what it says
    #[command(subcommand)]
    Indexer(indexer::IndexerCommand),
    /// Run an HTTP front door
    #[command(subcommand)]
    Gateway(gateway::GatewayCommand),
    /// Make a market on a chain
    #[command(subcommand)]
    Contracts(contracts::ContractsCommand),
}

/// Runs one command.
pub(crate) async fn run(command: Command, output: &Output) -> anyhow::Result<ExitCode> {
    match command {
        // Its finding is an answer, and has an exit code of its own.
        Command::Audit(args) => return audit::run(args, output).await,
        Command::Deploy(args) => deploy::run(*args, output).await,
        Command::Explain(args) => explain::run(*args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Invoke(args) => invoke::run(args, output).await,
        Command::Cancel(args) => cancel::run(args, output).await,
        Command::Depth(args) => depth::run(args, output).await,
        Command::Prices(args) => prices::run(args, output).await,
        Command::Offers(args) => list::offers(args, output).await,
        Command::Deals(args) => list::deals(args, output).await,
        Command::Balance(args) => money::balance(args, output).await,
        Command::Deposit(args) => money::deposit(args, output).await,
        Command::Withdraw(args) => money::withdraw(args, output).await,
        Command::Fund(args) => money::fund(args, output).await,
        Command::Faucet(args) => money::faucet(args, output).await,
        Command::Keys(command) => keys::run(command, output),
        Command::Provider(command) => provider::run(command, output).await,
        Command::Indexer(command) => indexer::run(command, output).await,
        Command::Gateway(command) => gateway::run(command).await,
        Command::Contracts(command) => contracts::run(command, output).await,
    }?;
    Ok(ExitCode::SUCCESS)
}
