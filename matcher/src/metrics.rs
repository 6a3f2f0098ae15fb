//! What the matcher counts. Functions are named after what has happened; each logs and counts it.

use std::time::Duration;

use chain::ChainError;
use common::{
    event::{BlockRef, Reason},
    ids::{DealId, OfferHash, TxHash},
    state::StateError,
};
use matching::snapshot::PendingFill;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::{
    batch::TooLarge,
    error::MatcherError,
    store::{FillOutcome, Kind, Outcome, Standing, StoredArtifact, TxKind, TxStatus},
};

/// Bounds of the tick time histogram, in seconds.
const SECONDS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// The matcher's metrics; all exist from the start.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    /// `wharfage_matcher_offers_accepted_total{kind}`: signed offers that were taken in.
    accepted: IntCounterVec,
    /// `wharfage_matcher_offers_refused_total{kind}`: submissions that were refused.
    refused: IntCounterVec,
    /// `wharfage_matcher_market_loads_total`: how often the whole market was read: once at the start, and where a
    /// reorganization went deeper than is remembered.
    market_loads: IntCounter,
    /// `wharfage_matcher_market_blocks_taken_back_total`: blocks with events that reorganizations took back in memory.
    blocks_taken_back: IntCounter,
    /// `wharfage_matcher_explanations_changed_total`: times that something new stood in a waiting offer's way, or nothing did
    /// any more.
    explanations_changed: IntCounter,
    /// `wharfage_matcher_open_demands`: developer offers that want hosts and that no match is under way for, as of the last
    /// tick.
    open_demands: IntGauge,
    /// `wharfage_matcher_open_supplies`: provider offers that are not void, as of the last tick.
    open_supplies: IntGauge,
    /// `wharfage_matcher_transactions_total{kind,status}`: changes of transactions.
    transactions: IntCounterVec,
    /// `wharfage_matcher_fills_opened_total`: deals that our matches opened.
    fills_opened: IntCounter,
    /// `wharfage_matcher_races_total{reason}`: proposed fills that the contract passed over because of what others did
    /// between the block that they were planned on and their transaction.
    races: IntCounterVec,
    /// `wharfage_matcher_rejected_total{reason}`: proposed fills that the contract passed over although nothing had
    /// happened that explains it: always 0, or the matcher's rules are not the contract's.
    rejected: IntCounterVec,
    /// `wharfage_matcher_repriced_total`: transactions that were signed again at a higher fee.
    repriced: IntCounter,
    /// `wharfage_matcher_fee_ceiling_reached`: 1 while `max_fee_per_gas` keeps something from being sent.
    fee_ceiling: IntGauge,
    /// `wharfage_matcher_turn_wait_blocks`: blocks that demands are left to other matchers, after lost races.
    turn_wait: IntGauge,
    /// `wharfage_matcher_leader`: 1 while this process plans and sends, 0 while it only answers the API.
    leader: IntGauge,
    /// `wharfage_matcher_tick_seconds`: time of one round.
    tick_seconds: Histogram,
    /// `wharfage_matcher_tick_failures_total`: rounds that failed and were tried again.
    tick_failures: IntCounter,
    /// `wharfage_matcher_artifacts_stored_total`: artifacts that were taken in.
    artifacts: IntCounter,
    /// `wharfage_matcher_artifacts_stored_bytes_total`: their bytes.
    artifact_bytes: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let named = |name, help| Opts::new(format!("wharfage_matcher_{name}"), help);
        let counter = |name, help| IntCounter::with_opts(named(name, help));
        let counters = |name, help, labels: &[&str]| IntCounterVec::new(named(name, help), labels);
        let ticks = HistogramOpts::new("wharfage_matcher_tick_seconds", "Time of one round").buckets(SECONDS.to_vec());
        let metrics = Self {
            registry: Registry::new(),
            accepted: counters("offers_accepted_total", "Signed offers that were taken in", &["kind"])?,
            refused: counters("offers_refused_total", "Submissions that were refused", &["kind"])?,
            market_loads: counter("market_loads_total", "How often the whole market was read")?,
            explanations_changed: counter("explanations_changed_total", "Explanations that say something new")?,
            blocks_taken_back: counter("market_blocks_taken_back_total", "Blocks that reorganizations took back")?,
            open_demands: IntGauge::with_opts(named("open_demands", "Developer offers that want hosts"))?,
            open_supplies: IntGauge::with_opts(named("open_supplies", "Provider offers that are not void"))?,
            transactions: counters("transactions_total", "Changes of transactions", &["kind", "status"])?,
            fills_opened: counter("fills_opened_total", "Deals that our matches opened")?,
            races: counters("races_total", "Proposed fills that others were faster with", &["reason"])?,
            rejected: counters("rejected_total", "Proposed fills that the contract's rules forbid", &["reason"])?,
            repriced: counter("repriced_total", "Transactions that were signed again at a higher fee")?,
            fee_ceiling: IntGauge::with_opts(named("fee_ceiling_reached", "1 while gas is too dear to send"))?,
            turn_wait: IntGauge::with_opts(named("turn_wait_blocks", "Blocks that demands are left to others"))?,
            leader: IntGauge::with_opts(named("leader", "1 while this process plans and sends"))?,
            tick_seconds: Histogram::with_opts(ticks)?,
            tick_failures: counter("tick_failures_total", "Rounds that failed and were tried again")?,
            artifacts: counter("artifacts_stored_total", "Artifacts that were taken in")?,
            artifact_bytes: counter("artifacts_stored_bytes_total", "Bytes of artifacts that were taken in")?,
        };
        metrics.begin_at_zero();
        metrics.register()?;
        Ok(metrics)
    }

    fn begin_at_zero(&self) {
        for kind in [Kind::Developer, Kind::Provider] {
            self.accepted.with_label_values(&[kind.as_str()]);
            self.refused.with_label_values(&[kind.as_str()]);
        }
        for kind in [TxKind::Match, TxKind::Evict, TxKind::Close] {
            for status in [TxStatus::Recorded, TxStatus::Sent, TxStatus::Mined, TxStatus::Failed, TxStatus::Abandoned] {
                self.transactions.with_label_values(&[kind.as_str(), status.as_str()]);
            }
        }
        for reason in Reason::ALL {
            self.races.with_label_values(&[&word(reason)]);
            self.rejected.with_label_values(&[&word(reason)]);
        }
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.accepted.clone()))?;
        self.registry.register(Box::new(self.refused.clone()))?;
        self.registry.register(Box::new(self.market_loads.clone()))?;
        self.registry.register(Box::new(self.explanations_changed.clone()))?;
        self.registry.register(Box::new(self.blocks_taken_back.clone()))?;
        self.registry.register(Box::new(self.open_demands.clone()))?;
        self.registry.register(Box::new(self.open_supplies.clone()))?;
        self.registry.register(Box::new(self.transactions.clone()))?;
        self.registry.register(Box::new(self.fills_opened.clone()))?;
        self.registry.register(Box::new(self.races.clone()))?;
        self.registry.register(Box::new(self.rejected.clone()))?;
        self.registry.register(Box::new(self.repriced.clone()))?;
        self.registry.register(Box::new(self.fee_ceiling.clone()))?;
        self.registry.register(Box::new(self.turn_wait.clone()))?;
        self.registry.register(Box::new(self.leader.clone()))?;
        self.registry.register(Box::new(self.tick_seconds.clone()))?;
        self.registry.register(Box::new(self.tick_failures.clone()))?;
        self.registry.register(Box::new(self.artifacts.clone()))?;
        self.registry.register(Box::new(self.artifact_bytes.clone()))
    }

    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    pub(crate) fn offer_accepted(&self, kind: Kind, hash: OfferHash, sequence: u64) {
        self.accepted.with_label_values(&[kind.as_str()]).inc();
        tracing::info!(kind = kind.as_str(), offer = %hash, sequence, "offer accepted");
    }

    pub(crate) fn offer_refused(&self, kind: Kind, code: &str) {
        self.refused.with_label_values(&[kind.as_str()]).inc();
        tracing::debug!(kind = kind.as_str(), code, "offer refused");
    }

    pub(crate) fn market_loaded(&self, block: Option<BlockRef>) {
        self.market_loads.inc();
        tracing::info!(block = block.map(|block| block.number), "the whole market was read");
    }

    pub(crate) fn explanations_changed(&self, count: usize) {
        self.explanations_changed.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(crate) fn blocks_taken_back(&self, count: usize) {
        if count > 0 {
            self.blocks_taken_back.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
            tracing::info!(count, "a reorganization took blocks with events back");
        }
    }

    pub(crate) fn market_contradicted(&self, error: &StateError) {
        tracing::error!(%error, "the indexed events contradict each other, the whole market is read again");
    }

    pub(crate) fn market_seen(&self, demands: usize, supplies: usize) {
        self.open_demands.set(i64::try_from(demands).unwrap_or(i64::MAX));
        self.open_supplies.set(i64::try_from(supplies).unwrap_or(i64::MAX));
    }

    pub(crate) fn transaction_recorded(&self, kind: TxKind, tx: TxHash, fills: usize) {
        self.transactions.with_label_values(&[kind.as_str(), TxStatus::Recorded.as_str()]).inc();
        tracing::debug!(kind = kind.as_str(), %tx, fills, "transaction recorded");
    }

    pub(crate) fn transaction_sent(&self, kind: TxKind, tx: TxHash) {
        self.transactions.with_label_values(&[kind.as_str(), TxStatus::Sent.as_str()]).inc();
        tracing::info!(kind = kind.as_str(), %tx, "transaction sent");
    }

    pub(crate) fn transaction_finished(&self, kind: TxKind, tx: TxHash, outcome: &Outcome) {
        let status = match outcome {
            Outcome::Mined { fills, .. } => {
                let opened = fills.iter().filter(|(_, outcome)| *outcome == FillOutcome::Opened).count();
                let passed_over = fills.len().saturating_sub(opened);
                self.fills_opened.inc_by(u64::try_from(opened).unwrap_or(u64::MAX));
                tracing::info!(kind = kind.as_str(), %tx, opened, passed_over, "transaction mined");
                for (fill, outcome) in fills {
                    self.fill_passed_over(tx, *fill, *outcome);
                }
                TxStatus::Mined
            }
            Outcome::Failed { block } => {
                tracing::warn!(kind = kind.as_str(), %tx, block, "transaction reverted on the chain");
                TxStatus::Failed
            }
            Outcome::Abandoned => {
                tracing::warn!(kind = kind.as_str(), %tx, "transaction abandoned: its nonce is another one's");
                TxStatus::Abandoned
            }
        };
        self.transactions.with_label_values(&[kind.as_str(), status.as_str()]).inc();
    }

    fn fill_passed_over(&self, tx: TxHash, fill: PendingFill, outcome: FillOutcome) {
        let (developer_offer, provider_offer) = (fill.developer_offer, fill.provider_offer);
        match outcome {
            FillOutcome::Opened => (),
            FillOutcome::Raced(reason) => {
                self.races.with_label_values(&[&word(reason)]).inc();
                tracing::info!(%tx, %developer_offer, %provider_offer, ?reason, "others were faster");
            }
            FillOutcome::Refused(reason) => {
                self.rejected.with_label_values(&[&word(reason)]).inc();
                tracing::error!(
                    %tx, %developer_offer, %provider_offer, ?reason,
                    "the contract forbids what was planned, and nobody changed anything meanwhile: report this"
                );
            }
        }
    }

    pub(crate) fn transaction_repriced(&self, kind: TxKind, before: TxHash, tx: TxHash, nonce: u64) {
        self.repriced.inc();
        tracing::warn!(kind = kind.as_str(), %before, %tx, nonce, "a transaction is not mined, it gets a higher fee");
    }

    pub(crate) fn fees_too_high(&self, error: &ChainError) {
        tracing::warn!(%error, "gas is too dear");
    }

    pub(crate) fn fee_ceiling(&self, is_reached: bool) {
        self.fee_ceiling.set(is_reached.into());
    }

    pub(crate) fn turn_wait(&self, blocks: u64) {
        self.turn_wait.set(i64::try_from(blocks).unwrap_or(i64::MAX));
    }

    pub(crate) fn standing(&self, standing: Standing) {
        let leads = i64::from(standing == Standing::Leader);
        if self.leader.get() != leads {
            tracing::info!(?standing, "this process's part has changed");
        }
        self.leader.set(leads);
    }

    pub(crate) fn match_too_large(&self, match_: &TooLarge, budget: u64) {
        let TooLarge { demand, gas, bytes } = match_;
        tracing::error!(offer = %demand, gas, bytes, budget, "no transaction can hold this match, the offer is held");
    }

    pub(crate) fn transaction_lost(&self, kind: TxKind, tx: TxHash) {
        tracing::warn!(kind = kind.as_str(), %tx, "transaction left the chain with a reorganization, sending it again");
    }

    pub(crate) fn match_refused(&self, demand: OfferHash, error: &ChainError) {
        tracing::warn!(offer = %demand, %error, "a match was refused before it was sent, the offer is held");
    }

    pub(crate) fn end_refused(&self, kind: TxKind, deal: DealId, error: &ChainError) {
        tracing::debug!(kind = kind.as_str(), %deal, %error, "the deal cannot be ended yet");
    }

    pub(crate) fn tick_done(&self, took: Duration) {
        self.tick_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn tick_failed(&self, error: &MatcherError) {
        self.tick_failures.inc();
        tracing::warn!(error = %error.in_full(), "a round failed and will be tried again");
    }

    pub(crate) fn artifact_stored(&self, artifact: StoredArtifact) {
        self.artifacts.inc();
        self.artifact_bytes.inc_by(artifact.size);
        tracing::info!(digest = %artifact.digest, size = artifact.size, "artifact stored");
    }
}

/// A reason as labels name it.
fn word(reason: Reason) -> String {
    serde_json::to_string(&reason).unwrap_or_default().trim_matches('"').to_owned()
}
