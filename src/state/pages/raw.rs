//! Hashes as they are stored, field by field, for pages that show the content of Redis.

use super::scan::{Listing, PageError, Row, Source, page};
use super::{Cursor, Page};
use crate::key::Keys;
use crate::state::ask::{AskError, ask, number};
use crate::state::{Partition, State};

/// A hash of each partition.
struct Raw(fn(&Keys) -> String);

impl Listing for Raw {
    type Item = Row;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        (step == 0).then(|| Source::hash((self.0)(&partition.keys)))
    }

    async fn read(
        &self,
        _partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Row)>, AskError> {
        Ok(rows.into_iter().enumerate().collect())
    }
}

/// A page of fields and values as they are stored, unordered.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn raw(
    state: &mut State,
    key: fn(&Keys) -> String,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Row>, PageError> {
    page(state, &Raw(key), cursor, limit).await
}

/// How many there are in all partitions' hashes (`HLEN`) or sorted sets (`ZCARD`).
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn count(
    state: &mut State,
    command: &'static str,
    key: fn(&Keys) -> String,
) -> Result<u64, AskError> {
    let mut count = 0;
    for partition in &mut state.partitions {
        let key = key(&partition.keys);
        count += number(&ask(&mut partition.connection, &[command, &key]).await?).unwrap_or(0);
    }
    Ok(count)
}
