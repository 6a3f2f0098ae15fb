//! What an attestation commits to: per deal and epoch a rolling hash over the requests that were served.
//!
//! All hashes are Keccak-256, all integers big-endian.
//!
//! ```text
//! receipt  = keccak("wharfage receipt 0" ‖ dealId[32] ‖ epoch[4] ‖ number[8] ‖ keccak(method ‖ " " ‖ target) ‖ status[2])
//! rolling₀ = 0…0          rollingₙ = keccak(rollingₙ₋₁ ‖ receiptₙ)
//! root     = keccak("wharfage receipts 0" ‖ (dealId[32] ‖ count[8] ‖ rolling[32]) for every deal, by ascending id)
//! ```
//!
//! `number` counts from 0 within deal and epoch; `target` is path and query as the worker saw them. A request belongs to the
//! epoch that the agent last read from the chain when the answer began. The receipts themselves are not kept and not
//! signed yet: the root says how many requests there were and binds their order, and nothing can be shown from it alone.
//! What was served after the last write to the database is missing after a crash.

use chain::keccak256;
use common::{
    epoch::Epoch,
    ids::{DealId, ReceiptRoot},
};

const RECEIPT_DOMAIN: &[u8] = b"wharfage receipt 0";
const ROOT_DOMAIN: &[u8] = b"wharfage receipts 0";

/// One request as a receipt sees it.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Upper-case method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Requests of one deal in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolling {
    /// The deal.
    pub deal: DealId,
    /// The epoch.
    pub epoch: Epoch,
    /// Requests so far.
    pub count: u64,
    /// Their rolling hash.
    pub hash: [u8; 32],
}

impl Rolling {
    /// No request yet.
    pub const fn new(deal: DealId, epoch: Epoch) -> Self {
        Self { deal, epoch, count: 0, hash: [0; 32] }
    }

    /// Adds one request.
    pub fn add(&mut self, served: Served<'_>) {
        let request = [served.method.as_bytes(), b" ", served.target.as_bytes()].concat();
        let receipt = keccak256(
            &[
                RECEIPT_DOMAIN,
                self.deal.as_bytes(),
                &self.epoch.0.to_be_bytes(),
                &self.count.to_be_bytes(),
                &keccak256(&request),
                &served.status.to_be_bytes(),
            ]
            .concat(),
        );
        self.hash = keccak256(&[self.hash, receipt].concat());
        self.count = self.count.saturating_add(1);
    }
}

/// The root of an epoch; deals without a request are left out.
pub fn root(deals: impl IntoIterator<Item = Rolling>) -> ReceiptRoot {
    let mut deals: Vec<Rolling> = deals.into_iter().filter(|deal| deal.count > 0).collect();
    deals.sort_by_key(|deal| deal.deal);
    let mut bytes = ROOT_DOMAIN.to_vec();
    for deal in deals {
        bytes.extend_from_slice(deal.deal.as_bytes());
        bytes.extend_from_slice(&deal.count.to_be_bytes());
        bytes.extend_from_slice(&deal.hash);
    }
    ReceiptRoot(keccak256(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rolling(deal: u8, requests: &[(&str, u16)]) -> Rolling {
        let mut rolling = Rolling::new(DealId([deal; 32]), Epoch(3));
        for (target, status) in requests {
            rolling.add(Served { method: "GET", target, status: *status });
        }
        rolling
    }

    #[test]
    fn every_part_of_a_request_and_their_order_counts() {
        let base = rolling(1, &[("/a", 200), ("/b", 200)]);
        assert_eq!(base, rolling(1, &[("/a", 200), ("/b", 200)]));
        assert_eq!(base.count, 2);
        for other in [
            rolling(1, &[("/b", 200), ("/a", 200)]),
            rolling(1, &[("/a", 200), ("/b", 404)]),
            rolling(2, &[("/a", 200), ("/b", 200)]),
        ] {
            assert_ne!(base.hash, other.hash);
        }
    }

    #[test]
    fn a_root_does_not_depend_on_the_order_of_deals_and_leaves_idle_ones_out() {
        let (one, two) = (rolling(1, &[("/a", 200)]), rolling(2, &[("/a", 200)]));
        assert_eq!(root([one, two]), root([two, rolling(3, &[]), one]));
        assert_ne!(root([one, two]), root([one]));
        assert_ne!(root([]), ReceiptRoot::ZERO);
    }
}
