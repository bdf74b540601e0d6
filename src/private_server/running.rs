//! The running servers, so that code that waits without result can tell that one of them died.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};

use super::tail;

/// A server's process; forgotten with its owner.
#[derive(Debug)]
pub(super) struct Running(Arc<Mutex<Child>>);

/// What is known of a server.
struct Known {
    child: Weak<Mutex<Child>>,
    started_by: ThreadId,
    port: u16,
    log: PathBuf,
}

static ALL: Mutex<Vec<Known>> = Mutex::new(Vec::new());

impl Running {
    pub(super) fn new(child: Child, port: u16, log: PathBuf) -> Self {
        let child = Arc::new(Mutex::new(child));
        let started_by = thread::current().id();
        lock(&ALL).push(Known { child: Arc::downgrade(&child), started_by, port, log });
        Self(child)
    }

    pub(super) fn pid(&self) -> u32 {
        lock(&self.0).id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        lock(&self.0).try_wait().ok().flatten()
    }

    /// Kills it, and waits until it is gone.
    pub(super) fn kill(self) {
        let mut child = lock(&self.0);
        // This fails only if the child has already ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The servers that this thread started and that ended although nobody stopped them: which, how, and the end of their
/// logs.
pub fn ended_of_this_thread() -> Vec<String> {
    let mut all = lock(&ALL);
    all.retain(|known| known.child.strong_count() > 0);
    let own = all.iter().filter(|known| known.started_by == thread::current().id());
    let ended = own.filter_map(|known| {
        let status = lock(&*known.child.upgrade()?).try_wait().ok()??;
        let Known { port, log, .. } = known;
        Some(format!("the server on port {port} ended ({status}); its last words:\n{}", tail(log)))
    });
    ended.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
