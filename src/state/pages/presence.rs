//! Presence entries.

use super::scan::{Listing, PageError, Row, Source, page};
use super::{Cursor, Page};
use crate::state::ask::AskError;
use crate::state::users::Present;
use crate::state::{Partition, State};

/// Presence entries that have not expired.
struct Presence {
    since_ms: u64,
}

impl Listing for Presence {
    type Item = Present;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        (step == 0).then(|| Source::hash(partition.keys.presence()))
    }

    async fn read(
        &self,
        _partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Present)>, AskError> {
        let present = rows.iter().map(|(_, json)| Present::read(json)).enumerate();
        let read = present.filter_map(|(row, present)| Some((row, present?)));
        Ok(read.filter(|(_, present)| present.last_seen_ms > self.since_ms).collect())
    }
}

/// A page of the presence entries, unordered.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn presence(
    state: &mut State,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Present>, PageError> {
    let since_ms = state.now_ms.saturating_sub(state.deployment.presence_ttl_ms);
    page(state, &Presence { since_ms }, cursor, limit).await
}
