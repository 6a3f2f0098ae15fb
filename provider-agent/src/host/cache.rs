//! Compiled modules on disk, so that a restart does not compile again.
//!
//! Loading a compiled module is running its machine code: a file that somebody else has written must not get that far. Each
//! file begins with an HMAC-SHA-256 over name and content, under a key that is made once for each data folder. The folder's name
//! has the engine's settings in it, so that another version of the agent never finds them.

use std::{
    fs,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use common::ids::Digest;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wasmtime::{Engine, component::Component};

use super::HostError;

const TAG_BYTES: usize = 32;
/// One block of SHA-256, as HMAC takes it without hashing it first.
const KEY_BYTES: usize = 64;

/// Where compiled modules are kept.
pub(crate) struct CompiledCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl CompiledCache {
    /// Opens the cache in `data_dir`; makes folder and key when they are missing.
    pub(crate) fn open(data_dir: &Path, engine: &Engine) -> Result<Self, HostError> {
        let engine_id = BuildHasherDefault::<DefaultHasher>::default().hash_one(engine.precompile_compatibility_hash());
        let folder = data_dir.join("compiled").join(format!("{engine_id:016x}"));
        fs::create_dir_all(&folder).map_err(HostError::io("make", &folder))?;
        let key_file = data_dir.join("compiled.key");
        let key = load_or_make_key(&key_file).map_err(HostError::io("read or write", &key_file))?;
        Ok(Self { folder, key })
    }

    /// A module that was compiled before; `None` when there is none, or none that is ours.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let file = self.file(digest);
        let bytes = fs::read(&file).ok()?;
        let (tag, code) = bytes.split_at_checked(TAG_BYTES)?;
        if self.mac(digest, code).verify_slice(tag).is_err() {
            tracing::warn!(file = %file.display(), "a compiled module was changed by somebody else; compiling again");
            return None;
        }
        #[expect(unsafe_code, reason = "the tag shows that this agent's engine has written these bytes")]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(|error| tracing::warn!(%error, "a compiled module cannot be loaded; compiling again"))
            .ok()
    }

    /// Keeps a module for the next start. Losing it costs time only, so that failures are logged and no more.
    pub(crate) fn keep(&self, digest: Digest, component: &Component) {
        let kept = component.serialize().map_err(io::Error::other).and_then(|code| self.write(digest, &code));
        if let Err(error) = kept {
            tracing::warn!(%error, %digest, "a compiled module was not kept");
        }
    }

    fn write(&self, digest: Digest, code: &[u8]) -> io::Result<()> {
        let file = self.file(digest);
        let partial = file.with_extension("part");
        let mut writer = fs::File::create(&partial)?;
        writer.write_all(&self.mac(digest, code).finalize().into_bytes())?;
        writer.write_all(code)?;
        fs::rename(partial, file)
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.key).into());
        mac.update(digest.as_bytes());
        mac.update(code);
        mac
    }

    fn file(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}.cwasm", hex::encode(digest.0)))
    }
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
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?.write_all(&key)?;
    Ok(key)
}
