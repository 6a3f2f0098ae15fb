//! The API's description is what is checked in, and what is answered.

use std::{collections::BTreeSet, path::Path, sync::LazyLock};

use axum::Router;
use common::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::{api::get, scene::Scene};

static DOCUMENT: LazyLock<Value> = LazyLock::new(indexer::openapi);

/// Schemas in which nothing is allowed that they do not name, so that no field goes undescribed.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut schemas = DOCUMENT["components"]["schemas"].clone();
    let mut extended = BTreeSet::new();
    find_extended(&schemas, &mut extended);
    for (name, schema) in schemas.as_object_mut().unwrap() {
        if schema.get("properties").is_some() && !extended.contains(name) {
            schema["unevaluatedProperties"] = json!(false);
        }
    }
    schemas
});

/// Names of schemas that others add fields to.
fn find_extended(schema: &Value, extended: &mut BTreeSet<String>) {
    if let (Some(name), Some(_)) = (schema.get("$ref").and_then(Value::as_str), schema.get("properties")) {
        extended.insert(name.rsplit('/').next().unwrap().to_owned());
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|value| find_extended(value, extended)),
        Value::Array(items) => items.iter().for_each(|value| find_extended(value, extended)),
        _ => (),
    }
}

/// The operation that answers `path`.
fn operation(path: &str) -> &'static Value {
    let path = path.split('?').next().unwrap();
    let matches = |template: &str| {
        let (wanted, got): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        wanted.len() == got.len()
            && wanted.iter().zip(got).all(|(wanted, got)| wanted.starts_with('{') || *wanted == got)
    };
    let found = DOCUMENT["paths"].as_object().unwrap().iter().find(|(template, _)| matches(template));
    &found.unwrap_or_else(|| panic!("{path} is not described")).1["get"]
}

/// Asserts that an answer is what the description says.
pub(crate) fn fits(path: &str, status: u16, kind: &str, body: &Value) {
    let schema = &operation(path)["responses"][status.to_string()]["content"][kind]["schema"];
    assert!(schema.is_object(), "{path}: {status} {kind} is not described: {body}");
    validate(path, schema, body);
}

/// Asserts that a message of the stream is what the description says.
pub(crate) fn message_fits(name: &str, data: &Value) {
    let stream = &operation("/v1/stream")["responses"]["200"]["content"]["text/event-stream"];
    validate(name, &stream["x-messages"][name], data);
}

fn validate(what: &str, schema: &Value, value: &Value) {
    let root = json!({ "allOf": [schema], "components": { "schemas": *STRICT } });
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

#[test]
fn the_description_is_checked_in() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api/indexer.openapi.json");
    if std::env::var_os("WHARFAGE_REWRITE").is_some() {
        std::fs::write(&file, format!("{:#}\n", *DOCUMENT)).unwrap();
    }
    let checked_in: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap_or_default()).unwrap_or_default();
    assert!(
        checked_in == *DOCUMENT,
        "docs/api/indexer.openapi.json is not what the code says; rewrite it with\n  \
         WHARFAGE_REWRITE=1 cargo test --release -p indexer the_description_is_checked_in"
    );
}

/// Every route takes the parameters that are described, and no others.
pub(crate) async fn parameters_are_described(router: &Router, scene: &Scene) {
    for (template, item) in DOCUMENT["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array().unwrap();
        let described = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let described: BTreeSet<_> = described.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        if described.is_empty() {
            continue;
        }
        let id = scene.demand_hash().to_string();
        let path = template.replace("{hash}", &id).replace("{id}", &id);
        let (status, problem) = get(router, &format!("{path}?zzz=1")).await;
        assert_eq!((status, problem["field"].as_str()), (400, Some("zzz")), "{path}");
        let known = problem["detail"].as_str().unwrap().split("there are ").last().unwrap();
        assert_eq!(known.split(", ").collect::<BTreeSet<_>>(), described, "{path}");
    }
}

#[tokio::test]
async fn the_description_is_what_is_answered() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let indexer = scene.indexer(&folder.path().join("indexer.db"), &Shutdown::new()).await.unwrap();
    scene.agrees(&indexer).await;
    let router = indexer.router();
    assert_eq!(get(&router, "/v1/openapi.json").await.1, *DOCUMENT);
    parameters_are_described(&router, &scene).await;
}

/// Every code that an operation may refuse with, with its status.
fn refused(document: &Value) -> BTreeSet<(String, String)> {
    let operations = document["paths"].as_object().unwrap().values().map(|path| &path["get"]);
    let responses = operations.flat_map(|operation| operation["responses"].as_object().unwrap());
    let codes = responses.flat_map(|(status, response)| {
        let schema = &response["content"]["application/problem+json"]["schema"];
        let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array().cloned().unwrap_or_default();
        codes.into_iter().map(move |code| (status.clone(), code.as_str().unwrap().to_owned()))
    });
    codes.collect()
}

#[test]
fn every_error_code_is_documented_with_its_status() {
    let text = include_str!("../../../docs/errors.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Indexer\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<(String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[2].to_owned(), cells[1].trim_matches('`').to_owned())
        })
        .collect();
    assert_eq!(documented, refused(&DOCUMENT));
}
