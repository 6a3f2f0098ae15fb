//! The JSON-RPC client: one or several HTTP endpoints of the same chain.

use std::time::Duration;

use alloy::{
    eips::BlockId,
    primitives::{B256, Bytes, U64, U128},
    rpc::{
        client::RpcClient,
        json_rpc::{RpcRecv, RpcSend},
        types::TransactionRequest,
    },
    sol_types::SolCall,
    transports::{BoxTransport, http},
};
use common::{
    event::BlockRef,
    ids::{Address, BlockHash},
};
use serde::Deserialize;

use crate::{
    convert::outward,
    error::ChainError,
    failover::{Endpoint, FailOver, REQUEST_TIMEOUT},
};

/// Endpoints of one chain, with fail-over in their order. Cheap to clone.
///
/// An endpoint that does not answer within 10 s, cannot be reached or is over its rate limit is passed over for the next.
/// Endpoints may hold secrets in path and query, so that only their hosts are ever logged.
#[derive(Debug, Clone)]
pub struct Rpc {
    client: RpcClient,
}

/// What of a block header matters here; other fields differ from chain to chain.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    number: U64,
    hash: B256,
    parent_hash: B256,
    timestamp: U64,
    pub(crate) gas_limit: U64,
    pub(crate) base_fee_per_gas: Option<U128>,
}

impl Header {
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
        Self::with_timeout(endpoints, REQUEST_TIMEOUT)
    }

    /// Like [`Rpc::new`], with another limit on the time that one endpoint may take for one request.
    pub fn with_timeout(endpoints: &[String], timeout: Duration) -> Result<Self, ChainError> {
        if endpoints.is_empty() {
            let problem = "is missing: name at least one HTTP URL";
            return Err(ChainError::InvalidEndpoint { endpoint: String::new(), problem });
        }
        let client = http::Client::new();
        let endpoints = endpoints.iter().map(|url| endpoint(&client, url)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { client: RpcClient::new(FailOver::new(endpoints, timeout), false) })
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

    /// The latest block.
    pub async fn head(&self) -> Result<BlockRef, ChainError> {
        Ok(self.latest_header().await?.block_ref())
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
        Ok(self.header(format!("{number:#x}")).await?.map(|header| header.block_ref()))
    }

    /// A block by hash, canonical or not; `None` where the node does not know it.
    pub async fn block_with_hash(&self, hash: BlockHash) -> Result<Option<BlockRef>, ChainError> {
        let header: Option<Header> = self.request("eth_getBlockByHash", (outward::word(hash.0), false)).await?;
        Ok(header.map(|header| header.block_ref()))
    }

    /// What an account has of the chain's own currency, in wei.
    pub async fn gas_balance(&self, account: Address) -> Result<u128, ChainError> {
        let balance: alloy::primitives::U256 =
            self.request("eth_getBalance", (outward::address(account), BlockId::latest())).await?;
        Ok(u128::try_from(balance).unwrap_or(u128::MAX))
    }

    pub(crate) async fn latest_header(&self) -> Result<Header, ChainError> {
        let header = self.header("latest".to_owned()).await?;
        header.ok_or_else(|| ChainError::invalid_answer("eth_getBlockByNumber", "no latest block"))
    }

    async fn header(&self, block: String) -> Result<Option<Header>, ChainError> {
        self.request("eth_getBlockByNumber", (block, false)).await
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
        self.client.request(method, params).await.map_err(|error| ChainError::from_rpc(method, error))
    }
}

fn endpoint(client: &http::Client, url: &str) -> Result<Endpoint, ChainError> {
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
    Ok(Endpoint { name, transport: BoxTransport::new(http::Http::with_client(client.clone(), url)) })
}
