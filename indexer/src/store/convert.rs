//! The border between columns and the domain: writing is checked for range, reading is checked for everything.

use std::str::FromStr;

use common::money::Atoms;
use serde::{Serialize, de::DeserializeOwned};

use super::error::StoreError;

/// A 64-bit number as `BIGINT`.
pub(super) fn big(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { what, value })
}

/// A name's last eight bytes, by which an index finds it; others may end alike. The first ones are chosen too often, as in
/// vanity addresses.
pub(super) fn key(name: &[u8]) -> i64 {
    name.last_chunk().map_or(0, |end| i64::from_be_bytes(*end))
}

/// A `BIGINT` as the unsigned number it was.
pub(super) fn unsigned<T: TryFrom<i64>>(what: &'static str, value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| StoreError::corrupt(what, value))
}

/// A `BIGINT` as money.
pub(super) fn atoms(what: &'static str, value: i64) -> Result<Atoms, StoreError> {
    Atoms::from_i64(value).map_err(|_| StoreError::corrupt(what, value))
}

/// An id or a number from its text.
pub(super) fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::corrupt(what, text))
}

/// A structure as JSON text.
pub(super) fn json<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::corrupt(what, error))
}

/// A structure from its JSON text.
pub(super) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::corrupt(what, text))
}

/// A variant as its bare name, the same word as in JSON.
pub(super) fn word<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    json(what, value).map(|text| text.trim_matches('"').to_owned())
}

/// A variant from its bare name.
pub(super) fn from_word<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| StoreError::corrupt(what, text))
}
