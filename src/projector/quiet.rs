//! Quiet: while a partition tries an entry that may kill the process, nothing else of the process looks into entries,
//! so that the right one is blamed.

use std::sync::Arc;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Shared by all partitions of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet(Arc<RwLock<()>>);

impl Quiet {
    /// What has to be held for reading by who looks into entries.
    pub(super) fn gate(&self) -> &RwLock<()> {
        &self.0
    }

    /// Waits until no suspect is being tried; looking into entries is fine as long as this is held.
    pub(super) async fn work(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Waits until nobody looks into entries, and keeps it so as long as this is held.
    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}
