//! Waiting until events have had their effect: one look at a partition serves all requests that wait for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::entry::EntryId;
use crate::state::{Shared, cursor};

/// Pause between two looks while somebody waits.
const LOOK: Duration = Duration::from_millis(5);
/// Pause after a look that failed.
const FAILED: Duration = Duration::from_millis(100);

/// The progress of one partition, while somebody needs it.
pub(super) struct Applied {
    partition: u16,
    state: Shared,
    waiting: AtomicUsize,
    wanted: Notify,
    progress: watch::Sender<Option<EntryId>>,
}

impl Applied {
    pub(super) fn new(partition: u16, state: Shared) -> Self {
        let (progress, _) = watch::channel(None);
        Self { partition, state, waiting: AtomicUsize::new(0), wanted: Notify::new(), progress }
    }

    /// Looks while somebody waits, until `stop` turns true.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let looking = async {
            loop {
                if self.waiting.load(Ordering::Acquire) == 0 {
                    self.wanted.notified().await;
                }
                let pause = if self.look().await { LOOK } else { FAILED };
                sleep(pause).await;
            }
        };
        tokio::select! {
            never = looking => never,
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn look(&self) -> bool {
        let Ok(mut state) = self.state.get() else { return false };
        let Some(partition) = state.partitions.get_mut(usize::from(self.partition)) else {
            return false;
        };
        let found = cursor(partition).await;
        if found.is_err() {
            self.state.doubt();
        }
        let is_known = found.is_ok();
        self.progress.send_replace(found.ok().flatten());
        is_known
    }

    /// Waits until an entry has had its effect; `false` if it has not by `deadline`.
    pub(super) async fn wait(&self, id: EntryId, deadline: Instant) -> bool {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _leaves = Leaves(self);
        self.wanted.notify_one();
        let mut progress = self.progress.subscribe();
        let has = progress.wait_for(|progress| progress.is_some_and(|cursor| cursor >= id));
        timeout_at(deadline, has).await.is_ok_and(|has| has.is_ok())
    }
}

/// Uncounts a waiting request when it is dropped.
struct Leaves<'a>(&'a Applied);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
