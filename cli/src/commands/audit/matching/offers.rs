//! Signed offers that a matcher says it accepted, with when: of its web API, which lists those that still wait, or of a file
//! in the same form, to which their terms are added.

use std::{collections::BTreeSet, path::Path};

use ::matching::{replay::SignedOffers, snapshot::Signed};
use anyhow::{Context, ensure};
use chain::OfferDomain;
use common::ids::OfferHash;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::client::ApiClient;

/// Offers of one page.
const PAGE: usize = 500;
/// Most offers that are read.
const MOST: usize = 1_000_000;

/// Which side of the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Developer,
    Provider,
}

/// An offer that was accepted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    kind: Kind,
    offer_hash: OfferHash,
    /// Number of its acceptance, over both kinds.
    sequence: u64,
    /// Block that was the last one then.
    accepted_block: u64,
    /// Its terms; web APIs give them one by one.
    offer: Option<Value>,
}

/// A list of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    items: Vec<Accepted>,
    next_after: Option<u64>,
}

/// Reads a list from a web API or a file.
pub(super) async fn read(source: &str, domain: OfferDomain) -> anyhow::Result<SignedOffers> {
    let accepted = if source.starts_with("http://") || source.starts_with("https://") {
        of_api(&ApiClient::new(source)?).await?
    } else {
        of_file(Path::new(source)).with_context(|| format!("--offers {source}"))?
    };
    sorted(accepted, domain).with_context(|| format!("--offers {source}"))
}

fn of_file(path: &Path) -> anyhow::Result<Vec<Accepted>> {
    let text = std::fs::read(path).context("cannot be read")?;
    let list: List = serde_json::from_slice(&text).context("is no list of accepted offers")?;
    ensure!(list.items.len() <= MOST, "at most {MOST} offers are read, got {}", list.items.len());
    Ok(list.items)
}

async fn of_api(api: &ApiClient) -> anyhow::Result<Vec<Accepted>> {
    let (mut accepted, mut after): (Vec<Accepted>, Option<u64>) = (Vec::new(), None);
    loop {
        let from = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let page: List = api.get(&format!("/v1/waiting-offers?limit={PAGE}{from}")).await?;
        accepted.extend(page.items);
        ensure!(accepted.len() <= MOST, "{} has more than {MOST} waiting offers", api.base());
        // A list that goes back would have no end.
        let Some(next) = page.next_after.filter(|next| after.is_none_or(|after| *next > after)) else { break };
        after = Some(next);
    }
    for offer in &mut accepted {
        let kind = if offer.kind == Kind::Provider { "provider" } else { "developer" };
        let shown: Value = api.get(&format!("/v1/{kind}-offers/{}", offer.offer_hash)).await?;
        offer.offer = shown.get("offer").cloned();
    }
    Ok(accepted)
}

fn sorted(accepted: Vec<Accepted>, domain: OfferDomain) -> anyhow::Result<SignedOffers> {
    let mut signed = SignedOffers::default();
    let mut seen = BTreeSet::new();
    for offer in accepted {
        ensure!(seen.insert(offer.offer_hash), "offer {} is listed twice", offer.offer_hash);
        match offer.kind {
            Kind::Provider => signed.provider.push(offer.checked(|terms| domain.provider_offer_hash(terms))?),
            Kind::Developer => signed.developer.push(offer.checked(|terms| domain.developer_offer_hash(terms))?),
        }
    }
    Ok(signed)
}

impl Accepted {
    /// The offer, whose terms must be those that were signed.
    fn checked<T: DeserializeOwned>(self, hash_of: impl Fn(&T) -> OfferHash) -> anyhow::Result<Signed<T>> {
        let Self { offer_hash: hash, sequence, accepted_block, offer, .. } = self;
        let offer = offer.with_context(|| format!("offer {hash} has no terms: its field `offer` is missing"))?;
        let offer: T = serde_json::from_value(offer).with_context(|| format!("the terms of offer {hash}"))?;
        let found = hash_of(&offer);
        ensure!(found == hash, "the terms of offer {hash} are those of {found} in this market");
        Ok(Signed { hash, offer, signature: Vec::new(), accepted_block, sequence })
    }
}
