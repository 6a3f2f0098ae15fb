//! Private keys: who signs offers and transactions.

use std::{
    fmt, fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use alloy::{
    primitives::{B256, Signature},
    signers::{SignerSync, k256::elliptic_curve::rand_core::OsRng, local::PrivateKeySigner},
};
use common::ids::{Address, OfferHash};

use crate::{
    convert::{inward, outward},
    error::ChainError,
    permit::{Permit, PermitSignature},
};

/// A secp256k1 private key in memory. `Debug` shows the address alone.
#[derive(Clone)]
pub struct Key(PrivateKeySigner);

impl Key {
    /// A new key from the operating system's randomness.
    pub fn random() -> Self {
        Self(PrivateKeySigner::random_with(&mut OsRng))
    }

    /// A key from its 32 bytes in hex, with or without `0x`.
    pub fn from_hex(secret: &str) -> Result<Self, ChainError> {
        // The text is not quoted: it may be a secret with a typing error.
        let invalid = || ChainError::key("a private key must be 64 hex digits, with or without 0x");
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret.trim(), &mut bytes).map_err(|_| invalid())?;
        PrivateKeySigner::from_bytes(&B256::from(bytes)).map(Self).map_err(|_| invalid())
    }

    /// A key from a keystore file (JSON V3). Takes as long as the file's key derivation asks for, typically a second:
    /// call it off the async threads.
    pub fn from_keystore(path: &Path, password: &str) -> Result<Self, ChainError> {
        let failed = |error| ChainError::key(format!("keystore {} cannot be opened: {error}", path.display()));
        PrivateKeySigner::decrypt_keystore(path, password).map(Self).map_err(failed)
    }

    /// Writes a keystore file (JSON V3) that only its owner may read. Replaces a file that is there, in one step.
    pub fn save_keystore(&self, path: &Path, password: &str) -> Result<(), ChainError> {
        let failed =
            |problem: String| ChainError::key(format!("keystore {} cannot be saved: {problem}", path.display()));
        let name = path.file_name().ok_or_else(|| failed("the path names no file".to_owned()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The file is written inside a folder that nobody else can enter, so that it is never readable on its way.
        let private = parent.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let written = self.write_keystore(&private, path, password);
        let removed = fs::remove_dir_all(&private);
        written.map_err(failed)?;
        removed.map_err(|error| failed(error.to_string()))
    }

    fn write_keystore(&self, private: &Path, path: &Path, password: &str) -> Result<(), String> {
        fs::DirBuilder::new().mode(0o700).create(private).map_err(|error| error.to_string())?;
        let (secret, file) = (self.0.to_bytes(), private.join("key"));
        PrivateKeySigner::encrypt_keystore(private, &mut OsRng, secret, password, Some("key"))
            .map_err(|error| error.to_string())?;
        let finish = || {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
            fs::File::open(&file)?.sync_all()?;
            fs::rename(&file, path)
        };
        finish().map_err(|error: std::io::Error| error.to_string())
    }

    /// The account of this key.
    pub fn address(&self) -> Address {
        inward::address(self.0.address())
    }

    /// Signs an offer: 65 bytes, r, s and v of 27 or 28.
    pub fn sign(&self, hash: OfferHash) -> Result<Vec<u8>, ChainError> {
        Ok(self.sign_word(outward::word(hash.0))?.as_bytes().to_vec())
    }

    /// Signs that the market may take tokens out of this account (EIP-2612).
    pub fn sign_permit(&self, permit: &Permit) -> Result<PermitSignature, ChainError> {
        let signature = self.sign_word(permit.signing_hash(self.address()))?;
        Ok(PermitSignature {
            v: if signature.v() { 28 } else { 27 },
            r: signature.r().to_be_bytes(),
            s: signature.s().to_be_bytes(),
        })
    }

    fn sign_word(&self, word: B256) -> Result<Signature, ChainError> {
        self.0.sign_hash_sync(&word).map_err(ChainError::key)
    }

    pub(crate) const fn signer(&self) -> &PrivateKeySigner {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address())
    }
}
