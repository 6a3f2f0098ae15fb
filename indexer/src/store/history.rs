//! What was attested, and what an epoch was.

use common::{
    epoch::{Epoch, EpochSchedule},
    ids::Address,
};

use super::{
    Snapshot,
    convert::{big, parse, unsigned},
    db::Statement,
    error::StoreError,
    lists::{Listed, listed, narrow},
    snapshot::joined,
};
use crate::{
    projection::{payments::PaymentKind, rows::OpenedAt},
    view::{AttestationView, EpochView, Logged, MAX_LIMIT, Part},
};

/// Which attestations; what is not named does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttestationFilter {
    /// Who attested.
    pub agent: Option<Address>,
    /// First epoch.
    pub from_epoch: Option<Epoch>,
    /// Last epoch.
    pub to_epoch: Option<Epoch>,
}

/// Where something was logged, as columns of `events` and `blocks`.
#[derive(sqlx::FromRow)]
pub(super) struct LoggedRecord {
    block_number: i64,
    block_hash: String,
    timestamp: i64,
    log_index: i64,
    tx_hash: String,
}

impl LoggedRecord {
    pub(super) fn into_domain(self) -> Result<Logged, StoreError> {
        Ok(Logged {
            block_number: unsigned("events.block_number", self.block_number)?,
            block_hash: parse("blocks.hash", &self.block_hash)?,
            timestamp: unsigned("blocks.timestamp", self.timestamp)?,
            log_index: unsigned("events.log_index", self.log_index)?,
            tx_hash: parse("events.tx_hash", &self.tx_hash)?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct AttestationRecord {
    agent: String,
    epoch: i64,
    receipt_root: String,
    rolling_hash: String,
    #[sqlx(flatten)]
    logged: LoggedRecord,
}

impl AttestationRecord {
    fn into_view(self) -> Result<AttestationView, StoreError> {
        Ok(AttestationView {
            agent: parse("attestations.agent", &self.agent)?,
            epoch: Epoch(unsigned("attestations.epoch", self.epoch)?),
            receipt_root: parse("attestations.receipt_root", &self.receipt_root)?,
            rolling_hash: parse("attestations.rolling_hash", &self.rolling_hash)?,
            logged: self.logged.into_domain()?,
        })
    }
}

const ATTESTATIONS: &str =
    "SELECT a.agent, a.epoch, a.receipt_root, a.rolling_hash, e.block_number, b.hash AS block_hash,
       b.timestamp, e.log_index, e.tx_hash
     FROM attestations a
     JOIN events e ON e.block_number = a.block_number AND e.log_index = a.log_index
     JOIN blocks b ON b.number = a.block_number
     WHERE 1 = 1";

/// A page of attestations, and one more.
pub(super) fn attestations(filter: AttestationFilter, part: Part) -> Result<Statement, StoreError> {
    let mut query = Statement::new(ATTESTATIONS);
    if let Some(agent) = filter.agent {
        query.push(" AND a.agent = ").push_bind(agent.to_string());
    }
    match (filter.from_epoch, filter.to_epoch) {
        // The index has them in their order then.
        (Some(Epoch(from)), Some(Epoch(to))) if from == to => _ = query.push(" AND a.epoch = ").push_bind(from),
        (from, to) => {
            for (condition, epoch) in [(" AND a.epoch >= ", from), (" AND a.epoch <= ", to)] {
                if let Some(Epoch(epoch)) = epoch {
                    query.push(condition).push_bind(epoch);
                }
            }
        }
    }
    narrow(&mut query, ["a.block_number", "a.log_index"], part)?;
    Ok(query)
}

impl Snapshot {
    /// Agents' words on epochs, in the order in which they gave them.
    pub async fn attestations(
        &mut self,
        filter: AttestationFilter,
        part: Part,
    ) -> Result<Listed<AttestationView>, StoreError> {
        let found: Vec<AttestationRecord> = self.read.fetch_all(attestations(filter, part)?).await?;
        let items = found.into_iter().map(AttestationRecord::into_view).collect::<Result<Vec<_>, _>>()?;
        let place =
            |item: &AttestationView| OpenedAt { block: item.logged.block_number, log_index: item.logged.log_index };
        Ok(listed(items, part, place))
    }

    /// One epoch; none while it has not begun.
    pub async fn epoch(&mut self, epoch: Epoch, schedule: EpochSchedule) -> Result<Option<EpochView>, StoreError> {
        let (start, end) = (schedule.start_of(epoch), schedule.start_of(epoch.plus(1)));
        let Some(now) = self.block().map(|block| block.timestamp).filter(|now| *now >= start) else {
            return Ok(None);
        };
        let count = Statement::new("SELECT count(*) FROM attestations WHERE epoch = $1").bind(epoch.0);
        let (attestations,): (i64,) = self.read.fetch_one(count).await?;
        let agents = "SELECT agent FROM attestations WHERE epoch = $1 ORDER BY block_number, log_index LIMIT $2";
        let agents: Vec<(String,)> = self.read.fetch_all(Statement::new(agents).bind(epoch.0).bind(MAX_LIMIT)).await?;
        let paid = "SELECT count(*), CAST(coalesce(sum(p.amount / 1000000000), 0) AS BIGINT),
               CAST(coalesce(sum(p.amount % 1000000000), 0) AS BIGINT)
             FROM payments p JOIN blocks b ON b.number = p.block_number
             WHERE p.kind = $1 AND b.timestamp >= $2 AND b.timestamp < $3";
        let paid = Statement::new(paid).bind(PaymentKind::Hosting.number());
        let paid = paid.bind(big("start of the epoch", start)?).bind(big("end of the epoch", end)?);
        let (payments, upper, lower): (i64, i64, i64) = self.read.fetch_one(paid).await?;
        Ok(Some(EpochView {
            epoch,
            start,
            end,
            over: now >= end,
            attestations: unsigned("count of attestations", attestations)?,
            attested_by: agents
                .iter()
                .map(|(agent,)| parse("attestations.agent", agent))
                .collect::<Result<_, StoreError>>()?,
            hosting_payments: unsigned("count of payments", payments)?,
            hosting_paid: joined(upper, lower)?,
        }))
    }
}
