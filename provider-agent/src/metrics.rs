//! What the agent counts. Every counter exists at zero, and no label is chosen by a stranger.

use prometheus::{Counter, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::{
    domain::replica::{Cause, ReplicaState},
    host::Mechanism,
};

/// How a request ended, as far as the agent is concerned.
pub(crate) const REQUEST_OUTCOMES: [&str; 17] = [
    "answered",
    "unknown_deal",
    "deal_unfunded",
    "deal_ended",
    "worker_starting",
    "worker_failed",
    "shutting_down",
    "overloaded",
    "host_full",
    "body_too_large",
    "headers_too_large",
    "cpu_limit",
    "deadline",
    "memory_limit",
    "worker_trapped",
    "worker_died",
    "no_answer",
];

/// All metrics of an agent.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// Replicas by state.
    pub(crate) replicas: IntGaugeVec,
    /// Failures of replicas by cause.
    pub(crate) failures: IntCounterVec,
    /// Requests by outcome.
    pub(crate) requests: IntCounterVec,
    /// Seconds from a request's arrival to the begin of its answer.
    pub(crate) request_seconds: Histogram,
    /// CPU seconds that workers used.
    pub(crate) cpu_seconds: Counter,
    /// Bytes of memory that instances hold now.
    pub(crate) memory_bytes: IntGauge,
    /// Mechanisms between workers and this machine: 1 where active.
    pub(crate) isolation: IntGaugeVec,
    /// Artifacts by origin.
    pub(crate) artifacts: IntCounterVec,
    /// Attempts to read the chain by outcome.
    pub(crate) chain_reads: IntCounterVec,
    /// The chain's epoch, as last read.
    pub(crate) epoch: IntGauge,
    /// Transactions by kind and outcome.
    pub(crate) transactions: IntCounterVec,
    /// Billed epochs of deals whose worker was not ready once.
    pub(crate) unserved: IntCounter,
    /// Currency of the chain left for gas, in 10⁻⁹ of it.
    pub(crate) gas_balance: IntGauge,
    /// Registrations of the offer by outcome.
    pub(crate) registrations: IntCounterVec,
}

struct Builder(Registry);

impl Builder {
    fn keep<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = self.keep(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            counters.with_label_values(&[*value]);
        }
        Ok(counters)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.keep(IntGauge::new(name, help)?)
    }
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let make = Builder(Registry::new());
        let replicas = make.keep(IntGaugeVec::new(Opts::new("agent_replicas", "Replicas by state"), &["state"])?)?;
        for state in ReplicaState::NAMES {
            replicas.with_label_values(&[state]);
        }
        let isolation =
            Opts::new("agent_isolation_active", "Mechanisms between workers and this machine: 1 where active");
        let isolation = make.keep(IntGaugeVec::new(isolation, &["mechanism"])?)?;
        for mechanism in Mechanism::ALL {
            isolation.with_label_values(&[mechanism.name()]);
        }
        let causes = Cause::ALL.map(Cause::code);
        let transactions = Opts::new("agent_transactions_total", "Transactions by kind and outcome");
        let transactions = make.keep(IntCounterVec::new(transactions, &["kind", "outcome"])?)?;
        for kind in ["attest", "claim"] {
            for outcome in ["sent", "mined", "reverted", "dropped", "refused"] {
                transactions.with_label_values(&[kind, outcome]);
            }
        }
        let seconds =
            HistogramOpts::new("agent_request_seconds", "Seconds from a request's arrival to its answer's begin")
                .buckets(vec![0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0]);
        Ok(Self {
            replicas,
            isolation,
            transactions,
            failures: make.counters(
                "agent_replica_failures_total",
                "Failures of replicas by cause",
                "cause",
                &causes,
            )?,
            requests: make.counters("agent_requests_total", "Requests by outcome", "outcome", &REQUEST_OUTCOMES)?,
            request_seconds: make.keep(Histogram::with_opts(seconds)?)?,
            cpu_seconds: make.keep(Counter::new("agent_worker_cpu_seconds_total", "CPU seconds that workers used")?)?,
            memory_bytes: make.gauge("agent_worker_memory_bytes", "Bytes that instances of workers hold")?,
            artifacts: make.counters(
                "agent_artifacts_total",
                "Artifacts by origin",
                "origin",
                &["cache", "network"],
            )?,
            chain_reads: make.counters(
                "agent_chain_reads_total",
                "Looks at the chain",
                "outcome",
                &["ok", "failed"],
            )?,
            epoch: make.gauge("agent_epoch", "The chain's epoch as last read")?,
            unserved: make.keep(IntCounter::new(
                "agent_unserved_deal_epochs_total",
                "Billed epochs of deals whose worker was not ready once",
            )?)?,
            gas_balance: make.gauge("agent_gas_balance_gwei", "What the agent's key has left for gas, in 10^-9")?,
            registrations: make.counters(
                "agent_offer_registrations_total",
                "Registrations of the provider offer",
                "outcome",
                &["ok", "refused", "failed"],
            )?,
            registry: make.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn every_metric_exists_from_the_start_and_is_documented_with_its_type() {
        let families = Metrics::new().unwrap().registry.gather();
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
            DOCUMENTED.lines().filter(|line| line.starts_with("| `agent_")).map(row).collect();
        assert_eq!(documented, registered);
    }
}
