//! Sweeps: calls of the script that removes stale members, and the turns of making them.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::Scripts;
use super::changes::Changes;
use super::repairs::{self, Repairs};
use super::script::Script;
use super::turn::Turn;
use crate::config::{Deployment, JanitorConfig};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

/// The result of one sweep call.
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
    /// For the stream: the group that keeps it from being trimmed; otherwise empty.
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

    /// Examines up to `limit` members of one structure and removes what is due.
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
        let call = self.call(structure, limit);
        let value =
            self.scripts.send(connection, Script::Sweep, &call).await.map_err(Error::at(STEP))?;
        swept(&value).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    fn cap(&self, structure: &str) -> u64 {
        match structure {
            "recent" => self.recent_cap,
            "ranking" => self.ranking_cap,
            _ => 0,
        }
    }

    /// The size of a structure that is walked.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn size(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &str,
    ) -> Result<u64, Error> {
        let (command, key) = match structure {
            "presence" => ("HLEN", self.keys.presence()),
            "addresses" => ("HLEN", self.keys.presence_addresses()),
            "crowds" => ("ZCARD", self.keys.presence_crowds()),
            "sessions" => ("HLEN", self.keys.sessions()),
            "session_ttls" => ("HLEN", self.keys.session_ttls()),
            "document_users" => ("HLEN", self.keys.docs_connections()),
            "logins" => ("HLEN", self.keys.login()),
            _ => ("HLEN", self.keys.session_data_versions()),
        };
        redis::cmd(command)
            .arg(key)
            .query_async(connection)
            .await
            .map_err(Error::at("asking for a size"))
    }

    /// Repairs since any janitor last asked. Like every script this removes others' expiries from the shared keys.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn repairs(&self, connection: &mut MultiplexedConnection) -> Result<Repairs, Error> {
        const STEP: &str = "asking what was put right";
        let value = self
            .scripts
            .send(connection, Script::Sweep, &self.call("repairs", 0))
            .await
            .map_err(Error::at(STEP))?;
        repairs::read(&value).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    fn call(&self, what: &str, limit: u64) -> Cmd {
        let mut call = self.scripts.call(Script::Sweep, "");
        call.arg(what).arg(limit).arg(self.cap(what));
        call.arg(self.janitor.horizon_ms).arg(self.janitor.keep_ms);
        call
    }

    /// Takes the turn of sweeping for `length_ms`.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn sweep_turn(
        &self,
        connection: &mut MultiplexedConnection,
        owner: &str,
        length_ms: u64,
    ) -> Result<Turn, Error> {
        Turn::take(connection, &self.keys.janitor_lease(), owner, length_ms).await
    }

    /// Takes the turn of surveying the server for `length_ms`.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn survey_turn(
        &self,
        connection: &mut MultiplexedConnection,
        owner: &str,
        length_ms: u64,
    ) -> Result<Turn, Error> {
        Turn::take(connection, &self.keys.janitor_survey(), owner, length_ms).await
    }
}

fn swept(value: &Value) -> Option<Swept> {
    let mut values = reply::elements(value)?.iter();
    let mut number = || values.next().and_then(reply::number);
    let (looked_at, removed, changes_dropped, more) =
        (number()?, number()?, number()?, number()? == 1);
    let changes = Changes::read(values.next()?, changes_dropped)?;
    let blocked_by = reply::text_of(values.next()?)?;
    let unfinished_age_ms = reply::number(values.next()?)?;
    Some(Swept { looked_at, removed, changes, more, blocked_by, unfinished_age_ms })
}
