//! Compiled modules on disk, so that a restart does not compile again.
//!
//! Loading a compiled module is running its machine code: a file that somebody else has written must not get that far. Each
//! file ends with an HMAC-SHA-256 over name and content, under a key that is made once for each data folder; it is checked
//! before anything reads the content. The folder's name has the engine's settings in it, so that another version of the agent
//! never finds them; folders of other versions are deleted. Beyond its size the files that were not used for longest go.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use common::ids::Digest;
use hmac::{Hmac, Mac};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use sha2::Sha256;
use wasmtime::Engine;

use super::HostError;

const TAG_BYTES: usize = 32;
/// One block of SHA-256, as HMAC takes it without hashing it first.
const KEY_BYTES: usize = 64;
const CHUNK_BYTES: usize = 256 << 10;

/// Where compiled modules are kept.
pub(crate) struct CompiledCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    max_bytes: u64,
}

/// Machine code that this agent has written: an open file, whatever becomes of its name.
#[derive(Clone)]
pub(crate) struct CompiledCode {
    file: Arc<File>,
}

impl CompiledCode {
    /// The file, for handing it to another process; the tag stands behind the code.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// All of the code.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = self.file.as_ref();
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        bytes.truncate(bytes.len().saturating_sub(TAG_BYTES));
        Ok(bytes)
    }
}

/// A file that is being written; it counts once it is kept.
pub(crate) struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    /// To write the code to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone where it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

impl CompiledCache {
    /// Opens the cache in `data_dir`; makes folder and key when they are missing.
    pub(crate) fn open(data_dir: &Path, engine: &Engine, max_bytes: u64) -> Result<Self, HostError> {
        let engine_id = BuildHasherDefault::<DefaultHasher>::default().hash_one(engine.precompile_compatibility_hash());
        let all = data_dir.join("compiled");
        let folder = all.join(format!("{engine_id:016x}"));
        fs::create_dir_all(&folder).map_err(HostError::io("make", &folder))?;
        remove_others(&all, &folder).map_err(HostError::io("clean", &all))?;
        let key_file = data_dir.join("compiled.key");
        let key = load_or_make_key(&key_file).map_err(HostError::io("read or write", &key_file))?;
        Ok(Self { folder, key, max_bytes })
    }

    /// What was compiled before; `None` when there is nothing, or nothing that is ours.
    pub(crate) fn find(&self, digest: Digest) -> Option<CompiledCode> {
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        match self.is_ours(digest, &file) {
            Ok(true) => (),
            Ok(false) => {
                tracing::warn!(file = %path.display(), "compiled code was changed by somebody else; compiling again");
                return None;
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "compiled code cannot be read; compiling again");
                return None;
            }
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        if let Err(error) = futimens(&file, &Timestamps { last_access: now, last_modification: now }) {
            tracing::debug!(%error, "the time of use was not noted");
        }
        Some(CompiledCode { file: Arc::new(file) })
    }

    /// A file to write new code to.
    pub(crate) fn draft(&self, digest: Digest) -> io::Result<Draft> {
        let path = self.path(digest).with_extension("part");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Draft { path, file })
    }

    /// Takes the finished draft in, and lets others go for it.
    pub(crate) fn keep(&self, digest: Digest, draft: Draft) -> io::Result<CompiledCode> {
        let mut file = &draft.file;
        let length = file.seek(SeekFrom::End(0))?;
        let tag = self.mac(digest, file, length)?.finalize().into_bytes();
        file.seek(SeekFrom::Start(length))?;
        file.write_all(&tag)?;
        let path = self.path(digest);
        fs::rename(&draft.path, &path)?;
        if let Err(error) = self.evict(&path) {
            tracing::warn!(%error, "old compiled code was not deleted");
        }
        Ok(CompiledCode { file: Arc::new(File::open(path)?) })
    }

    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let used =
                if entry.path() == newest { None } else { Some(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH)) };
            files.push((used, meta.len(), entry.path()));
        }
        // The newest is `None` and comes first: it stays.
        files.sort();
        let mut total = 0_u64;
        let by_use = files.iter().take(1).chain(files.iter().skip(1).rev());
        for (used, length, path) in by_use {
            total = total.saturating_add(*length);
            if total > self.max_bytes && used.is_some() {
                tracing::info!(file = %path.display(), "compiled code that was not used for longest is deleted");
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn is_ours(&self, digest: Digest, mut file: &File) -> io::Result<bool> {
        let tag_bytes = u64::try_from(TAG_BYTES).unwrap_or(u64::MAX);
        let Some(length) = file.metadata()?.len().checked_sub(tag_bytes) else { return Ok(false) };
        let mac = self.mac(digest, file, length)?;
        let mut tag = [0; TAG_BYTES];
        file.read_exact(&mut tag)?;
        Ok(mac.verify_slice(&tag).is_ok())
    }

    /// Of the digest and the first `length` bytes; what stands behind them is read next.
    fn mac(&self, digest: Digest, mut file: &File, length: u64) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new((&self.key).into());
        mac.update(digest.as_bytes());
        file.seek(SeekFrom::Start(0))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut left = length;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let part = chunk.get_mut(..take).unwrap_or_default();
            file.read_exact(part)?;
            mac.update(part);
            left = left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
        }
        Ok(mac)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}.cwasm", hex::encode(digest.0)))
    }
}

/// Code of other engines, and drafts that a crash has left.
fn remove_others(all: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if path != folder {
            fs::remove_dir_all(path)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn load_or_make_key(file: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    match fs::read(file) {
        Ok(bytes) if bytes.len() == KEY_BYTES => {
            key.copy_from_slice(&bytes);
            return Ok(key);
        }
        // Cut off by a crash while it was written: nothing can have been kept under it.
        Ok(_) => fs::remove_file(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(&key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::engine;

    fn keep(cache: &CompiledCache, name: u8, bytes: &[u8]) {
        let digest = Digest([name; 32]);
        let draft = cache.draft(digest).unwrap();
        draft.file().write_all(bytes).unwrap();
        assert_eq!(cache.keep(digest, draft).unwrap().read().unwrap(), bytes);
    }

    #[test]
    fn only_what_was_written_under_this_key_and_name_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let cache = CompiledCache::open(folder.path(), &engine, 1 << 20).unwrap();
        let code = vec![7; CHUNK_BYTES + 3];
        keep(&cache, 1, &code);
        let mode = fs::metadata(folder.path().join("compiled.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = CompiledCache::open(folder.path(), &engine, 1 << 20).unwrap();
        assert_eq!(again.find(Digest([1; 32])).unwrap().read().unwrap(), code);
        // Under another name, changed, cut off, from another folder with another key.
        let (path, other) = (cache.path(Digest([1; 32])), cache.path(Digest([2; 32])));
        fs::copy(&path, &other).unwrap();
        assert!(cache.find(Digest([2; 32])).is_none());
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[CHUNK_BYTES] ^= 1;
        for wrong in [&changed, &whole[1..].to_vec(), &whole[..20].to_vec(), &vec![]] {
            fs::write(&path, wrong).unwrap();
            assert!(cache.find(Digest([1; 32])).is_none());
        }
        fs::write(&path, &whole).unwrap();
        assert!(cache.find(Digest([1; 32])).is_some());
        fs::remove_file(folder.path().join("compiled.key")).unwrap();
        let rekeyed = CompiledCache::open(folder.path(), &engine, 1 << 20).unwrap();
        assert!(rekeyed.find(Digest([1; 32])).is_none());
    }

    #[test]
    fn beyond_its_size_the_longest_unused_goes_but_not_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let cache = CompiledCache::open(folder.path(), &engine, 250).unwrap();
        let age = |name: u8, seconds: u64| {
            let file = File::options().write(true).open(cache.path(Digest([name; 32]))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        };
        keep(&cache, 1, &[1; 60]);
        age(1, 1_000);
        keep(&cache, 2, &[2; 60]);
        age(2, 2_000);
        // The older one is used, so that the other is the longest unused.
        assert!(cache.find(Digest([1; 32])).is_some());
        keep(&cache, 3, &[3; 60]);
        let has = |name: u8| cache.find(Digest([name; 32])).is_some();
        assert_eq!([has(1), has(2), has(3)], [true, false, true]);
        keep(&cache, 4, &[4; 1_000]);
        assert_eq!([has(1), has(3), has(4)], [false, false, true]);
    }

    #[test]
    fn what_other_engines_and_crashes_have_left_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let cache = CompiledCache::open(folder.path(), &engine, 1 << 20).unwrap();
        let old = folder.path().join("compiled/0123");
        fs::create_dir(&old).unwrap();
        fs::write(cache.folder.join("x.part"), "half").unwrap();
        CompiledCache::open(folder.path(), &engine, 1 << 20).unwrap();
        assert!(!old.exists() && !cache.folder.join("x.part").exists());
    }
}
