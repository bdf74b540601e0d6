//! What a look at a partition and its owner sees, and the result of taking it.

use redis::Value;

use crate::entry::EntryId;
use crate::redis::reply;

/// The beginning of a fence whose owner holds a subscription that shows whether its process is alive.
const SIGNED: &str = "s";
/// The beginning of a fence whose owner holds none.
const UNSIGNED: &str = "u";

/// The tenure of a worker that owns a partition. Calls under another tenure are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Random; changes with the stream and with the deployment's settings.
    pub epoch: String,
    /// The worker.
    pub owner: String,
    /// How many times the partition was taken.
    pub term: String,
    /// Random; changes with each session of the owner.
    pub fence: String,
}

/// A new fence; `signed` if the owner holds its subscription.
pub fn fence(signed: bool) -> String {
    format!("{}{:016x}", if signed { SIGNED } else { UNSIGNED }, fastrand::u64(..))
}

/// What a look at a partition saw; missing values are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The epoch.
    pub epoch: String,
    /// The worker that owns it.
    pub owner: String,
    /// How many times it was taken.
    pub term: String,
    /// The last entry that has had its effect.
    pub cursor: String,
    /// Grows while the owner is alive.
    pub beat: String,
    /// The fence of the owner's session.
    pub fence: String,
    /// The worker for which the last owner gave it up.
    pub heir: String,
}

impl Seen {
    pub(super) fn read(values: &[Value]) -> Self {
        let mut texts = values.iter().map(|value| reply::text_of(value).unwrap_or_default());
        let mut next = || texts.next().unwrap_or_default();
        Self {
            epoch: next(),
            owner: next(),
            term: next(),
            cursor: next(),
            beat: next(),
            fence: next(),
            heir: next(),
        }
    }

    /// Whether the owner's subscription shows whether its process is alive.
    pub fn is_signed(&self) -> bool {
        self.fence.starts_with(SIGNED)
    }
}

/// Why a partition is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nobody owned it, or it was given up.
    Free,
    /// Its owner takes it again after a failure.
    Again,
    /// Its owner showed no progress.
    Stall,
    /// Its owner's process is gone.
    Death,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Free, Self::Again, Self::Stall, Self::Death];

    /// Its name, the label of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Again => "again",
            Self::Stall => "stall",
            Self::Death => "death",
        }
    }
}

/// The result of taking a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The tenure of calls from now on.
    pub tenure: Tenure,
    /// The last entry that has had its effect.
    pub cursor: EntryId,
    /// Owners that died on the entry after it.
    pub deaths: u64,
    /// Where the group was created, if there was none.
    pub created_at: Option<String>,
    /// Whether the stream is another one than the cursor belonged to.
    pub is_other_stream: bool,
}

/// The result of a beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The partition is still ours.
    Kept {
        /// The worker that asks for it.
        asked_by: Option<String>,
        /// What strangers did to the group since the last beat.
        interferences: u64,
    },
    /// The stream is another one than the cursor belongs to: take the partition again.
    OtherStream,
}
