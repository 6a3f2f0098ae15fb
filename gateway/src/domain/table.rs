//! Deployments and their replicas, as last heard of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use common::ids::{DealId, OfferHash};
use http::uri::{Authority, Scheme, Uri};
use thiserror::Error;

use super::name::Name;

/// Deployments that are no longer live of which the hash is remembered, so that a short name still leads to them.
const MAX_GONE: usize = 65_536;

/// Where an agent takes requests: `http://authority/base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    authority: Authority,
    base: String,
}

/// An endpoint that the gateway cannot send requests to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("endpoint {text:?} must be an http:// URL without query, user or trailing slash")]
pub struct InvalidEndpoint {
    text: String,
}

impl Endpoint {
    /// Reads a base URL.
    pub fn parse(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint { text: text.chars().take(200).collect() };
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let authority = uri.authority().cloned().ok_or_else(invalid)?;
        let is_plain = uri.scheme() == Some(&Scheme::HTTP) && uri.query().is_none();
        if !is_plain || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(invalid());
        }
        Ok(Self { authority, base: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// URL of `path_and_query` (which begins with a slash) below this endpoint.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.base))
            .build()
    }
}

/// One replica: a deal that has not ended, and where it is hosted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The deal.
    pub deal: DealId,
    /// Its agent's ingress.
    pub endpoint: Endpoint,
    /// Whether no lack of money is on record.
    pub is_funded: bool,
}

/// A developer offer with the replicas that may answer for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Hash of the developer offer.
    pub offer: OfferHash,
    /// Deals that have not ended and have a usable endpoint.
    pub replicas: Vec<Replica>,
    /// Whether it will never have a replica again: cancelled, or its term is over.
    pub is_over: bool,
}

impl Deployment {
    /// Replicas worth asking: the funded ones, or all when none is. The agents of the others have the last word, as
    /// what is on record may be older than the money.
    pub fn candidates(&self) -> impl Iterator<Item = &Replica> {
        let any_funded = self.has_funded();
        self.replicas.iter().filter(move |replica| replica.is_funded || !any_funded)
    }

    /// Whether any replica is paid for.
    pub fn has_funded(&self) -> bool {
        self.replicas.iter().any(|replica| replica.is_funded)
    }
}

/// All routes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Table {
    live: BTreeMap<OfferHash, Arc<Deployment>>,
    gone: BTreeSet<OfferHash>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A live deployment.
    Live(Arc<Deployment>),
    /// One that was live earlier.
    Gone(OfferHash),
    /// Nothing.
    Unknown,
    /// More than one deployment.
    Ambiguous,
}

impl Table {
    /// The next table, with `live` deployments; those that are missing in it are remembered as gone.
    #[must_use]
    pub fn succeeded_by(&self, live: Vec<Deployment>) -> Self {
        let live: BTreeMap<_, _> = live.into_iter().map(|d| (d.offer, Arc::new(d))).collect();
        let before = self.live.keys().chain(&self.gone).copied();
        let mut gone: BTreeSet<_> = before.filter(|offer| !live.contains_key(offer)).collect();
        while gone.len() > MAX_GONE {
            // Any will do: it only costs the short form of a name.
            gone.pop_first();
        }
        Self { live, gone }
    }

    /// Looks a name up. Live deployments come first; only if there is none are those that are gone considered.
    pub fn find(&self, name: &Name) -> Found {
        let Some((low, high)) = name.range() else { return Found::Unknown };
        let mut live = self.live.range(low..=high).map(|(_, deployment)| deployment);
        match (live.next(), live.next()) {
            (Some(_), Some(_)) => return Found::Ambiguous,
            (Some(deployment), None) => return Found::Live(Arc::clone(deployment)),
            (None, _) => (),
        }
        let mut gone = self.gone.range(low..=high);
        match (gone.next(), gone.next()) {
            (Some(_), Some(_)) => Found::Ambiguous,
            (Some(offer), None) => Found::Gone(*offer),
            (None, _) => Found::Unknown,
        }
    }

    /// All live replicas.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.live.values().flat_map(|deployment| &deployment.replicas)
    }

    /// Number of live deployments.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no deployment is live.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(first_byte: u8, last_byte: u8) -> Deployment {
        let mut hash = [0; 32];
        hash[..8].fill(first_byte);
        hash[31] = last_byte;
        Deployment { offer: OfferHash(hash), replicas: Vec::new(), is_over: false }
    }

    fn find(table: &Table, name: &str) -> Found {
        table.find(&Name::parse(name).unwrap())
    }

    #[test]
    fn a_prefix_leads_to_the_only_deployment_that_has_it() {
        let table = Table::default().succeeded_by(vec![deployment(0xaa, 1), deployment(0xaa, 2), deployment(0xbb, 3)]);
        assert_eq!(find(&table, "bbbbbbbb"), Found::Live(Arc::new(deployment(0xbb, 3))));
        assert_eq!(find(&table, "aaaaaaaa"), Found::Ambiguous);
        assert_eq!(find(&table, &deployment(0xaa, 2).offer.to_string()), Found::Live(Arc::new(deployment(0xaa, 2))));
        assert_eq!(find(&table, "cccccccc"), Found::Unknown);
    }

    #[test]
    fn what_is_gone_is_remembered_until_it_is_back() {
        let both = Table::default().succeeded_by(vec![deployment(0xaa, 1), deployment(0xaa, 2)]);
        let one = both.succeeded_by(vec![deployment(0xaa, 1)]);
        assert_eq!(find(&one, "aaaaaaaa"), Found::Live(Arc::new(deployment(0xaa, 1))));
        assert_eq!(find(&one, &deployment(0xaa, 2).offer.to_string()), Found::Gone(deployment(0xaa, 2).offer));
        let none = one.succeeded_by(Vec::new());
        assert_eq!(find(&none, "aaaaaaaa"), Found::Ambiguous);
        let back = none.succeeded_by(vec![deployment(0xaa, 2)]);
        assert_eq!(find(&back, "aaaaaaaa"), Found::Live(Arc::new(deployment(0xaa, 2))));
    }

    #[test]
    fn unfunded_replicas_are_asked_only_when_none_is_funded() {
        let endpoint = Endpoint::parse("http://127.0.0.1:9001").unwrap();
        let replica = |n, is_funded| Replica { deal: DealId([n; 32]), endpoint: endpoint.clone(), is_funded };
        let mut deployment = deployment(1, 1);
        deployment.replicas = vec![replica(1, false), replica(2, true)];
        assert_eq!(deployment.candidates().map(|r| r.deal).collect::<Vec<_>>(), [DealId([2; 32])]);
        deployment.replicas = vec![replica(1, false), replica(3, false)];
        assert_eq!(deployment.candidates().count(), 2);
    }

    #[test]
    fn endpoints_are_plain_http_urls() {
        let endpoint = Endpoint::parse("http://agent.test:9001/base/").unwrap();
        assert_eq!(endpoint.uri("/d/0x1/a?b=c").unwrap().to_string(), "http://agent.test:9001/base/d/0x1/a?b=c");
        for text in
            ["", "agent:9001", "https://agent.test", "http://u:p@agent.test", "http://agent.test?x", "/d", "http://"]
        {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
