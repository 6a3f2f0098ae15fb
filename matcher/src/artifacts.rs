//! The content store: files named by their SHA-256 digest. A file appears under its name only whole, verified and known
//! to be a component; what is read from the network goes through a temporary file and a hard limit first.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use common::{feature::FeatureSet, ids::Digest};
use futures::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use thiserror::Error;
use tokio::{fs::File, io::AsyncWriteExt, sync::Semaphore, time::timeout};

use crate::{
    component::{NotHostable, required_features},
    error::MatcherError,
    store::{Store, StoreError, StoredArtifact},
};

/// Uploads at a time.
const MAX_UPLOADS: usize = 8;
/// Longest pause between two pieces of an upload.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest upload in all.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// An artifact that was not taken in, or cannot be given out.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// Larger than allowed.
    #[error("the artifact exceeds the limit of {limit} bytes: strip it, or optimize it for size")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// All artifacts together are larger than allowed.
    #[error(
        "the content store is full: {stored} of {limit} bytes are used; host the artifact elsewhere and name that URL"
    )]
    Full {
        /// Bytes.
        limit: u64,
        /// Bytes that are used.
        stored: u64,
    },
    /// The bytes are not those that the name promises.
    #[error("the bytes have the digest {actual}, but were sent as {expected}: send them under their own digest")]
    DigestMismatch {
        /// The name.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// No agent could host it.
    #[error(transparent)]
    NotHostable(#[from] NotHostable),
    /// The sender went away or paused for too long.
    #[error("the upload broke off after {received} bytes: send it again")]
    Broken {
        /// Bytes that had arrived.
        received: u64,
    },
    /// Too many uploads at a time.
    #[error("{MAX_UPLOADS} uploads are under way, which is the limit: try again in a moment")]
    Busy,
    /// The index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk.
    #[error("the content store's disk failed")]
    Disk(#[from] io::Error),
}

/// The content store of one matcher.
#[derive(Debug)]
pub struct ArtifactStore {
    folder: PathBuf,
    incoming: PathBuf,
    index: Store,
    max_bytes: u64,
    max_total_bytes: u64,
    uploads: Semaphore,
}

/// An upload on the disk, not yet believed.
struct Received {
    path: TempPath,
    digest: Digest,
    size: u64,
}

impl ArtifactStore {
    /// Opens the store in `data_dir` and clears away uploads that a crash left behind.
    pub async fn open(
        data_dir: &Path,
        index: Store,
        max_bytes: u64,
        max_total_bytes: u64,
    ) -> Result<Self, MatcherError> {
        let folder = data_dir.join("artifacts");
        let incoming = folder.join("incoming");
        let prepare = async {
            match tokio::fs::remove_dir_all(&incoming).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (),
            }
            tokio::fs::create_dir_all(&incoming).await
        };
        prepare.await.map_err(|source| MatcherError::Folder { path: incoming.clone(), source })?;
        Ok(Self { folder, incoming, index, max_bytes, max_total_bytes, uploads: Semaphore::new(MAX_UPLOADS) })
    }

    /// Largest artifact, in bytes.
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Takes an artifact in. One that is there already is read to its end and changes nothing. The flag says whether it
    /// is new.
    pub async fn put<E>(
        &self,
        expected: Digest,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        time: u64,
    ) -> Result<(StoredArtifact, bool), ArtifactError> {
        let _permit = self.uploads.try_acquire().map_err(|_| ArtifactError::Busy)?;
        let received = self.receive(body).await?;
        if received.digest != expected {
            return Err(ArtifactError::DigestMismatch { expected, actual: received.digest });
        }
        if let Some(known) = self.get(expected).await? {
            return Ok((known, false));
        }
        let stored = self.index.artifact_bytes().await?;
        if stored.saturating_add(received.size) > self.max_total_bytes {
            return Err(ArtifactError::Full { limit: self.max_total_bytes, stored });
        }
        let (size, place) = (received.size, self.place(expected));
        let folder = self.folder.clone();
        let features = tokio::task::spawn_blocking(move || keep(received, &place, &folder))
            .await
            .map_err(|error| io::Error::other(error.to_string()))??;
        let artifact = StoredArtifact { digest: expected, size, features };
        // The index comes last: what it names is there.
        self.index.add_artifact(artifact, time).await?;
        Ok((artifact, true))
    }

    /// What is known of an artifact, if it is there.
    pub async fn get(&self, digest: Digest) -> Result<Option<StoredArtifact>, StoreError> {
        self.index.artifact(digest).await
    }

    /// An artifact's bytes.
    pub async fn read(&self, digest: Digest) -> Result<File, ArtifactError> {
        Ok(File::open(self.place(digest)).await?)
    }

    fn place(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", hex::encode(digest.as_bytes())))
    }

    async fn receive<E>(
        &self,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Received, ArtifactError> {
        let (file, path) = tempfile::NamedTempFile::new_in(&self.incoming)?.into_parts();
        let mut file = File::from_std(file);
        let (mut hasher, mut size) = (Sha256::new(), 0_u64);
        let copy = async {
            loop {
                let broken = ArtifactError::Broken { received: size };
                let piece = match timeout(PIECE_TIMEOUT, body.next()).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(Ok(piece))) => piece,
                    Ok(Some(Err(_))) | Err(_) => return Err(broken),
                };
                size = size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                if size > self.max_bytes {
                    return Err(ArtifactError::TooLarge { limit: self.max_bytes });
                }
                hasher.update(&piece);
                file.write_all(&piece).await?;
            }
        };
        let copied = timeout(UPLOAD_TIMEOUT, copy).await;
        copied.map_err(|_| ArtifactError::Broken { received: size })??;
        file.sync_all().await?;
        Ok(Received { path, digest: Digest(hasher.finalize().into()), size })
    }
}

/// Checks a received file and gives it its name. Blocking.
fn keep(received: Received, place: &Path, folder: &Path) -> Result<FeatureSet, ArtifactError> {
    let features = required_features(&std::fs::read(&received.path)?)?;
    received.path.persist(place).map_err(|failed| failed.error)?;
    // The name is only there after a power cut when the folder is on the disk too.
    std::fs::File::open(folder)?.sync_all()?;
    Ok(features)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::component::samples::component;

    async fn store(folder: &Path) -> ArtifactStore {
        let index = Store::open(&folder.join("matcher.db").into()).await.unwrap();
        ArtifactStore::open(folder, index, 1_000, 1_500).await.unwrap()
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    async fn put(store: &ArtifactStore, name: Digest, bytes: &[u8]) -> Result<(StoredArtifact, bool), ArtifactError> {
        let pieces: Vec<_> = bytes.chunks(7).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
        store.put(name, stream::iter(pieces), 1).await
    }

    fn files(folder: &Path) -> usize {
        let count = |path: PathBuf| {
            std::fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
        };
        count(folder.join("artifacts")).max(count(folder.join("artifacts/incoming")))
    }

    #[tokio::test]
    async fn what_is_refused_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let good = component(&["wasi:io/streams@0.2.0"], Some("wasi:http/incoming-handler@0.2.0"));
        let core = b"\0asm\x01\0\0\0";
        let broken = stream::iter([Ok(Bytes::from_static(b"\0asm")), Err(io::Error::other("gone"))]);
        for (refused, says) in [
            (put(&store, digest(b"other"), &good).await, "send them under their own digest"),
            (put(&store, digest(core), core).await, "core module"),
            (put(&store, digest(&[0; 1_001]), &[0; 1_001]).await, "limit of 1000 bytes"),
            (store.put(digest(&good), broken, 1).await, "broke off after 4 bytes"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(files(folder.path()), 0);
        assert_eq!(store.get(digest(&good)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_artifact_is_stored_once_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let good = component(&["wasi:keyvalue/store@0.2.0"], Some("wasi:http/incoming-handler@0.2.0"));
        let first = put(&store(folder.path()).await, digest(&good), &good).await.unwrap();
        assert_eq!((first.0.features.names(), first.1), (vec!["wasi:keyvalue".to_owned()], true));

        let reopened = store(folder.path()).await;
        let second = put(&reopened, digest(&good), &good).await.unwrap();
        assert_eq!(second, (first.0, false));
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reopened.read(digest(&good)).await.unwrap(), &mut read)
            .await
            .unwrap();
        assert_eq!(read, good);
        assert_eq!(files(folder.path()), 1);
    }
}
