//! The JSON-RPC client: one or several HTTP endpoints of the same chain.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use alloy::{
    eips::BlockId,
    primitives::{B256, Bloom, Bytes, U64, U128},
    rpc::{
        client::RpcClient,
        json_rpc::{RpcRecv, RpcSend},
        types::TransactionRequest,
    },
    sol_types::SolCall,
    transports::http,
};
use common::{
    clock::{SharedClock, SystemClock},
    event::BlockRef,
    ids::{Address, BlockHash, TxHash},
};
use serde::Deserialize;

pub use crate::failover::EndpointLimits;
use crate::{
    convert::{inward, outward},
    error::ChainError,
    failover::{Answers, Pool, Question},
};

/// Requests in one batch.
const BATCH: usize = 100;

/// Endpoints of one chain, with fail-over in their order. Cheap to clone.
///
/// An endpoint that does not answer in time, answers nonsense, is over its rate limit or far behind the others is left for
/// a while, see [`EndpointLimits`]. Endpoints may hold secrets in path and query, so that only their hosts are ever logged.
#[derive(Clone)]
pub struct Rpc {
    pool: Arc<Pool>,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").finish_non_exhaustive()
    }
}

/// What of a block header matters here; other fields differ from chain to chain.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
    pub(crate) logs_bloom: Option<Bloom>,
    pub(crate) gas_limit: U64,
    pub(crate) base_fee_per_gas: Option<U128>,
}

/// What of a transaction matters here.
#[derive(Debug, Clone, Deserialize)]
struct Sent {
    from: alloy::primitives::Address,
}

impl Header {
    pub(crate) fn number(&self) -> u64 {
        self.number.to()
    }

    pub(crate) const fn hash(&self) -> B256 {
        self.hash
    }

    pub(crate) fn follows(&self, parent: &Self) -> bool {
        self.parent_hash == parent.hash
    }

    pub(crate) fn block_ref(&self) -> BlockRef {
        BlockRef {
            number: self.number.to(),
            hash: BlockHash(self.hash.0),
            parent_hash: BlockHash(self.parent_hash.0),
            timestamp: self.timestamp.to(),
        }
    }
}

impl Rpc {
    /// A client for these HTTP or HTTPS URLs; nothing is asked yet.
    pub fn new(endpoints: &[String]) -> Result<Self, ChainError> {
        Self::with_limits(endpoints, EndpointLimits::default(), Arc::new(SystemClock))
    }

    /// Like [`Rpc::new`], with another limit on the time that one endpoint may take for one request.
    pub fn with_timeout(endpoints: &[String], timeout: Duration) -> Result<Self, ChainError> {
        let limits = EndpointLimits { timeout, ..EndpointLimits::default() };
        Self::with_limits(endpoints, limits, Arc::new(SystemClock))
    }

    /// Like [`Rpc::new`], with other limits; rates and pauses are measured by `clock`.
    pub fn with_limits(endpoints: &[String], limits: EndpointLimits, clock: SharedClock) -> Result<Self, ChainError> {
        if endpoints.is_empty() {
            let problem = "is missing: name at least one HTTP URL";
            return Err(ChainError::InvalidEndpoint { endpoint: String::new(), problem });
        }
        let client = http::Client::new();
        let endpoints = endpoints.iter().map(|url| endpoint(&client, url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pool: Arc::new(Pool::new(endpoints, limits, clock)) })
    }

    /// Chain id, as in EIP-155.
    pub async fn chain_id(&self) -> Result<u64, ChainError> {
        let id: U64 = self.request("eth_chainId", ()).await?;
        Ok(id.to())
    }

    /// Checks that the endpoint serves chain `expected`; [`ChainError::WrongChain`] otherwise.
    pub async fn require_chain(&self, expected: u64) -> Result<(), ChainError> {
        let actual = self.chain_id().await?;
        if actual == expected { Ok(()) } else { Err(ChainError::WrongChain { expected, actual }) }
    }

    /// The latest block. With several endpoints their heads are compared now and then, and those behind are left.
    pub async fn head(&self) -> Result<BlockRef, ChainError> {
        if self.pool.is_comparison_due() {
            let question = Question { method: BLOCK_BY_NUMBER, params: &[("latest", false)] };
            self.pool.compare_heads(question, |header: &Header| header.number.to()).await;
        }
        Ok(self.latest_header().await?.block_ref())
    }

    /// The canonical blocks at these heights, each `None` where it is above the head, in the same order.
    pub async fn blocks(&self, numbers: &[u64]) -> Result<Vec<Option<BlockRef>>, ChainError> {
        let headers = self.headers(numbers).await?;
        Ok(headers.into_iter().map(|header| header.map(|header| header.block_ref())).collect())
    }

    pub(crate) async fn headers(&self, numbers: &[u64]) -> Result<Vec<Option<Header>>, ChainError> {
        let mut headers = Vec::with_capacity(numbers.len());
        for numbers in numbers.chunks(BATCH) {
            let params: Vec<(String, bool)> = numbers.iter().map(|number| (format!("{number:#x}"), false)).collect();
            let flaw = |found: &[Option<Header>], head: Option<u64>| {
                let wrong = |(number, header): (&u64, &Option<Header>)| match header {
                    Some(header) => header.number.to::<u64>() != *number,
                    None => head.is_some_and(|head| *number <= head),
                };
                let is_flawed = numbers.iter().zip(found).any(wrong);
                is_flawed.then_some("it lacks blocks below its own head, or gives others than it was asked for")
            };
            headers.extend(self.batch(BLOCK_BY_NUMBER, &params, flaw).await?);
        }
        Ok(headers)
    }

    /// Height of the latest final block; `None` where the node has no such notion.
    pub async fn finalized(&self) -> Result<Option<u64>, ChainError> {
        match self.header("finalized".to_owned()).await {
            Ok(header) => Ok(header.map(|header| header.number.to())),
            Err(ChainError::Refused { transient: false, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The canonical block at this height; `None` above the head.
    pub async fn block(&self, number: u64) -> Result<Option<BlockRef>, ChainError> {
        Ok(self.blocks(&[number]).await?.into_iter().next().flatten())
    }

    /// Who signed these transactions, in the same order; `None` for one that the node does not have any more.
    pub async fn senders(&self, transactions: &[TxHash]) -> Result<Vec<Option<Address>>, ChainError> {
        let mut senders = Vec::with_capacity(transactions.len());
        for transactions in transactions.chunks(BATCH) {
            let params: Vec<[B256; 1]> = transactions.iter().map(|hash| [B256::new(hash.0)]).collect();
            let found: Vec<Option<Sent>> = self.batch(TRANSACTION_BY_HASH, &params, |_, _| None).await?;
            senders.extend(found.into_iter().map(|sent| sent.map(|sent| inward::address(sent.from))));
        }
        Ok(senders)
    }

    /// What an account has of the chain's own currency, in wei.
    pub async fn gas_balance(&self, account: Address) -> Result<u128, ChainError> {
        let balance: alloy::primitives::U256 =
            self.request("eth_getBalance", (outward::address(account), BlockId::latest())).await?;
        Ok(u128::try_from(balance).unwrap_or(u128::MAX))
    }

    pub(crate) async fn latest_header(&self) -> Result<Header, ChainError> {
        let question = Question { method: BLOCK_BY_NUMBER, params: &[("latest", false)] };
        let flaw = |found: &[Option<Header>], _: Option<u64>| match found {
            [Some(_)] => None,
            _ => Some("it has no latest block"),
        };
        let answer = self.pool.ask(question, flaw).await;
        let answer = answer.map_err(|error| ChainError::from_rpc(BLOCK_BY_NUMBER, error))?;
        let header = answer.values.into_iter().next().flatten();
        let header = header.ok_or_else(|| ChainError::invalid_answer(BLOCK_BY_NUMBER, "no latest block"))?;
        self.pool.named_head(answer.by, header.number.to());
        Ok(header)
    }

    async fn header(&self, block: String) -> Result<Option<Header>, ChainError> {
        self.request(BLOCK_BY_NUMBER, (block, false)).await
    }

    pub(crate) async fn code(&self, account: Address, block: BlockId) -> Result<Bytes, ChainError> {
        self.request("eth_getCode", (outward::address(account), block)).await
    }

    /// Calls a view of a contract at the latest block.
    pub(crate) async fn view<C: SolCall>(&self, contract: Address, call: &C) -> Result<C::Return, ChainError> {
        self.view_within(contract, call, None).await
    }

    /// Like [`Rpc::view`], with a limit on the gas, for contracts of strangers.
    pub(crate) async fn view_within<C: SolCall>(
        &self,
        contract: Address,
        call: &C,
        gas: Option<u64>,
    ) -> Result<C::Return, ChainError> {
        let mut request = TransactionRequest::default().to(outward::address(contract)).input(call.abi_encode().into());
        request.gas = gas;
        let answer: Bytes = self
            .request("eth_call", (request, BlockId::latest()))
            .await
            .map_err(|error: ChainError| error.labelled(C::SIGNATURE))?;
        C::abi_decode_returns(&answer).map_err(|error| ChainError::invalid_answer(C::SIGNATURE, error))
    }

    pub(crate) async fn request<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, ChainError> {
        let answers = self.batch(method, &[params], |_, _| None).await?;
        answers.into_iter().next().ok_or_else(|| ChainError::invalid_answer(method, "no answer"))
    }

    /// Several requests at once; answers in which `flaw` finds something are asked of another endpoint.
    pub(crate) async fn batch<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: &[P],
        flaw: impl Fn(&[R], Option<u64>) -> Option<&'static str> + Sync,
    ) -> Result<Vec<R>, ChainError> {
        Ok(self.batch_by(method, params, flaw).await?.values)
    }

    /// Like [`Rpc::batch`]; says who answered.
    pub(crate) async fn batch_by<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: &[P],
        flaw: impl Fn(&[R], Option<u64>) -> Option<&'static str> + Sync,
    ) -> Result<Answers<R>, ChainError> {
        let answers = self.pool.ask(Question { method, params }, flaw).await;
        answers.map_err(|error| ChainError::from_rpc(method, error))
    }

    /// Leaves endpoints for a while whose answers turned out to be wrong; whether another one is well.
    pub(crate) fn blame(&self, endpoints: &BTreeSet<usize>, problem: &str) -> bool {
        self.pool.blame(endpoints, problem)
    }
}

const TRANSACTION_BY_HASH: &str = "eth_getTransactionByHash";
const BLOCK_BY_NUMBER: &str = "eth_getBlockByNumber";

fn endpoint(client: &http::Client, url: &str) -> Result<(String, RpcClient), ChainError> {
    let invalid = || ChainError::InvalidEndpoint {
        // Not the whole: it may hold a secret.
        endpoint: url.chars().take(24).collect(),
        problem: "is no URL: write one such as http://127.0.0.1:8545",
    };
    let url: http::reqwest::Url = url.parse().map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid());
    }
    let name = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    Ok((name, RpcClient::new(http::Http::with_client(client.clone(), url), false)))
}
