//! What the indexer counts. Every event of the loop has a function here, which logs it and counts it.

use std::time::Duration;

use chain::MarketReader;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::{
    error::IndexerError,
    input::Step,
    kind,
    progress::Progress,
    source::{Look, SourceError},
    store::Checkpoint,
};

/// Bounds of the reorg depth histogram, in blocks.
const DEPTHS: [f64; 8] = [1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0];
/// Bounds of the commit time histogram, in seconds.
const SECONDS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// The indexer's metrics; all exist from the start.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// `wharfage_indexer_head_block`: newest block that the node named.
    head_block: IntGauge,
    /// `wharfage_indexer_committed_block`: last block in the database; 0 for none.
    committed_block: IntGauge,
    /// `wharfage_indexer_finalized_block`: last block that can no longer change; 0 for none.
    finalized_block: IntGauge,
    /// `wharfage_indexer_lag_seconds`: between the timestamps of the last committed block and of the head.
    lag_seconds: IntGauge,
    /// `wharfage_indexer_events_total{kind}`: market events that were committed, those of replaced blocks included.
    events: IntCounterVec,
    /// `wharfage_indexer_reorg_depth_blocks`: stored blocks that each reorganization replaced.
    reorg_depth: Histogram,
    /// `wharfage_indexer_commit_seconds`: time that each step took in the database.
    commit_seconds: Histogram,
    /// `wharfage_indexer_errors_total{source}`: failures that were tried again (`chain`, `database`) or not (`fatal`).
    errors: IntCounterVec,
    /// `wharfage_indexer_looks_total`: times that the chain was looked at.
    looks: IntCounter,
    /// `wharfage_indexer_repeated_logs`: logs since the start that an endpoint gave twice.
    repeated_logs: IntGauge,
    /// `wharfage_indexer_missing_logs`: logs since the start that an endpoint left out and that were found out.
    missing_logs: IntGauge,
    /// `wharfage_indexer_seconds_left`: until the head is reached; -1 while unknown.
    seconds_left: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name, help| IntGauge::new(format!("wharfage_indexer_{name}"), help);
        let counters =
            |name, help, label| IntCounterVec::new(Opts::new(format!("wharfage_indexer_{name}"), help), &[label]);
        let histogram = |name, help, bounds: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(format!("wharfage_indexer_{name}"), help).buckets(bounds.to_vec()))
        };
        let metrics = Self {
            registry: Registry::new(),
            head_block: gauge("head_block", "Newest block that the node named")?,
            committed_block: gauge("committed_block", "Last block in the database, 0 for none")?,
            finalized_block: gauge("finalized_block", "Last block that can no longer change, 0 for none")?,
            lag_seconds: gauge("lag_seconds", "Seconds between the last committed block and the head")?,
            events: counters("events_total", "Market events that were committed", "kind")?,
            reorg_depth: histogram("reorg_depth_blocks", "Stored blocks that a reorganization replaced", &DEPTHS)?,
            commit_seconds: histogram("commit_seconds", "Time that a step took in the database", &SECONDS)?,
            errors: counters("errors_total", "Failures that were tried again, or not (fatal)", "source")?,
            looks: IntCounter::new("wharfage_indexer_looks_total", "Times that the chain was looked at")?,
            repeated_logs: gauge("repeated_logs", "Logs since the start that an endpoint gave twice")?,
            missing_logs: gauge("missing_logs", "Logs since the start that an endpoint left out")?,
            seconds_left: gauge("seconds_left", "Seconds until the head is reached, -1 while unknown")?,
        };
        kind::ALL.iter().for_each(|kind| drop(metrics.events.with_label_values(&[kind])));
        ["chain", "database", "fatal"].iter().for_each(|source| drop(metrics.errors.with_label_values(&[source])));
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.head_block.clone()))?;
        self.registry.register(Box::new(self.committed_block.clone()))?;
        self.registry.register(Box::new(self.finalized_block.clone()))?;
        self.registry.register(Box::new(self.lag_seconds.clone()))?;
        self.registry.register(Box::new(self.events.clone()))?;
        self.registry.register(Box::new(self.reorg_depth.clone()))?;
        self.registry.register(Box::new(self.commit_seconds.clone()))?;
        self.registry.register(Box::new(self.errors.clone()))?;
        self.registry.register(Box::new(self.looks.clone()))?;
        self.registry.register(Box::new(self.repeated_logs.clone()))?;
        self.registry.register(Box::new(self.missing_logs.clone()))?;
        self.registry.register(Box::new(self.seconds_left.clone()))
    }

    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    pub(crate) fn looked(&self, look: &Look, committed: Checkpoint) {
        self.looks.inc();
        self.head_block.set(gauge(look.head.number));
        let behind = |block: common::event::BlockRef| look.head.timestamp.saturating_sub(block.timestamp);
        self.lag_seconds.set(gauge(committed.block.map_or(0, behind)));
    }

    /// What the endpoints did wrong so far.
    pub(crate) fn logs_read(&self, reader: &MarketReader) {
        self.repeated_logs.set(gauge(reader.repeated_logs()));
        self.missing_logs.set(gauge(reader.missing_logs()));
    }

    pub(crate) fn progressed(&self, progress: &Progress) {
        self.seconds_left.set(progress.seconds_left.map_or(-1, gauge));
    }

    pub(crate) fn catching_up(&self, progress: &Progress) {
        let Progress { percent, blocks_left, blocks_per_second, events_per_second, seconds_left } = *progress;
        let known = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        tracing::info!(
            percent,
            blocks_left,
            blocks_per_second = known(blocks_per_second),
            events_per_second = known(events_per_second),
            seconds_left = known(seconds_left),
            "catching up"
        );
    }

    pub(crate) fn step_committed(&self, step: &Step, checkpoint: Checkpoint, took: Duration) {
        self.position(checkpoint);
        self.commit_seconds.observe(took.as_secs_f64());
        let mut events: usize = 0;
        for event in step.input.added().iter().flat_map(|block| &block.events) {
            self.events.with_label_values(&[kind::of(&event.event)]).inc();
            events = events.saturating_add(1);
        }
        let dropped = step.input.dropped();
        let number = checkpoint.block.map(|block| block.number);
        if let Some(lowest) = dropped.first() {
            self.reorg_depth.observe(f64::from(u32::try_from(dropped.len()).unwrap_or(u32::MAX)));
            tracing::warn!(from = lowest.number, replaced = dropped.len(), block = number, events, "chain reorganized");
        } else {
            tracing::debug!(block = number, blocks = step.input.added().len(), events, "blocks committed");
        }
    }

    pub(crate) fn position(&self, checkpoint: Checkpoint) {
        self.committed_block.set(gauge(checkpoint.block.map_or(0, |block| block.number)));
        self.finalized_block.set(gauge(checkpoint.finalized.unwrap_or_default()));
    }

    pub(crate) fn attempt_failed(&self, error: &IndexerError, again_in: Duration) {
        let source = match error {
            IndexerError::Source(SourceError::Chain(_)) => "chain",
            _ => "database",
        };
        self.errors.with_label_values(&[source]).inc();
        tracing::warn!(error = %error.in_full(), again_in_ms = again_in.as_millis(), "the indexer will try again");
    }

    pub(crate) fn stopped_by(&self, error: &IndexerError) {
        self.errors.with_label_values(&["fatal"]).inc();
        tracing::error!(error = %error.in_full(), "the indexer stopped");
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn every_metric_exists_from_the_start_and_is_documented_with_its_type() {
        let families = Metrics::new().unwrap().registry().gather();
        let registered: BTreeSet<String> = families
            .iter()
            .map(|family| {
                let label = family.get_metric()[0].get_label().first().map(|label| format!("{{{}}}", label.name()));
                let kind = format!("{:?}", family.get_field_type()).to_lowercase();
                format!("| `{}{}` | {kind} |", family.name(), label.unwrap_or_default())
            })
            .collect();
        let row = |line: &str| line.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|";
        let documented: BTreeSet<String> =
            DOCUMENTED.lines().filter(|line| line.starts_with("| `wharfage_indexer_")).map(row).collect();
        assert_eq!(documented, registered);
    }
}
