//! Explanations and quotes of the web API, as lines for people.

use serde_json::Value;

/// Most suggestions that are shown; the first ones ask for the least.
const SHOWN_SUGGESTIONS: usize = 4;

/// Why an offer matches or not, and what would help.
pub(crate) fn lines(explanation: &Value) -> Vec<String> {
    let summary = explanation.get("summary").and_then(Value::as_str).map(str::to_owned);
    let suggestions = explanation.get("suggestions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let texts = suggestions.iter().filter_map(|suggestion| suggestion.get("text")?.as_str());
    summary.into_iter().chain(texts.take(SHOWN_SUGGESTIONS).map(|text| format!("would match: {text}"))).collect()
}

/// Who would host an offer and at what price.
pub(crate) fn quote_lines(quote: &Value) -> Vec<String> {
    let replicas = quote.get("replicas").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let hosts = replicas.iter().map(|replica| {
        let text = |name: &str| replica.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        format!(
            "quote: provider {} in {} for {} an epoch",
            text("provider"),
            text("region"),
            tokens(replica.get("ask"))
        )
    });
    let total = format!(
        "quote: {} an epoch in all, {} to be locked",
        tokens(quote.get("pricePerEpoch")),
        tokens(quote.get("lock"))
    );
    hosts.chain([total]).collect()
}

/// An amount of atoms from JSON, as people read it.
pub(crate) fn tokens(atoms: Option<&Value>) -> String {
    let amount = atoms.and_then(|atoms| serde_json::from_value::<common::money::Atoms>(atoms.clone()).ok());
    amount.map_or_else(|| "an unknown amount".to_owned(), |amount| amount.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_summary_comes_first_and_then_what_would_help() {
        let explanation = json!({ "summary": "Nobody.", "suggestions": [{ "text": "raise the price" }, {}] });
        assert_eq!(lines(&explanation), ["Nobody.", "would match: raise the price"]);
    }

    #[test]
    fn a_quote_names_hosts_and_sums() {
        let quote = json!({
            "replicas": [{ "provider": "0x01", "region": "eu-de", "ask": "550" }],
            "pricePerEpoch": "550",
            "lock": "5500",
        });
        let lines = quote_lines(&quote);
        assert_eq!(lines[0], "quote: provider 0x01 in eu-de for 0.000550 USDC an epoch");
        assert!(lines[1].contains("0.005500 USDC to be locked"), "{}", lines[1]);
    }
}
