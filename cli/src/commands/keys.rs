//! `wharfage keys`: keystores.

use std::path::PathBuf;

use chain::Key;
use clap::{Args, Subcommand};
use serde_json::json;

use super::connection::KeyArgs;
use crate::output::{Output, UsageError};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and write it to a keystore (JSON V3)
    New(NewArgs),
    /// Show the address of a key
    Address(AddressArgs),
}

/// Options of `wharfage keys new`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  WHARFAGE_PASSWORD=… wharfage keys new --out developer.json")]
pub(crate) struct NewArgs {
    /// Keystore to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File that holds the password; without it the password is in WHARFAGE_PASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Options of `wharfage keys address`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfage keys address --keystore developer.json --password-file password")]
pub(crate) struct AddressArgs {
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(command: KeysCommand, output: &Output) -> anyhow::Result<()> {
    match command {
        KeysCommand::New(args) => new(args, output),
        KeysCommand::Address(args) => address(&args, output),
    }
}

fn new(args: NewArgs, output: &Output) -> anyhow::Result<()> {
    if args.out.exists() {
        let detail = format!("{} exists: choose another file, a key is never overwritten", args.out.display());
        return Err(UsageError(detail).into());
    }
    let password = KeyArgs { keystore: None, password_file: args.password_file }.password()?;
    let key = Key::random();
    key.save_keystore(&args.out, &password)?;
    let lines = [format!("{}", key.address()), format!("keystore {}", args.out.display())];
    output.answer(&json!({ "address": key.address(), "keystore": args.out }), &lines);
    Ok(())
}

fn address(args: &AddressArgs, output: &Output) -> anyhow::Result<()> {
    let address = args.key.load(output)?.address();
    output.answer(&json!({ "address": address }), &[address.to_string()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (out, password) = (folder.path().join("key.json"), folder.path().join("password"));
        std::fs::write(&password, "secret").unwrap();
        let args = || NewArgs { out: out.clone(), password_file: Some(password.clone()) };
        new(args(), &Output::new(true)).unwrap();
        let before = std::fs::read(&out).unwrap();
        assert!(new(args(), &Output::new(true)).unwrap_err().is::<UsageError>());
        assert_eq!(std::fs::read(&out).unwrap(), before);
        Key::from_keystore(&out, "secret").unwrap();
    }
}
