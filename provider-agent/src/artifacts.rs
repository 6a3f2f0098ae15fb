//! Artifacts by digest: fetched from wherever they are, believed only when the SHA-256 digest is right. Nothing parses a
//! byte before that.
//!
//! The URL in a developer offer is a stranger's text. What is not one of the configured stores must resolve to addresses of
//! the public Internet, also after redirects: otherwise an offer could make the agent knock at its provider's own network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::ids::Digest;
use futures::StreamExt;
use reqwest::{
    Client, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs,
    io::{AsyncWriteExt, BufWriter},
};

use crate::{
    config::HostLimits,
    domain::replica::{Cause, Failure},
};

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a fetched artifact came from, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Cache,
    Network,
}

/// Fetches artifacts and keeps them in the data folder.
pub(crate) struct Artifacts {
    folder: PathBuf,
    stores: Vec<String>,
    /// Talks to the configured stores, wherever they are.
    trusting: Client,
    /// Talks to public addresses only.
    guarded: Client,
    max_bytes: u64,
    partials: AtomicU64,
}

impl Artifacts {
    /// `stores` are base URLs without a trailing slash.
    pub(crate) fn open(data_dir: &Path, stores: Vec<String>, limits: &HostLimits) -> Result<Self, io::Error> {
        let folder = data_dir.join("artifacts");
        std::fs::create_dir_all(&folder)?;
        remove_partials(&folder)?;
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(Duration::from_millis(limits.artifact_timeout_ms))
                .no_proxy()
        };
        let redirects = Policy::custom(|attempt| {
            if attempt.previous().len() > MAX_REDIRECTS || !has_public_host(attempt.url()) {
                return attempt.stop();
            }
            attempt.follow()
        });
        let trusting = builder().redirect(Policy::none()).build().map_err(io::Error::other)?;
        let guarded =
            builder().redirect(redirects).dns_resolver(Arc::new(PublicOnly)).build().map_err(io::Error::other)?;
        let (max_bytes, partials) = (limits.max_artifact_bytes, AtomicU64::new(0));
        Ok(Self { folder, stores, trusting, guarded, max_bytes, partials })
    }

    /// The artifact's bytes, from the data folder or else from `hint` or else from the stores.
    pub(crate) async fn get(&self, digest: Digest, hint: &str) -> Result<(Vec<u8>, Origin), Failure> {
        if let Some(bytes) = self.cached(digest).await {
            return Ok((bytes, Origin::Cache));
        }
        let mut failure = Failure::new(Cause::ArtifactUnavailable, "the offer names no URL and no store is configured");
        let from_stores = self.stores.iter().map(|base| format!("{base}/v1/artifacts/{digest}"));
        let hinted = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        for url in hinted.into_iter().chain(from_stores) {
            match self.fetch(digest, &url).await {
                Ok(bytes) => return Ok((bytes, Origin::Network)),
                Err(refused) => {
                    tracing::warn!(%digest, url, error = %refused, "a source did not deliver the artifact");
                    failure = worse(failure, refused);
                }
            }
        }
        Err(failure)
    }

    async fn cached(&self, digest: Digest) -> Option<Vec<u8>> {
        let file = self.file(digest);
        let bytes = fs::read(&file).await.ok()?;
        if sha256(&bytes) == digest {
            return Some(bytes);
        }
        tracing::warn!(file = %file.display(), "a kept artifact was damaged; fetching it again");
        None
    }

    async fn fetch(&self, digest: Digest, url: &str) -> Result<Vec<u8>, Failure> {
        let unavailable = |problem: String| Failure::new(Cause::ArtifactUnavailable, format!("{url}: {problem}"));
        let parsed = Url::parse(url).map_err(|error| unavailable(error.to_string()))?;
        let client = self.client_for(&parsed).ok_or_else(|| {
            unavailable("neither a configured store nor on the public Internet (http or https)".to_owned())
        })?;
        let response = client.get(parsed).send().await.and_then(Response::error_for_status);
        let response = response.map_err(|error| unavailable(causes(&error)))?;
        let partial = self.folder.join(format!("{}.part", self.partials.fetch_add(1, Ordering::Relaxed)));
        let received = self.receive(digest, url, response, &partial).await;
        if received.is_err() {
            // It may never have been made.
            let _ = fs::remove_file(&partial).await;
        }
        received?;
        let file = self.file(digest);
        let kept = fs::rename(&partial, &file).await;
        kept.map_err(|error| Failure::new(Cause::HostFault, format!("keep {}: {error}", file.display())))?;
        fs::read(&file)
            .await
            .map_err(|error| Failure::new(Cause::HostFault, format!("read {}: {error}", file.display())))
    }

    fn client_for(&self, url: &Url) -> Option<&Client> {
        let is_store = |base: &String| Url::parse(base).is_ok_and(|base| base.origin() == url.origin());
        if self.stores.iter().any(is_store) {
            return Some(&self.trusting);
        }
        (matches!(url.scheme(), "http" | "https") && has_public_host(url)).then_some(&self.guarded)
    }

    /// Writes what comes to `partial`, and fails unless all of it has the digest.
    async fn receive(&self, digest: Digest, url: &str, response: Response, partial: &Path) -> Result<(), Failure> {
        let too_large = || {
            let limit = self.max_bytes;
            Failure::new(Cause::ArtifactTooLarge, format!("{url} is larger than max_artifact_bytes of {limit} bytes"))
        };
        let disk = |error: io::Error| Failure::new(Cause::HostFault, format!("write {}: {error}", partial.display()));
        if response.content_length().is_some_and(|length| length > self.max_bytes) {
            return Err(too_large());
        }
        let mut writer = BufWriter::new(fs::File::create(partial).await.map_err(disk)?);
        let mut hash = Sha256::new();
        let mut total = 0_u64;
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk
                .map_err(|error| Failure::new(Cause::ArtifactUnavailable, format!("{url}: {}", causes(&error))))?;
            total = total.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if total > self.max_bytes {
                return Err(too_large());
            }
            hash.update(&chunk);
            writer.write_all(&chunk).await.map_err(disk)?;
        }
        writer.flush().await.map_err(disk)?;
        writer.get_ref().sync_all().await.map_err(disk)?;
        let actual = Digest(hash.finalize().into());
        if actual == digest {
            return Ok(());
        }
        Err(Failure::new(
            Cause::DigestMismatch,
            format!("{url} gave {total} bytes with digest {actual}, the offer names {digest}"),
        ))
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", hex::encode(digest.0)))
    }
}

/// The SHA-256 digest of `bytes`.
fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Of two failures the one that tells more: a source that gave something wrong over one that gave nothing.
fn worse(one: Failure, other: Failure) -> Failure {
    if one.cause == Cause::ArtifactUnavailable { other } else { one }
}

fn causes(error: &reqwest::Error) -> String {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Downloads that a crash has cut off.
fn remove_partials(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether the host is a name (which is resolved by [`PublicOnly`]) or a public address.
fn has_public_host(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    literal.map_or(true, is_public)
}

/// Resolves names, and leaves out every address that is not public.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no address on the public Internet", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public Internet, by the special-purpose registries of IANA.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3; of it, protocol assignments, documentation and 6to4 lead elsewhere.
    (0x2000..0x4000).contains(&a)
        && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_inside_are_told_from_public_ones() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "2001:db8::1",
            "ff02::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn only_configured_stores_may_be_on_the_inside() {
        let folder = tempfile::tempdir().unwrap();
        let stores = vec!["http://127.0.0.1:8080".to_owned()];
        let artifacts = Artifacts::open(folder.path(), stores, &HostLimits::default()).unwrap();
        let allows = |url: &str| artifacts.client_for(&Url::parse(url).unwrap()).is_some();
        assert!(allows("http://127.0.0.1:8080/v1/artifacts/0x00"));
        assert!(allows("https://example.org/worker.wasm"));
        for refused in
            ["http://127.0.0.1:8081/", "http://[::1]/", "http://169.254.169.254/latest", "file:///etc/passwd"]
        {
            assert!(!allows(refused), "{refused}");
        }
    }
}
