//! The results for dead letters as programs receive them, by command and over HTTP. The names must not change.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::{Deed, Order, Tally};

/// The results for letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The counts.
    pub tally: Tally,
    /// Whether they were to be retried.
    pub retries: bool,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl Report {
    /// The report of an order so far.
    pub fn of(order: &Order, tally: &Tally) -> Self {
        let retries = matches!(order.deed, Deed::Retry { .. });
        Self { tally: tally.clone(), retries, dry_run: order.dry_run }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Tally { matched, done, gone, left, fails, .. } = &self.tally;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("dry_run", &self.dry_run)?;
        map.serialize_entry("matched", matched)?;
        let done = if self.dry_run { 0 } else { *done };
        map.serialize_entry(if self.retries { "retried" } else { "dropped" }, &done)?;
        map.serialize_entry("gone", gone)?;
        if self.retries {
            map.serialize_entry("left", left)?;
            map.serialize_entry("fail_again", fails)?;
        }
        map.end()
    }
}
