//! Errors as problem details (RFC 9457): what went wrong, for programs and for people.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Why a request does not get the intended answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The status of the response.
    pub status: StatusCode,
    /// The kind, for programs: the end of `type`.
    pub kind: &'static str,
    /// What is wrong with this request and the remedy, for people; never a secret.
    pub detail: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// Further members for programs.
    pub more: Map<String, Value>,
}

/// The beginning of the `type` of every problem.
pub const TYPES: &str = "urn:rollcall:problem:";

impl Problem {
    /// A problem of a kind, with its meaning here.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, more: Map::new() }
    }

    /// The request is invalid.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The caller is not authenticated.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The caller has no right to do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The state cannot be queried, or nothing can be added to the stream, for now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.after(Duration::from_secs(1))
    }

    /// The client has exceeded its rate limit.
    pub fn too_many(retry_after: Duration) -> Self {
        let detail = "too many events from this client for now";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-events", detail).after(retry_after)
    }

    /// Sets when to try again.
    pub fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    fn headers(&self, response: &mut Response) {
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up: sooner would be refused again.
            let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"rollcall\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
    }

    /// In the format of the source document's endpoints: `{"status":"error","message":…}`.
    pub fn into_source_response(self) -> Response {
        let body = json!({ "status": "error", "message": self.detail });
        let mut response = (self.status, Json(body)).into_response();
        self.headers(&mut response);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), format!("{TYPES}{}", self.kind).into());
        body.insert("title".to_owned(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail.clone().into());
        body.extend(self.more.clone());
        let mut response = (self.status, Json(Value::Object(body))).into_response();
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        self.headers(&mut response);
        response
    }
}
