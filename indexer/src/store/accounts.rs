//! Small numbers that stand for accounts in the longest table. They are given in the order in which accounts are first
//! seen, and an account keeps its number when the block that brought it is taken back.

use std::collections::{BTreeSet, HashMap};

use common::ids::Address;

use super::{
    bulk::table,
    convert::parse,
    db::{Statement, Tx, Value},
    error::StoreError,
};

table!(TABLE, "accounts", account Text Key, number Big Fixed);

/// The number of an account, in a query; the account is the next value.
pub(super) const NUMBER_OF: &str = "(SELECT number FROM accounts WHERE account = ";

/// Numbers that are known without asking the database.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<Address, i64>);

impl Accounts {
    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of an account that was learnt.
    pub(super) fn number_of(&self, account: Address) -> Result<i64, StoreError> {
        self.0.get(&account).copied().ok_or_else(|| StoreError::corrupt("accounts.account", account))
    }

    /// Learns the numbers of `accounts`; those that have none get the next ones.
    pub(super) async fn learn(
        &mut self,
        db: &mut Tx,
        accounts: impl Iterator<Item = Address>,
    ) -> Result<(), StoreError> {
        let mut strange: BTreeSet<Address> = accounts.filter(|account| !self.0.contains_key(account)).collect();
        if strange.is_empty() {
            return Ok(());
        }
        let keys: Vec<Vec<Value>> = strange.iter().map(|account| vec![account.to_string().into()]).collect();
        for (account, number) in db.fetch_keys::<(String, i64)>(TABLE, &keys).await? {
            let account = parse("accounts.account", &account)?;
            strange.remove(&account);
            self.0.insert(account, number);
        }
        if strange.is_empty() {
            return Ok(());
        }
        let query = "SELECT coalesce(max(number), 0) FROM accounts";
        let (mut last,): (i64,) = db.fetch_one(Statement::new(query)).await?;
        let mut values: Vec<Value> = Vec::new();
        for account in strange {
            last = last.saturating_add(1);
            values.extend([account.to_string().into(), last.into()]);
            self.0.insert(account, last);
        }
        db.put(TABLE, values).await
    }
}
