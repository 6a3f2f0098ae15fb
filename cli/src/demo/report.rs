//! The machine-readable end of the demo, drawn from the chain and not from our own databases.

use chain::calls;
use serde::Serialize;
use serde_json::{Value, json};

use super::story::Step;
use crate::{
    ledger::Ledger,
    local::chain::{NodeRpc, quantity},
};

/// What `demo --json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Every step with what was seen and how long it took.
    pub(crate) steps: Vec<Step>,
    /// Every transaction of the chain, in order.
    pub(crate) transactions: Vec<Transaction>,
    /// Where every atom is.
    pub(crate) ledger: Ledger,
    /// Whether every atom is accounted for, by the chain's state.
    pub(crate) conserved: bool,
    /// Length of the whole story.
    pub(crate) duration_ms: u64,
}

/// One transaction as the chain has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Transaction {
    /// Its hash.
    pub(crate) hash: String,
    /// The function that it called, or `deploy`.
    pub(crate) call: String,
    /// Who sent it.
    pub(crate) from: String,
    /// Its block.
    pub(crate) block: u64,
    /// Gas that it used.
    pub(crate) gas_used: u64,
    /// Whether it took effect.
    pub(crate) success: bool,
}

/// All transactions of a chain whose blocks are few.
pub(crate) async fn transactions(node: &NodeRpc, head: u64) -> anyhow::Result<Vec<Transaction>> {
    let mut all = Vec::new();
    for number in 0..=head {
        let tag = format!("0x{number:x}");
        let block = node.call("eth_getBlockByNumber", json!([tag, true])).await?;
        let sent = block.get("transactions").and_then(Value::as_array).cloned().unwrap_or_default();
        if sent.is_empty() {
            continue;
        }
        let receipts = node.call("eth_getBlockReceipts", json!([tag])).await?;
        let receipts = receipts.as_array().cloned().unwrap_or_default();
        for (transaction, receipt) in sent.iter().zip(&receipts) {
            all.push(describe(number, transaction, receipt)?);
        }
    }
    Ok(all)
}

fn describe(block: u64, transaction: &Value, receipt: &Value) -> anyhow::Result<Transaction> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let input = hex::decode(text(transaction, "input"))?;
    let call = if text(transaction, "to").is_empty() {
        "deploy".to_owned()
    } else {
        calls::function_name(&input).unwrap_or("transfer").to_owned()
    };
    Ok(Transaction {
        hash: text(transaction, "hash"),
        call,
        from: text(transaction, "from"),
        block,
        gas_used: quantity(&text(receipt, "gasUsed"))?,
        success: text(receipt, "status") == "0x1",
    })
}
