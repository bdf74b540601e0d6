//! What every request has access to.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use super::access::{Access, Caller};
use super::client::Client;
use super::intake::Intake;
use super::limits::Limits;
use super::problem::Problem;
use crate::config::Config;
use crate::seal::SessionKeys;
use crate::state::Shared;
use crate::telemetry::metrics::{FORBIDDEN, RATE_LIMITED, ServeMetrics};

/// What every request has access to; cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

/// The parts of a [`Context`].
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Who may do what.
    pub access: Access,
    /// The state, for queries.
    pub state: Shared,
    /// Where events go.
    pub intake: Intake,
    /// How much a client may do.
    pub limits: Limits,
    /// What decrypts session data, if there are keys.
    pub session_keys: Option<SessionKeys>,
    /// Counters and timers.
    pub metrics: ServeMetrics,
    /// Turns true when the process stops; open connections then end.
    pub stop: watch::Receiver<bool>,
}

impl Context {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Checks whether a caller may send events.
    ///
    /// # Errors
    /// If it may not. That counts as one refused event, because the request is not read.
    pub fn check_right(&self, caller: &Caller) -> Result<(), Problem> {
        caller.must_write().inspect_err(|_| self.metrics.events_refused(FORBIDDEN, 1))
    }

    /// Refuses to end sessions of another user than the caller's own. That counts as one event.
    pub fn not_its_own_session(&self) -> Problem {
        self.metrics.events_refused(FORBIDDEN, 1);
        Problem::forbidden("this token may end only its own user's sessions")
    }

    /// Checks whether a caller may send this many more events now.
    ///
    /// # Errors
    /// If those are too many; the error says when to try again.
    pub fn check_rate(
        &self,
        caller: &Caller,
        client: Client,
        events: usize,
    ) -> Result<(), Problem> {
        self.limits.take(caller, client, events).map_err(|after| {
            self.metrics.events_refused(RATE_LIMITED, events as u64);
            Problem::too_many(after)
        })
    }

    /// Waits until the process stops.
    pub async fn stopped(&self) {
        // If the sender is gone, also stop.
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
