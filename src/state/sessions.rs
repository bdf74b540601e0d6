//! Sessions: which are active, and what one holds.

use std::cmp::Ordering;

use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use super::Listed;
use super::ask::{AskError, Walk, ask, number};
use crate::key::Keys;
use crate::redis::reply;

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
}

/// The stored value, read as readers read it: other members do not matter, nor does their order.
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

    /// `None` for what is no session's entry: readers pass it over, too.
    fn read(sid: &str, json: &str) -> Option<Self> {
        let Value { last_activity, user, ip, ua } = serde_json::from_str(json).ok()?;
        Some(Self { sid: sid.to_owned(), user, ip, ua, last_activity_ms: last_activity as u64 })
    }
}

/// The sessions active after `since_ms`, of one user or of all: how many, and the newest `limit`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn active(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    since_ms: u64,
    user: Option<&str>,
    limit: usize,
) -> Result<Listed<Session>, AskError> {
    let key = keys.sessions();
    let (mut walk, mut listed) = (Walk::hash(&key, None), Listed::default());
    while let Some(page) = walk.fields(connection).await? {
        for session in page.iter().filter_map(|(sid, json)| Session::read(sid, json)) {
            let wanted = user.is_none_or(|user| user == session.user);
            if wanted && session.last_activity_ms > since_ms {
                listed.push(session, limit, Session::newest_first);
            }
        }
    }
    listed.cut(limit, Session::newest_first);
    Ok(listed)
}

/// All that is kept of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its entry, whether it has expired or not.
    pub entry: Option<Session>,
    /// Its data, as it was sent: JSON, or whatever bytes were declared as opaque.
    pub data: Option<Vec<u8>>,
    /// How much longer the data is kept, in milliseconds; `None` without data or expiry.
    pub data_ttl_ms: Option<u64>,
}

/// What is kept of a session; `None` if nothing is.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn session(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    sid: &str,
) -> Result<Option<Kept>, AskError> {
    let entry = reply::text(ask(connection, &["HGET", &keys.sessions(), sid]).await?);
    let key = format!("{}{sid}", keys.session_data());
    let data = reply::bytes(ask(connection, &["GET", &key]).await?);
    // Negative where there is no key or no expiry.
    let data_ttl_ms = number(&ask(connection, &["PTTL", &key]).await?);
    let entry = entry.and_then(|json| Session::read(sid, &json));
    let known = entry.is_some() || data.is_some();
    Ok(known.then_some(Kept { entry, data, data_ttl_ms }))
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
}
