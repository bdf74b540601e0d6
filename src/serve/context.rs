//! What every request has at hand.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use super::access::Access;
use super::intake::Intake;
use super::limits::Limits;
use crate::config::Config;
use crate::state::Shared;
use crate::telemetry::metrics::ServeMetrics;

/// What every request has at hand; cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

/// The parts of a [`Context`].
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Who may do what.
    pub access: Access,
    /// The state, to ask.
    pub state: Shared,
    /// Where events go.
    pub intake: Intake,
    /// How much a client may do.
    pub limits: Limits,
    /// What is counted and timed.
    pub metrics: ServeMetrics,
    /// Turns true when the process stops: what is open ends then.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Waits until the process stops.
    pub async fn stopped(&self) {
        // An error means that the sender is gone: stop then, too.
        let mut stop = self.stop.clone();
        let _gone = stop.wait_for(|stop| *stop).await;
    }
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
