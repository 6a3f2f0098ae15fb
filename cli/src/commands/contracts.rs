//! `wharfage contracts`: making a market on a chain.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use chain::{DeployConfig, DeterministicDeployment, MarketReader, Rpc, TxReceipt, TxSender};
use clap::{Args, Subcommand};
use common::{ids::Address, market::MarketTerms};
use serde::Deserialize;
use serde_json::json;

use super::connection::KeyArgs;
use crate::output::{Output, UsageError};

/// Making markets.
#[derive(Debug, Subcommand)]
pub(crate) enum ContractsCommand {
    /// Deploy a market at the address that follows from its parameters, and verify it
    Deploy(ContractsDeployArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The same file gives the same addresses on every chain and from every account. What stands there
already is left alone, so that the command can be repeated.

Example of a file (docs/market.example.toml explains each line):
  chain_id = 31337
  salt = \"0x0000000000000000000000000000000000000000000000000000000000000000\"
  token = \"0x5fbdb2315678afecb367f032d93f642f64180aa3\"
  operator = \"0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266\"
  genesis = 1790000000
  epoch_length = 3600
  attestation_window = 4
  evict_after_missed = 6
  bond_epochs = 24
  min_prepaid_epochs = 24
  grace_epochs = 24
  notice_epochs = 24

Examples:
  wharfage contracts deploy --parameters market.toml --rpc http://127.0.0.1:8545 --dry-run
  wharfage contracts deploy --parameters market.toml --rpc http://127.0.0.1:8545 --keystore operator.json"
)]
pub(crate) struct ContractsDeployArgs {
    /// File with the market's parameters
    #[arg(long, value_name = "FILE")]
    parameters: PathBuf,
    /// The chain's JSON-RPC endpoint
    #[arg(long, value_name = "URL", env = "WHARFAGE_RPC")]
    rpc: String,
    /// Show the addresses and what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// The file. Every field is wanted: a market can't be changed afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// The chain that is meant; no other one is touched.
    chain_id: u64,
    /// 32 bytes in hex: another salt gives other addresses.
    salt: String,
    token: Address,
    operator: Address,
    /// Second since 1970 at which epoch 0 begins; not in the future.
    genesis: u64,
    epoch_length: u32,
    attestation_window: u32,
    evict_after_missed: u32,
    bond_epochs: u32,
    min_prepaid_epochs: u32,
    grace_epochs: u32,
    notice_epochs: u32,
}

impl Parameters {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let parameters: Self = toml::from_str(text)?;
        let within = |field: &str, value: u32, least: u32, most: u32| {
            ensure!(
                (least..=most).contains(&value),
                UsageError(format!("{field} must be {least} to {most}, not {value}"))
            );
            Ok(())
        };
        // The limits of the contract, which would say only that a field is wrong.
        within("epoch_length", parameters.epoch_length, 1, u32::MAX)?;
        within("attestation_window", parameters.attestation_window, 1, 16)?;
        within("evict_after_missed", parameters.evict_after_missed, 1, 200)?;
        within("bond_epochs", parameters.bond_epochs, 0, 10_000)?;
        within("min_prepaid_epochs", parameters.min_prepaid_epochs, 1, 65_535)?;
        parameters.salt()?;
        Ok(parameters)
    }

    fn salt(&self) -> anyhow::Result<[u8; 32]> {
        let digits = self.salt.strip_prefix("0x").unwrap_or(&self.salt);
        let mut salt = [0; 32];
        hex::decode_to_slice(digits, &mut salt)
            .map_err(|_| UsageError(format!("salt must be 32 bytes in hex, not {:?}", self.salt)))?;
        Ok(salt)
    }

    const fn config(&self) -> DeployConfig {
        DeployConfig {
            epoch_length: self.epoch_length,
            attestation_window: self.attestation_window,
            evict_after_missed: self.evict_after_missed,
            bond_epochs: self.bond_epochs,
            min_prepaid_epochs: self.min_prepaid_epochs,
            grace_epochs: self.grace_epochs,
            notice_epochs: self.notice_epochs,
            operator: self.operator,
        }
    }

    fn deployment(&self) -> anyhow::Result<DeterministicDeployment> {
        Ok(DeterministicDeployment::new(self.token, self.genesis, &self.config(), self.salt()?))
    }
}

pub(crate) async fn run(command: ContractsCommand, output: &Output) -> anyhow::Result<()> {
    let ContractsCommand::Deploy(args) = command;
    let parameters = Parameters::read(&args.parameters)?;
    let deployment = parameters.deployment()?;
    let rpc = Rpc::new(&[args.rpc])?;
    let chain_id = rpc.chain_id().await?;
    if chain_id != parameters.chain_id {
        let wanted = parameters.chain_id;
        bail!(UsageError(format!("the file is for chain {wanted}, but the endpoint serves chain {chain_id}")));
    }
    let now = rpc.head().await?.timestamp;
    if parameters.genesis > now {
        let genesis = parameters.genesis;
        bail!(UsageError(format!("genesis {genesis} lies ahead of the chain, whose time is {now}")));
    }
    if args.dry_run {
        return answer(&parameters, &deployment, None, output);
    }
    let sender = TxSender::new(rpc.clone(), args.key.load(output)?).await?;
    let sent = deployment.deploy(&sender).await?;
    let found = MarketReader::connect(rpc, deployment.market, None).await?;
    verify(&parameters, &deployment, found.terms())?;
    answer(&parameters, &deployment, Some((&sent, found.terms())), output)
}

/// The addresses bind the code and the constants; asking shows that the chain answers as it should.
fn verify(parameters: &Parameters, deployment: &DeterministicDeployment, found: &MarketTerms) -> anyhow::Result<()> {
    let expected = MarketTerms {
        chain_id: parameters.chain_id,
        market: deployment.market,
        deployed_at_block: found.deployed_at_block,
        token: parameters.token,
        operator: parameters.operator,
        schedule: common::epoch::EpochSchedule { genesis: parameters.genesis, length: parameters.epoch_length },
        attestation_window: parameters.attestation_window,
        evict_after_missed: parameters.evict_after_missed,
        bond_epochs: parameters.bond_epochs,
        min_prepaid_epochs: parameters.min_prepaid_epochs,
        grace_epochs: parameters.grace_epochs,
        notice_epochs: parameters.notice_epochs,
    };
    ensure!(*found == expected, "the market answers with other constants: {found:?} instead of {expected:?}");
    Ok(())
}

fn answer(
    parameters: &Parameters,
    deployment: &DeterministicDeployment,
    done: Option<(&[TxReceipt], &MarketTerms)>,
    output: &Output,
) -> anyhow::Result<()> {
    let DeterministicDeployment { market, extension, .. } = deployment;
    let mut lines = vec![format!("market     {market}"), format!("extension  {extension}")];
    let sent = done.map_or(&[][..], |(sent, _)| sent);
    lines.extend(sent.iter().map(|receipt| format!("sent       {} ({} gas)", receipt.tx_hash, receipt.gas_used)));
    lines.push(match done {
        None => "nothing was sent".to_owned(),
        Some((_, terms)) => {
            format!("verified   its constants are the file's; index from block {}", terms.deployed_at_block)
        }
    });
    let transactions: Vec<_> =
        sent.iter().map(|receipt| json!({ "hash": receipt.tx_hash, "gas": receipt.gas_used })).collect();
    let answer = json!({
        "chainId": parameters.chain_id,
        "market": market,
        "extension": extension,
        "transactions": transactions,
        "verified": done.is_some(),
        "deployedAtBlock": done.map(|(_, terms)| terms.deployed_at_block),
    });
    output.answer(&answer, &lines);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../docs/market.example.toml");

    #[test]
    fn the_example_of_the_docs_is_a_market() {
        let parameters = Parameters::parse(EXAMPLE).unwrap();
        let deployment = parameters.deployment().unwrap();
        assert_ne!(deployment.market, deployment.extension);
        let other = Parameters { salt: format!("0x{}", "01".repeat(32)), ..parameters.clone() };
        assert_ne!(other.deployment().unwrap().market, deployment.market);
        assert_eq!(Parameters::parse(EXAMPLE).unwrap().deployment().unwrap(), deployment);
    }

    #[test]
    fn a_wrong_file_says_which_field_and_what_is_allowed() {
        for (from, to, says) in [
            ("attestation_window = 4", "attestation_window = 17", "attestation_window must be 1 to 16, not 17"),
            ("min_prepaid_epochs = 24", "min_prepaid_epochs = 0", "min_prepaid_epochs must be 1 to 65535, not 0"),
            ("salt = \"0x00", "salt = \"0x0", "salt must be 32 bytes in hex"),
            ("bond_epochs = 24", "bond_epoch = 24", "bond_epoch"),
        ] {
            assert!(EXAMPLE.contains(from), "{from}");
            let error = Parameters::parse(&EXAMPLE.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }
}
