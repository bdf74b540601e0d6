//! Snapshots for all listeners of a process: a few at the same time, each shared by many.
//!
//! A snapshot that needs a walk over the state is gathered once for all requests within some seconds; a filter
//! selects from it. Ten thousand listeners who reconnect at once thus do not cause ten thousand walks. What can be
//! looked up (users' presence, documents by name) is gathered for each request.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::filter::{Filter, Parts};
use super::snapshot::{Scope, Snapshot, SnapshotError};
use crate::state::Shared;
use crate::telemetry::metrics::LiveMetrics;

/// How many whole snapshots may be in memory.
const PLACES: usize = 3;
/// How many snapshots may be looked up at the same time.
const LOOKUPS: usize = 8;
/// How long one is shared with further requests.
const FRESH: Duration = Duration::from_secs(2);
/// How long one is kept in case it can still be used.
const KEPT: Duration = Duration::from_secs(10);
/// Attempts while changes outrun the gathering.
const ATTEMPTS: usize = 3;

/// The newest snapshot of some parts.
type Slot = Arc<AsyncMutex<Option<Arc<Snapshot>>>>;

/// The snapshots of a process; cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    state: Shared,
    metrics: LiveMetrics,
    places: Arc<Semaphore>,
    lookups: Semaphore,
    slots: Mutex<HashMap<Parts, Slot>>,
}

impl Snapshots {
    /// Snapshots of this state.
    pub fn new(state: &Shared, metrics: LiveMetrics) -> Self {
        Self(Arc::new(Inner {
            state: state.clone(),
            metrics,
            places: Arc::new(Semaphore::new(PLACES)),
            lookups: Semaphore::new(LOOKUPS),
            slots: Mutex::default(),
        }))
    }

    /// A snapshot that has what the filter wants, and perhaps more; gathered after `since`, if given. Gathering
    /// continues even if its first caller is gone, since others may want it.
    pub fn get(
        &self,
        filter: Arc<Filter>,
        since: Option<Instant>,
    ) -> JoinHandle<Result<Arc<Snapshot>, SnapshotError>> {
        let own = self.clone();
        tokio::spawn(async move {
            let parts = filter.parts();
            let is_looked_up = !(parts.sessions
                || (parts.presence && filter.users.is_empty())
                || (parts.documents && filter.docs.is_empty()));
            if is_looked_up { own.look_up(&filter).await } else { own.shared(parts, since).await }
        })
    }

    async fn look_up(&self, filter: &Filter) -> Result<Arc<Snapshot>, SnapshotError> {
        // The semaphore is never closed.
        let _place = self.0.lookups.acquire().await;
        self.take(filter.parts(), (&filter.users, &filter.docs), None).await
    }

    async fn shared(
        &self,
        parts: Parts,
        since: Option<Instant>,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let slot = {
            let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(parts).or_default())
        };
        let mut newest = slot.lock().await;
        let serves = |snapshot: &&Arc<Snapshot>| {
            let is_fresh = snapshot.started().elapsed() < FRESH;
            // If slow listeners occupy all places, an older one is used.
            let is_full = self.0.places.available_permits() == 0 && Arc::strong_count(snapshot) > 1;
            since.is_none_or(|since| snapshot.started() > since) && (is_fresh || is_full)
        };
        if let Some(snapshot) = newest.as_ref().filter(serves) {
            return Ok(Arc::clone(snapshot));
        }
        *newest = None;
        // The semaphore is never closed.
        let place = self.0.places.clone().acquire_owned().await.ok();
        let everybody = HashSet::new();
        let snapshot = self.take(parts, (&everybody, &everybody), place).await?;
        *newest = Some(Arc::clone(&snapshot));
        drop(newest);
        tokio::spawn(forget(slot, Arc::downgrade(&snapshot)));
        Ok(snapshot)
    }

    /// Gathers a snapshot of the named users and documents, or of all if none are named.
    async fn take(
        &self,
        parts: Parts,
        (users, docs): (&HashSet<String>, &HashSet<String>),
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Arc<Snapshot>, SnapshotError> {
        let (started, mut attempt) = (Instant::now(), 1);
        let taken = loop {
            let mut state = self.0.state.wait().await;
            let scope = Scope {
                parts,
                users: users.clone(),
                docs: docs.clone(),
                thresholds: state.deployment.thresholds.clone(),
                partitions: state.deployment.partitions,
                clock: state.session_clock(),
            };
            match Snapshot::take(&mut state.partitions, &scope).await {
                Err(SnapshotError::Outrun) if attempt < ATTEMPTS => attempt += 1,
                taken => break taken,
            }
        };
        if matches!(taken, Err(SnapshotError::Server(_))) {
            self.0.state.doubt();
        }
        self.0.metrics.snapshot_taken(started.elapsed(), taken.is_ok());
        taken.map(|snapshot| Arc::new(snapshot.in_place(place)))
    }
}

/// Removes a snapshot from its slot after a while, unless another one has replaced it. It does not keep the snapshot
/// alive, because its place is needed.
async fn forget(slot: Slot, snapshot: Weak<Snapshot>) {
    tokio::time::sleep(KEPT).await;
    let mut newest = slot.lock().await;
    if newest.as_ref().is_some_and(|newest| Arc::as_ptr(newest) == snapshot.as_ptr()) {
        *newest = None;
    }
}
