//! The end-to-end tests are the integration binary of this package; see `main.rs`.
