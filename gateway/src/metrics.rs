//! What the gateway counts.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, PullingGauge, Registry, core::Collector,
};

use crate::{
    api::CODES,
    domain::table::{Replica, Table},
    indexer::IndexerError,
};

/// Label of a request that a worker answered.
pub(crate) const ANSWERED: &str = "answered";
/// Label of a request whose answer is an agent's refusal.
pub(crate) const REFUSED_BY_AGENT: &str = "refused_by_agent";

/// Upper bounds in seconds.
const LATENCY_BUCKETS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// Metrics of one gateway. Labels are bounded: no deployment or provider is one.
pub(crate) struct Metrics {
    registry: Registry,
    /// `wharfage_gateway_requests_total{outcome}`: requests for deployments; the outcome is `answered`, `refused_by_agent`
    /// or the code of the gateway's problem.
    requests: IntCounterVec,
    /// `wharfage_gateway_retries_total`: attempts after the first one.
    retries: IntCounter,
    /// `wharfage_gateway_answer_seconds`: from a request's arrival to the answer's first byte, answered requests only.
    answer: Histogram,
    /// `wharfage_gateway_connections`: clients connected now.
    connections: IntGauge,
    /// `wharfage_gateway_ejections_total`: times that a replica was left alone after a failure.
    ejections: IntCounter,
    /// `wharfage_gateway_deployments`: live deployments in the table.
    deployments: IntGauge,
    /// `wharfage_gateway_replicas`: replicas in the table.
    replicas: IntGauge,
    /// `wharfage_gateway_unusable_routes`: entries of the indexer's last answer that could not be used.
    unusable: IntGauge,
    /// `wharfage_gateway_refresh_failures_total`: times that the indexer could not be read.
    refresh_failures: IntCounter,
    refreshed: std::sync::Arc<Mutex<Option<Instant>>>,
}

impl Metrics {
    /// Fails only when two metrics share a name.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let refreshed = std::sync::Arc::new(Mutex::new(None::<Instant>));
        let seen = std::sync::Arc::clone(&refreshed);
        let age = move || {
            let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Never yet reads as a negative age, which no alert on "too old" mistakes for fresh for long.
            seen.map_or(-1.0, |at| at.elapsed().as_secs_f64())
        };
        // `wharfage_gateway_routes_age_seconds`: since the indexer was last read; -1 before the first time.
        let help = "Seconds since the routes were refreshed; -1 before the first time";
        let age = PullingGauge::new("wharfage_gateway_routes_age_seconds", help, Box::new(age))?;
        registry.register(Box::new(age))?;
        let answer_options =
            HistogramOpts::new("wharfage_gateway_answer_seconds", "Arrival to the answer's first byte")
                .buckets(LATENCY_BUCKETS.to_vec());
        let request_options = Opts::new("wharfage_gateway_requests_total", "Requests for deployments by outcome");
        let metrics = Self {
            requests: registered(&registry, IntCounterVec::new(request_options, &["outcome"])?)?,
            retries: counter(&registry, "retries_total", "Attempts after the first one")?,
            answer: registered(&registry, Histogram::with_opts(answer_options)?)?,
            connections: gauge(&registry, "connections", "Clients connected now")?,
            ejections: counter(&registry, "ejections_total", "Replicas left alone after a failure")?,
            deployments: gauge(&registry, "deployments", "Live deployments in the table")?,
            replicas: gauge(&registry, "replicas", "Replicas in the table")?,
            unusable: gauge(&registry, "unusable_routes", "Entries of the indexer's last answer that were not usable")?,
            refresh_failures: counter(&registry, "refresh_failures_total", "Times the indexer could not be read")?,
            refreshed,
            registry,
        };
        for outcome in CODES.into_iter().chain([ANSWERED, REFUSED_BY_AGENT]) {
            metrics.requests.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn request_finished(&self, outcome: &'static str, took: Duration) {
        self.requests.with_label_values(&[outcome]).inc();
        if outcome == ANSWERED {
            self.answer.observe(took.as_secs_f64());
        }
        tracing::debug!(outcome, took_us = took.as_micros(), "request");
    }

    pub(crate) fn request_retried(&self, replica: &Replica) {
        self.retries.inc();
        tracing::debug!(deal = %replica.deal, "trying another replica");
    }

    pub(crate) fn replica_ejected(&self, replica: &Replica) {
        self.ejections.inc();
        tracing::info!(deal = %replica.deal, agent = %replica.endpoint.authority(), "a replica does not answer");
    }

    pub(crate) fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    pub(crate) fn table_refreshed(&self, table: &Table, unusable: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.deployments.set(count(table.len()));
        self.replicas.set(count(table.replicas().count()));
        self.unusable.set(count(unusable));
        *self.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// `is_new` is false while the same outage lasts: a line a second tells nobody more.
    pub(crate) fn refresh_failed(&self, error: &IndexerError, is_new: bool) {
        self.refresh_failures.inc();
        if is_new {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, cause, "routes stay as they are");
        }
    }
}

/// A client's connection, until it is dropped.
pub(crate) struct Connected(IntGauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(format!("wharfage_gateway_{name}"), help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(format!("wharfage_gateway_{name}"), help)?)
}
