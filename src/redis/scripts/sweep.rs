//! Sweeps: calls of the script that takes stale members away, and the lease on making them.

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::changes::Changes;
use super::{Script, Scripts, send};
use crate::config::{Deployment, JanitorConfig};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

/// What one sweep call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Members it looked at.
    pub looked_at: u64,
    /// Members it removed.
    pub removed: u64,
    /// Changes recorded.
    pub changes: Changes,
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
    recent_cap: u64,
    ranking_cap: u64,
    janitor: JanitorConfig,
}

impl Sweeper {
    /// A sweeper for one partition of a deployment.
    pub fn new(deployment: &Deployment, keys: &Keys, janitor: &JanitorConfig) -> Self {
        Self {
            scripts: Scripts::new(deployment, keys),
            keys: keys.clone(),
            recent_cap: deployment.recent_cap,
            ranking_cap: deployment.ranking_cap,
            janitor: janitor.clone(),
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

    /// Whose turn it is to ask how the server is, once in `period_ms` for all janitors.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn survey_turn(
        &self,
        connection: &mut MultiplexedConnection,
        owner: &str,
        period_ms: u64,
    ) -> Result<Turn, Error> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.janitor_survey()).arg(owner).arg("NX").arg("GET");
        let holder: Option<String> = set
            .arg("PX")
            .arg(period_ms)
            .query_async(connection)
            .await
            .map_err(Error::at("asking whose turn it is to survey"))?;
        Ok(match holder {
            None => Turn::Now,
            Some(holder) if holder == owner => Turn::Done,
            Some(_) => Turn::Others,
        })
    }
}

/// Whether a janitor has to ask how the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is due, and this one's to do.
    Now,
    /// This one did it a while ago.
    Done,
    /// Another one did.
    Others,
}

fn swept(value: Value) -> Option<Swept> {
    let mut values = reply::array(value)?.into_iter();
    let mut number = || values.next().and_then(|n| reply::number(&n));
    let (looked_at, removed, changes_dropped, more) =
        (number()?, number()?, number()?, number()? == 1);
    let changes = Changes::read(values.next()?, changes_dropped)?;
    let blocked_by = reply::text(values.next()?)?;
    let unfinished_age_ms = reply::number(&values.next()?)?;
    Some(Swept { looked_at, removed, changes, more, blocked_by, unfinished_age_ms })
}
