//! The content store over HTTP.

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{feature::FeatureSet, http::Problem, ids::Digest};
use serde::Serialize;
use tokio_util::io::ReaderStream;

use super::{Api, later, request};
use crate::{artifacts::ArtifactError, store::StoredArtifact};

#[derive(Serialize)]
struct Stored {
    digest: Digest,
    /// Bytes.
    size: u64,
    url: String,
    /// What its host must have.
    features: FeatureSet,
}

pub(super) async fn put(
    State(api): State<Api>,
    Path(digest): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let digest: Digest = request::id(&digest, "invalid_digest").map_err(IntoResponse::into_response)?;
    let limit = api.parts.artifacts.max_bytes();
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit) {
        return Err(refused(ArtifactError::TooLarge { limit }));
    }
    let body = request.into_body().into_data_stream();
    let now = api.parts.clock.unix_seconds();
    let (artifact, is_new) = api.parts.artifacts.put(digest, body, now).await.map_err(refused)?;
    if is_new {
        api.parts.metrics.artifact_stored(artifact);
    }
    let url = api.parts.config.artifact_url(&digest.to_string());
    let stored = Stored { digest, size: artifact.size, url, features: artifact.features };
    Ok((StatusCode::CREATED, Json(stored)).into_response())
}

pub(super) async fn get(
    State(api): State<Api>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest: Digest = request::id(&digest, "invalid_digest")?;
    let Some(artifact) = api.parts.artifacts.get(digest).await.map_err(Problem::internal)? else {
        let detail = format!("artifact {digest} is not stored here: PUT it, or ask another content store");
        return Err(Problem::new(StatusCode::NOT_FOUND, "artifact_unknown", detail));
    };
    let tag = format!("\"{digest}\"");
    let is_fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if is_fresh {
        return Ok(described(&artifact, &tag, StatusCode::NOT_MODIFIED, Body::empty()));
    }
    let file = api.parts.artifacts.read(digest).await.map_err(Problem::internal)?;
    Ok(described(&artifact, &tag, StatusCode::OK, Body::from_stream(ReaderStream::new(file))))
}

/// The name is the content, so that it may be kept for ever.
fn described(artifact: &StoredArtifact, tag: &str, status: StatusCode, body: Body) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::OK {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(artifact.size));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn refused(error: ArtifactError) -> Response {
    let problem = |status, code| Problem::new(status, code, error.to_string());
    match &error {
        ArtifactError::TooLarge { .. } => problem(StatusCode::PAYLOAD_TOO_LARGE, "artifact_too_large").into_response(),
        ArtifactError::Full { .. } => problem(StatusCode::INSUFFICIENT_STORAGE, "artifact_store_full").into_response(),
        ArtifactError::DigestMismatch { .. } => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, "digest_mismatch").into_response()
        }
        ArtifactError::NotHostable(reason) => problem(StatusCode::UNPROCESSABLE_ENTITY, reason.code()).into_response(),
        ArtifactError::Broken { .. } => problem(StatusCode::BAD_REQUEST, "upload_incomplete").into_response(),
        ArtifactError::Busy => later(problem(StatusCode::SERVICE_UNAVAILABLE, "busy")),
        ArtifactError::Store(_) | ArtifactError::Disk(_) => Problem::internal(error).into_response(),
    }
}
