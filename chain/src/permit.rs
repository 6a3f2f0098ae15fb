//! EIP-2612 permits: paying tokens in with one signature instead of an approval transaction.

use alloy::{
    primitives::{B256, U256},
    sol,
    sol_types::SolStruct,
};
use common::{ids::Address, money::Atoms};
use contracts::TestUsdc;
use serde::{Deserialize, Serialize};

use crate::{convert::outward, eip712, error::ChainError, market::MarketReader};

mod terms {
    super::sol! {
        struct Permit {
            address owner;
            address spender;
            uint256 value;
            uint256 nonce;
            uint256 deadline;
        }
    }
}

/// What the owner of tokens signs so that `spender` may take `amount` of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// Name in the token's EIP-712 domain.
    pub token_name: String,
    /// Version in the token's EIP-712 domain.
    pub token_version: String,
    /// Chain id, as in EIP-155.
    pub chain_id: u64,
    /// The token.
    pub token: Address,
    /// Who may take: the market.
    pub spender: Address,
    /// How much.
    pub amount: Atoms,
    /// The owner's permit nonce at the token.
    pub nonce: u64,
    /// Last second (since 1970) at which the permit may be used.
    pub deadline: u64,
}

/// A signed permit, in the parts that [`crate::calls::deposit_with_permit`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitSignature {
    /// 27 or 28.
    pub v: u8,
    /// First half.
    pub r: [u8; 32],
    /// Second half.
    pub s: [u8; 32],
}

impl Permit {
    pub(crate) fn signing_hash(&self, owner: Address) -> B256 {
        let terms = terms::Permit {
            owner: outward::address(owner),
            spender: outward::address(self.spender),
            value: U256::from(self.amount.get()),
            nonce: U256::from(self.nonce),
            deadline: U256::from(self.deadline),
        };
        terms.eip712_signing_hash(&self.domain())
    }

    fn domain(&self) -> alloy::sol_types::Eip712Domain {
        eip712::domain(&self.token_name, &self.token_version, self.chain_id, self.token)
    }
}

impl MarketReader {
    /// The permit that `owner` signs to pay `amount` in, with the token's name, version and nonce filled in.
    ///
    /// # Errors
    /// [`ChainError::Reverted`] where the token knows no permits; [`ChainError::InvalidAnswer`] where its EIP-712 domain
    /// is none of the usual ones, so that a signature would be refused.
    pub async fn permit(&self, owner: Address, amount: Atoms, deadline: u64) -> Result<Permit, ChainError> {
        let token = self.terms().token;
        let token_name = self.rpc().view(token, &TestUsdc::nameCall {}).await?;
        let nonce = self.rpc().view(token, &TestUsdc::noncesCall { owner: outward::address(owner) }).await?;
        let separator = self.rpc().view(token, &TestUsdc::DOMAIN_SEPARATORCall {}).await?;
        let nonce = u64::try_from(nonce).map_err(|error| ChainError::invalid_answer("nonces", error))?;
        let chain_id = self.terms().chain_id;
        let with_version = |version: &str| Permit {
            token_name: token_name.clone(),
            token_version: version.to_owned(),
            chain_id,
            token,
            spender: self.terms().market,
            amount,
            nonce,
            deadline,
        };
        // USDC is version 2 and most others are version 1; few tokens tell.
        let permits = ["2", "1"].map(with_version);
        let known = permits.into_iter().find(|permit| permit.domain().separator() == separator);
        known.ok_or_else(|| ChainError::invalid_answer("DOMAIN_SEPARATOR", "an EIP-712 domain of another form"))
    }
}
