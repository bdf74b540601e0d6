//! Settings that count at once when a running process reads them again; all others count at its next start.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{Config, JanitorConfig, RateLimit};

/// Their names.
pub const LIVE: &[&str] = &[
    "batch",
    "horizon",
    "janitor-interval",
    "keep",
    "linger",
    "log",
    "max-rooms",
    "rate-limit",
    "standbys",
];

/// What they say now: the same for all who have a clone of it.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Tuned>>);

/// Their values, but for the log filter's, which the log itself has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// Most entries in a batch.
    pub batch: usize,
    /// Workers that watch each partition besides its owner.
    pub standbys: usize,
    /// How a janitor sweeps.
    pub janitor: JanitorConfig,
    /// How many events one client may send.
    pub rate_limit: Option<RateLimit>,
    /// How long the first event of an entry waits for more.
    pub linger: Duration,
    /// Rooms that one connection may be in at most.
    pub max_rooms: usize,
}

impl Live {
    pub(super) fn new(tuned: Tuned) -> Self {
        Self(Arc::new(RwLock::new(tuned)))
    }

    /// What they say now.
    pub fn get(&self) -> Tuned {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes them over from settings that were read again.
    pub fn follow(&self, config: &Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config.live.get();
    }
}
