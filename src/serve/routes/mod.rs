//! The routes: one file per family, and here what they share.

mod about;
mod body;
mod dead;
mod events;
mod list;
mod page;
mod parameters;
mod sessions;
mod source;
mod state;
mod stored;

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

pub(super) use self::sessions::may_end as may_end_session;
use super::context::Context;
use super::live;
use super::problem::Problem;
use crate::telemetry::trace;
use crate::traceparent;

/// How long browsers may cache what other origins are allowed.
const CORS_AGE: Duration = Duration::from_secs(3600);

/// All routes, with their common layers.
pub(super) fn router(context: &Context) -> Router {
    let routes = Router::new()
        .merge(about::router())
        .merge(page::router())
        .merge(source::router())
        .merge(stored::router())
        .merge(state::router())
        .merge(sessions::router())
        .merge(events::router())
        .merge(dead::router())
        .merge(live::router(context))
        .method_not_allowed_fallback(async || method_not_allowed())
        .fallback(async || Problem::not_found("there is nothing here; see /api/v1/openapi.json"))
        .layer(from_fn_with_state(context.clone(), observe));
    let origins = &context.config.serve.cors_origins;
    let routes = if origins.is_empty() { routes } else { routes.layer(cors(origins)) };
    routes.with_state(context.clone())
}

fn method_not_allowed() -> Problem {
    let detail = "this route does not have that method; the header Allow lists those it has";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// Counts and times an answer, and sets headers that keep browsers from misinterpreting it.
async fn observe(State(context): State<Context>, request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'")),
    ];
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let span = trace::request(request.method().as_str(), route.unwrap_or("other"), || {
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        traceparent::read(header("traceparent"), header("tracestate"))
    });
    let answer = span.answered(next.run(request), |response| response.status().as_u16());
    let mut response = answer.await;
    context.metrics.answered(route, response.status().as_u16(), begun.elapsed());
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    // State is only valid at the moment of the answer.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// What pages of other origins may do, if the settings name some.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| origin.parse().ok());
    let trace = ["traceparent", "tracestate", "last-event-id"].map(HeaderName::from_static);
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE].into_iter().chain(trace);
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(headers.collect::<Vec<_>>())
        .expose_headers([header::RETRY_AFTER])
        .max_age(CORS_AGE)
}
