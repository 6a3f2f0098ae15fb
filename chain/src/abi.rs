//! The contracts' interfaces at run time: revert reasons as text, bytecode, and the small standard interfaces.

use std::sync::LazyLock;

use alloy::{
    dyn_abi::{DynSolValue, JsonAbiExt},
    json_abi::{ContractObject, Error as AbiError, JsonAbi},
    primitives::Selector,
    sol,
    sol_types::{Panic, Revert, SolError},
};
use common::event::Reason;

sol! {
    interface IERC1271 {
        function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
    }
}

/// Errors of both contracts. The artifacts are part of the program, so an unreadable one reads as empty rather than
/// as a panic; a test holds it against the generated bindings.
static ERRORS: LazyLock<JsonAbi> = LazyLock::new(|| {
    let mut all = JsonAbi::new();
    for json in [contracts::MARKET_JSON, contracts::TEST_USDC_JSON] {
        let contract: Option<ContractObject> = serde_json::from_str(json).ok();
        let abi = contract.and_then(|contract| contract.abi).unwrap_or_default();
        for (name, errors) in abi.errors {
            all.errors.entry(name).or_default().extend(errors);
        }
    }
    all
});

/// What revert data says, such as `BalanceTooLow(free: 5, needed: 10)`.
pub(crate) fn revert_reason(data: &[u8]) -> String {
    if let Ok(revert) = Revert::abi_decode(data) {
        return revert.reason.chars().take(500).collect();
    }
    if let Ok(panic) = Panic::abi_decode(data) {
        return panic.to_string();
    }
    let known = data.first_chunk::<4>().and_then(|selector| {
        let selector = Selector::from(*selector);
        ERRORS.errors().find(|error| error.selector() == selector)
    });
    let body = data.get(4..).unwrap_or_default();
    known.and_then(|error| custom_error(error, body)).unwrap_or_else(|| {
        let shown = data.get(..68).unwrap_or(data);
        format!("unknown error {}", hex::encode_prefixed(shown))
    })
}

fn custom_error(error: &AbiError, body: &[u8]) -> Option<String> {
    let values = error.abi_decode_input(body).ok()?;
    let arguments: Vec<String> = error
        .inputs
        .iter()
        .zip(&values)
        .map(|(input, value)| {
            let is_reason = input.internal_type.as_ref().is_some_and(|kind| kind.to_string().ends_with("Reason"));
            format!("{}: {}", input.name, readable(value, is_reason))
        })
        .collect();
    Some(format!("{}({})", error.name, arguments.join(", ")))
}

fn readable(value: &DynSolValue, is_reason: bool) -> String {
    match value {
        DynSolValue::Uint(number, _) => {
            let reason = usize::try_from(*number).ok().filter(|_| is_reason).and_then(|at| Reason::ALL.get(at));
            reason.map_or_else(|| number.to_string(), |reason| format!("{reason:?}"))
        }
        DynSolValue::Int(number, _) => number.to_string(),
        DynSolValue::Address(address) => hex::encode_prefixed(address),
        DynSolValue::FixedBytes(word, size) => hex::encode_prefixed(word.get(..*size).unwrap_or(word.as_slice())),
        DynSolValue::Bytes(bytes) => hex::encode_prefixed(bytes.get(..64).unwrap_or(bytes)),
        DynSolValue::String(text) => format!("{:?}", text.chars().take(200).collect::<String>()),
        DynSolValue::Bool(value) => value.to_string(),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use contracts::Market;

    use super::*;

    #[test]
    fn every_error_of_the_market_is_known_by_name() {
        assert!(ERRORS.errors().count() >= 20);
        let error = Market::BalanceTooLow { free: U256::from(5), needed: U256::from(10) };
        assert_eq!(revert_reason(&error.abi_encode()), "BalanceTooLow(free: 5, needed: 10)");
        let error = Market::OfferMalformed { reason: 10 };
        assert_eq!(revert_reason(&error.abi_encode()), "OfferMalformed(reason: ProviderOfferMalformed)");
    }

    #[test]
    fn standard_and_unknown_errors_are_readable() {
        assert_eq!(revert_reason(&Revert::from("no").abi_encode()), "no");
        assert!(revert_reason(&Panic::from(0x11_u64).abi_encode()).contains("0x11"));
        assert_eq!(revert_reason(&[1, 2, 3, 4]), "unknown error 0x01020304");
        assert_eq!(revert_reason(&[]), "unknown error 0x");
        // A known selector with a body that is too short.
        let cut = Market::BalanceTooLow::SELECTOR;
        assert!(revert_reason(&cut).starts_with("unknown error 0x"));
    }
}
