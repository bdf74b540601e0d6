//! The stream and the group that reads it.

use std::collections::HashMap;

use redis::Value;
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use crate::config::Deployment;
use crate::entry::EntryId;
use crate::redis::reply;
use crate::state::ask::{AskError, ask, number, scored};
use crate::state::{Partition, clock_went_back, list};

/// Heartbeats that are read: more consumers than any fleet has.
const HEARTBEATS: &str = "9999";

/// The stream of events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// Its key.
    pub key: String,
    /// Entries in it, finished ones included.
    pub entries: u64,
    /// Entries ever added, removed ones included.
    pub entries_added: u64,
    /// Age of the first one that is there, in seconds. Below 0, like all ages: its id is ahead of the server's clock.
    pub first_entry_age_s: Option<f64>,
    /// The id that the server gave last.
    pub last_id: String,
    /// What the stream cannot be trimmed past: the oldest entry that any group has not finished.
    pub held: Option<Held>,
    /// What the group has yet to do; `None` if there is no group yet.
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

/// What a group has yet to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backlog {
    /// Entries delivered but not acknowledged.
    pub pending: u64,
    /// Age of the oldest of them, in seconds.
    pub oldest_pending_age_s: Option<f64>,
    /// Entries not delivered yet; `None` if the server does not know.
    pub undelivered: Option<u64>,
    /// Whether that number is exact: after entries were deleted, or trimmed before they were read, the
    /// server's count can be wrong.
    pub undelivered_is_exact: bool,
    /// Age of the oldest of them, in seconds: true whatever the count is.
    pub oldest_undelivered_age_s: Option<f64>,
    /// Who reads, those with the most pending first.
    pub consumers: Vec<Consumer>,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Entries delivered to it but not acknowledged.
    pub pending: u64,
    /// Time since it last read something, in milliseconds; waiting in vain does not count on Redis 7.0.
    pub idle_ms: u64,
    /// When it last said that it lives, epoch milliseconds.
    pub heartbeat_ms: Option<u64>,
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
    // Also refuses a key of another type, which `XINFO` cannot be asked about.
    let entries = number(&ask(connection, &["XLEN", &key]).await?).unwrap_or(0);
    if number(&ask(connection, &["EXISTS", &key]).await?) == Some(0) {
        return Ok(None);
    }
    let groups = list(ask(connection, &["XINFO", "GROUPS", &key]).await?);
    let groups: Vec<Info> = groups.into_iter().filter_map(Info::read).collect();
    let stream = Info::read(ask(connection, &["XINFO", "STREAM", &key]).await?);
    let stream = stream.unwrap_or_default();
    let held = held(connection, &key, &groups, now_ms).await?;
    let group = match groups.iter().find(|info| info.name() == deployment.group) {
        Some(group) => {
            let heartbeats = partition.keys.consumers();
            let info = (group, &stream);
            Some(backlog(connection, &key, &deployment.group, &heartbeats, info, now_ms).await?)
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
    connection: &mut MultiplexedConnection,
    key: &str,
    groups: &[Info],
    now_ms: u64,
) -> Result<Option<Held>, AskError> {
    let mut oldest: Option<(EntryId, String)> = None;
    for info in groups {
        let name = info.name();
        let unfinished = if info.number("pending").unwrap_or(0) > 0 {
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

/// The age of an entry; below 0 if its id is ahead of the clock by more than the time that a look takes.
fn age_s(id: EntryId, now_ms: u64) -> f64 {
    match clock_went_back(id.ms, now_ms) {
        Some(ahead_ms) => -(ahead_ms as f64 / 1000.0),
        None => now_ms.saturating_sub(id.ms) as f64 / 1000.0,
    }
}

/// What `XINFO GROUPS` says of one group.
pub(in crate::state) fn read_group(groups: Value, name: &str) -> Option<Info> {
    list(groups).into_iter().filter_map(Info::read).find(|info| info.name() == name)
}

impl Backlog {
    /// From what `XINFO GROUPS`, `XPENDING` and `XINFO STREAM` say, and the first undelivered entry; without
    /// consumers.
    pub(super) fn of(
        group: &Info,
        pending: Value,
        next: Option<EntryId>,
        stream: &Info,
        now_ms: u64,
    ) -> Self {
        let age = |id: EntryId| age_s(id, now_ms);
        let position = Position {
            delivered: group.id("last-delivered-id").unwrap_or(EntryId { ms: 0, seq: 0 }),
            next,
            lag: group.number("lag"),
            entries: stream.number("length").unwrap_or(0),
            first: stream.get("first-entry").and_then(entry_id),
            deleted: stream.id("max-deleted-entry-id"),
        };
        let (undelivered, undelivered_is_exact) = position.undelivered();
        Self {
            pending: group.number("pending").unwrap_or(0),
            // The summary: how many, the first, the last, and whose.
            oldest_pending_age_s: list(pending).get(1).cloned().and_then(reply::entry_id).map(age),
            undelivered,
            undelivered_is_exact,
            oldest_undelivered_age_s: next.map(age),
            consumers: Vec::new(),
        }
    }
}

async fn backlog(
    connection: &mut MultiplexedConnection,
    key: &str,
    group: &str,
    heartbeats: &str,
    (info, stream): (&Info, &Info),
    now_ms: u64,
) -> Result<Backlog, AskError> {
    let pending = ask(connection, &["XPENDING", key, group]).await?;
    let next = match info.id("last-delivered-id") {
        Some(delivered) => next_after(connection, key, delivered).await?,
        None => None,
    };
    let consumers = consumers(connection, key, group, heartbeats).await?;
    Ok(Backlog { consumers, ..Backlog::of(info, pending, next, stream, now_ms) })
}

/// The id of the entry after this one.
async fn next_after(
    connection: &mut MultiplexedConnection,
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

/// Where a group stands in its stream.
struct Position {
    /// The last id that was delivered.
    delivered: EntryId,
    /// The first entry after it.
    next: Option<EntryId>,
    /// What the server takes for the number of entries after it.
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
        // Nothing that was delivered is left: all there is comes after it.
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

async fn consumers(
    connection: &mut MultiplexedConnection,
    key: &str,
    group: &str,
    heartbeats: &str,
) -> Result<Vec<Consumer>, AskError> {
    let rows = list(ask(connection, &["XINFO", "CONSUMERS", key, group]).await?);
    let beats =
        ask(connection, &["ZRANGE", heartbeats, "0", HEARTBEATS, "REV", "WITHSCORES"]).await?;
    let beats: HashMap<String, f64> = scored(beats).into_iter().collect();
    let consumer = |info: Info| {
        let name = info.name();
        let heartbeat_ms = beats.get(&name).map(|ms| *ms as u64);
        let (pending, idle_ms) = (info.number("pending")?, info.number("idle")?);
        Some(Consumer { name, pending, idle_ms, heartbeat_ms })
    };
    let rows = rows.into_iter().filter_map(Info::read);
    let mut consumers: Vec<Consumer> = rows.filter_map(consumer).collect();
    consumers.sort_by(|a, b| b.pending.cmp(&a.pending).then_with(|| a.name.cmp(&b.name)));
    Ok(consumers)
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
