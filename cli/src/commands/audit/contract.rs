//! The contract's storage against the events.

use std::fmt::Display;

use chain::{MarketAt, ReadAtError};
use common::{epoch::Epoch, money::Atoms, state::KnownDeal};
use futures::{StreamExt, stream};
use indexer::view::WideAtoms;
use serde_json::{Value, json};

use super::judge::{
    Book, Findings, Subject,
    report::{CONTRACT, Money},
    storage,
};
use crate::output::Output;

/// Storage reads that are under way at the same time.
const PARALLEL: usize = 16;

fn subject(what: &'static str, id: impl Display) -> Subject<'static> {
    Subject::new(CONTRACT, what, id)
}

/// Compares everything that events name with what the contract has stored at one block.
pub(super) struct ContractAudit<'a> {
    pub(super) book: &'a Book,
    pub(super) at: &'a MarketAt,
    /// The epoch of that block.
    pub(super) now: Epoch,
    pub(super) findings: &'a mut Findings,
}

impl ContractAudit<'_> {
    /// Compares all of it; returns where the tokens are.
    pub(super) async fn run(mut self, output: &Output) -> anyhow::Result<Money> {
        let state = &self.book.state;
        output.progress(&format!(
            "storage: {} accounts, {} deals, {} provider offers, {} developer offers",
            self.book.accounts().len(),
            state.deals.len(),
            state.provider_offers.len(),
            state.developer_offers.len()
        ));
        let mut money = Money::default();
        self.accounts(&mut money).await?;
        self.deals(&mut money).await?;
        self.provider_offers().await?;
        self.developer_offers().await?;
        self.cancelled().await?;
        self.attestations().await?;
        self.whole(&mut money).await?;
        Ok(money)
    }

    async fn accounts(&mut self, money: &mut Money) -> anyhow::Result<()> {
        let (book, at) = (self.book, self.at);
        let reads = book.accounts().into_iter().map(|account| async move { (account, at.account(account).await) });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((account, found)) = reads.next().await {
            let subject = subject("account", account);
            let Some(found) = readable(self.findings, &subject, found)? else { continue };
            add(&mut money.free, found.free);
            self.findings.compare(&subject, &storage::account(&book.account(account)), &storage::account(&found));
        }
        Ok(())
    }

    async fn deals(&mut self, money: &mut Money) -> anyhow::Result<()> {
        let (book, at) = (self.book, self.at);
        let reads = book.known_deals().map(|known| async move {
            let deal = &known.deal;
            (known, at.deal(&deal.reference(), deal.start_epoch).await)
        });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((known, found)) = reads.next().await {
            let subject = subject("deal", known.deal.id);
            let Some(found) = readable(self.findings, &subject, found)? else { continue };
            let shown = found.as_ref().map_or(Value::Null, storage::deal);
            self.findings.compare(&subject, &storage::deal(&known.deal), &shown);
            if let Some(found) = found {
                add(&mut money.locked, found.locked.get().into());
                add(&mut money.bonds, found.bond.get().into());
                funds_add_up(self.findings, known, found.locked);
            }
        }
        Ok(())
    }

    async fn provider_offers(&mut self) -> anyhow::Result<()> {
        let (book, at) = (self.book, self.at);
        let reads =
            book.state.provider_offers.iter().map(|(hash, known)| async move {
                (*hash, known, at.provider_offer(known.offer.provider, *hash).await)
            });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((hash, known, found)) = reads.next().await {
            let subject = subject("provider offer", hash);
            let Some(found) = readable(self.findings, &subject, found)? else { continue };
            let expected = storage::provider_offer(&book.provider_offer(hash, known));
            self.findings.compare(&subject, &expected, &storage::provider_offer(&found));
        }
        Ok(())
    }

    async fn developer_offers(&mut self) -> anyhow::Result<()> {
        let (book, at) = (self.book, self.at);
        let reads = book.state.developer_offers.iter().map(|(hash, known)| async move {
            let cancelled = at.is_cancelled(known.offer.developer, *hash).await;
            (*hash, known, at.developer_offer(*hash).await, cancelled)
        });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((hash, known, found, cancelled)) = reads.next().await {
            let subject = subject("developer offer", hash);
            let found = found.and_then(|found| cancelled.map(|cancelled| (found, cancelled)));
            let Some((found, cancelled)) = readable(self.findings, &subject, found)? else { continue };
            let must_be = book.is_cancelled(known.offer.developer, hash);
            let expected = storage::developer_offer(&book.developer_offer(known), must_be);
            self.findings.compare(&subject, &expected, &storage::developer_offer(&found, cancelled));
        }
        Ok(())
    }

    /// Offers that were voided before the chain knew them.
    async fn cancelled(&mut self) -> anyhow::Result<()> {
        let (book, at) = (self.book, self.at);
        let reads = book
            .cancelled_unknown()
            .map(|(owner, hash)| async move { (owner, hash, at.is_cancelled(owner, hash).await) });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((owner, hash, found)) = reads.next().await {
            let subject = subject("cancelled offer", format!("{hash} of {owner}"));
            let Some(found) = readable(self.findings, &subject, found)? else { continue };
            self.findings.compare(&subject, &json!({ "cancelled": true }), &json!({ "cancelled": found }));
        }
        Ok(())
    }

    async fn attestations(&mut self) -> anyhow::Result<()> {
        let (book, at, now) = (self.book, self.at, self.now);
        let ranges = book
            .agents()
            .into_iter()
            .flat_map(|agent| book.attested_ranges(agent, now).into_iter().map(move |range| (agent, range)));
        let reads = ranges
            .map(|(agent, range)| async move { (agent, range, at.attested_epochs(agent, range.from, range.to).await) });
        let mut reads = stream::iter(reads).buffered(PARALLEL);
        while let Some((agent, range, found)) = reads.next().await {
            let subject = subject("attested epochs", format!("{agent} {}..{}", range.from, range.to));
            let Some(found) = readable(self.findings, &subject, found)? else { continue };
            let (expected, found) = (range.attested.to_string(), found.to_string());
            self.findings.compare(&subject, &json!({ "attested": expected }), &json!({ "attested": found }));
        }
        Ok(())
    }

    /// The market's switch, and whether it holds what it owes.
    async fn whole(&mut self, money: &mut Money) -> anyhow::Result<()> {
        let market = subject("market", "all");
        if let Some(paused) = readable(self.findings, &market, self.at.matching_paused().await)? {
            let expected = json!({ "matchingPaused": self.book.state.matching_paused });
            self.findings.compare(&market, &expected, &json!({ "matchingPaused": paused }));
        }
        let tokens = subject("tokens", "all");
        let Some(held) = readable(self.findings, &tokens, self.at.tokens_held().await)? else { return Ok(()) };
        let owed = money.free.0.saturating_add(money.locked.0).saturating_add(money.bonds.0);
        (money.owed, money.held) = (WideAtoms(owed), WideAtoms(held));
        money.surplus = WideAtoms(held.saturating_sub(owed));
        self.findings.compared(&tokens);
        if held < owed {
            self.findings.differs(&tokens, "held at least", json!(money.owed), json!(money.held));
        }
        Ok(())
    }
}

/// What was read. Storage that the contract cannot make sense of is a difference, and no reason to stop.
fn readable<T>(
    findings: &mut Findings,
    subject: &Subject<'_>,
    found: Result<T, ReadAtError>,
) -> Result<Option<T>, ReadAtError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ReadAtError::Unreadable(error)) => {
            findings.compared(subject);
            findings.differs(subject, "", json!("readable"), json!(error.to_string()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What was ever locked for a deal was paid, went back, or is locked still.
fn funds_add_up(findings: &mut Findings, known: &KnownDeal, locked: Atoms) {
    let subject = subject("deal funds", known.deal.id);
    let spent = json!({ "paidRefundedLocked": storage::spent(known, locked).to_string() });
    findings.compare(&subject, &json!({ "paidRefundedLocked": known.funded }), &spent);
}

fn add(sum: &mut WideAtoms, amount: u128) {
    sum.0 = sum.0.saturating_add(amount);
}
