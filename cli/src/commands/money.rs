//! `wharfage balance`, `deposit`, `withdraw`, `fund` and `faucet`: money in, out and around.

use std::str::FromStr;

use anyhow::Context;
use chain::{ChainError, Key, Rpc, TxReceipt, TxSender, calls};
use clap::Args;
use common::{
    clock::{Clock, SystemClock},
    ids::{Address, DealId},
    money::Atoms,
};
use serde_json::{Value, json};

use super::{
    amount,
    connection::{ApiArgs, KeyArgs, Market, RpcArgs, Wallet},
};
use crate::{
    explanation::tokens,
    output::{Output, RefusedError, UsageError},
};

/// How long a signed permit may be used.
const PERMIT_SECONDS: u64 = 3_600;
/// Gas money that the faucet gives an account that has less: one unit of the chain's currency, in wei.
const FAUCET_WEI: u128 = 1_000_000_000_000_000_000;

/// Options of `wharfage balance`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfage balance\n  wharfage balance 0x70…c8 --json")]
pub(crate) struct BalanceArgs {
    /// Account; without it that of the key
    account: Option<Address>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// Options of `wharfage deposit`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfage deposit 100\n  wharfage deposit 2.5 --for 0x70…c8")]
pub(crate) struct DepositArgs {
    /// USDC to move from the wallet into the market
    #[arg(value_name = "USDC", value_parser = amount::tokens)]
    amount: Atoms,
    /// Account that shall have it; without it the wallet's own
    #[arg(long = "for", value_name = "ADDRESS")]
    account: Option<Address>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// A number of tokens, or whatever there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    All,
    Exactly(Atoms),
}

/// Options of `wharfage withdraw`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfage withdraw all\n  wharfage withdraw 2.5 --to 0x70…c8")]
pub(crate) struct WithdrawArgs {
    /// USDC to take out of the free balance, or `all`
    #[arg(value_name = "USDC")]
    amount: Quantity,
    /// Where it goes; without it to the account itself
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// Options of `wharfage fund`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  wharfage fund 0x9a…07 2.5")]
pub(crate) struct FundArgs {
    /// The deal; anyone may fund it
    deal: DealId,
    /// USDC of the free balance
    #[arg(value_name = "USDC", value_parser = amount::tokens)]
    amount: Atoms,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// Options of `wharfage faucet`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharfage faucet\n  wharfage faucet 50 --to 0x70…c8")]
pub(crate) struct FaucetArgs {
    /// Test USDC; at most 1,000,000 at a time
    #[arg(value_name = "USDC", default_value = "100", value_parser = amount::tokens)]
    amount: Atoms,
    /// Who gets it; without it the account of the key
    #[arg(long, value_name = "ADDRESS")]
    to: Option<Address>,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    rpc: RpcArgs,
    #[command(flatten)]
    key: KeyArgs,
}

impl FromStr for Quantity {
    type Err = common::money::MoneyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { amount::tokens(text).map(Self::Exactly) }
    }
}

/// What of an account's money in the market is neither locked nor bonded.
pub(crate) async fn free_balance(market: &Market, account: Address) -> anyhow::Result<Atoms> {
    let balance: Value = market.api.get(&format!("/v1/balances/{account}")).await?;
    let free = balance.get("free").cloned().unwrap_or_default();
    serde_json::from_value(free).with_context(|| format!("the balance of {account} cannot be read"))
}

/// Deposits for the wallet's own account: in one transaction where the token knows permits, else in two.
pub(crate) async fn deposit_own(market: &Market, wallet: &Wallet, amount: Atoms) -> anyhow::Result<TxReceipt> {
    let owner = wallet.key.address();
    ensure_tokens(wallet, amount).await?;
    let deadline = SystemClock.unix_seconds().saturating_add(PERMIT_SECONDS);
    match wallet.reader.permit(owner, amount, deadline).await {
        Ok(permit) => {
            let signature = wallet.key.sign_permit(&permit)?;
            let call = calls::deposit_with_permit(market.terms.market, owner, amount, deadline, &signature);
            Ok(wallet.sender.send(&call).await?)
        }
        Err(ChainError::InvalidAnswer { .. } | ChainError::Reverted { .. }) => {
            wallet.sender.send(&calls::approve(market.terms.token, market.terms.market, amount)).await?;
            Ok(wallet.sender.send(&calls::deposit(market.terms.market, amount)).await?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Says in tokens what the contract would say in atoms.
async fn ensure_free(wallet: &Wallet, amount: Atoms) -> anyhow::Result<()> {
    let account = wallet.key.address();
    let free = wallet.reader.free_balance(account).await?;
    if free >= amount {
        return Ok(());
    }
    let detail = format!("the free balance of {account} is {free}, less than {amount}: take less, or deposit first");
    Err(RefusedError { code: "insufficient_balance", detail }.into())
}

async fn ensure_tokens(wallet: &Wallet, amount: Atoms) -> anyhow::Result<()> {
    let has = wallet.reader.token_balance(wallet.key.address()).await?;
    if has >= amount {
        return Ok(());
    }
    let account = wallet.key.address();
    let detail = format!(
        "the wallet of {account} has {has}, but {amount} are to be deposited: send it tokens, or run `wharfage faucet` on a test network"
    );
    Err(RefusedError { code: "insufficient_tokens", detail }.into())
}

pub(crate) async fn balance(args: BalanceArgs, output: &Output) -> anyhow::Result<()> {
    let account = match args.account {
        Some(account) => account,
        None => args.key.load(output)?.address(),
    };
    let market = args.api.connect().await?;
    let mut shown: Value = market.api.get(&format!("/v1/balances/{account}")).await?;
    let wallet = wallet_of(&args.rpc, &market, account).await;
    if let Err(error) = &wallet {
        output.progress(&format!("note: the wallet is not shown: {error:#}"));
    }
    let lines = balance_lines(&shown, account, wallet.as_ref().ok());
    if let (Value::Object(fields), Ok((tokens, wei))) = (&mut shown, &wallet) {
        fields.insert("wallet".to_owned(), json!(tokens));
        fields.insert("gasWei".to_owned(), json!(wei.to_string()));
    }
    output.answer(&shown, &lines);
    Ok(())
}

/// Tokens and wei outside the market.
async fn wallet_of(rpc: &RpcArgs, market: &Market, account: Address) -> anyhow::Result<(Atoms, u128)> {
    let reader = rpc.reader(&market.terms).await?;
    Ok((reader.token_balance(account).await?, reader.rpc().gas_balance(account).await?))
}

fn balance_lines(shown: &Value, account: Address, wallet: Option<&(Atoms, u128)>) -> Vec<String> {
    let field = |name: &str| tokens(shown.get(name));
    let mut lines = vec![
        format!("account {account}"),
        format!("  free    {}", field("free")),
        format!("  locked  {} for deals it pays for", field("locked")),
        format!("  bonded  {} for deals it hosts", field("bonded")),
    ];
    if let Some((tokens, wei)) = wallet {
        lines.push(format!("  wallet  {tokens} outside the market, {wei} wei for gas"));
    }
    lines
}

pub(crate) async fn deposit(args: DepositArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let wallet = args.rpc.wallet(&market.terms, args.key.load(output)?).await?;
    let own = wallet.key.address();
    let account = args.account.unwrap_or(own);
    let receipt = if account == own {
        deposit_own(&market, &wallet, args.amount).await?
    } else {
        ensure_tokens(&wallet, args.amount).await?;
        wallet.sender.send(&calls::approve(market.terms.token, market.terms.market, args.amount)).await?;
        wallet.sender.send(&calls::deposit_for(market.terms.market, account, args.amount)).await?
    };
    let line = format!("{} deposited for {account}", args.amount);
    done(&market, &receipt, &line, json!({ "account": account, "amount": args.amount }), output).await
}

pub(crate) async fn withdraw(args: WithdrawArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let wallet = args.rpc.wallet(&market.terms, args.key.load(output)?).await?;
    let own = wallet.key.address();
    let amount = match args.amount {
        Quantity::Exactly(amount) => amount,
        Quantity::All => wallet.reader.free_balance(own).await?,
    };
    ensure_free(&wallet, amount).await?;
    let to = args.to.unwrap_or(own);
    let receipt = wallet.sender.send(&calls::withdraw(market.terms.market, amount, to)).await?;
    let line = format!("{amount} withdrawn to {to}");
    done(&market, &receipt, &line, json!({ "account": own, "to": to, "amount": amount }), output).await
}

pub(crate) async fn fund(args: FundArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let wallet = args.rpc.wallet(&market.terms, args.key.load(output)?).await?;
    ensure_free(&wallet, args.amount).await?;
    let references = wallet.references(&[args.deal]).await?;
    let deal = references.first().with_context(|| format!("the chain knows no deal {}", args.deal))?;
    let receipt = wallet.sender.send(&calls::fund_deal(market.terms.market, deal, args.amount)).await?;
    let paid_until = wallet.reader.deal(args.deal).await?.map(|deal| deal.paid_until);
    let until = paid_until.map(|epoch| format!(", now paid up to epoch {epoch}")).unwrap_or_default();
    let line = format!("deal {} funded with {}{until}", args.deal, args.amount);
    let answer = json!({ "deal": args.deal, "amount": args.amount, "paidUntil": paid_until });
    done(&market, &receipt, &line, answer, output).await
}

pub(crate) async fn faucet(args: FaucetArgs, output: &Output) -> anyhow::Result<()> {
    let market = args.api.connect().await?;
    let own = if args.key.is_given() { Some(args.key.load(output)?) } else { None };
    let to = args.to.or_else(|| own.as_ref().map(Key::address));
    let to = to.ok_or_else(|| UsageError("who gets it? name an account with --to, or give a key".to_owned()))?;
    let reader = args.rpc.reader(&market.terms).await?;
    let gives_gas = give_gas(&args.rpc, reader.rpc(), to).await;
    // Anyone may mint: where gas is free, an account made for this one call does.
    let minter =
        if gives_gas { Key::random() } else { own.context("this chain gives no gas away: give a key that has some")? };
    if gives_gas {
        give_gas(&args.rpc, reader.rpc(), minter.address()).await;
    }
    let sender = TxSender::new(reader.rpc().clone(), minter).await?;
    let minted = sender.send(&calls::mint(market.terms.token, to, args.amount)).await;
    let receipt = minted.context("the token gives nothing away: is this a test network?")?;
    let line = format!("{} in the wallet of {to}; `wharfage deposit` moves it into the market", args.amount);
    done(&market, &receipt, &line, json!({ "to": to, "amount": args.amount, "gaveGas": gives_gas }), output).await
}

/// On a development node, tops up what the account pays gas with. False where the node does no such thing.
async fn give_gas(args: &RpcArgs, rpc: &Rpc, account: Address) -> bool {
    let has = rpc.gas_balance(account).await.unwrap_or_default();
    let wanted = has.max(FAUCET_WEI);
    let Some(url) = args.rpc.first() else { return false };
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [account, format!("{wanted:#x}")],
    });
    let answer = match reqwest::Client::new().post(url).json(&request).send().await {
        Ok(answer) => answer.json::<Value>().await,
        Err(error) => Err(error),
    };
    answer.is_ok_and(|answer| answer.get("error").is_none())
}

/// Answers with the transaction, once the web API has seen it.
async fn done(
    market: &Market,
    receipt: &TxReceipt,
    line: &str,
    mut answer: Value,
    output: &Output,
) -> anyhow::Result<()> {
    market.catch_up(receipt, output).await;
    if let Value::Object(fields) = &mut answer {
        fields.insert("transaction".to_owned(), json!(receipt.tx_hash));
        fields.insert("gas".to_owned(), json!(receipt.gas_used));
    }
    output.answer(&answer, &[format!("{line} ({})", receipt.tx_hash)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers_or_all() {
        assert_eq!("all".parse::<Quantity>().unwrap(), Quantity::All);
        assert_eq!("1.5".parse::<Quantity>().unwrap(), Quantity::Exactly(Atoms::new(1_500_000).unwrap()));
        assert!("some".parse::<Quantity>().unwrap_err().to_string().contains("1.25"));
    }

    #[test]
    fn a_balance_is_told_in_tokens() {
        let shown = json!({ "free": "1500000", "locked": "2", "bonded": "0" });
        let lines = balance_lines(&shown, Address([1; 20]), Some(&(Atoms::new(7).unwrap(), 9))).join("\n");
        for part in ["1.500000 USDC", "0.000002 USDC for deals it pays", "0.000007 USDC outside", "9 wei"] {
            assert!(lines.contains(part), "{part} in {lines}");
        }
    }
}
