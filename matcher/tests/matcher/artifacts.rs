use common::ids::Digest;
use reqwest::{StatusCode, header};
use sha2::{Digest as _, Sha256};

use crate::support::{World, component};

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn path(bytes: &[u8]) -> String {
    format!("/v1/artifacts/{}", digest(bytes))
}

#[tokio::test]
async fn an_artifact_goes_in_once_and_comes_out_the_same() {
    let world = World::start().await;
    let bytes = component("wasi:keyvalue/store@0.2.0");
    let (status, stored) = world.put(&path(&bytes), bytes.clone()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(stored["digest"], digest(&bytes).to_string());
    assert_eq!(stored["size"], bytes.len());
    assert_eq!(stored["features"], serde_json::json!(["wasi:keyvalue"]));
    assert_eq!(world.put(&path(&bytes), bytes.clone()).await, (StatusCode::CREATED, stored.clone()));

    let url = stored["url"].as_str().unwrap();
    let got = world.client().get(url).send().await.unwrap();
    assert!(got.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let tag = got.headers()[header::ETAG].clone();
    assert_eq!(got.bytes().await.unwrap(), bytes);
    let head = world.client().head(url).send().await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], bytes.len().to_string().as_str());
    let again = world.client().get(url).header(header::IF_NONE_MATCH, tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_is_no_artifact_is_refused_and_not_kept() {
    let world = World::start_with(|config| config.max_artifact_bytes = 500).await;
    let good = component("wasi:io/streams@0.2.0");
    let core = b"\0asm\x01\0\0\0".to_vec();
    let large = vec![0; 501];
    for (path, bytes, status, code, says) in [
        (path(&core), core.clone(), 422, "not_a_component", "wasm32-wasip2"),
        (path(&core), good.clone(), 422, "digest_mismatch", "under their own digest"),
        (path(&large), large, 413, "artifact_too_large", "500 bytes"),
        ("/v1/artifacts/0x12".to_owned(), good.clone(), 400, "invalid_digest", "64 hex digits"),
    ] {
        let (answered, problem) = world.put(&path, bytes).await;
        assert_eq!((answered.as_u16(), problem["code"].as_str().unwrap()), (status, code), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    // Without a length in its header, too.
    let pieces = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 64])));
    let body = reqwest::Body::wrap_stream(pieces);
    let answer = world.client().put(world.url(&path(&good))).body(body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.stored_files(), 0);
    let missing = world.get(&path(&good)).await;
    assert_eq!(missing["code"], "artifact_unknown");
}
