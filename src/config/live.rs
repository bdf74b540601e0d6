//! The settings that take effect at once when a running process reloads them; all others take effect at its next
//! start.

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

/// Their current values, shared by all clones.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Tuned>>);

/// Their values, except for the log filter, which the log itself keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// Most entries in a batch.
    pub batch: usize,
    /// Workers that watch each partition, besides its owner.
    pub standbys: usize,
    /// How a janitor sweeps.
    pub janitor: JanitorConfig,
    /// How many events one client may send.
    pub rate_limit: Option<RateLimit>,
    /// How long the first event of an entry waits for more.
    pub linger: Duration,
    /// How many rooms one connection may join.
    pub max_rooms: usize,
}

impl Live {
    pub(super) fn new(tuned: Tuned) -> Self {
        Self(Arc::new(RwLock::new(tuned)))
    }

    /// The current values.
    pub fn get(&self) -> Tuned {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the values of reloaded settings.
    pub fn follow(&self, config: &Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config.live.get();
    }
}
