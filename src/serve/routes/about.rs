//! The list of routes, the OpenAPI document, and the cookie for the page.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::body::Body;
use crate::schema::OPENAPI;
use crate::serve::access::{Caller, clear_cookie, set_cookie};
use crate::serve::client::Peer;
use crate::serve::context::Context;
use crate::serve::problem::Problem;

/// The routes about the server itself.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/access", get(access))
        .route("/api/v1/login", post(login))
        .route("/api/v1/logout", post(logout))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

/// The rights of a caller, for the page.
#[derive(Serialize)]
struct Rights {
    /// Whether no credentials are configured.
    open: bool,
    read: bool,
    /// Whether it may write for all users: end their sessions, retry or drop dead letters.
    write: bool,
    user: Option<String>,
}

async fn access(
    State(context): State<Context>,
    headers: HeaderMap,
) -> Result<Json<Rights>, Problem> {
    context.access.check_source(&headers)?;
    let caller = context.access.of_headers(&headers).ok();
    Ok(Json(Rights {
        open: context.access.is_open(),
        read: caller.as_ref().is_some_and(|caller| caller.may_read),
        write: caller.as_ref().is_some_and(Caller::may_end_any_session),
        user: caller.and_then(|caller| caller.subject).map(|subject| subject.to_string()),
    }))
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// Sets the cookie for a valid token.
async fn login(
    State(context): State<Context>,
    peer: axum::Extension<Peer>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    context.access.check_source(&headers)?;
    let Login { token } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("send {{\"token\": \"…\"}}: {error}")))?;
    context.access.of_token(Some(&token))?;
    let cookie = set_cookie(&token, is_secure(&context, *peer, &headers));
    answer(cookie)
}

async fn logout(
    State(context): State<Context>,
    peer: axum::Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    context.access.check_source(&headers)?;
    answer(clear_cookie(is_secure(&context, *peer, &headers)))
}

fn answer(cookie: Option<HeaderValue>) -> Result<Response, Problem> {
    let cookie =
        cookie.ok_or_else(|| Problem::bad_request("the token cannot be stored in a cookie"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Whether the browser used TLS, according to a trusted proxy.
fn is_secure(context: &Context, Peer(peer): Peer, headers: &HeaderMap) -> bool {
    const PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let trusted = &context.config.serve.trusted_proxies;
    let is_trusted = trusted.iter().any(|network| network.contains(peer.ip()));
    is_trusted && headers.get(PROTOCOL).is_some_and(|protocol| protocol == "https")
}
