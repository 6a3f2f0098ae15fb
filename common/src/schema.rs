//! JSON schemas of types that write their own JSON; the others derive theirs.

/// A [`JsonSchema`](schemars::JsonSchema) of a type whose JSON is a text: what it says, and the pattern that it fits.
macro_rules! text {
    ($name:ident, $description:expr, $pattern:expr) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}
pub(crate) use text;
