//! Sweeps: calls of the script that takes stale members away, and how far the group is behind.

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::reply;
use super::script::{Script, Scripts, send};
use crate::config::{Deployment, JanitorConfig};
use crate::error::Error;
use crate::key::Keys;

/// What one sweep call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Members it looked at.
    pub looked_at: u64,
    /// Members it removed.
    pub removed: u64,
    /// Changes recorded.
    pub changes: u64,
    /// Old changes dropped by the cap.
    pub changes_dropped: u64,
    /// Whether there is more to do now.
    pub more: bool,
    /// For the stream: the group that keeps it from being trimmed, or nothing.
    pub blocked_by: String,
    /// For the stream: the age of the oldest unfinished entry, in milliseconds.
    pub unfinished_age_ms: u64,
}

/// Sweeps the structures of one partition.
#[derive(Clone, Debug)]
pub struct Sweeper {
    scripts: Scripts,
    keys: Keys,
    stream: String,
    group: String,
    recent_cap: u64,
    ranking_cap: u64,
    janitor: JanitorConfig,
    consumer_patience_ms: u64,
}

impl Sweeper {
    /// A sweeper. Consumers that say nothing for `consumer_patience_ms` count as dead.
    pub fn new(
        deployment: &Deployment,
        keys: &Keys,
        janitor: &JanitorConfig,
        consumer_patience_ms: u64,
    ) -> Self {
        Self {
            scripts: Scripts::new(deployment, keys),
            keys: keys.clone(),
            stream: keys.named(&deployment.stream),
            group: deployment.group.clone(),
            recent_cap: deployment.recent_cap,
            ranking_cap: deployment.ranking_cap,
            janitor: janitor.clone(),
            consumer_patience_ms,
        }
    }

    /// Looks at up to `limit` members of one structure and takes away what has to go.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn sweep(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &str,
        limit: u64,
    ) -> Result<Swept, Error> {
        const STEP: &str = "sweeping";
        let mut call = self.scripts.call(Script::Sweep, "");
        call.arg(structure).arg(limit).arg(self.cap(structure));
        call.arg(self.janitor.horizon_ms).arg(self.janitor.keep_ms);
        let value = send(connection, Script::Sweep, &call).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &value);
        swept(value).ok_or(unexpected)
    }

    fn cap(&self, structure: &str) -> u64 {
        match structure {
            "recent" => self.recent_cap,
            "ranking" => self.ranking_cap,
            "consumers" => self.consumer_patience_ms,
            _ => 0,
        }
    }

    /// The number of fields in a hash that is walked.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn size(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &str,
    ) -> Result<u64, Error> {
        let key = match structure {
            "presence" => self.keys.presence(),
            "sessions" => self.keys.sessions(),
            _ => self.keys.session_data_versions(),
        };
        redis::cmd("HLEN")
            .arg(key)
            .query_async(connection)
            .await
            .map_err(Error::at("asking for a size"))
    }

    /// Takes the lease on sweeping for `ttl_ms`; `false` if another janitor has it.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn take_lease(
        &self,
        connection: &mut MultiplexedConnection,
        owner: &str,
        ttl_ms: u64,
    ) -> Result<bool, Error> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.janitor_lease()).arg(owner).arg("NX").arg("PX").arg(ttl_ms);
        let reply: Value =
            set.query_async(connection).await.map_err(Error::at("taking the janitor's lease"))?;
        Ok(reply != Value::Nil)
    }

    /// How many entries are pending, and how many undelivered where the server knows (`XINFO GROUPS`).
    ///
    /// # Errors
    /// If the server refuses for another reason than that there is no stream yet.
    pub async fn backlog(&self, connection: &mut MultiplexedConnection) -> Result<Backlog, Error> {
        let reply: RedisResult<Value> =
            redis::cmd("XINFO").arg("GROUPS").arg(&self.stream).query_async(connection).await;
        match reply {
            Err(error) if error.code() == Some("ERR") => Ok(Backlog::default()),
            Err(error) => Err(Error::at("asking for the backlog")(error)),
            Ok(groups) => Ok(backlog(groups, &self.group).unwrap_or_default()),
        }
    }
}

/// How far a group is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Entries delivered but not acknowledged.
    pub pending: Option<i64>,
    /// Entries not delivered; unknown after trimming and deleting at odd places.
    pub undelivered: Option<i64>,
    /// Consumers of the group.
    pub consumers: Option<i64>,
}

fn backlog(groups: Value, group: &str) -> Option<Backlog> {
    for info in reply::array(groups)? {
        let info = reply::pairs(info)?;
        let get = |wanted: &str| {
            info.iter().find(|(name, _)| is_text(name, wanted)).map(|(_, value)| value)
        };
        if get("name").is_some_and(|name| is_text(name, group)) {
            return Some(Backlog {
                pending: get("pending").and_then(reply::integer),
                undelivered: get("lag").and_then(reply::integer),
                consumers: get("consumers").and_then(reply::integer),
            });
        }
    }
    None
}

fn is_text(value: &Value, wanted: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == wanted.as_bytes(),
        Value::SimpleString(text) => text == wanted,
        _ => false,
    }
}

fn swept(value: Value) -> Option<Swept> {
    let mut values = reply::array(value)?.into_iter();
    let mut number =
        || values.next().and_then(|n| reply::integer(&n)).and_then(|n| u64::try_from(n).ok());
    let (looked_at, removed, changes, changes_dropped, more) =
        (number()?, number()?, number()?, number()?, number()? == 1);
    let blocked_by = reply::text(values.next()?)?;
    let unfinished_age_ms = u64::try_from(reply::integer(&values.next()?)?).ok()?;
    Some(Swept {
        looked_at,
        removed,
        changes,
        changes_dropped,
        more,
        blocked_by,
        unfinished_age_ms,
    })
}
