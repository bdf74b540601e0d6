//! How far a partition's events have had their effect.

use crate::entry::EntryId;
use crate::redis::reply;

use super::ask::{AskError, ask, number};
use super::status::read_group;
use super::{Partition, list};

/// How far the entries of a partition have had their effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that was delivered.
    delivered: EntryId,
    /// The first of those that are in hand.
    pending: Option<EntryId>,
}

impl Progress {
    /// Whether this entry has had its effect.
    pub fn has(&self, id: EntryId) -> bool {
        id <= self.delivered && self.pending.is_none_or(|pending| id < pending)
    }
}

/// How far the entries of a partition have had their effect; `None` while nobody has read any.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn progress(
    partition: &mut Partition,
    stream: &str,
    group: &str,
) -> Result<Option<Progress>, AskError> {
    let key = partition.keys.named(stream);
    let connection = &mut partition.connection;
    let groups = match ask(connection, &["XINFO", "GROUPS", &key]).await {
        Ok(groups) => groups,
        // There is no stream yet.
        Err(AskError::Server(error)) if error.is_no_such_key() => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(info) = read_group(groups, group) else { return Ok(None) };
    let Some(delivered) = info.id("last-delivered-id") else { return Ok(None) };
    // Asked for after the position: what was delivered up to it is pending now, or has had its effect.
    let summary = list(ask(connection, &["XPENDING", &key, group]).await?);
    let count = summary.first().and_then(number).unwrap_or(0);
    let first = summary.get(1).cloned().and_then(reply::entry_id);
    Ok(Some(Progress { delivered, pending: first.filter(|_| count > 0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_had_its_effect_once_nothing_up_to_it_is_in_hand() {
        let id = |ms| EntryId { ms, seq: 0 };
        let idle = Progress { delivered: id(5), pending: None };
        assert!(idle.has(id(5)) && !idle.has(id(6)));
        let busy = Progress { delivered: id(9), pending: Some(id(6)) };
        assert!(busy.has(id(5)) && !busy.has(id(6)) && !busy.has(id(8)));
    }
}
