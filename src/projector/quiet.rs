//! Quiet: while a partition tries an entry that may kill the process, nothing else in the process decodes entries, so
//! that the right entry is blamed.

use std::sync::Arc;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Shared by all partitions of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet(Arc<RwLock<()>>);

impl Quiet {
    /// The lock to hold for reading while decoding entries.
    pub(super) fn gate(&self) -> &RwLock<()> {
        &self.0
    }

    /// Waits until no suspect is being tried. Entries may be decoded while the guard is held.
    pub(super) async fn work(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Waits until nobody decodes entries, and keeps it that way while the guard is held.
    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}
