//! Takes signed offers in. An offer is stored only after every check; one that is stored or on the chain already is
//! answered the same way again.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use common::{
    http::Problem,
    ids::{Address, Digest, OfferHash},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
};
use indexer::view::AsOf;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    Api, chain_problem, problem_of,
    request::{self, Body},
};
use crate::{
    store::{Accepted, Kind, NewOffer, StoreError},
    view::{OfferStatus, Present},
};

/// Longest signature, in bytes: contract accounts have long ones.
const MAX_SIGNATURE_BYTES: usize = 4_096;

/// A signed offer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound(deserialize = "T: Deserialize<'de>"))]
struct Submission<T> {
    chain_id: u64,
    offer: T,
    #[serde(deserialize_with = "signature")]
    signature: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Submitted<S> {
    offer_hash: OfferHash,
    status: S,
    /// Number of its acceptance; none when the chain knows the offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    as_of_block: AsOf,
}

/// What is checked of either kind of offer in the same way.
struct Signed<'a, T> {
    kind: Kind,
    hash: OfferHash,
    owner: Address,
    nonce: u64,
    valid_until: u64,
    signature: &'a [u8],
    offer: &'a T,
}

pub(super) async fn developer_offer(State(api): State<Api>, body: Body) -> Result<Response, Problem> {
    let answer = submit_developer_offer(&api, body).await;
    answer.inspect_err(|problem| api.parts.metrics.offer_refused(Kind::Developer, &problem.code))
}

pub(super) async fn provider_offer(State(api): State<Api>, body: Body) -> Result<Response, Problem> {
    let answer = submit_provider_offer(&api, body).await;
    answer.inspect_err(|problem| api.parts.metrics.offer_refused(Kind::Provider, &problem.code))
}

async fn submit_developer_offer(api: &Api, body: Body) -> Result<Response, Problem> {
    let sent: Submission<DeveloperOffer> = request::json(body)?;
    check_chain_id(api, sent.chain_id)?;
    let offer = &sent.offer;
    check_developer_offer(api, offer).await?;
    let hash = api.parts.views.domain.developer_offer_hash(offer);
    let (asked, as_of) = {
        let offer = offer.clone();
        let look = move |present: &mut Present, as_of| {
            let is_on_chain = present.market.state().developer_offers.contains_key(&hash);
            let sequence = present.market.sequence_of(hash).filter(|_| !is_on_chain);
            let status = present.status(&present.demand_of(hash, offer));
            ((is_on_chain, sequence, status), as_of)
        };
        api.ask(look).await?
    };
    let (is_on_chain, known, status) = asked;
    let submitted = |status, sequence| Submitted { offer_hash: hash, status, sequence, as_of_block: as_of };
    if is_on_chain || known.is_some() {
        return Ok(accepted(submitted(status, known)));
    }
    let signed = Signed {
        kind: Kind::Developer,
        hash,
        owner: offer.developer,
        nonce: offer.nonce,
        valid_until: offer.valid_until,
        signature: &sent.signature,
        offer,
    };
    check_signed(api, &signed, as_of).await?;
    check_funds(api, offer).await?;
    let sequence = store(api, &signed, as_of).await?;
    Ok(accepted(submitted(OfferStatus::Waiting, Some(sequence))))
}

async fn submit_provider_offer(api: &Api, body: Body) -> Result<Response, Problem> {
    let sent: Submission<ProviderOffer> = request::json(body)?;
    check_chain_id(api, sent.chain_id)?;
    let offer = &sent.offer;
    offer.validate().map_err(|error| request::invalid_offer(&error))?;
    let hash = api.parts.views.domain.provider_offer_hash(offer);
    let provider = offer.provider;
    let look = move |present: &mut Present, as_of| {
        let market = &present.market;
        let is_on_chain = market.state().provider_offers.contains_key(&hash);
        let sequence = market.sequence_of(hash).filter(|_| !is_on_chain);
        (is_on_chain, sequence, market.hosts_anything(provider), as_of)
    };
    let (is_on_chain, known, hosts, as_of) = api.ask(look).await?;
    let submitted = |sequence| Submitted { offer_hash: hash, status: "open", sequence, as_of_block: as_of };
    if is_on_chain || known.is_some() {
        return Ok(accepted(submitted(known)));
    }
    let signed = Signed {
        kind: Kind::Provider,
        hash,
        owner: offer.provider,
        nonce: offer.nonce,
        valid_until: offer.valid_until,
        signature: &sent.signature,
        offer,
    };
    check_signed(api, &signed, as_of).await?;
    check_bond(api, offer, hosts).await?;
    let sequence = store(api, &signed, as_of).await?;
    Ok(accepted(submitted(Some(sequence))))
}

fn accepted<S: Serialize>(submitted: Submitted<S>) -> Response {
    (StatusCode::ACCEPTED, Json(submitted)).into_response()
}

pub(super) fn check_chain_id(api: &Api, chain_id: u64) -> Result<(), Problem> {
    let ours = api.parts.views.domain.chain_id;
    if chain_id == ours {
        return Ok(());
    }
    let detail = format!("chainId is {chain_id}, but this market is on chain {ours}: sign for that one");
    Err(Problem::new(StatusCode::CONFLICT, "chain_id_mismatch", detail).with_field("chainId"))
}

/// What can be said of a developer offer without its signature and without the chain.
pub(super) async fn check_developer_offer(api: &Api, offer: &DeveloperOffer) -> Result<(), Problem> {
    let least_prepaid = api.parts.views.terms.min_prepaid_epochs;
    offer.validate(least_prepaid).map_err(|error| request::invalid_offer(&error))?;
    let base = api.parts.config.artifact_base();
    let Some(named) = offer.artifact_url.strip_prefix(&base) else { return Ok(()) };
    let digest: Option<Digest> = named.parse().ok();
    let problem = |detail| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "artifact_unknown", detail).with_field("offer.artifactUrl")
    };
    if digest != Some(offer.artifact) {
        return Err(problem(format!("artifactUrl names another artifact than {}: name the same", offer.artifact)));
    }
    match api.parts.artifacts.get(offer.artifact).await.map_err(Problem::internal)? {
        Some(_) => Ok(()),
        None => Err(problem(format!("artifact {} is not stored here: PUT {base}{0} first", offer.artifact))),
    }
}

/// Validity, signature, cancellation: in the order of what each costs.
async fn check_signed<T>(api: &Api, signed: &Signed<'_, T>, as_of: AsOf) -> Result<(), Problem> {
    let now = api.now(as_of);
    if signed.valid_until <= now {
        let valid_until = signed.valid_until;
        let detail = format!("validUntil is {valid_until}, but it is {now} already: sign with a later one");
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "offer_expired", detail);
        return Err(problem.with_field("offer.validUntil"));
    }
    let reader = &api.parts.reader;
    let valid = reader.is_valid_signature(signed.owner, signed.hash, signed.signature).await.map_err(chain_problem)?;
    if !valid {
        return Err(wrong_signer(signed));
    }
    let floor = reader.nonce_floor(signed.owner).await.map_err(chain_problem)?;
    if signed.nonce < floor {
        let nonce = signed.nonce;
        let detail = format!("nonce is {nonce}, but offers below {floor} are void: sign with {floor} or higher");
        return Err(Problem::new(StatusCode::CONFLICT, "nonce_too_low", detail).with_field("offer.nonce"));
    }
    if reader.is_cancelled(signed.owner, signed.hash).await.map_err(chain_problem)? {
        let detail = format!("offer {} was cancelled by its owner: sign a new one with another nonce", signed.hash);
        return Err(Problem::new(StatusCode::CONFLICT, "offer_cancelled", detail));
    }
    Ok(())
}

fn wrong_signer<T>(signed: &Signed<'_, T>) -> Problem {
    let role = signed.kind.as_str();
    let owner = signed.owner;
    let detail = match chain::recover(signed.hash, signed.signature) {
        Some(signer) => format!(
            "the signature is of {signer}, the offer names {owner} as its {role}: sign this very offer, for this chain and market, with that account"
        ),
        None => format!("the signature is no 65-byte signature, and {owner} is no contract that accepts it"),
    };
    Problem::new(StatusCode::FORBIDDEN, "wrong_signer", detail).with_field("signature")
}

/// The developer must have the lock of the fewest replicas worth starting with: at the prices of those who would host
/// them now, or else at the maximum price.
async fn check_funds(api: &Api, offer: &DeveloperOffer) -> Result<(), Problem> {
    // Asked of the chain and not of the index, which may not yet have seen the deposit.
    let have = api.parts.reader.free_balance(offer.developer).await.map_err(chain_problem)?;
    let mut draft = offer.clone();
    draft.developer = Address::ZERO;
    draft.replicas = offer.min_replicas;
    let quote = move |present: &mut Present, _| {
        let demand = present.demand_of(OfferHash::ZERO, draft);
        present.market.engine().quote(&demand)
    };
    let quoted = api.ask(quote).await?;
    let at_quote: Result<Atoms, _> = quoted.iter().map(|replica| replica.lock).sum();
    let at_maximum = api
        .parts
        .views
        .terms
        .lock(offer.max_price_per_epoch, offer.prepaid_epochs, offer.epochs)
        .and_then(|lock| lock.checked_mul(u64::from(offer.min_replicas)));
    let (needed, prices) =
        if quoted.is_empty() { (at_maximum, "the maximum price") } else { (at_quote, "the cheapest prices of now") };
    // An amount that cannot be represented cannot be had either.
    let needed = needed.unwrap_or(Atoms::MAX);
    if have >= needed {
        return Ok(());
    }
    let (replicas, epochs) = (offer.min_replicas, offer.prepaid_epochs.min(offer.epochs));
    let missing = needed.checked_sub(have).unwrap_or_default();
    let detail = format!(
        "the free balance of {} is {have}, but locking {epochs} epochs for {replicas} replicas at {prices} takes {needed}: deposit {missing} more",
        offer.developer
    );
    Err(Problem::new(StatusCode::PAYMENT_REQUIRED, "insufficient_balance", detail))
}

/// A provider that hosts nothing yet must have something to bond, unless it hosts for nothing.
async fn check_bond(api: &Api, offer: &ProviderOffer, hosts: bool) -> Result<(), Problem> {
    let terms = &api.parts.views.terms;
    let whole = offer.ask(offer.capacity).unwrap_or(Atoms::MAX);
    if whole == Atoms::ZERO || terms.bond_epochs == 0 || hosts {
        return Ok(());
    }
    let have = api.parts.reader.free_balance(offer.provider).await.map_err(chain_problem)?;
    if have > Atoms::ZERO {
        return Ok(());
    }
    let detail = format!(
        "the free balance of {} is {have}, but a deal bonds {} epochs of its price: deposit first; {} covers the whole capacity",
        offer.provider,
        terms.bond_epochs,
        terms.bond(whole).unwrap_or(Atoms::MAX)
    );
    Err(Problem::new(StatusCode::PAYMENT_REQUIRED, "insufficient_balance", detail))
}

async fn store<T: Serialize>(api: &Api, signed: &Signed<'_, T>, as_of: AsOf) -> Result<u64, Problem> {
    let new = NewOffer {
        kind: signed.kind,
        hash: signed.hash,
        owner: signed.owner,
        offer: signed.offer,
        signature: signed.signature,
        block: as_of.number,
        time: api.now(as_of),
    };
    let accepted = api.parts.store.accept(&new, api.parts.config.offer_limits()).await;
    match accepted {
        Ok(Accepted::New(sequence)) => {
            api.parts.metrics.offer_accepted(signed.kind, signed.hash, sequence);
            api.parts.views.changed();
            api.parts.wake.notify_one();
            Ok(sequence)
        }
        Ok(Accepted::Known(sequence)) => Ok(sequence),
        Err(error @ StoreError::TooManyOffers { .. }) => {
            let detail = format!("{error}: wait until some are matched, cancel some, or post yours on the chain");
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_offers", detail))
        }
        Err(error) => Err(problem_of(error.into())),
    }
}

fn signature<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = hex::decode(&text)
        .map_err(|_| D::Error::custom("a signature is 0x and hex digits, 130 of them for an account"))?;
    if bytes.len() > MAX_SIGNATURE_BYTES {
        let length = bytes.len();
        return Err(D::Error::custom(format!(
            "a signature may have at most {MAX_SIGNATURE_BYTES} bytes, got {length}"
        )));
    }
    Ok(bytes)
}
