//! Between columns and domain: total outward, checked inward.

use std::str::FromStr;

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;

pub(super) fn corrupt(column: &'static str, text: &str) -> StoreError {
    StoreError::Corrupt { column, text: text.chars().take(80).collect() }
}

/// An id of its text.
pub(super) fn id<T: FromStr>(column: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| corrupt(column, text))
}

pub(super) fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(column, text))
}

pub(super) fn to_json(column: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt(column, &error.to_string()))
}

pub(super) fn bytes(column: &'static str, text: &str) -> Result<Vec<u8>, StoreError> {
    hex::decode(text).map_err(|_| corrupt(column, text))
}

pub(super) fn unsigned(column: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| corrupt(column, &value.to_string()))
}

pub(super) fn signed(column: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::TooLarge { column, value })
}
