//! The live feed: server-sent events and Socket.IO.

mod activity;
mod events;
mod query;
mod resume;
mod rooms;
mod seen;
mod socket;
mod sse;
mod tell;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::sync::{OnceCell, Semaphore};

use self::rooms::Rooms;
use super::Context;
use crate::changes::{Hub, Snapshots};
use crate::telemetry::metrics::LiveMetrics;

/// How many listeners may read from the stream at once to catch up.
const CATCHING_UP: usize = 16;

/// What all listeners share; cheap to clone.
#[derive(Clone)]
struct Live(Arc<Parts>);

struct Parts {
    hub: Hub,
    snapshots: Snapshots,
    catching_up: Semaphore,
    metrics: LiveMetrics,
    rooms: Rooms,
    context: Context,
    /// Initialised once rooms receive changes.
    telling: OnceCell<()>,
}

/// Its routes.
pub fn router(context: &Context) -> Router<Context> {
    let metrics = LiveMetrics::registered();
    let live = Live(Arc::new(Parts {
        hub: Hub::new(&context.config, metrics.clone(), context.stop.clone()),
        snapshots: Snapshots::new(&context.state, metrics.clone()),
        catching_up: Semaphore::new(CATCHING_UP),
        metrics,
        rooms: Rooms::new(),
        context: context.clone(),
        telling: OnceCell::new(),
    }));
    let sockets = socket::router(context, &live);
    let events = Router::new()
        .route("/api/v1/changes", get(events::changes))
        .route("/api/v1/activity", get(seen::activity));
    events.layer(Extension(live)).merge(sockets)
}

impl Live {
    /// Waits until rooms receive changes; the first caller starts that.
    async fn telling(&self) {
        let begin = async || {
            let listener = self.hub.listen().await;
            let (context, rooms) = (self.context.clone(), self.rooms.clone());
            let along = activity::follow(context.clone(), rooms.clone(), self.metrics.clone());
            let (telling, until) =
                (tell::tell(context, self.hub.clone(), rooms, listener), self.context.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = telling => {}
                    () = along => {}
                    () = until.stopped() => {}
                }
            });
        };
        self.telling.get_or_init(begin).await;
    }
}

impl std::ops::Deref for Live {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
