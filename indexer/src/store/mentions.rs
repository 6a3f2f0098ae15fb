//! Accounts that events concern and that no other table finds them by.

use super::{accounts::Accounts, bulk::table, convert::big, db::Value, error::StoreError};
use crate::projection::mentions::Mention;

table!(TABLE, "mentions", block_number Big Fixed, log_index Big Fixed, account Big Fixed);

/// Values of all columns. The accounts were learnt before.
pub(super) fn encoded(mentions: &[Mention], accounts: &Accounts) -> Result<Vec<Value>, StoreError> {
    let mut values: Vec<Value> = Vec::with_capacity(mentions.len().saturating_mul(TABLE.columns.len()));
    for mention in mentions {
        values.extend([
            big("block number", mention.at.block)?.into(),
            big("log index", mention.at.log_index)?.into(),
            accounts.number_of(mention.account)?.into(),
        ]);
    }
    Ok(values)
}
