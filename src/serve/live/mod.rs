//! The live feed: server-sent events and Socket.IO.

use axum::Router;

use super::Context;

/// Its routes.
pub fn router(_context: &Context) -> Router<Context> {
    Router::new()
}
