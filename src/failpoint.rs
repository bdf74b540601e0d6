//! Points at which a test makes the process die as if by SIGKILL, with no cleanup and no goodbye, or stand still.
//!
//! `ROLLCALL_TEST_FAILPOINT=<name>:<n>` aborts at the n-th pass, `<name>:<n>:stop` stops there until SIGCONT, and
//! `ROLLCALL_TEST_KILLER=<text>` aborts on looking into an entry with a value that holds this text. Release builds have
//! none of it.

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
    /// The reply has come; nothing was done with it yet.
    AfterReply,
    /// A janitor got the reply to a sweep call; the round is not over.
    MidSweep,
    /// A notifier sent a call; whether it arrived is unknown.
    MidNotify,
    /// A webhook accepted a call, and the step that records this was sent.
    MidCall,
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
            Self::MidNotify => "mid-notify",
            Self::MidCall => "mid-call",
        }
    }

    /// What is to happen at this pass, if anything.
    fn due(self) -> Option<Deed> {
        static ARMED: OnceLock<Option<(String, u64, Deed)>> = OnceLock::new();
        static PASSES: AtomicU64 = AtomicU64::new(0);
        if !cfg!(debug_assertions) {
            return None;
        }
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("ROLLCALL_TEST_FAILPOINT").ok()?;
            let (name, pass) = text.split_once(':')?;
            let (pass, deed) = match pass.strip_suffix(":stop") {
                Some(pass) => (pass, Deed::Stop),
                None => (pass, Deed::Die),
            };
            Some((name.to_owned(), pass.parse().ok()?, deed))
        });
        let (name, pass, deed) = armed.as_ref()?;
        let is_due = name == self.name() && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass;
        is_due.then_some(*deed)
    }

    /// Dies or stops here if it is due.
    pub fn pass(self) {
        if let Some(deed) = self.due() {
            deed.happen();
        }
    }

    /// Makes a call to the server; dies or stops, if it is due, once that is sent and before its reply.
    pub async fn send<T>(self, call: impl Future<Output = T>) -> T {
        let Some(deed) = self.due() else { return call.await };
        let mut call = std::pin::pin!(call);
        // Long enough to send, with luck too short for the reply.
        let reply = tokio::time::timeout(Duration::from_millis(1), &mut call).await;
        deed.happen();
        match reply {
            Ok(reply) => reply,
            Err(_) => call.await,
        }
    }
}

/// What happens at a point.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Die,
    Stop,
}

impl Deed {
    fn happen(self) {
        match self {
            Self::Die => std::process::abort(),
            Self::Stop => {
                let id = std::process::id().to_string();
                let _stopped = std::process::Command::new("kill").args(["-STOP", &id]).status();
                // Any thread may take the signal and then stop the others; this one must not go on until then.
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
}

/// Aborts if this is the entry that kills the process.
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
