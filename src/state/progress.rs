//! How far a partition's events have been applied.

use super::Partition;
use super::ask::{AskError, ask};
use crate::entry::EntryId;
use crate::redis::reply;

/// The last entry of a partition that has had its effect, as have all before it; `None` if no worker has begun.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn cursor(partition: &mut Partition) -> Result<Option<EntryId>, AskError> {
    let cursor =
        ask(&mut partition.connection, &["HGET", &partition.keys.meta(), "cursor"]).await?;
    Ok(reply::entry_id(cursor))
}
