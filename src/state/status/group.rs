//! The stream, and its workers.

use redis::Value;
use serde::Serialize;

use crate::config::Deployment;
use crate::entry::EntryId;
use crate::redis::reply;
use crate::state::Link;
use crate::state::ask::{AskError, ask, number};
use crate::state::{Partition, clock_went_back, list};

/// The stream of events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// Its key.
    pub key: String,
    /// Entries in it, including finished ones.
    pub entries: u64,
    /// Entries ever added, including removed ones.
    pub entries_added: u64,
    /// Age of its first entry, in seconds. Negative, like all ages, if the id is ahead of the server's clock.
    pub first_entry_age_s: Option<f64>,
    /// The last id that the server assigned.
    pub last_id: String,
    /// What limits trimming: the oldest entry that any group has not finished.
    pub held: Option<Held>,
    /// The backlog of the group; `None` if there is no group yet.
    pub group: Option<Backlog>,
}

/// An entry that a group has not finished.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The group.
    pub group: String,
    /// The entry.
    pub id: String,
    /// Its age, in seconds.
    pub age_s: f64,
}

/// The backlog of the workers, and who they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backlog {
    /// The last entry that has had its effect; `None` before the first worker.
    pub cursor: Option<String>,
    /// Entries behind the cursor; `None` if the server does not know.
    pub undelivered: Option<u64>,
    /// Whether that number is exact. After entries were deleted, or trimmed before they were read, the server's count
    /// may be wrong.
    pub undelivered_is_exact: bool,
    /// Age of the oldest of them, in seconds; correct even if the count is not.
    pub oldest_undelivered_age_s: Option<f64>,
    /// The worker that owns the partition; `None` if nobody does.
    pub owner: Option<String>,
    /// How many times the partition was taken.
    pub term: u64,
    /// Workers that reported recently, by name, including the owner.
    pub workers: Vec<String>,
}

/// The named members of an `XINFO` reply.
#[derive(Default)]
pub(in crate::state) struct Info(Vec<(String, Value)>);

impl Info {
    pub(super) fn read(value: Value) -> Option<Self> {
        let pairs = reply::pairs(value)?.into_iter();
        Some(Self(pairs.filter_map(|(name, value)| Some((reply::text(name)?, value))).collect()))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(number)
    }

    fn name(&self) -> String {
        self.get("name").cloned().and_then(reply::text).unwrap_or_default()
    }

    pub(in crate::state) fn id(&self, name: &str) -> Option<EntryId> {
        self.get(name).cloned().and_then(reply::entry_id)
    }
}

pub(super) async fn stream(
    partition: &mut Partition,
    deployment: &Deployment,
    now_ms: u64,
) -> Result<Option<Stream>, AskError> {
    let key = partition.keys.named(&deployment.stream);
    let connection = &mut partition.connection;
    // This also refuses a key of another type, for which `XINFO` gives no clear error.
    let entries = number(&ask(connection, &["XLEN", &key]).await?).unwrap_or(0);
    if number(&ask(connection, &["EXISTS", &key]).await?) == Some(0) {
        return Ok(None);
    }
    let groups = list(ask(connection, &["XINFO", "GROUPS", &key]).await?);
    let groups: Vec<Info> = groups.into_iter().filter_map(Info::read).collect();
    let stream = Info::read(ask(connection, &["XINFO", "STREAM", &key]).await?);
    let stream = stream.unwrap_or_default();
    let owned = Owned::read(
        ask(connection, &["HMGET", &partition.keys.meta(), "owner", "term", "cursor"]).await?,
    );
    let cursor = owned.cursor.map(|cursor| (deployment.group.as_str(), cursor));
    let held = held(connection, &key, &groups, cursor, now_ms).await?;
    let group = match groups.iter().find(|info| info.name() == deployment.group) {
        Some(group) => {
            let position = owned.cursor.or(group.id("last-delivered-id"));
            let next = match position {
                Some(position) => next_after(connection, &key, position).await?,
                None => None,
            };
            let workers = ask(connection, &["HKEYS", &partition.keys.workers()]).await?;
            let mut workers: Vec<String> =
                list(workers).into_iter().filter_map(reply::text).collect();
            workers.sort_unstable();
            Some(Backlog { workers, ..Backlog::of(group, owned, next, &stream, now_ms) })
        }
        None => None,
    };
    let first_entry_age_s =
        stream.get("first-entry").and_then(entry_id).map(|id| age_s(id, now_ms));
    let last_id = stream.get("last-generated-id").cloned().and_then(reply::text);
    let last_id = last_id.unwrap_or_default();
    let entries_added = stream.number("entries-added").unwrap_or(entries);
    Ok(Some(Stream { key, entries, entries_added, first_entry_age_s, last_id, held, group }))
}

/// The oldest of the groups' first unfinished entries: pending, or not delivered yet.
async fn held(
    connection: &mut Link,
    key: &str,
    groups: &[Info],
    own: Option<(&str, EntryId)>,
    now_ms: u64,
) -> Result<Option<Held>, AskError> {
    let mut oldest: Option<(EntryId, String)> = None;
    for info in groups {
        let name = info.name();
        let cursor = own.filter(|(group, _)| *group == name).map(|(_, cursor)| cursor);
        let unfinished = if let Some(cursor) = cursor {
            next_after(connection, key, cursor).await?
        } else if info.number("pending").unwrap_or(0) > 0 {
            let summary = list(ask(connection, &["XPENDING", key, &name]).await?);
            summary.get(1).cloned().and_then(reply::entry_id)
        } else {
            match info.id("last-delivered-id") {
                Some(delivered) => next_after(connection, key, delivered).await?,
                None => None,
            }
        };
        if let Some(id) =
            unfinished.filter(|id| oldest.as_ref().is_none_or(|(least, _)| id < least))
        {
            oldest = Some((id, name));
        }
    }
    Ok(oldest.map(|(id, group)| Held { group, id: id.to_string(), age_s: age_s(id, now_ms) }))
}

/// The age of an entry; negative if its id is ahead of the clock by more than a look takes.
fn age_s(id: EntryId, now_ms: u64) -> f64 {
    match clock_went_back(id.ms, now_ms) {
        Some(ahead_ms) => -(ahead_ms as f64 / 1000.0),
        None => now_ms.saturating_sub(id.ms) as f64 / 1000.0,
    }
}

/// The figures of one group in `XINFO GROUPS`.
pub(in crate::state) fn read_group(groups: Value, name: &str) -> Option<Info> {
    list(groups).into_iter().filter_map(Info::read).find(|info| info.name() == name)
}

/// The partition's owner, from `rollcall:meta`.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    pub(super) owner: Option<String>,
    pub(super) term: u64,
    pub(super) cursor: Option<EntryId>,
}

impl Owned {
    /// From `HMGET` of owner, term and cursor.
    pub(super) fn read(value: Value) -> Self {
        let mut values = list(value).into_iter();
        let mut next = || values.next().unwrap_or(Value::Nil);
        Self {
            owner: reply::text(next()).filter(|owner| !owner.is_empty()),
            term: number(&next()).unwrap_or(0),
            cursor: reply::entry_id(next()),
        }
    }
}

impl Backlog {
    /// Computed from `XINFO GROUPS` and `XINFO STREAM`, the owner, and the first entry after the cursor; without
    /// workers.
    pub(super) fn of(
        group: &Info,
        owned: Owned,
        next: Option<EntryId>,
        stream: &Info,
        now_ms: u64,
    ) -> Self {
        let Owned { owner, term, cursor } = owned;
        let published = group.id("last-delivered-id");
        let position = Position {
            delivered: cursor.or(published).unwrap_or(EntryId { ms: 0, seq: 0 }),
            next,
            // If somebody else moved the group, its lag is not about the cursor.
            lag: group.number("lag").filter(|_| cursor.is_none() || cursor == published),
            entries: stream.number("length").unwrap_or(0),
            first: stream.get("first-entry").and_then(entry_id),
            deleted: stream.id("max-deleted-entry-id"),
        };
        let (undelivered, undelivered_is_exact) = position.undelivered();
        Self {
            cursor: cursor.map(|id| id.to_string()),
            undelivered,
            undelivered_is_exact,
            oldest_undelivered_age_s: next.map(|id| age_s(id, now_ms)),
            owner,
            term,
            workers: Vec::new(),
        }
    }
}

/// The id of the entry after this one.
async fn next_after(
    connection: &mut Link,
    key: &str,
    id: EntryId,
) -> Result<Option<EntryId>, AskError> {
    if id == EntryId::GREATEST {
        return Ok(None);
    }
    let after = format!("({id}");
    let range = list(ask(connection, &["XRANGE", key, &after, "+", "COUNT", "1"]).await?);
    Ok(range.first().and_then(entry_id))
}

pub(super) fn entry_id(entry: &Value) -> Option<EntryId> {
    match entry {
        Value::Array(parts) => parts.first().cloned().and_then(reply::entry_id),
        _ => None,
    }
}

/// The position of a group in its stream.
struct Position {
    /// The last id that was delivered.
    delivered: EntryId,
    /// The first entry after it.
    next: Option<EntryId>,
    /// The server's own figure for the number of entries after it.
    lag: Option<u64>,
    /// Entries in the stream.
    entries: u64,
    /// The first of them.
    first: Option<EntryId>,
    /// The greatest id that was ever deleted.
    deleted: Option<EntryId>,
}

impl Position {
    /// How many entries are not delivered, and whether that is certain.
    fn undelivered(&self) -> (Option<u64>, bool) {
        if self.next.is_none() {
            return (Some(0), true);
        }
        // None of the delivered entries is left, so all entries come after them.
        if self.first.is_some_and(|first| first > self.delivered) {
            return (Some(self.entries), true);
        }
        let deleted_ahead = self.deleted.is_some_and(|deleted| deleted > self.delivered);
        match self.lag {
            Some(lag) => (Some(lag), (1..self.entries).contains(&lag) && !deleted_ahead),
            None => (None, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    #[test]
    fn a_lag_is_believed_only_where_it_can_be_true() {
        // Ten entries, 1 to 10, the first four delivered.
        let position = || Position {
            delivered: id(4),
            next: Some(id(5)),
            lag: Some(6),
            entries: 10,
            first: Some(id(1)),
            deleted: None,
        };
        assert_eq!(position().undelivered(), (Some(6), true));
        assert_eq!(Position { next: None, ..position() }.undelivered(), (Some(0), true));
        let trimmed = Position { first: Some(id(8)), entries: 3, ..position() };
        assert_eq!(trimmed.undelivered(), (Some(3), true), "trimmed past what was read");
        let deleted = Position { deleted: Some(id(7)), ..position() };
        assert_eq!(deleted.undelivered(), (Some(6), false), "deleted ahead");
        assert_eq!(Position { deleted: Some(id(2)), ..position() }.undelivered(), (Some(6), true));
        assert_eq!(Position { lag: Some(60), ..position() }.undelivered(), (Some(60), false));
        assert_eq!(Position { lag: None, ..position() }.undelivered(), (None, false));
    }
}
