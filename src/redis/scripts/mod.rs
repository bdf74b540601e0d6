//! The scripts and how they are called: by digest, loaded again whenever the server has lost them.

pub mod apply;
pub mod changes;
pub mod encrypt;
pub mod layout;
pub mod letters;
pub mod losses;
pub mod owner;
pub mod repairs;
pub mod sweep;
pub mod turn;

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};

use crate::config::Deployment;
use crate::key::Keys;

const COMMON: &str = include_str!("common.lua");
const TORN: &str = include_str!("torn.lua");
/// What the apply script merges, a file for each structure.
const MERGE: [&str; 5] = [
    include_str!("merge.lua"),
    include_str!("merge_presence.lua"),
    include_str!("merge_tokens.lua"),
    include_str!("merge_sessions.lua"),
    include_str!("merge_documents.lua"),
];
const APPLY: &str = include_str!("apply.lua");
const GROUPS: &str = include_str!("groups.lua");
const SWEEP: &str = include_str!("sweep.lua");
const OWNER: &str = include_str!("owner.lua");
const POSITION: &str = include_str!("position.lua");
const CURSOR: &str = include_str!("cursor.lua");
const LOSSES: &str = include_str!("losses.lua");
const ENCRYPT: &str = include_str!("encrypt.lua");
const LETTERS: &str = include_str!("letters.lua");

/// What the scripts are called with besides a batch: the keys and settings of one partition.
#[derive(Clone, Debug)]
pub struct Scripts {
    keys: Vec<String>,
    settings: Vec<String>,
}

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Merges a batch.
    Apply,
    /// Takes away what is stale.
    Sweep,
    /// Shares out the partition.
    Owner,
    /// Looks for entries that were lost.
    Losses,
    /// Tries dead letters again.
    Letters,
    /// Encrypts session data.
    Encrypt,
}

impl Script {
    /// All of them, in the order of their digests.
    pub(crate) const ALL: [Self; 6] =
        [Self::Apply, Self::Sweep, Self::Owner, Self::Losses, Self::Letters, Self::Encrypt];
    /// The doctor's own: which commands this user may send.
    pub(crate) const RIGHTS: &str = include_str!("rights.lua");

    fn source(self) -> String {
        match self {
            Self::Apply => {
                [COMMON, GROUPS, POSITION, CURSOR, TORN, &MERGE.join("\n"), APPLY].join("\n")
            }
            Self::Sweep => [COMMON, TORN, GROUPS, SWEEP].join("\n"),
            // At full memory a partition must still change hands.
            Self::Owner => [COMMON, GROUPS, POSITION, CURSOR, OWNER].join("\n").replacen(
                "#!lua\n",
                "#!lua flags=allow-oom\n",
                1,
            ),
            Self::Losses => [COMMON, GROUPS, LOSSES].join("\n"),
            Self::Letters => LETTERS.to_owned(),
            Self::Encrypt => ENCRYPT.to_owned(),
        }
    }

    /// The SHA-1 under which a server knows the script.
    fn digest(self) -> &'static str {
        static DIGESTS: LazyLock<[String; 6]> = LazyLock::new(|| {
            Script::ALL.map(|script| redis::Script::new(&script.source()).get_hash().to_owned())
        });
        &DIGESTS[self as usize]
    }
}

impl Scripts {
    /// The scripts for one partition of a deployment.
    pub fn new(deployment: &Deployment, keys: &Keys) -> Self {
        Self { keys: declared_keys(&deployment.stream, keys), settings: settings(deployment) }
    }

    /// A call of a script up to its settings: what it does itself comes after.
    pub fn call(&self, script: Script, epoch: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.digest()).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        command.arg(epoch);
        for setting in &self.settings {
            command.arg(setting);
        }
        command
    }
}

/// The keys in the order `common.lua` unpacks them.
fn declared_keys(stream: &str, keys: &Keys) -> Vec<String> {
    let beginnings = [keys.activity(), keys.session_data(), keys.document()];
    shared_keys(stream, keys).into_iter().map(|(key, _)| key).chain(beginnings).collect()
}

/// The structures that many entries share, and the type of each, as `TYPE` says it. None has an expiry: what others
/// set is taken off.
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

/// The settings in the order `common.lua` names them, after the epoch.
fn settings(deployment: &Deployment) -> Vec<String> {
    let thresholds = deployment.thresholds.iter().map(|t| format!("{}:{}", t.up, t.down));
    vec![
        deployment.group.clone(),
        deployment.presence_ttl_ms.to_string(),
        deployment.session_ttl_ms.to_string(),
        deployment.document_ttl_ms.to_string(),
        activity_ttl_seconds(deployment).to_string(),
        deployment.viewed_cap.to_string(),
        deployment.changes_cap.to_string(),
        deployment.dead_cap.to_string(),
        thresholds.collect::<Vec<_>>().join(","),
    ]
}

/// How long `user-activity/<user>` outlives the seconds it holds.
fn activity_ttl_seconds(deployment: &Deployment) -> u64 {
    deployment.online_window_ms / 1000 + 10
}

/// When the set of an epoch minute goes, in milliseconds: its start, the window and 70 s.
pub fn minute_expiry_ms(deployment: &Deployment, minute: u64) -> u64 {
    minute * 60_000 + deployment.online_window_ms + 70_000
}

/// Sends a script call; if the server lost the script (`SCRIPT FLUSH`, restart), loads it and sends the
/// call once more. `NOSCRIPT` means that nothing ran.
///
/// # Errors
/// What the server or the script answers.
pub async fn send(
    connection: &mut MultiplexedConnection,
    script: Script,
    call: &Cmd,
) -> RedisResult<Value> {
    match call.query_async(connection).await {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            ensure_loaded(connection, script).await?;
            call.query_async(connection).await
        }
        reply => reply,
    }
}

/// Makes the server know a script (`SCRIPT LOAD`).
///
/// # Errors
/// If the server does not take it.
pub async fn ensure_loaded(
    connection: &mut MultiplexedConnection,
    script: Script,
) -> RedisResult<()> {
    redis::cmd("SCRIPT").arg("LOAD").arg(script.source()).query_async(connection).await
}
