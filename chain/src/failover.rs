//! Fail-over between endpoints: each request goes to the first endpoint that is well. One that does not answer in time,
//! answers nonsense, is over its limit or far behind the others is left for a while, see [`health`](crate::health). A
//! JSON-RPC *error answer* is an answer; only rate limits are asked elsewhere.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use alloy::{
    rpc::{
        client::RpcClient,
        json_rpc::{ErrorPayload, RpcError, RpcRecv, RpcSend},
    },
    transports::{TransportError, TransportErrorKind, http},
};
use common::clock::SharedClock;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::health::{Health, Standing, TokenBucket, is_behind};

/// Requests under way at a time in place of one batch, with nodes that take no batches.
const PARALLEL_SINGLES: usize = 8;

/// What endpoints are trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Longest time that one endpoint may take for one request or batch.
    pub timeout: Duration,
    /// Requests per second to one endpoint, those in batches counted one by one; 0 for no limit.
    pub requests_per_second: u32,
    /// Requests or batches under way at one endpoint, at least 1.
    pub concurrent_requests: usize,
    /// Blocks that an endpoint may be behind another one before it is left.
    pub max_lag_blocks: u64,
    /// Longest time that an endpoint's head may stand still while another's moves.
    pub max_still: Duration,
    /// Time between two comparisons of all endpoints' heads.
    pub compare_every: Duration,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            requests_per_second: 0,
            concurrent_requests: 32,
            max_lag_blocks: 8,
            max_still: Duration::from_secs(60),
            compare_every: Duration::from_secs(10),
        }
    }
}

pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    limits: EndpointLimits,
    clock: SharedClock,
    /// When the heads of all endpoints were compared last.
    compared_at: Mutex<Option<Duration>>,
}

struct Endpoint {
    /// Scheme and host only: paths and queries of endpoints often are secrets.
    name: String,
    client: RpcClient,
    health: Mutex<Health>,
    bucket: Mutex<TokenBucket>,
    permits: Semaphore,
    no_batches: AtomicBool,
}

/// What an answer says about the endpoint that gave it.
enum Verdict {
    Fine,
    /// Another endpoint shall be asked.
    Failed(String),
    /// Over its limit, perhaps for this long.
    Limited(Option<Duration>),
}

/// What is asked: one thing, or several things at once.
pub(crate) struct Question<'a, P> {
    pub(crate) method: &'static str,
    pub(crate) params: &'a [P],
}

/// What an endpoint answered.
pub(crate) struct Answers<R> {
    pub(crate) values: Vec<R>,
    /// The endpoint's place.
    pub(crate) by: usize,
}

impl Pool {
    pub(crate) fn new(endpoints: Vec<(String, RpcClient)>, limits: EndpointLimits, clock: SharedClock) -> Self {
        let endpoints = endpoints.into_iter().map(|(name, client)| Endpoint {
            name,
            client,
            health: Mutex::default(),
            bucket: Mutex::new(TokenBucket::new(limits.requests_per_second)),
            permits: Semaphore::new(limits.concurrent_requests.max(1)),
            no_batches: AtomicBool::new(false),
        });
        Self { endpoints: endpoints.collect(), limits, clock, compared_at: Mutex::default() }
    }

    /// Asks until an endpoint gives answers in which `flaw`, which is given the endpoint's head, finds none. Where each has
    /// one, the last answers are returned all the same: the caller has no better ones.
    pub(crate) async fn ask<P: RpcSend, R: RpcRecv>(
        &self,
        question: Question<'_, P>,
        flaw: impl Fn(&[R], Option<u64>) -> Option<&'static str> + Sync,
    ) -> Result<Answers<R>, TransportError> {
        let mut last = None;
        for by in self.order().await? {
            let Some(endpoint) = self.endpoints.get(by) else { continue };
            let answer = self.ask_one(endpoint, &question).await;
            let verdict = match &answer {
                Ok(values) => {
                    flaw(values, endpoint.known_head()).map_or(Verdict::Fine, |flaw| Verdict::Failed(flaw.to_owned()))
                }
                Err(error) => judge(error),
            };
            let answer = answer.map(|values| Answers { values, by }).map_err(without_url);
            if self.note(endpoint, &verdict) {
                return answer;
            }
            last = match (last, answer) {
                (Some(Ok(flawed)), Err(_)) => Some(Ok(flawed)),
                (_, answer) => Some(answer),
            };
        }
        last.unwrap_or_else(|| Err(TransportErrorKind::custom_str("there is no endpoint")))
    }

    /// Whether the heads of several endpoints are to be compared again; true for one caller at a time.
    pub(crate) fn is_comparison_due(&self) -> bool {
        let now = self.clock.now();
        let mut compared_at = lock(&self.compared_at);
        let is_due = self.endpoints.len() > 1
            && compared_at.is_none_or(|then| now.saturating_sub(then) >= self.limits.compare_every);
        if is_due {
            *compared_at = Some(now);
        }
        is_due
    }

    /// Asks every endpoint for its head, and leaves those that are behind.
    pub(crate) async fn compare_heads<P: RpcSend, R: RpcRecv>(
        &self,
        question: Question<'_, P>,
        number: impl Fn(&R) -> u64 + Sync,
    ) {
        let now = self.clock.now();
        let asked = self.endpoints.iter().filter(|endpoint| !matches!(endpoint.standing(now), Standing::Resting(_)));
        let (question, number) = (&question, &number);
        let answers = asked.map(|endpoint| async move {
            let answer: Result<Vec<R>, _> = self.ask_one(endpoint, question).await;
            (endpoint, answer.map(|answers| answers.first().map(number)))
        });
        for (endpoint, answer) in futures::future::join_all(answers).await {
            match answer {
                Ok(Some(head)) => self.saw_head(endpoint, head),
                Ok(None) => drop(self.note(endpoint, &Verdict::Failed("it has no latest block".to_owned()))),
                Err(error) => drop(self.note(endpoint, &judge(&error))),
            }
        }
        self.leave_those_behind();
    }

    /// Leaves these endpoints for a while; whether another one is well.
    pub(crate) fn blame(&self, places: &BTreeSet<usize>, problem: &str) -> bool {
        for endpoint in places.iter().filter_map(|place| self.endpoints.get(*place)) {
            self.note(endpoint, &Verdict::Failed(problem.to_owned()));
        }
        let now = self.clock.now();
        self.endpoints.iter().any(|endpoint| endpoint.standing(now) == Standing::Well)
    }

    /// Endpoint `by` named this head.
    pub(crate) fn named_head(&self, by: usize, number: u64) {
        if let Some(endpoint) = self.endpoints.get(by) {
            self.saw_head(endpoint, number);
        }
    }

    fn saw_head(&self, endpoint: &Endpoint, number: u64) {
        lock(&endpoint.health).saw_head(self.clock.now(), number);
    }

    fn leave_those_behind(&self) {
        let now = self.clock.now();
        let best =
            self.endpoints.iter().filter_map(|endpoint| lock(&endpoint.health).head()).max_by_key(|head| head.number);
        let Some(best) = best else { return };
        for endpoint in &self.endpoints {
            let own = lock(&endpoint.health).head();
            let problem =
                own.and_then(|own| is_behind(own, best, now, self.limits.max_lag_blocks, self.limits.max_still));
            if let Some(problem) = problem {
                self.note(endpoint, &Verdict::Failed(problem));
            }
        }
    }

    /// Places of the endpoints to ask, best first. Waits where all of them are over their limits.
    async fn order(&self) -> Result<Vec<usize>, TransportError> {
        let now = self.clock.now();
        let mut standings: Vec<(Standing, usize)> =
            self.endpoints.iter().enumerate().map(|(place, endpoint)| (endpoint.standing(now), place)).collect();
        standings.sort_unstable();
        if let Some((Standing::Resting(until), _)) = standings.first() {
            let wait = until.saturating_sub(now);
            if wait > self.limits.timeout {
                let seconds = wait.as_secs();
                let problem = format!("every endpoint is over its limit; the next may be asked again in {seconds} s");
                return Err(TransportErrorKind::custom_str(&problem));
            }
            tokio::time::sleep(wait).await;
            return Ok(standings.into_iter().map(|(_, place)| place).take(1).collect());
        }
        let may_be_asked = |standing: &Standing| !matches!(standing, Standing::Resting(_));
        Ok(standings.into_iter().filter(|(standing, _)| may_be_asked(standing)).map(|(_, place)| place).collect())
    }

    async fn ask_one<P: RpcSend, R: RpcRecv>(
        &self,
        endpoint: &Endpoint,
        question: &Question<'_, P>,
    ) -> Result<Vec<R>, TransportError> {
        // Never closed.
        let _permit = endpoint.permits.acquire().await;
        let tokens = u32::try_from(question.params.len()).unwrap_or(u32::MAX);
        let wait = lock(&endpoint.bucket).take(self.clock.now(), tokens);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let answer = tokio::time::timeout(self.limits.timeout, endpoint.send(question)).await;
        answer.unwrap_or_else(|_| Err(TransportErrorKind::custom_str(NO_ANSWER)))
    }

    /// Remembers how an endpoint did; true where its answer is to be used.
    fn note(&self, endpoint: &Endpoint, verdict: &Verdict) -> bool {
        let now = self.clock.now();
        let mut health = lock(&endpoint.health);
        match verdict {
            Verdict::Fine => {
                health.answered(now);
                return true;
            }
            Verdict::Failed(problem) => {
                if let Some(time) = health.leave(now) {
                    let seconds = time.as_secs();
                    warn!(endpoint = endpoint.name, problem, seconds, "RPC endpoint is left for a while");
                }
            }
            Verdict::Limited(retry_after) => {
                let seconds = health.rest(now, *retry_after).as_secs();
                warn!(endpoint = endpoint.name, seconds, "RPC endpoint is over its limit");
            }
        }
        false
    }
}

impl Endpoint {
    fn standing(&self, now: Duration) -> Standing {
        lock(&self.health).standing(now)
    }

    fn known_head(&self) -> Option<u64> {
        lock(&self.health).head().map(|head| head.number)
    }

    async fn send<P: RpcSend, R: RpcRecv>(&self, question: &Question<'_, P>) -> Result<Vec<R>, TransportError> {
        if question.params.len() <= 1 || self.no_batches.load(Ordering::Relaxed) {
            return self.send_singly(question).await;
        }
        match self.send_batch(question).await {
            Err(error) if refuses_batches(&error) => {
                let answers = self.send_singly(question).await?;
                info!(endpoint = self.name, "RPC endpoint takes no batches: its requests are sent one by one");
                self.no_batches.store(true, Ordering::Relaxed);
                Ok(answers)
            }
            answer => answer,
        }
    }

    async fn send_singly<P: RpcSend, R: RpcRecv>(&self, question: &Question<'_, P>) -> Result<Vec<R>, TransportError> {
        let requests: Vec<_> =
            question.params.iter().map(|params| self.client.request(question.method, params.clone())).collect();
        stream::iter(requests).buffered(PARALLEL_SINGLES).try_collect().await
    }

    async fn send_batch<P: RpcSend, R: RpcRecv>(&self, question: &Question<'_, P>) -> Result<Vec<R>, TransportError> {
        let mut batch = self.client.new_batch();
        let mut waiters = Vec::with_capacity(question.params.len());
        for params in question.params {
            waiters.push(batch.add_call(question.method, params)?);
        }
        batch.send().await?;
        let mut answers = Vec::with_capacity(waiters.len());
        for waiter in waiters {
            answers.push(waiter.await?);
        }
        Ok(answers)
    }
}

/// What `error.to_string()` of a time-out is.
const NO_ANSWER: &str = "no answer in time";

/// Whether a batch failed in a way in which nodes say that they take none.
fn refuses_batches(error: &TransportError) -> bool {
    match error {
        // One error object in place of a list of answers.
        RpcError::Transport(TransportErrorKind::MissingBatchResponse(_)) => true,
        RpcError::Transport(TransportErrorKind::HttpError(error)) => {
            matches!(error.status, 400 | 405 | 413 | 415 | 422)
        }
        RpcError::ErrorResp(error) => error.code == -32600 || error.message.to_ascii_lowercase().contains("batch"),
        _ => false,
    }
}

/// Whether another endpoint shall be asked.
fn judge(error: &TransportError) -> Verdict {
    match error {
        // A node behind a load balancer that lags.
        RpcError::ErrorResp(error) if error.message == "header not found" => Verdict::Failed(error.message.to_string()),
        RpcError::ErrorResp(error) if is_rate_limit(error) => Verdict::Limited(None),
        RpcError::ErrorResp(_) | RpcError::SerError(_) => Verdict::Fine,
        RpcError::Transport(kind) => match kind.as_http_error().map(|error| error.status) {
            Some(429) => Verdict::Limited(kind.retry_after()),
            Some(status) => Verdict::Failed(format!("it answers with HTTP status {status}")),
            None if kind.as_custom().is_some_and(|error| error.to_string() == NO_ANSWER) => {
                Verdict::Failed(NO_ANSWER.to_owned())
            }
            None if kind.as_custom().is_some() => Verdict::Failed("the connection fails".to_owned()),
            None => Verdict::Failed("it gives no usable answer".to_owned()),
        },
        RpcError::DeserError { .. } => Verdict::Failed("its answer is not what the protocol says".to_owned()),
        _ => Verdict::Failed("it gives no usable answer".to_owned()),
    }
}

/// The error without the URL that the HTTP client puts into it.
fn without_url(error: TransportError) -> TransportError {
    match error {
        RpcError::Transport(TransportErrorKind::Custom(source)) => {
            let source = match source.downcast::<http::reqwest::Error>() {
                Ok(error) => Box::new(error.without_url()),
                Err(other) => other,
            };
            RpcError::Transport(TransportErrorKind::Custom(source))
        }
        other => other,
    }
}

fn is_rate_limit(error: &ErrorPayload) -> bool {
    // Some nodes use the rate limit's code to say that a range has too many logs.
    error.is_retry_err() && !crate::logs::means_too_many(&error.message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
