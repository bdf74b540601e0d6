//! What can go wrong between a process and its server. [`Error::remedy`] says what to do about it.

mod remedy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use redis::RedisError;

pub use self::remedy::{Fatal, advised};

/// What to do after a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server cannot do it now. Discard the batch, wait, reconnect and read again.
    Reconnect,
    /// The script itself failed on its input: find the entry that causes it.
    Poison,
    /// Waiting does not help: the process ends with this error.
    Fatal,
}

/// A failed step, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused a command, or no reply came.
    #[error("{step} failed")]
    Redis {
        /// What was tried.
        step: &'static str,
        /// What the client or the server said.
        #[source]
        source: RedisError,
    },
    /// A server could not be reached, or refused the first command.
    #[error("{step} {address} failed")]
    Server {
        /// What was tried.
        step: &'static str,
        /// The server that failed. Behind sentinels or in a Cluster its address is not in the settings.
        address: String,
        /// What the client or the server said.
        #[source]
        source: RedisError,
    },
    /// The server does not know a command that every Redis of this version has.
    #[error("{step} failed: this server has no {command}; it was renamed or removed")]
    NoCommand {
        /// What was tried.
        step: &'static str,
        /// Which one.
        command: String,
        /// The server's error text, which repeats the arguments.
        cause: RedisError,
    },
    /// One partition's keys lie in several slots of a Cluster.
    #[error("on a Redis Cluster the keys of a partition must share a slot")]
    CrossSlot(#[source] RedisError),
    /// A reply did not have the form that the command documents.
    #[error("{step} got an unexpected reply: {found}")]
    Reply {
        /// What was tried.
        step: &'static str,
        /// The beginning of the reply.
        found: String,
    },
    /// The deployment's settings differ from this process's.
    #[error("{key} has {setting} = {stored}, but this process has {own}")]
    Settings {
        /// The key that holds the deployment's settings.
        key: String,
        /// The setting.
        setting: String,
        /// What the deployment has.
        stored: String,
        /// What this process has.
        own: String,
    },
    /// The deployment has another number of partitions.
    #[error("{key} has partitions = {stored}, but this process has {own}")]
    Partitions {
        /// The key that holds the deployment's settings.
        key: String,
        /// What the deployment has.
        stored: String,
        /// What this process has.
        own: String,
    },
    /// The deployment is being moved to another number of partitions.
    #[error(
        "the deployment is being repartitioned ({moving}, see {key}); this process waits until that is done"
    )]
    Moving {
        /// The key that says so.
        key: String,
        /// From how many partitions to how many.
        moving: String,
    },
    /// The state was written by another version of Rollcall.
    #[error("{key} has state format {stored}, but this version uses format {own}")]
    Format {
        /// The key that holds the format.
        key: String,
        /// The stored format.
        stored: String,
        /// This version's format.
        own: &'static str,
    },
    /// None of the sentinels leads to a server that is a master.
    #[error(
        "redis-url: no sentinel leads to a master {master}: {}",
        tried.iter().map(|(sentinel, why)| format!("{sentinel}: {}", chain(why))).collect::<Vec<_>>().join("; ")
    )]
    NoMaster {
        /// The master's name.
        master: String,
        /// The sentinels that were asked, each with the reason why it did not help.
        tried: Vec<(String, Error)>,
    },
    /// None of the nodes leads to the one with the slot.
    #[error("redis-url: no node leads to slot {slot} of the Cluster: {}", listed(tried))]
    NoNode {
        /// The slot.
        slot: u16,
        /// Why each of the nodes did not help.
        tried: Vec<Error>,
    },
    /// A node redirects to a place that was already tried or is not an address.
    #[error("{from} redirects to {to}, which was already tried or is not an address")]
    Redirect {
        /// The node.
        from: String,
        /// Where it redirects to.
        to: String,
    },
    /// A sentinel has no master of that name.
    #[error("the sentinel knows no master of that name")]
    UnknownMaster,
    /// A sentinel named a server as the master that is not one.
    #[error("the sentinel names {address}, which is a {role}")]
    Role {
        /// The server.
        address: String,
        /// Its own role, as it reports it.
        role: String,
    },
    /// Workers of the previous version have pending entries.
    #[error(
        "{entries} entries of {stream} that the previous version read are pending in the group {group}; let its \
         workers finish, or stop them once XPENDING {stream} {group} shows none"
    )]
    Pending {
        /// The stream.
        stream: String,
        /// The consumer group.
        group: String,
        /// How many are pending.
        entries: String,
    },
    /// Another worker owns the partition.
    #[error("another worker has taken the partition over")]
    NotOwner,
    /// The stream is not the one that the cursor belongs to.
    #[error("the stream was deleted and begun again, or its group and entries are gone")]
    OtherStream,
    /// The reading connection leads to another server than the one that applies.
    #[error("entries would be read from one server and applied to another")]
    OtherServer,
    /// The connection that shows others that this process is alive broke.
    #[error("the connection that shows that this worker is alive was closed")]
    SignLost,
    /// A batch took so long that it will not finish.
    #[error("a batch has been in progress for {seconds} s: this process is stuck")]
    Hung {
        /// For how long.
        seconds: u64,
    },
    /// A TLS connection to a server could not be made.
    #[error("connecting to {address} failed: {why}")]
    Tls {
        /// The server.
        address: String,
        /// What went wrong.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file for TLS cannot be used now; it could when the process started.
    #[error(transparent)]
    TlsFile(#[from] crate::config::TlsFileError),
    /// The password file cannot be read now; it could when the process started.
    #[error("redis-password-file: cannot read {path:?}")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A batch exceeded its deadline; another worker may have taken over by now.
    #[error("a batch was not applied within its deadline of {deadline_ms} ms and is read again")]
    Deadline {
        /// The deadline.
        deadline_ms: u128,
    },
    /// The reader ended without a reason.
    #[error("the reader stopped")]
    ReaderGone,
}

impl Error {
    /// Names the step in which a Redis error occurred.
    pub fn at(step: &'static str) -> impl FnOnce(RedisError) -> Self {
        move |source| match (source.code(), missing_command(&source)) {
            (Some("CROSSSLOT"), _) => Self::CrossSlot(source),
            (_, Some(command)) => Self::NoCommand { step, command, cause: source },
            _ => Self::Redis { step, source },
        }
    }

    /// Names the step and the server of a Redis error.
    pub fn of_server(step: &'static str, address: String) -> impl FnOnce(RedisError) -> Self {
        move |source| match source.code() {
            Some("CROSSSLOT") => Self::CrossSlot(source),
            _ => Self::Server { step, address, source },
        }
    }

    /// What the client or the server said, if a command or a connection caused this.
    pub fn redis(&self) -> Option<&RedisError> {
        match self {
            Self::Redis { source, .. } | Self::Server { source, .. } | Self::CrossSlot(source) => {
                Some(source)
            }
            Self::NoCommand { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// What to do.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Settings { .. }
            | Self::Partitions { .. }
            | Self::Format { .. }
            | Self::CrossSlot(_)
            | Self::Hung { .. } => Verdict::Fatal,
            Self::Redis { source, .. } if is_script_failure(source) => Verdict::Poison,
            _ => Verdict::Reconnect,
        }
    }

    /// The server's error code, or another name for the kind of trouble: the label of the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoMaster { .. } => return NO_MASTER,
            Self::NoNode { tried, .. } => return common_kind(tried),
            Self::Redirect { .. } => return NO_NODE,
            Self::Moving { .. } => return REPARTITION,
            Self::NotOwner | Self::OtherStream => return NOT_OWNER,
            Self::SignLost => return CONNECTION,
            Self::PasswordFile { .. } => return PASSWORD_FILE,
            Self::Tls { .. } | Self::TlsFile(_) => return TLS,
            Self::NoCommand { .. } => return NO_COMMAND,
            _ => {}
        }
        let Some(source) = self.redis() else { return OTHER };
        if source.is_timeout() {
            return TIMEOUT;
        }
        if source.is_io_error() || source.is_connection_dropped() {
            return CONNECTION;
        }
        if source.kind() == redis::ErrorKind::AuthenticationFailed {
            return AUTH;
        }
        if is_missing_right(source) {
            return PERMISSION;
        }
        if source.detail().is_some_and(|detail| detail.contains(MOST_CLIENTS)) {
            return MAXCLIENTS;
        }
        let code = source.code().unwrap_or_default();
        CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, kind)| kind)
    }

    /// Whether the server is a replica and accepts no writes.
    pub fn is_of_replica(&self) -> bool {
        self.kind() == READONLY
    }

    /// Whether another worker owns the partition, or owned it in between.
    pub fn is_lost_ownership(&self) -> bool {
        self.kind() == NOT_OWNER
    }
}

/// The server's error codes, and what kind of trouble each is.
const CODES: &[(&str, &str)] = &[
    ("OOM", "oom"),
    ("LOADING", "loading"),
    ("READONLY", READONLY),
    ("MISCONF", "misconf"),
    ("NOREPLICAS", "noreplicas"),
    ("MASTERDOWN", "masterdown"),
    ("CLUSTERDOWN", "clusterdown"),
    ("MOVED", MOVING),
    ("ASK", MOVING),
    ("TRYAGAIN", MOVING),
    ("BUSY", "busy"),
    ("NOGROUP", "nogroup"),
    ("UNBLOCKED", "nogroup"),
    ("NOTOWNER", NOT_OWNER),
    ("WRONGKEY", "wrong_key"),
    ("WRONGTYPE", "wrong_key"),
    ("TORN", "torn"),
    ("REPARTITION", REPARTITION),
    ("NOAUTH", AUTH),
    ("WRONGPASS", AUTH),
    ("NOPERM", PERMISSION),
    ("DENIED", DENIED),
];
const AUTH: &str = "auth";
const PERMISSION: &str = "permission";
const DENIED: &str = "denied";
const MAXCLIENTS: &str = "maxclients";
const NO_COMMAND: &str = "no_command";
const TIMEOUT: &str = "timeout";
const CONNECTION: &str = "connection";
const NO_MASTER: &str = "no_master";
const NO_NODE: &str = "no_node";
const MOVING: &str = "moving";
const REPARTITION: &str = "repartition";
const NOT_OWNER: &str = "not_owner";
const READONLY: &str = "readonly";
const PASSWORD_FILE: &str = "password_file";
const TLS: &str = "tls";
const OTHER: &str = "other";
/// The script failed on its input.
pub const SCRIPT: &str = "script";
/// How a server with too many clients refuses another.
pub(crate) const MOST_CLIENTS: &str = "max number of clients";

/// How many nodes an error lists with their reasons.
const MOST_LISTED: usize = 8;
/// How many characters of a command's name are shown.
const LONGEST_COMMAND: usize = 32;

/// All kinds of trouble that [`Error::kind`] can name.
pub fn kinds() -> BTreeSet<&'static str> {
    let own = [
        TIMEOUT,
        CONNECTION,
        MAXCLIENTS,
        NO_COMMAND,
        NO_MASTER,
        NO_NODE,
        PASSWORD_FILE,
        TLS,
        OTHER,
        SCRIPT,
    ];
    CODES.iter().map(|(_, kind)| *kind).chain(own).collect()
}

/// The kind of trouble that all nodes share, such as a wrong password; otherwise that none leads anywhere.
fn common_kind(tried: &[Error]) -> &'static str {
    let kinds: BTreeSet<&str> = tried.iter().map(Error::kind).collect();
    match tried.first().map(Error::kind) {
        Some(kind) if kinds.len() == 1 && kind != CONNECTION && kind != TIMEOUT => kind,
        _ => NO_NODE,
    }
}

/// The first of several errors, each with its causes.
fn listed(errors: &[Error]) -> String {
    let mut text =
        errors.iter().take(MOST_LISTED).map(|why| chain(why)).collect::<Vec<_>>().join("; ");
    if let Some(more) = errors.len().checked_sub(MOST_LISTED).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// Whether the script ran and failed, as opposed to errors that are not the batch's fault.
fn is_script_failure(error: &RedisError) -> bool {
    let by_script = error.detail().is_some_and(|detail| detail.contains("script"));
    // In a slot that migrates some keys are here and some elsewhere, so the script cannot continue.
    let is_elsewhere = error.detail().is_some_and(|detail| detail.contains("non local key"));
    error.code() == Some("ERR") && by_script && !is_elsewhere && !is_missing_right(error)
}

/// Whether a script lacked a right. Servers report that under various codes and in various words.
fn is_missing_right(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| {
        detail.contains("The user executing the script can't")
            || detail.contains("ACL failure in script")
    })
}

/// The command that the server does not know. If a script calls it, the server does not name it.
fn missing_command(error: &RedisError) -> Option<String> {
    let detail = error.detail().filter(|_| error.code() == Some("ERR"))?;
    let named = ["unknown command '", "unknown command `", "unknown subcommand '"];
    if let Some(rest) = named.iter().find_map(|start| detail.strip_prefix(start)) {
        let name = rest.chars().take(LONGEST_COMMAND).take_while(|c| !"'`".contains(*c));
        return Some(name.filter(char::is_ascii_graphic).collect::<String>().to_ascii_uppercase());
    }
    let by_script = (detail.starts_with("Unknown ") && detail.contains("called from script"))
        // `redis.acl_check_cmd()` on Redis, `server.acl_check_cmd()` on Valkey.
        || (detail.starts_with("Invalid command passed to ") && detail.contains(".acl_check_cmd()"));
    by_script.then(|| "command that a script calls".to_owned())
}

/// The error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors contain the text of their cause and also have it as their source.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
