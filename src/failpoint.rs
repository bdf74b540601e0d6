//! Points at which a test makes the process die as if by SIGKILL: no cleanup, no goodbye.
//!
//! `ROLLCALL_TEST_FAILPOINT=<name>:<n>` aborts at the n-th pass. Release builds have none of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The points, in the order a batch passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// Entries were delivered, nothing was done yet.
    AfterRead,
    /// The plan is made, nothing was sent.
    AfterFold,
    /// The call was sent; whether it arrived is unknown.
    AfterSend,
    /// The reply came, nothing was done with it yet.
    AfterReply,
}

impl Failpoint {
    fn name(self) -> &'static str {
        match self {
            Self::AfterRead => "after-read",
            Self::AfterFold => "after-fold",
            Self::AfterSend => "after-send",
            Self::AfterReply => "after-reply",
        }
    }

    /// Whether this pass is the one to die at.
    pub fn is_due(self) -> bool {
        static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
        static PASSES: AtomicU64 = AtomicU64::new(0);
        if !cfg!(debug_assertions) {
            return false;
        }
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("ROLLCALL_TEST_FAILPOINT").ok()?;
            let (name, pass) = text.split_once(':')?;
            Some((name.to_owned(), pass.parse().ok()?))
        });
        match armed {
            Some((name, pass)) if name == self.name() => {
                PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass
            }
            _ => false,
        }
    }

    /// Dies here if it is due.
    pub fn pass(self) {
        if self.is_due() {
            std::process::abort();
        }
    }
}
