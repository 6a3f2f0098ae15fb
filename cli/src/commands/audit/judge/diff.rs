//! Where two things differ, field by field, in the form that people and programs read: JSON.

use serde_json::Value;

/// A field that is not as it should be. The path is dotted; empty for the thing as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) field: String,
    pub(super) expected: Value,
    pub(super) found: Value,
}

/// Fields of `expected` that `found` has otherwise or not at all. What `found` has beyond them is not judged: newer
/// versions say more. A field that is left out is as good as null.
pub(super) fn mismatches(expected: &Value, found: &Value) -> Vec<Mismatch> {
    let mut all = Vec::new();
    collect("", expected, found, &mut all);
    all
}

fn collect(path: &str, expected: &Value, found: &Value, all: &mut Vec<Mismatch>) {
    match (expected, found) {
        (Value::Object(fields), Value::Object(other)) => {
            for (name, value) in fields {
                collect(&joined(path, name), value, other.get(name).unwrap_or(&Value::Null), all);
            }
        }
        (Value::Array(items), Value::Array(other)) if items.len() == other.len() => {
            for (index, (value, found)) in items.iter().zip(other).enumerate() {
                collect(&joined(path, &index.to_string()), value, found, all);
            }
        }
        _ if expected == found => {}
        _ => all.push(Mismatch { field: path.to_owned(), expected: expected.clone(), found: found.clone() }),
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(expected: &Value, found: &Value) -> Vec<String> {
        mismatches(expected, found).into_iter().map(|mismatch| mismatch.field).collect()
    }

    #[test]
    fn the_fields_that_differ_are_named_by_their_path() {
        let expected = json!({ "a": 1, "b": { "c": "x", "d": null }, "list": [{ "e": 1 }, { "e": 2 }] });
        assert_eq!(fields(&expected, &expected), [""; 0]);
        let found = json!({ "a": 2, "b": { "c": "y" }, "list": [{ "e": 1 }, { "e": 3 }], "more": true });
        assert_eq!(fields(&expected, &found), ["a", "b.c", "list.1.e"]);
    }

    #[test]
    fn what_is_missing_or_of_another_kind_differs() {
        let expected = json!({ "a": 1, "b": null, "list": [1, 2] });
        assert_eq!(fields(&expected, &json!({ "b": { "until": 3 }, "list": [1] })), ["a", "b", "list"]);
        assert_eq!(fields(&expected, &Value::Null), [""]);
        // Amounts are strings: a number is another answer.
        assert_eq!(fields(&json!("1"), &json!(1)), [""]);
    }
}
