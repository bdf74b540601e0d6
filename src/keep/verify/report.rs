//! The results of a comparison, as programs and people see them.

use serde::Serialize;

use super::finding::Finding;
use crate::state::dead::Bytes;

/// The maximum length of a value that is shown whole.
const LONGEST: usize = 4096;

/// The results of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Members that were compared.
    pub checked: u64,
    /// The differences between the live state and the entries.
    pub differences: Vec<Difference>,
    /// Differences that were too many to be kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlisted: u64,
    /// Members from entries that are no longer in the stream.
    pub older: u64,
    /// Entries that were replayed.
    pub entries: u64,
}

impl Report {
    /// The number of differences.
    pub fn count(&self) -> u64 {
        self.differences.len() as u64 + self.unlisted
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The partition.
    pub partition: u16,
    /// Which structure it is in.
    pub structure: &'static str,
    /// The key.
    pub key: String,
    /// The member or field; `None` if it is the key itself.
    pub member: Option<String>,
    /// The live value; `None` if there is none.
    pub live: Option<Bytes>,
    /// The value that should be there.
    pub expected: Option<Bytes>,
    /// The entry that should have won; `None` if no entry in the stream says anything about it.
    pub entry: Option<String>,
}

impl Difference {
    pub(super) fn new(partition: u16, finding: Finding) -> Self {
        let shown = |mut bytes: Vec<u8>| {
            if bytes.len() > LONGEST {
                let end = (0..=LONGEST).rev().find(|at| bytes[*at] & 0xC0 != 0x80);
                bytes.truncate(end.unwrap_or(LONGEST));
                bytes.extend("…".as_bytes());
            }
            Bytes(bytes)
        };
        let entry = finding.entry().map(|id| id.to_string());
        Self {
            partition,
            structure: finding.place.structure.name(),
            key: finding.place.key,
            member: finding.place.member,
            live: finding.live.map(|stored| shown(stored.shown)),
            expected: finding.said.map(|stored| shown(stored.shown)),
            entry,
        }
    }
}

/// The progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The current partition.
    pub partition: u16,
    /// Entries that were replayed.
    pub entries: u64,
    /// Members that were compared.
    pub checked: u64,
    /// Differences so far, before they are checked.
    pub differing: u64,
    /// Differences that were repaired.
    pub mended: u64,
}
