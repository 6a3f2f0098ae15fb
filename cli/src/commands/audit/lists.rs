//! An indexer's lists of history against the events, both read side by side: a page of the one and a window of the other are
//! all that is held, however long the history.
//!
//! Rows of blocks never change, so a page need not be judged as of its block: it has to have the next rows that the events
//! give. Only where the list ends depends on the block that the last page is about.

use std::{cmp::Ordering, collections::VecDeque};

use anyhow::{Context, ensure};
use chain::Rpc;
use indexer::view::{AsOf, Cursor, MAX_LIMIT};
use serde_json::{Value, json};

use super::{
    api::{PAUSE, TRIES, known_block},
    judge::{
        Findings, Subject,
        history::{History, Row, RowKey, Rows},
    },
};
use crate::client::ApiClient;

/// Rows that do not belong there: more are not read.
const MOST_STRAY: u64 = 50_000;

/// How far a list was read.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// There is more after this place.
    After(Option<Cursor>),
    /// The list ended.
    Ended,
    /// What is served is about a block that is not on the chain: it says nothing.
    Forked,
}

/// One list of one indexer.
pub(super) struct ListAudit {
    api: ApiClient,
    rpc: Rpc,
    list: History,
    /// The audit's block: no answer may be about an earlier one.
    at_least: u64,
    next: Next,
    /// The block of the last page.
    as_of: Option<AsOf>,
    /// Rows that were served and not compared yet.
    served: VecDeque<Value>,
    /// The last of those that were.
    last: Option<RowKey>,
    stray: u64,
}

impl ListAudit {
    /// All lists of an indexer, which is on the chain.
    pub(super) fn all(api: &ApiClient, rpc: &Rpc, at_least: u64) -> impl Iterator<Item = Self> {
        let (api, rpc) = (api.clone(), rpc.clone());
        History::ALL.into_iter().map(move |list| Self {
            api: api.clone(),
            rpc: rpc.clone(),
            list,
            at_least,
            next: Next::After(None),
            as_of: None,
            served: VecDeque::new(),
            last: None,
            stray: 0,
        })
    }

    /// The block that the list has been read at, if it is one of the chain.
    pub(super) fn read_at(&self) -> Option<AsOf> {
        self.as_of.filter(|_| !matches!(self.next, Next::Forked))
    }

    /// Compares what a block adds.
    pub(super) async fn block(&mut self, rows: &Rows, findings: &mut Findings) -> anyhow::Result<()> {
        for row in self.list.of(rows) {
            self.expect(row, findings).await?;
        }
        Ok(())
    }

    /// Everything up to `reached` was expected: what else is served of it does not belong there.
    pub(super) async fn settle(&mut self, reached: u64, findings: &mut Findings) -> anyhow::Result<()> {
        while let Some(key) = self.peek(findings).await? {
            // What is above comes with the next blocks, unless the page itself cannot have it.
            let known = reached..self.as_of.map_or(0, |as_of| as_of.number);
            if key.is_some_and(|key| known.contains(&key.block.saturating_sub(1)) && Some(key) > self.last) {
                break;
            }
            self.pass_over(key, findings)?;
        }
        Ok(())
    }

    async fn expect(&mut self, row: &Row, findings: &mut Findings) -> anyhow::Result<()> {
        while let Some(key) = self.peek(findings).await? {
            match key.filter(|key| Some(*key) > self.last).map(|key| key.cmp(&row.key)) {
                Some(Ordering::Equal) => {
                    let item = self.served.pop_front().unwrap_or_default();
                    self.last = key;
                    findings.compare(&self.subject(row.key), &row.item, &item);
                    return Ok(());
                }
                Some(Ordering::Greater) => {
                    findings.compare(&self.subject(row.key), &row.item, &Value::Null);
                    return Ok(());
                }
                Some(Ordering::Less) | None => self.pass_over(key, findings)?,
            }
        }
        // A list that ended before this block need not have it.
        let ended_after =
            matches!(self.next, Next::Ended) && self.as_of.is_some_and(|as_of| row.key.block <= as_of.number);
        if ended_after {
            findings.compare(&self.subject(row.key), &row.item, &Value::Null);
        }
        Ok(())
    }

    /// A row that is served and does not belong there, or not in this place.
    fn pass_over(&mut self, key: Option<RowKey>, findings: &mut Findings) -> anyhow::Result<()> {
        let item = self.served.pop_front().unwrap_or_default();
        match key {
            Some(key) if Some(key) > self.last => {
                findings.compare(&self.subject(key), &Value::Null, &item);
                self.last = Some(key);
            }
            Some(key) => {
                let subject = self.subject(key);
                findings.compared(&subject);
                let after = self.last.map(|last| last.to_string()).unwrap_or_default();
                let field = if Some(key) == self.last { "twice" } else { "order" };
                findings.differs(&subject, field, Value::Null, json!(format!("served after {after}")));
            }
            None => {
                let subject = Subject::new(self.api.base(), self.list.what(), "without a place");
                findings.compare(&subject, &Value::Null, &item);
            }
        }
        self.stray = self.stray.saturating_add(1);
        let path = self.list.path();
        ensure!(
            self.stray <= MOST_STRAY,
            "{}{path} serves more than {MOST_STRAY} rows that do not belong there",
            self.api.base()
        );
        Ok(())
    }

    fn subject(&self, key: RowKey) -> Subject<'_> {
        Subject::new(self.api.base(), self.list.what(), key)
    }

    /// The place of the next row that is served, as it says itself; none at the end of the list.
    async fn peek(&mut self, findings: &mut Findings) -> anyhow::Result<Option<Option<RowKey>>> {
        while self.served.is_empty() {
            let Next::After(after) = self.next else { return Ok(None) };
            self.turn_page(after, findings).await?;
        }
        Ok(self.served.front().map(|item| self.list.key(item)))
    }

    async fn turn_page(&mut self, after: Option<Cursor>, findings: &mut Findings) -> anyhow::Result<()> {
        let path = match after {
            None => format!("{}?limit={MAX_LIMIT}", self.list.path()),
            Some(Cursor(place)) => {
                format!("{}?limit={MAX_LIMIT}&cursor={}-{}", self.list.path(), place.block, place.log_index)
            }
        };
        let Some((as_of, mut body)) = self.ask(&path, findings).await? else {
            self.next = Next::Forked;
            return Ok(());
        };
        self.as_of = Some(as_of);
        let items = body.get_mut("items").map(Value::take);
        let Some(Value::Array(items)) = items else {
            anyhow::bail!("{}{path} has no items", self.api.base());
        };
        let next = body.get("nextCursor").and_then(Value::as_str);
        if let Some(next) = next {
            let last = items.last().and_then(|item| self.list.key(item)).map(|key| self.list.cursor(key));
            let subject = Subject::new(self.api.base(), "page", &path);
            findings.compare(&subject, &json!({ "nextCursor": last }), &json!({ "nextCursor": next }));
        }
        // A cursor that does not move on is a difference, and not followed.
        let next: Option<Cursor> = next.and_then(|next| next.parse().ok());
        self.next = match next.filter(|next| after.is_none_or(|after| *next > after)) {
            Some(next) => Next::After(Some(next)),
            None => Next::Ended,
        };
        self.served = items.into();
        Ok(())
    }

    /// A page that is about a block of the chain, which is not before the audit's; what it says otherwise is a difference.
    async fn ask(&self, path: &str, findings: &mut Findings) -> anyhow::Result<Option<(AsOf, Value)>> {
        let mut tries: u32 = 1;
        loop {
            let body: Value = self.api.get(path).await?;
            let as_of: AsOf =
                serde_json::from_value(body.get("asOfBlock").cloned().unwrap_or_default()).with_context(|| {
                    format!("{}{path} does not say which block it is about (asOfBlock)", self.api.base())
                })?;
            let block = known_block(&self.rpc, as_of.number, self.api.base()).await?;
            if block.hash == as_of.hash && block.number >= self.at_least {
                return Ok(Some((as_of, body)));
            }
            if tries == TRIES {
                let subject = Subject::new(self.api.base(), "block", path);
                let expected = json!({ "hash": block.hash, "atLeast": self.at_least.max(as_of.number) });
                findings.compare(&subject, &expected, &json!({ "hash": as_of.hash, "atLeast": as_of.number }));
                return Ok(None);
            }
            tries = tries.saturating_add(1);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
