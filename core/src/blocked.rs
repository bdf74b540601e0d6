//! Users whose events are refused for a while, known by digests and never by name.
//!
//! Entry ids decide until when, so whether an event is refused is a function of its entry, whoever applies it and
//! when.

use std::collections::HashMap;

/// A digest of a user.
pub type Digest = [u8; 32];

/// The users whose events are refused.
#[derive(Clone, Debug)]
pub struct Blocked {
    until: HashMap<Digest, u64>,
    digest: fn(&str) -> Digest,
}

impl Blocked {
    /// The users with these digests, each for entries up to and including this millisecond.
    pub fn new(users: impl IntoIterator<Item = (Digest, u64)>, digest: fn(&str) -> Digest) -> Self {
        Self { until: users.into_iter().collect(), digest }
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// Whether an event of this user in an entry of this millisecond is refused.
    pub fn refuses(&self, user: &str, entry_ms: u64) -> bool {
        self.until.get(&(self.digest)(user)).is_some_and(|until| entry_ms <= *until)
    }
}
