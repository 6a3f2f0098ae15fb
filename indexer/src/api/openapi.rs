//! The API's description (OpenAPI 3.1), made from the table of routes and from the types that are answered with.

use common::http::Problem;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::operations::{self, Operation, Parameter, Refused, Success};

/// What every answer with rows carries.
const CSV_HEADERS: [(&str, &str); 4] = [
    ("x-as-of-block", "Height of the block that the rows are true at."),
    ("x-as-of-block-hash", "Its hash."),
    ("x-final", "`true` when it can no longer be reorganized away."),
    ("x-row-limit", "Rows at most; where as many came, go on after the `cursor` of the last."),
];

/// The read API as an OpenAPI document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let paths: Map<_, _> = operations::all()
        .iter()
        .map(|operation| (operation.path.to_owned(), json!({ "get": described(operation, &mut schemas) })))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wharfage indexer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The market as the chain tells it. Every answer names the block that it is true at, and \
                whether that block is final. Money is atoms of the payment token, in strings.",
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn described(operation: &Operation, schemas: &mut SchemaGenerator) -> Value {
    let parameters: Vec<_> = operation.parameters.iter().map(|parameter| parameter.described(schemas)).collect();
    let mut responses = Map::new();
    responses.insert("200".to_owned(), success(&operation.success, schemas));
    let mut refused = operation.refused.clone();
    refused.sort_by_key(|(status, _, _)| *status);
    for group in refused.chunk_by(|a, b| a.0 == b.0) {
        let status = group.first().map(|refused| refused.0.to_string()).unwrap_or_default();
        responses.insert(status, refusal(group, schemas));
    }
    json!({
        "operationId": operation.id,
        "summary": operation.about,
        "parameters": parameters,
        "responses": responses,
    })
}

impl Parameter {
    fn described(&self, schemas: &mut SchemaGenerator) -> Value {
        json!({
            "name": self.name,
            "in": self.place,
            "description": self.about,
            "required": self.place == "path",
            "schema": (self.schema)(schemas),
        })
    }
}

fn success(success: &Success, schemas: &mut SchemaGenerator) -> Value {
    match success {
        Success::Json(schema) => {
            json!({ "description": "The answer.", "content": { "application/json": { "schema": schema(schemas) } } })
        }
        Success::List(schema) => {
            let header = |(name, about): (&str, &str)| {
                (name.to_owned(), json!({ "description": format!("CSV: {about}"), "schema": { "type": "string" } }))
            };
            json!({
                "description": "A page; or rows (RFC 4180) with a header, true at one block.",
                "headers": CSV_HEADERS.into_iter().map(header).collect::<Map<_, _>>(),
                "content": {
                    "application/json": { "schema": schema(schemas) },
                    "text/csv": { "schema": { "type": "string" } },
                },
            })
        }
        Success::Events(messages) => {
            let message = |(name, schema): &(&str, operations::SchemaOf)| ((*name).to_owned(), schema(schemas).into());
            let messages: Map<String, Value> = messages.iter().map(message).collect();
            json!({
                "description": "Messages by the name of their event: `event` is one that happened, `block` says up to \
                    which block all were sent, `reorg` from which height on to drop what was received.",
                "content": { "text/event-stream": { "schema": { "type": "string" }, "x-messages": messages } },
            })
        }
        Success::Document => {
            let content = json!({ "application/json": { "schema": { "type": "object" } } });
            json!({ "description": "OpenAPI 3.1.", "content": content })
        }
    }
}

fn refusal(group: &[Refused], schemas: &mut SchemaGenerator) -> Value {
    let codes: Vec<_> = group.iter().map(|(_, code, _)| *code).collect();
    let when: Vec<_> = group.iter().map(|(_, code, when)| format!("`{code}`: {when}.")).collect();
    let problem = schemas.subschema_for::<Problem>();
    json!({
        "description": when.join(" "),
        "content": {
            "application/problem+json": {
                "schema": { "allOf": [problem, { "properties": { "code": { "enum": codes } } }] },
            },
        },
    })
}
