//! What there is, the OpenAPI document, and the cookie for the page.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::body::Body;
use crate::schema::OPENAPI;
use crate::serve::access::{clear_cookie, set_cookie};
use crate::serve::client::Peer;
use crate::serve::context::Context;
use crate::serve::problem::Problem;

/// What stands on `/`, for whoever opens the address in a browser.
const CONTENTS: &str = "\
rollcall serve

/api/v1/openapi.json      the API
/api/v1/changes           the live feed, as server-sent events
/socket.io/               the live feed, as Socket.IO
/online                   who was seen in the last minutes
";

/// The routes about the server itself.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/", get(async || CONTENTS))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/login", post(login))
        .route("/api/v1/logout", post(logout))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// Gives a browser the cookie for a token that holds.
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
    let cookie = cookie.ok_or_else(|| Problem::bad_request("the token cannot be a cookie"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Whether the browser came over TLS, as a trusted proxy says.
fn is_secure(context: &Context, Peer(peer): Peer, headers: &HeaderMap) -> bool {
    const PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let trusted = &context.config.serve.trusted_proxies;
    let is_trusted = trusted.iter().any(|network| network.contains(peer.ip()));
    is_trusted && headers.get(PROTOCOL).is_some_and(|protocol| protocol == "https")
}
