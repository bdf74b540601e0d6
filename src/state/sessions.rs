//! Sessions: which are active, and their content.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::ask::{AskError, Walk, ask, number};
use super::{Listed, list};
use crate::key::Keys;
use crate::redis::reply;
use crate::seal::{SessionKeys, is_token};
use crate::state::Link;

/// A session's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its id.
    pub sid: String,
    /// Its user.
    pub user: String,
    /// The address, empty if the event had none.
    pub ip: String,
    /// The user agent, empty if the event had none.
    pub ua: String,
    /// Its last activity, epoch milliseconds.
    pub last_activity_ms: u64,
    /// When it expires if it stays silent, epoch milliseconds.
    pub expires_ms: u64,
}

/// The stored value, parsed as readers do: other members and the order do not matter.
#[derive(Deserialize)]
struct Value {
    // Other writers store `time.time() * 1000`, with decimals.
    last_activity: f64,
    #[serde(default)]
    user: String,
    #[serde(default)]
    ip: String,
    #[serde(default)]
    ua: String,
}

impl Session {
    /// The newest first.
    pub fn newest_first(a: &Self, b: &Self) -> Ordering {
        b.last_activity_ms.cmp(&a.last_activity_ms).then_with(|| a.sid.cmp(&b.sid))
    }

    /// A session of which only the user is known.
    pub(crate) fn unknown(sid: String, user: String) -> Self {
        let (ip, ua) = (String::new(), String::new());
        Self { sid, user, ip, ua, last_activity_ms: 0, expires_ms: 0 }
    }

    /// `None` for a value that is not a session entry; readers skip those too.
    pub(crate) fn read(sid: &str, json: &str) -> Option<Self> {
        let Value { last_activity, user, ip, ua } = serde_json::from_str(json).ok()?;
        let (sid, last_activity_ms) = (sid.to_owned(), last_activity as u64);
        Some(Self { sid, user, ip, ua, last_activity_ms, expires_ms: last_activity_ms })
    }

    fn expires_after(mut self, life_ms: u64) -> Self {
        self.expires_ms = self.last_activity_ms.saturating_add(life_ms);
        self
    }
}

/// The time of the query, and the lifetime of sessions without one of their own; both in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The server's time.
    pub now_ms: u64,
    /// The deployment's `session-ttl`.
    pub usual_ms: u64,
}

impl Clock {
    /// How long a session lives with this record of its own lifetime (`when:seconds:last activity`). Once nothing
    /// from before the last activity can count any more, the record is forgotten.
    fn life_ms(self, record: Option<&str>) -> u64 {
        let own = record.and_then(|record| {
            let mut parts = record.split(':').skip(1);
            let seconds: u64 = parts.next()?.parse().ok()?;
            let (seen, life_ms): (u64, u64) = (parts.next()?.parse().ok()?, seconds * 1000);
            (seen.saturating_add(life_ms.max(self.usual_ms)) > self.now_ms).then_some(life_ms)
        });
        own.unwrap_or(self.usual_ms)
    }
}

/// The sessions that have not expired, of one user or of all: how many, and the newest `limit`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn active(
    connection: &mut Link,
    keys: &Keys,
    clock: Clock,
    user: Option<&str>,
    limit: usize,
) -> Result<Listed<Session>, AskError> {
    let key = keys.sessions();
    let (mut walk, mut listed) = (Walk::hash(&key, None), Listed::default());
    while let Some(page) = walk.fields(connection).await? {
        let read = page.iter().filter_map(|(sid, json)| Session::read(sid, json));
        let wanted = read.filter(|s| user.is_none_or(|user| user == s.user)).collect();
        for session in with_lives(connection, keys, clock, wanted).await? {
            if session.expires_ms > clock.now_ms {
                listed.push(session, limit, Session::newest_first);
            }
        }
    }
    listed.cut(limit, Session::newest_first);
    Ok(listed)
}

/// Sessions with the time when they expire.
pub(crate) async fn with_lives(
    connection: &mut Link,
    keys: &Keys,
    clock: Clock,
    sessions: Vec<Session>,
) -> Result<Vec<Session>, AskError> {
    if sessions.is_empty() {
        return Ok(sessions);
    }
    let ttls = keys.session_ttls();
    let words = ["HMGET", &ttls].into_iter().chain(sessions.iter().map(|s| s.sid.as_str()));
    let records = list(ask(connection, &words.collect::<Vec<_>>()).await?);
    let records = records.into_iter().map(reply::text).chain(std::iter::repeat(None));
    let sessions = sessions.into_iter().zip(records);
    Ok(sessions.map(|(s, record)| s.expires_after(clock.life_ms(record.as_deref()))).collect())
}

/// Everything stored of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its entry, whether it has expired or not.
    pub entry: Option<Session>,
    /// Its data as it is stored: JSON, or bytes that were declared as opaque, or a token of either.
    pub data: Option<Vec<u8>>,
    /// Whether the data is encrypted, or looks like it.
    pub data_encrypted: bool,
    /// How much longer the data is kept, in milliseconds; `None` without data or expiry.
    pub data_ttl_ms: Option<u64>,
}

impl Kept {
    /// The same with the data as it was sent, if one of the keys decrypts it.
    pub fn unsealed(mut self, keys: Option<&SessionKeys>) -> Self {
        let stored = self.data.as_deref().filter(|_| self.data_encrypted);
        let opened = keys.zip(stored).and_then(|(keys, stored)| keys.get().open(stored).data());
        if let Some(data) = opened {
            // Producers may send tokens of their own.
            self.data_encrypted = is_token(&data);
            self.data = Some(data);
        }
        self
    }
}

/// What is stored of a session; `None` if nothing is.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn session(
    connection: &mut Link,
    keys: &Keys,
    clock: Clock,
    sid: &str,
) -> Result<Option<Kept>, AskError> {
    let record = reply::text(ask(connection, &["HGET", &keys.session_ttls(), sid]).await?);
    let life_ms = clock.life_ms(record.as_deref());
    let entry = reply::text(ask(connection, &["HGET", &keys.sessions(), sid]).await?);
    let key = format!("{}{sid}", keys.session_data());
    let data = reply::bytes(ask(connection, &["GET", &key]).await?);
    // Negative if there is no key or no expiry.
    let data_ttl_ms = number(&ask(connection, &["PTTL", &key]).await?);
    let entry = entry.and_then(|json| Session::read(sid, &json));
    let entry = entry.map(|session| session.expires_after(life_ms));
    let known = entry.is_some() || data.is_some();
    let data_encrypted = data.as_deref().is_some_and(is_token);
    Ok(known.then_some(Kept { entry, data, data_encrypted, data_ttl_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_whoever_wrote_it() {
        let json = r#"{"sid": "s", "user": "Неизвестно", "last_activity": 1790000000123.5}"#;
        let session = Session::read("s", json).unwrap();
        assert_eq!(session.last_activity_ms, 1_790_000_000_123);
        assert_eq!(session.user, "Неизвестно");
        assert_eq!(Session::read("s", "{\"user\":\"a\"}"), None);
    }

    #[test]
    fn a_lifetime_of_its_own_counts_until_it_is_forgotten() {
        let clock = |now_ms| Clock { now_ms, usual_ms: 1_800_000 };
        let record = Some("1790000000000:0000060:1790000005000");
        let last = 1_790_000_005_000;
        assert_eq!(clock(last + 1_799_999).life_ms(record), 60_000);
        assert_eq!(clock(last + 1_800_000).life_ms(record), 1_800_000);
        assert_eq!(clock(last).life_ms(None), 1_800_000);
        assert_eq!(clock(last).life_ms(Some("not ours")), 1_800_000);
    }
}
