//! Where an event belongs: here, or to another partition by now.

use super::Decoder;
use crate::entry::EntryId;
use crate::event::{Kind, Reason, Rejection};
use crate::key::partition_of;

/// An earlier layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its number of partitions.
    pub partitions: u16,
    /// Entries added before this time are forwarded, later ones are not; epoch milliseconds.
    pub until_ms: u64,
    /// The last entry up to which that layout has forwarded what did not belong here under it.
    pub done: Option<EntryId>,
}

impl Former {
    /// A layout with this many partitions, of which nothing else is known.
    pub fn new(partitions: u16, until_ms: u64) -> Self {
        Self { partitions, until_ms, done: None }
    }
}

impl Decoder<'_> {
    /// Whether an earlier layout has forwarded the event.
    pub(super) fn is_on_its_way(&self, kind: &Kind<'_>) -> bool {
        let has_forwarded = |former: &Former| {
            former.done.is_some_and(|done| self.id <= done)
                && partition_of(kind.routing_id(), former.partitions) != self.partition
        };
        self.rules.moved_from.iter().any(has_forwarded)
    }

    /// Whether an event belongs to this partition, or did before.
    pub(super) fn belongs(&self, kind: &Kind<'_>) -> Result<bool, Rejection> {
        let id = kind.routing_id();
        let right = partition_of(id, self.rules.partitions);
        if right == self.partition {
            return Ok(true);
        }
        let belonged = |before: &Former| {
            // With one partition the stream had another name.
            before.partitions > 1
                && self.id.ms < before.until_ms
                && partition_of(id, before.partitions) == self.partition
        };
        if self.rules.moved_from.iter().any(belonged) {
            return Ok(false);
        }
        let detail = format!(
            "the event belongs in partition {right}, not {}; send it to the stream of {{p{right}}}",
            self.partition
        );
        Err(Rejection::new(Reason::WrongPartition, detail))
    }
}
