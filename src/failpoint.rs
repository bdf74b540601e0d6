//! Points at which a test makes the process die as if by SIGKILL: no cleanup, no goodbye.
//!
//! `ROLLCALL_TEST_FAILPOINT=<name>:<n>` aborts at the n-th pass, `ROLLCALL_TEST_KILLER=<text>` on looking into an entry
//! with a value that holds this text. Release builds have none of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::entry::Entry;

/// The points: first those of a worker, in the order a batch passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// Entries were read, nothing was done yet.
    AfterRead,
    /// The next entry was named, it was not read yet.
    AfterNaming,
    /// The plan is made, nothing more.
    AfterFold,
    /// The plan is about to be sent.
    BeforeSend,
    /// The call was sent; whether it arrived is unknown.
    AfterSend,
    /// The reply came, nothing was done with it yet.
    AfterReply,
    /// A janitor's sweep call was answered, the round goes on.
    MidSweep,
}

impl Failpoint {
    fn name(self) -> &'static str {
        match self {
            Self::AfterRead => "after-read",
            Self::AfterNaming => "after-naming",
            Self::AfterFold => "after-fold",
            Self::BeforeSend => "before-send",
            Self::AfterSend => "after-send",
            Self::AfterReply => "after-reply",
            Self::MidSweep => "mid-sweep",
        }
    }

    /// Whether this pass is the one to die at.
    fn is_due(self) -> bool {
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

    /// Makes a call to the server; dies, if it is due, once that is sent and before its reply.
    pub async fn send<T>(self, call: impl Future<Output = T>) -> T {
        if self.is_due() {
            // Long enough to send, with luck too short for the reply.
            let _reply = tokio::time::timeout(Duration::from_millis(1), call).await;
            std::process::abort();
        }
        call.await
    }
}

/// Dies if this is an entry that kills whoever looks into it.
pub fn look_into(entry: &Entry) {
    static KILLER: OnceLock<Option<String>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(text) = KILLER.get_or_init(|| std::env::var("ROLLCALL_TEST_KILLER").ok()) else {
        return;
    };
    let kills = |value: &[u8]| value.windows(text.len()).any(|part| part == text.as_bytes());
    if entry.fields().any(|(_, value)| kills(value)) {
        std::process::abort();
    }
}
