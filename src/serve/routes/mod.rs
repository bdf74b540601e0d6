//! The routes: a file per family.

use axum::Router;

use super::context::Context;
use super::live;
use super::problem::Problem;

/// All routes, with what holds for all of them.
pub(super) fn router(context: &Context) -> Router {
    Router::new()
        .merge(live::router(context))
        .fallback(async || Problem::not_found("there is nothing here; see /api/v1/openapi.json"))
        .with_state(context.clone())
}
