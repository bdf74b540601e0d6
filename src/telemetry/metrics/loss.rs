//! The causes of lost entries.

use metrics::counter;

use super::inventory::LOST;

/// How entries were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Trimmed or deleted from the stream.
    Deleted,
    /// The server went back in time.
    Rewound,
}

impl LossCause {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Deleted, Self::Rewound];

    /// The value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Rewound => "rewound",
        }
    }

    /// What happened, for people.
    pub fn story(self) -> &'static str {
        match self {
            Self::Deleted => "trimmed or deleted from the stream before they were applied",
            Self::Rewound => "the server came back, or was replaced, without its latest data",
        }
    }
}

/// Entries were lost.
pub fn entries_lost(cause: LossCause, count: u64) {
    counter!(LOST.name, "cause" => cause.label()).increment(count);
}
