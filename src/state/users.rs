//! Users: who is online, who was seen, when a user was last seen, and at which addresses.
//!
//! Online users have a presence entry now; seen users are in the set of one of the last minutes.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::ask::{AskError, Walk, ask, literal, number};
use super::{Listed, Partition, list};
use crate::key::{self, Keys};
use crate::redis::reply;
use crate::state::Link;

/// The users seen in the last `minutes`, including the current one: the union of `online-users/<minute>`.
///
/// Readers commonly let the server compute the union (`SUNION`), while everybody else waits: 1.6 s with a million
/// users. Here the sets are walked, a millisecond at a time, and the client computes the union.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn seen(
    connection: &mut Link,
    keys: &Keys,
    now_ms: u64,
    minutes: u64,
) -> Result<HashSet<String>, AskError> {
    let now = now_ms / 60_000;
    let mut users = HashSet::new();
    for minute in now.saturating_sub(minutes.saturating_sub(1))..=now {
        let key = keys.online_minute(minute);
        let mut walk = Walk::set(&key);
        while let Some(page) = walk.members(connection).await? {
            users.extend(page);
        }
    }
    Ok(users)
}

/// The users [`seen`] in any partition: how many, and the first `limit` by name.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn seen_everywhere(
    partitions: &mut [Partition],
    now_ms: u64,
    minutes: u64,
    limit: usize,
) -> Result<Listed<String>, AskError> {
    let mut users = HashSet::new();
    for partition in partitions {
        users.extend(seen(&mut partition.connection, &partition.keys, now_ms, minutes).await?);
    }
    Ok(by_name(users, limit))
}

/// The users with a presence entry last seen after `since_ms`: how many, and the first `limit` by name.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn online(
    connection: &mut Link,
    keys: &Keys,
    since_ms: u64,
    limit: usize,
) -> Result<Listed<String>, AskError> {
    let key = keys.presence();
    let (mut walk, mut users) = (Walk::hash(&key, None), HashSet::new());
    while let Some(page) = walk.fields(connection).await? {
        let present = page.iter().filter_map(|(_, json)| Present::read(json));
        users.extend(present.filter(|entry| entry.last_seen_ms > since_ms).map(|entry| entry.user));
    }
    Ok(by_name(users, limit))
}

fn by_name(users: HashSet<String>, limit: usize) -> Listed<String> {
    let count = users.len() as u64;
    let mut items: Vec<String> = users.into_iter().collect();
    items.sort_unstable();
    items.truncate(limit);
    Listed { count, items }
}

/// When a user was last seen, in epoch seconds; `None` if that is longer ago than is kept.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn last_activity(
    connection: &mut Link,
    keys: &Keys,
    user: &str,
) -> Result<Option<u64>, AskError> {
    let key = format!("{}{user}", keys.activity());
    Ok(number(&ask(connection, &["GET", &key]).await?))
}

/// A presence entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Present {
    /// The user.
    pub user: String,
    /// The address, empty if the event had none.
    pub ip: String,
    /// The page, empty if the event had none.
    pub page: String,
    /// The user agent, empty if the event had none.
    pub ua: String,
    /// The last sign of life, epoch milliseconds.
    pub last_seen_ms: u64,
}

/// The stored value, parsed as readers do: other members and the order do not matter.
#[derive(Deserialize)]
struct Value {
    // Other writers store `time.time() * 1000`, with decimals.
    #[serde(rename = "lastSeen")]
    last_seen: f64,
    #[serde(default)]
    user: String,
    #[serde(default)]
    ip: String,
    #[serde(default)]
    page: String,
    #[serde(default)]
    ua: String,
}

impl Present {
    /// The newest first.
    pub fn newest_first(a: &Self, b: &Self) -> Ordering {
        let order = b.last_seen_ms.cmp(&a.last_seen_ms);
        order.then_with(|| (&a.user, &a.ip).cmp(&(&b.user, &b.ip)))
    }

    /// An entry of which only its existence is known.
    pub(crate) fn unknown() -> Self {
        let nothing = String::new;
        Self { user: nothing(), ip: nothing(), page: nothing(), ua: nothing(), last_seen_ms: 0 }
    }

    /// `None` for a value that is not a presence entry; readers skip those too.
    pub(crate) fn read(json: &str) -> Option<Self> {
        let Value { last_seen, user, ip, page, ua } = serde_json::from_str(json).ok()?;
        Some(Self { user, ip, page, ua, last_seen_ms: last_seen as u64 })
    }
}

/// The presence entries last seen after `since_ms`: how many, and the newest `limit`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn presence(
    connection: &mut Link,
    keys: &Keys,
    since_ms: u64,
    limit: usize,
) -> Result<Listed<Present>, AskError> {
    walk(connection, keys, None, since_ms, limit).await
}

/// The presence entries of one user last seen after `since_ms`, the newest first: those that the index of addresses
/// names. State without an index, from earlier versions, is walked page by page until a janitor has built the index.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn presence_of(
    connection: &mut Link,
    keys: &Keys,
    user: &str,
    since_ms: u64,
) -> Result<Vec<Present>, AskError> {
    let fields = fields_of(connection, keys, &[user]).await?;
    let Some(fields) = fields.map(|fields| fields.concat()) else {
        let pattern = format!("{}|*", literal(&key::escape(user)));
        let walked = walk(connection, keys, Some(&pattern), since_ms, usize::MAX).await;
        return walked.map(|listed| listed.items);
    };
    let (key, mut present) = (keys.presence(), Vec::new());
    for page in fields.chunks(PAGE) {
        let words: Vec<_> = ["HMGET", &key].into_iter().chain(page.iter().map(|f| &**f)).collect();
        let values = list(ask(connection, &words).await?).into_iter().filter_map(reply::text);
        present.extend(values.filter_map(|json| Present::read(&json)));
    }
    present.retain(|present| present.last_seen_ms > since_ms);
    present.sort_by(Present::newest_first);
    Ok(present)
}

/// Fields in a page.
const PAGE: usize = 1000;

/// The presence fields of each of these users from the index; `None` if there is no index.
pub(crate) async fn fields_of(
    connection: &mut Link,
    keys: &Keys,
    users: &[&str],
) -> Result<Option<Vec<Vec<String>>>, AskError> {
    let index = keys.presence_addresses();
    let words: Vec<_> = ["HMGET", &index].into_iter().chain(users.iter().copied()).collect();
    let values = list(ask(connection, &words).await?);
    let mut fields = Vec::with_capacity(users.len());
    for (user, value) in users.iter().zip(values) {
        let name = key::escape(user);
        fields.push(match reply::text(value).as_deref() {
            Some(CROWD) => crowd(connection, keys, &name).await?,
            Some(addresses) => {
                addresses.split('|').map(|address| format!("{name}|{address}")).collect()
            }
            None => Vec::new(),
        });
    }
    if fields.iter().all(Vec::is_empty) {
        let is_kept = number(&ask(connection, &["EXISTS", &index]).await?) == Some(1);
        return Ok(is_kept.then_some(fields));
    }
    Ok(Some(fields))
}

/// The value of the index for users with many addresses, whose fields are in a sorted set, in order.
const CROWD: &str = "%";

async fn crowd(connection: &mut Link, keys: &Keys, name: &str) -> Result<Vec<String>, AskError> {
    let (key, end, limit) = (keys.presence_crowds(), format!("({name}}}"), PAGE.to_string());
    let (mut fields, mut start) = (Vec::new(), format!("[{name}|"));
    loop {
        let words = ["ZRANGE", &key, &start, &end, "BYLEX", "LIMIT", "0", &limit];
        let page = list(ask(connection, &words).await?).into_iter().filter_map(reply::text);
        let before = fields.len();
        fields.extend(page);
        match fields.last() {
            Some(last) if fields.len() - before == PAGE => start = format!("({last}"),
            _ => return Ok(fields),
        }
    }
}

async fn walk(
    connection: &mut Link,
    keys: &Keys,
    pattern: Option<&str>,
    since_ms: u64,
    limit: usize,
) -> Result<Listed<Present>, AskError> {
    let key = keys.presence();
    let (mut walk, mut listed) = (Walk::hash(&key, pattern), Listed::default());
    while let Some(page) = walk.fields(connection).await? {
        let present = page.iter().filter_map(|(_, json)| Present::read(json));
        for present in present.filter(|present| present.last_seen_ms > since_ms) {
            listed.push(present, limit, Present::newest_first);
        }
    }
    listed.cut(limit, Present::newest_first);
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_read_whoever_wrote_it() {
        let own = r#"{"lastSeen":1790000000123,"user":"a|b","ip":"","ua":"u","page":"/"}"#;
        let present = Present::read(own).unwrap();
        assert_eq!((present.last_seen_ms, present.user.as_str()), (1_790_000_000_123, "a|b"));
        let other = r#"{"user": "alice", "lastSeen": 1790000000123.456, "more": [1]}"#;
        assert_eq!(Present::read(other).unwrap().last_seen_ms, 1_790_000_000_123);
        for bad in ["", "[]", "{}", r#"{"lastSeen":"yesterday"}"#] {
            assert_eq!(Present::read(bad), None, "{bad}");
        }
    }
}
