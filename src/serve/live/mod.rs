//! The live feed: server-sent events and Socket.IO.

mod events;
mod query;
mod resume;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use super::Context;
use crate::changes::{Hub, Snapshots};
use crate::telemetry::metrics::LiveMetrics;

/// Listeners that may read from the stream at once until they have caught up.
const CATCHING_UP: usize = 16;

/// What all listeners share; cheap to clone.
#[derive(Clone)]
struct Live(Arc<Parts>);

struct Parts {
    hub: Hub,
    snapshots: Snapshots,
    catching_up: Semaphore,
    metrics: LiveMetrics,
}

/// Its routes.
pub fn router(context: &Context) -> Router<Context> {
    let metrics = LiveMetrics::registered();
    let live = Live(Arc::new(Parts {
        hub: Hub::new(&context.config, metrics.clone(), context.stop.clone()),
        snapshots: Snapshots::new(&context.state, metrics.clone()),
        catching_up: Semaphore::new(CATCHING_UP),
        metrics,
    }));
    Router::new().route("/api/v1/changes", get(events::changes)).layer(Extension(live))
}

impl std::ops::Deref for Live {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
