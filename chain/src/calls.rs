//! What can be sent to the market and its token: pure encoders.

use std::collections::BTreeMap;

use alloy::{
    consensus::Transaction,
    primitives::{Bytes, U256},
    sol_types::SolCall,
};
use common::{
    agreement::{ArtifactUpdate, DealChange, Receipt},
    deal::DealRef,
    epoch::Epoch,
    ids::{Address, OfferHash, ReceiptRoot},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
};
use contracts::{Market, TestUsdc};

use crate::{
    convert::{inward, outward},
    eip712::OfferDomain,
    error::ChainError,
    permit::PermitSignature,
    tx::{PREPARED, PreparedTx},
};

/// A call of a contract, to be sent by a [`crate::TxSender`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The contract.
    pub to: Address,
    /// Selector and arguments.
    pub data: Vec<u8>,
    /// What it is, for errors and logs.
    pub label: &'static str,
}

/// One developer offer with the provider offers that shall host its replicas, in order of preference. An empty signature
/// stands for an offer that the chain knows already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchProposal {
    /// The demand.
    pub developer: DeveloperOffer,
    /// Its signature, or empty.
    pub developer_signature: Vec<u8>,
    /// The supplies, each with its signature, or an empty one.
    pub providers: Vec<(ProviderOffer, Vec<u8>)>,
}

fn call<C: SolCall>(to: Address, label: &'static str, call: &C) -> Call {
    Call { to, data: call.abi_encode(), label }
}

fn references(deals: &[DealRef]) -> Vec<Market::DealRef> {
    deals.iter().map(outward::deal_ref).collect()
}

fn wide(amount: Atoms) -> U256 {
    U256::from(amount.get())
}

/// Makes test tokens out of nothing; the test token only.
pub fn mint(token: Address, to: Address, amount: Atoms) -> Call {
    call(token, "mint", &TestUsdc::mintCall { to: outward::address(to), amount: wide(amount) })
}

/// Lets `spender` (the market) take `amount` of the sender's tokens.
pub fn approve(token: Address, spender: Address, amount: Atoms) -> Call {
    call(token, "approve", &TestUsdc::approveCall { spender: outward::address(spender), amount: wide(amount) })
}

/// Pays `amount` of the sender's tokens in; needs an approval.
pub fn deposit(market: Address, amount: Atoms) -> Call {
    call(market, "deposit", &Market::depositCall { amount: wide(amount) })
}

/// Pays `amount` of the sender's tokens in for `account`; needs an approval.
pub fn deposit_for(market: Address, account: Address, amount: Atoms) -> Call {
    let encoded = Market::depositForCall { account: outward::address(account), amount: wide(amount) };
    call(market, "depositFor", &encoded)
}

/// Pays `amount` of `owner`'s tokens in by the owner's permit, which was signed for this amount and deadline.
pub fn deposit_with_permit(
    market: Address,
    owner: Address,
    amount: Atoms,
    deadline: u64,
    signature: &PermitSignature,
) -> Call {
    let encoded = Market::depositWithPermitCall {
        owner: outward::address(owner),
        amount: wide(amount),
        deadline: U256::from(deadline),
        v: signature.v,
        r: signature.r.into(),
        s: signature.s.into(),
    };
    call(market, "depositWithPermit", &encoded)
}

/// Takes `amount` of the sender's free balance out, to `to`.
pub fn withdraw(market: Address, amount: Atoms, to: Address) -> Call {
    call(market, "withdraw", &Market::withdrawCall { amount: wide(amount), to: outward::address(to) })
}

/// Posts the sender's provider offer.
pub fn post_provider_offer(market: Address, offer: &ProviderOffer) -> Call {
    let encoded = Market::postProviderOfferCall { offer: outward::provider_offer(offer) };
    call(market, "postProviderOffer", &encoded)
}

/// Posts the sender's developer offer.
pub fn post_developer_offer(market: Address, offer: &DeveloperOffer) -> Call {
    let encoded = Market::postDeveloperOfferCall { offer: outward::developer_offer(offer) };
    call(market, "postDeveloperOffer", &encoded)
}

/// Voids one of the sender's offers; its deals go on.
pub fn cancel_offer(market: Address, hash: OfferHash) -> Call {
    call(market, "cancelOffer", &Market::cancelOfferCall { offerHash: outward::word(hash.0) })
}

/// Voids all of the sender's offers with a nonce below `floor`; their deals go on.
pub fn raise_nonce_floor(market: Address, floor: u64) -> Call {
    call(market, "raiseNonceFloor", &Market::raiseNonceFloorCall { floor })
}

/// Opens deals.
pub fn match_offers(market: Address, proposals: &[MatchProposal]) -> Call {
    let matches = proposals
        .iter()
        .map(|proposal| Market::Match {
            developerOffer: outward::developer_offer(&proposal.developer),
            developerSignature: proposal.developer_signature.clone().into(),
            fills: proposal
                .providers
                .iter()
                .map(|(offer, signature)| Market::Fill {
                    offer: outward::provider_offer(offer),
                    signature: signature.clone().into(),
                })
                .collect(),
        })
        .collect();
    call(market, "matchOffers", &Market::matchOffersCall { matches })
}

/// The offers that a match transaction names, with their owners.
///
/// # Errors
/// [`ChainError::InvalidAnswer`] where `tx` is no transaction that [`match_offers`] is the call of.
pub fn proposed_owners(domain: &OfferDomain, tx: &PreparedTx) -> Result<BTreeMap<OfferHash, Address>, ChainError> {
    let envelope = tx.envelope()?;
    let decoded = Market::matchOffersCall::abi_decode(envelope.input());
    let call = decoded.map_err(|error| ChainError::invalid_answer(PREPARED, error))?;
    let mut owners = BTreeMap::new();
    for proposed in &call.matches {
        let terms = &proposed.developerOffer;
        let mut offer = inward::developer_offer(domain, OfferHash::ZERO, terms).offer;
        // Read as an offer of that hash, which it is not, it counts as closed.
        offer.valid_until = terms.validUntil;
        owners.insert(domain.developer_offer_hash(&offer), offer.developer);
        for fill in &proposed.fills {
            let known = inward::provider_offer(domain, OfferHash::ZERO, &fill.offer);
            let mut offer = known.map_err(ChainError::inward(PREPARED))?.offer;
            offer.valid_until = fill.offer.validUntil;
            owners.insert(domain.provider_offer_hash(&offer), offer.provider);
        }
    }
    Ok(owners)
}

/// Adds `amount` of the sender's free balance to a deal's lock.
pub fn fund_deal(market: Address, deal: &DealRef, amount: Atoms) -> Call {
    call(market, "fundDeal", &Market::fundDealCall { r#ref: outward::deal_ref(deal), amount: amount.get() })
}

/// Pays the attested epochs of these deals. The contract takes the deals of one provider offer at a time; several of them
/// go into one multicall.
pub fn claim(market: Address, deals: &[DealRef]) -> Call {
    let mut offers: BTreeMap<(Address, OfferHash), Vec<OfferHash>> = BTreeMap::new();
    for deal in deals {
        offers.entry((deal.provider, deal.provider_offer)).or_default().push(deal.developer_offer);
    }
    let mut claims: Vec<Call> = offers
        .into_iter()
        .map(|((provider, provider_offer), developer_offers)| {
            let encoded = Market::claimCall {
                provider: outward::address(provider),
                providerOffer: outward::word(provider_offer.0),
                developerOffers: developer_offers.iter().map(|hash| outward::word(hash.0)).collect(),
            };
            call(market, "claim", &encoded)
        })
        .collect();
    match claims.pop() {
        Some(only) if claims.is_empty() => only,
        last => {
            claims.extend(last);
            Call { label: "claim", ..multicall(market, claims) }
        }
    }
}

/// Gives a deal other terms. `offer` is the provider offer that it was made of; who sends need not sign.
pub fn change_deal(
    market: Address,
    deal: &DealRef,
    change: &DealChange,
    offer: &ProviderOffer,
    developer_signature: &[u8],
    provider_signature: &[u8],
) -> Call {
    let encoded = Market::changeDealCall {
        r#ref: outward::deal_ref(deal),
        change: outward::deal_change(change),
        providerOffer: outward::provider_offer(offer),
        developerSignature: developer_signature.to_vec().into(),
        providerSignature: provider_signature.to_vec().into(),
    };
    call(market, "changeDeal", &encoded)
}

/// Lets the replicas of a developer offer run another artifact. The developer need not sign what it sends itself.
pub fn update_artifact(market: Address, update: &ArtifactUpdate, signature: &[u8]) -> Call {
    let encoded =
        Market::updateArtifactCall { update: outward::artifact_update(update), signature: signature.to_vec().into() };
    call(market, "updateArtifact", &encoded)
}

/// Ends a deal whose agent has signed two different receipts of one number, each given with its signature.
pub fn slash(market: Address, deal: &DealRef, first: (&Receipt, &[u8]), second: (&Receipt, &[u8])) -> Call {
    let encoded = Market::slashCall {
        r#ref: outward::deal_ref(deal),
        first: outward::receipt(first.0),
        firstSignature: first.1.to_vec().into(),
        second: outward::receipt(second.0),
        secondSignature: second.1.to_vec().into(),
    };
    call(market, "slash", &encoded)
}

/// Ends the sender's deals at the next epoch boundary.
pub fn cancel_deals(market: Address, deals: &[DealRef]) -> Call {
    call(market, "cancelDeals", &Market::cancelDealsCall { deals: references(deals) })
}

/// Ends deals that the sender hosts after the notice period.
pub fn give_notice(market: Address, deals: &[DealRef]) -> Call {
    call(market, "giveNotice", &Market::giveNoticeCall { deals: references(deals) })
}

/// Ends a deal whose provider missed too many epochs.
pub fn evict(market: Address, deal: &DealRef) -> Call {
    call(market, "evict", &Market::evictCall { r#ref: outward::deal_ref(deal) })
}

/// Ends a deal whose time or money is over.
pub fn close_deal(market: Address, deal: &DealRef) -> Call {
    call(market, "closeDeal", &Market::closeDealCall { r#ref: outward::deal_ref(deal) })
}

/// The sender, an agent, says that it served `epoch`.
pub fn attest(market: Address, epoch: Epoch, receipts: ReceiptRoot) -> Call {
    call(market, "attest", &Market::attestCall { epoch: epoch.0, receiptRoot: outward::word(receipts.0) })
}

/// The sender, the operator, stops or resumes new matches.
pub fn set_matching_paused(market: Address, paused: bool) -> Call {
    call(market, "setMatchingPaused", &Market::setMatchingPausedCall { paused })
}

/// Several calls of the market by one sender in one transaction: all of them happen, or none.
pub fn multicall(market: Address, calls: Vec<Call>) -> Call {
    let data = calls.into_iter().map(|call| Bytes::from(call.data)).collect();
    call(market, "multicall", &Market::multicallCall { data })
}

/// Name of the market's or the test token's function that `input` calls; `None` for any other.
pub fn function_name(input: &[u8]) -> Option<&'static str> {
    let selector = input.first_chunk::<4>().copied()?;
    Market::MarketCalls::name_by_selector(selector).or_else(|| TestUsdc::TestUsdcCalls::name_by_selector(selector))
}
