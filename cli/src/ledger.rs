//! Where every atom is, from the chain alone: events folded into a state, then each figure compared with what the
//! contract's own storage says.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use chain::MarketReader;
use common::{
    deal::{Deal, DealState, EndCause},
    ids::{Address, DealId},
    money::{Atoms, MoneyError},
    state::MarketState,
};
use serde::Serialize;

/// Storage is read at the head: where an event came in between, the reading is begun anew.
const MOST_TRIES: u32 = 10;

/// All money that the market and the named accounts hold.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ledger {
    /// Last block that was read.
    pub(crate) as_of_block: u64,
    /// Tokens that were ever created for the accounts, as the caller knows it.
    pub(crate) minted: Atoms,
    /// Every account that the market knows or the caller named.
    pub(crate) accounts: Vec<AccountLine>,
    /// Every deal ever.
    pub(crate) deals: Vec<DealLine>,
    /// Tokens that the contract holds, by the token's own storage.
    pub(crate) held_by_market: Atoms,
    /// Free balances, locks and bonds, by the market's storage.
    pub(crate) owed_by_market: Atoms,
    /// Tokens in the wallets of the accounts.
    pub(crate) in_wallets: Atoms,
    /// What does not add up; empty when everything does.
    pub(crate) differences: Vec<String>,
    /// Whether every atom is accounted for.
    pub(crate) conserved: bool,
}

/// One account's money.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AccountLine {
    pub(crate) name: String,
    pub(crate) account: Address,
    pub(crate) wallet: Atoms,
    pub(crate) free_in_market: Atoms,
}

/// One deal's money since it was opened: `funded = paid + refunded + locked`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DealLine {
    pub(crate) deal: DealId,
    pub(crate) provider: Address,
    pub(crate) state: DealState,
    pub(crate) cause: Option<EndCause>,
    pub(crate) price_per_epoch: Atoms,
    pub(crate) funded: Atoms,
    pub(crate) paid: Atoms,
    pub(crate) refunded: Atoms,
    pub(crate) locked: Atoms,
    pub(crate) bond: Atoms,
}

/// Folds all of the market's events up to the head.
pub(crate) async fn replay(reader: &MarketReader) -> anyhow::Result<MarketState> {
    let head = reader.rpc().head().await?;
    let mut state = MarketState::new(reader.terms());
    for block in reader.blocks(reader.terms().deployed_at_block, head.number).await? {
        state.apply_block(&block).context("the chain's events contradict each other")?;
    }
    Ok(state)
}

impl Ledger {
    /// Draws the ledger up. `names` are accounts with their names; `minted` is what the faucet gave out in all.
    pub(crate) async fn draw_up(
        reader: &MarketReader,
        names: &BTreeMap<Address, String>,
        minted: Atoms,
    ) -> anyhow::Result<Self> {
        for _ in 0..MOST_TRIES {
            let state = replay(reader).await?;
            let as_of_block = state.as_of.context("the chain has no block")?.number;
            let ledger = Self::compare(reader, &state, as_of_block, names, minted).await?;
            if !money_moved_after(reader, as_of_block).await? {
                return Ok(ledger);
            }
        }
        anyhow::bail!("money moved during each of {MOST_TRIES} readings: try again when the market is quieter")
    }

    async fn compare(
        reader: &MarketReader,
        state: &MarketState,
        as_of_block: u64,
        names: &BTreeMap<Address, String>,
        minted: Atoms,
    ) -> anyhow::Result<Self> {
        let mut differences = Vec::new();
        let accounts = account_lines(reader, state, names, &mut differences).await?;
        let deals = deal_lines(reader, state, &mut differences).await?;
        let held_by_market = reader.token_balance(reader.terms().market).await?;
        let in_wallets = sum(accounts.iter().map(|line| line.wallet))?;
        let free = accounts.iter().map(|line| line.free_in_market);
        let owed_by_market = sum(free.chain(deals.iter().flat_map(|line| [line.locked, line.bond])))?;
        if held_by_market != owed_by_market {
            differences.push(format!("the market holds {held_by_market} but owes {owed_by_market}"));
        }
        let all = in_wallets.checked_add(held_by_market)?;
        if all != minted {
            differences.push(format!("wallets and market hold {all}, but {minted} were created"));
        }
        let conserved = differences.is_empty();
        Ok(Self {
            as_of_block,
            minted,
            accounts,
            deals,
            held_by_market,
            owed_by_market,
            in_wallets,
            differences,
            conserved,
        })
    }

    /// An error that lists what does not add up.
    pub(crate) fn ensure_conserved(&self) -> anyhow::Result<()> {
        ensure!(self.conserved, "money is missing or doubled: {}", self.differences.join("; "));
        Ok(())
    }

    /// As a table for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let header = format!("{:<22} {:>20} {:>20}", "account", "wallet", "free in market");
        let accounts = self.accounts.iter().map(|line| {
            let (wallet, free) = (line.wallet.to_string(), line.free_in_market.to_string());
            format!("{:<22} {wallet:>20} {free:>20}", line.name)
        });
        let deals = self.deals.iter().map(|line| {
            let (funded, paid, refunded) = (line.funded, line.paid, line.refunded);
            let deal = line.deal.to_string().chars().take(10).collect::<String>();
            format!("deal {deal}…: funded {funded} = paid {paid} + refunded {refunded} + locked {}", line.locked)
        });
        let (minted, wallets, held) = (self.minted, self.in_wallets, self.held_by_market);
        let total = format!("created {minted} = wallets {wallets} + market {held}");
        std::iter::once(header).chain(accounts).chain(deals).chain([total]).collect()
    }
}

async fn money_moved_after(reader: &MarketReader, block: u64) -> anyhow::Result<bool> {
    let head = reader.rpc().head().await?.number;
    if head <= block {
        return Ok(false);
    }
    let since = reader.blocks(block.saturating_add(1), head).await?;
    Ok(since.iter().any(|block| !block.events.is_empty()))
}

async fn account_lines(
    reader: &MarketReader,
    state: &MarketState,
    names: &BTreeMap<Address, String>,
    differences: &mut Vec<String>,
) -> anyhow::Result<Vec<AccountLine>> {
    let unnamed = state.free.keys().filter(|account| !names.contains_key(account));
    let unnamed = unnamed.map(|account| (*account, account.to_string()));
    let mut lines = Vec::new();
    for (account, name) in names.clone().into_iter().chain(unnamed) {
        let free_in_market = reader.free_balance(account).await?;
        let by_events = state.free_balance(account);
        if free_in_market != by_events {
            differences.push(format!("{name} has {free_in_market} free by storage, {by_events} by events"));
        }
        let wallet = reader.token_balance(account).await?;
        lines.push(AccountLine { name, account, wallet, free_in_market });
    }
    Ok(lines)
}

async fn deal_lines(
    reader: &MarketReader,
    state: &MarketState,
    differences: &mut Vec<String>,
) -> anyhow::Result<Vec<DealLine>> {
    let mut lines = Vec::new();
    for (id, known) in &state.deals {
        let stored = reader.deal(*id).await?.with_context(|| format!("the contract knows no deal {id}"))?;
        compare_deal(&known.deal, &stored, differences);
        let spent = sum([known.paid, known.refunded, stored.locked])?;
        if spent != known.funded {
            differences.push(format!("deal {id} was funded with {}, of which {spent} is known", known.funded));
        }
        lines.push(DealLine {
            deal: *id,
            provider: stored.provider,
            state: stored.state,
            cause: stored.cause,
            price_per_epoch: stored.price_per_epoch,
            funded: known.funded,
            paid: known.paid,
            refunded: known.refunded,
            locked: stored.locked,
            bond: stored.bond,
        });
    }
    Ok(lines)
}

fn compare_deal(by_events: &Deal, stored: &Deal, differences: &mut Vec<String>) {
    let id = stored.id;
    if by_events.state != stored.state || by_events.cause != stored.cause {
        let (event_state, stored_state) = (by_events.state, stored.state);
        differences.push(format!("deal {id} is {event_state:?} by events, {stored_state:?} by storage"));
    }
    if by_events.locked != stored.locked || by_events.bond != stored.bond {
        let (locked, bond) = (by_events.locked, by_events.bond);
        let (stored_locked, stored_bond) = (stored.locked, stored.bond);
        differences.push(format!(
            "deal {id} holds {locked} and a bond of {bond} by events, {stored_locked} and {stored_bond} by storage"
        ));
    }
}

fn sum(amounts: impl IntoIterator<Item = Atoms>) -> Result<Atoms, MoneyError> {
    amounts.into_iter().sum()
}
