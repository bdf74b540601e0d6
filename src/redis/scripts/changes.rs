//! Changes as the scripts report them: how many of each kind a call recorded.

use redis::Value;

use crate::change::ChangeKind;
use crate::redis::reply;

/// How many changes of each kind were recorded, and how many old ones the cap dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    recorded: [u64; ChangeKind::ALL.len()],
    /// Old changes dropped.
    pub dropped: u64,
}

impl Changes {
    /// Reads `[kind, count, …]`; `None` for anything else.
    pub fn read(kinds: &Value, dropped: u64) -> Option<Self> {
        let mut changes = Self { dropped, ..Self::default() };
        for [kind, count] in reply::pairs_of(kinds)? {
            let kind = reply::text_of(kind)?;
            let place = ChangeKind::ALL.iter().position(|known| known.name() == kind)?;
            changes.recorded[place] = reply::number(count)?;
        }
        Some(changes)
    }

    /// How many were recorded, by kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ChangeKind::ALL.iter().map(|kind| kind.name()).zip(self.recorded)
    }

    /// How many were recorded in total.
    pub fn total(&self) -> u64 {
        self.recorded.iter().sum()
    }
}
