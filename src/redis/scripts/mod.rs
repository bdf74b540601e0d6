//! What every script call contains besides its own arguments: the keys and settings of one partition.

pub mod apply;
pub mod changes;
pub mod encrypt;
pub mod erase;
pub mod forward;
pub mod layout;
pub mod letters;
pub mod look;
pub mod losses;
pub mod mend;
pub mod notify;
pub mod owner;
pub mod repairs;
pub mod repartition;
pub mod script;
pub mod sweep;
pub mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use script::{Script, Way};
use serde_json::json;

use crate::config::Deployment;
use crate::key::Keys;

/// The common part of every script call: the keys and settings of one partition.
#[derive(Clone, Debug)]
pub struct Scripts {
    keys: Vec<String>,
    /// As one argument, which the server parses only if it differs from that of the call before.
    settings: Option<String>,
    /// Set if no function can be loaded or called on this server: scripts are then called by their digests.
    by_digest: Arc<AtomicBool>,
}

impl Scripts {
    /// The scripts for one partition of a deployment.
    pub fn new(deployment: &Deployment, keys: &Keys) -> Self {
        Self {
            keys: declared_keys(&deployment.stream, keys),
            settings: Some(settings(deployment)),
            by_digest: Arc::default(),
        }
    }

    /// For a script with its own keys and no settings.
    fn over(keys: Vec<String>) -> Self {
        Self { keys, settings: None, by_digest: Arc::default() }
    }

    /// A call of a script up to its settings; the script's own arguments come after.
    pub fn call(&self, script: Script, epoch: &str) -> Cmd {
        let way = self.way();
        let mut command = redis::cmd(way.command());
        command.arg(script.name(way)).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        command.arg(epoch).arg(&self.settings);
        command
    }

    /// Sends a call. If the library is missing (after a restart, a `FUNCTION FLUSH`, on another server), it is loaded
    /// and the call is sent once more, since nothing ran. Once functions are refused, scripts are called by their
    /// digests, which costs the server more per call.
    ///
    /// # Errors
    /// What the server or the script answers.
    pub async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        script: Script,
        call: &Cmd,
    ) -> RedisResult<Value> {
        match call.query_async(connection).await {
            Err(error) if script::is_missing(&error) => {
                match Box::pin(script.load(connection, Way::Function)).await {
                    Ok(()) => call.query_async(connection).await,
                    // No right, a renamed command, or full memory.
                    Err(error) if error.code().is_some() => {
                        Box::pin(self.send_by_digest(connection, script, call)).await
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) if error.code() == Some("NOSCRIPT") || script::refuses_functions(&error) => {
                Box::pin(self.send_by_digest(connection, script, call)).await
            }
            reply => reply,
        }
    }

    async fn send_by_digest(
        &self,
        connection: &mut MultiplexedConnection,
        script: Script,
        call: &Cmd,
    ) -> RedisResult<Value> {
        self.by_digest.store(true, Ordering::Relaxed);
        let call = script.by_digest(call);
        match call.query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                script.load(connection, Way::Digest).await?;
                call.query_async(connection).await
            }
            reply => reply,
        }
    }

    fn way(&self) -> Way {
        if self.by_digest.load(Ordering::Relaxed) { Way::Digest } else { Way::Function }
    }
}

/// The keys in the order in which `common.lua` unpacks them.
pub fn declared_keys(stream: &str, keys: &Keys) -> Vec<String> {
    let beginnings = [keys.activity(), keys.session_data(), keys.document()];
    shared_keys(stream, keys).into_iter().map(|(key, _)| key).chain(beginnings).collect()
}

/// The structures that many entries share, with the type of each according to `TYPE`. None has an expiry; one that
/// others set is removed.
pub fn shared_keys(stream: &str, keys: &Keys) -> Vec<(String, &'static str)> {
    vec![
        (keys.named(stream), "stream"),
        (keys.dead(), "stream"),
        (keys.changes(), "stream"),
        (keys.changes_seq(), "string"),
        (keys.meta(), "hash"),
        (keys.janitor(), "hash"),
        (keys.workers(), "hash"),
        (keys.login(), "hash"),
        (keys.recent(), "zset"),
        (keys.viewed(), "zset"),
        (keys.tokens_ended(), "zset"),
        (keys.presence(), "hash"),
        (keys.presence_ended(), "zset"),
        (keys.presence_addresses(), "hash"),
        (keys.presence_crowds(), "zset"),
        (keys.sessions(), "hash"),
        (keys.sessions_ended(), "zset"),
        (keys.session_data_versions(), "hash"),
        (keys.session_ttls(), "hash"),
        (keys.docs_joined(), "zset"),
        (keys.docs_left(), "zset"),
        (keys.docs_connections(), "hash"),
        (keys.docs_levels(), "hash"),
    ]
}

/// The settings by the names that `common.lua` has for them, times in milliseconds except that of activities.
fn settings(deployment: &Deployment) -> String {
    let thresholds = deployment.thresholds.iter().map(|t| json!({ "up": t.up, "down": t.down }));
    let settings = json!({
        "group": deployment.group,
        "presence_ttl": deployment.presence_ttl_ms,
        "session_ttl": deployment.session_ttl_ms,
        "document_ttl": deployment.document_ttl_ms,
        "activity_ttl": activity_ttl_seconds(deployment),
        "viewed_cap": deployment.viewed_cap,
        "changes_cap": deployment.changes_cap,
        "dead_cap": deployment.dead_cap,
        "thresholds": thresholds.collect::<serde_json::Value>(),
    });
    settings.to_string()
}

/// How long `user-activity/<user>` outlives the time in it.
fn activity_ttl_seconds(deployment: &Deployment) -> u64 {
    deployment.online_window_ms / 1000 + 10
}

/// When the set of an epoch minute expires, in milliseconds: its start plus the window plus 70 s.
pub fn minute_expiry_ms(deployment: &Deployment, minute: u64) -> u64 {
    minute * 60_000 + deployment.online_window_ms + 70_000
}
