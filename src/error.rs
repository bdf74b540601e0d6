//! What can go wrong between a process and its server, and what to do about it.

use std::collections::BTreeSet;

use redis::RedisError;

/// What a failed step calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server cannot do it now. Drop what is in hand, wait, connect anew and read again.
    Reconnect,
    /// The script itself failed on what it was given: find the entry that does it.
    Poison,
    /// No waiting helps: the process ends with this error.
    Fatal,
}

/// A failed step, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not be reached, or refused a command.
    #[error("{step} failed")]
    Redis {
        /// What was tried.
        step: &'static str,
        /// What the client or the server said.
        #[source]
        source: RedisError,
    },
    /// One partition's keys lie in several slots of a Cluster.
    #[error(
        "on a Redis Cluster the keys of a partition must share a slot; give --prefix a hash tag, such as \
         {{acme}}:, or use --partitions 2 or more"
    )]
    CrossSlot(#[source] RedisError),
    /// A reply had another form than the command gives.
    #[error("{step} got a reply of an unexpected form: {found}")]
    Reply {
        /// What was tried.
        step: &'static str,
        /// What came instead.
        found: String,
    },
    /// The deployment's settings differ from this process's.
    #[error(
        "{key} says {setting} = {stored}, this process has {own}; use the same setting everywhere, or stop \
         every worker and janitor and let the next to start write its own: redis-cli HDEL {key} {setting}"
    )]
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
    /// The state is cut into another number of partitions.
    #[error(
        "{key} says partitions = {stored}, this process has {own}; start it with --partitions {stored}, or \
         give it another --prefix to begin anew"
    )]
    Partitions {
        /// The key that holds the deployment's settings.
        key: String,
        /// What the deployment has.
        stored: String,
        /// What this process has.
        own: String,
    },
    /// The state was written by another version of Rollcall.
    #[error(
        "{key} says state format {stored}; this version keeps format {own}: run the version that wrote it, or use another prefix"
    )]
    Format {
        /// The key that holds the format.
        key: String,
        /// The stored format.
        stored: String,
        /// This version's format.
        own: &'static str,
    },
    /// None of the sentinels leads to a server that is the master.
    #[error(
        "redis-url: no sentinel leads to a master {master}; check the name (SENTINEL MASTERS), that sentinels and \
         master are up, and both logins: {}",
        tried.iter().map(|(sentinel, why)| format!("{sentinel}: {}", chain(why))).collect::<Vec<_>>().join("; ")
    )]
    NoMaster {
        /// The master's name.
        master: String,
        /// The sentinels that were asked, and what came of it.
        tried: Vec<(String, Error)>,
    },
    /// A sentinel has no master of that name.
    #[error("the sentinel knows no master of that name")]
    UnknownMaster,
    /// A sentinel named a server as the master that is none.
    #[error("the sentinel names {address}, which is a {role}")]
    Role {
        /// The server.
        address: String,
        /// What it says it is.
        role: String,
    },
    /// Workers of the version before have entries in hand.
    #[error(
        "{entries} entries of {stream} are pending in the group {group}, which the version before left there; let its \
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
    /// The stream is not the one that the cursor is about.
    #[error("the stream was deleted and begun again, or its group and entries are gone")]
    OtherStream,
    /// The reading connection is at another server than the one that applies.
    #[error("entries would be read from another server than they are applied to")]
    OtherServer,
    /// The connection that shows that this process lives broke.
    #[error("the connection that shows that this worker lives was closed")]
    SignLost,
    /// A batch stayed in hand so long that nothing can be expected of it.
    #[error("a batch has been in hand for {seconds} s: this process is stuck")]
    Hung {
        /// For how long.
        seconds: u64,
    },
    /// A batch stayed in hand too long; another worker may have taken over by now.
    #[error("a batch was not applied within its deadline of {deadline_ms} ms; it is read again")]
    Deadline {
        /// The deadline.
        deadline_ms: u128,
    },
    /// The reader ended without saying why.
    #[error("the reader stopped")]
    ReaderGone,
}

impl Error {
    /// Names the step that a Redis error came from.
    pub fn at(step: &'static str) -> impl FnOnce(RedisError) -> Self {
        move |source| match source.code() {
            Some("CROSSSLOT") => Self::CrossSlot(source),
            _ => Self::Redis { step, source },
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
            Self::Redis { .. }
            | Self::Reply { .. }
            | Self::NoMaster { .. }
            | Self::UnknownMaster
            | Self::Role { .. }
            | Self::Pending { .. }
            | Self::NotOwner
            | Self::OtherStream
            | Self::OtherServer
            | Self::SignLost
            | Self::Deadline { .. }
            | Self::ReaderGone => Verdict::Reconnect,
        }
    }

    /// The server's error code, or what kind of trouble it is: the label of the metric.
    pub fn kind(&self) -> &'static str {
        let source = match self {
            Self::Redis { source, .. } => source,
            Self::NoMaster { .. } => return NO_MASTER,
            Self::NotOwner | Self::OtherStream => return NOT_OWNER,
            Self::SignLost => return CONNECTION,
            _ => return OTHER,
        };
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
        let code = source.code().unwrap_or_default();
        CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, kind)| kind)
    }

    /// What went wrong with all its causes, and what to do about it: the words of `/readyz`.
    pub fn hindrance(&self) -> String {
        let kind = self.kind();
        let remedy = REMEDIES.iter().find(|(known, _)| *known == kind).map(|(_, remedy)| *remedy);
        let remedy = remedy.unwrap_or("it is tried again; see the log");
        format!("{}; {remedy}", chain(self))
    }

    /// Whether another worker owns the partition by now, or took it in between.
    pub fn is_lost_ownership(&self) -> bool {
        self.kind() == NOT_OWNER
    }
}

/// The server's error codes, and what kind of trouble each is.
const CODES: &[(&str, &str)] = &[
    ("OOM", "oom"),
    ("LOADING", "loading"),
    ("READONLY", "readonly"),
    ("MISCONF", "misconf"),
    ("NOREPLICAS", "noreplicas"),
    ("MASTERDOWN", "masterdown"),
    ("CLUSTERDOWN", "clusterdown"),
    ("BUSY", "busy"),
    ("NOGROUP", "nogroup"),
    ("UNBLOCKED", "nogroup"),
    ("NOTOWNER", NOT_OWNER),
    ("WRONGKEY", "wrong_key"),
    ("WRONGTYPE", "wrong_key"),
    ("NOAUTH", AUTH),
    ("WRONGPASS", AUTH),
    ("NOPERM", PERMISSION),
];
/// What to do about each kind of trouble; everything is tried again meanwhile.
const REMEDIES: &[(&str, &str)] = &[
    (
        NO_MASTER,
        "see what the sentinels say of it: SENTINEL GET-MASTER-ADDR-BY-NAME, SENTINEL MASTERS",
    ),
    (CONNECTION, "check --redis-url, and that the server runs and can be reached"),
    (
        TIMEOUT,
        "the server is too slow or stands still: look for slow commands (SLOWLOG GET) and its load",
    ),
    (AUTH, "check --redis-username and the password"),
    (PERMISSION, "give the user the rights that stand in deploy/acl"),
    ("oom", "raise maxmemory or free some; keep maxmemory-policy noeviction"),
    ("loading", "wait until the server has loaded its data"),
    ("readonly", "this is a replica: point --redis-url at the primary"),
    (
        "misconf",
        "the server cannot write to its disk: free some of it, then look at the server's log",
    ),
    ("noreplicas", "bring the replicas back, or lower min-replicas-to-write"),
    ("masterdown", "bring the primary back, or promote a replica"),
    ("clusterdown", "bring the Cluster's missing nodes back"),
    ("busy", "a script of somebody else blocks the server: SCRIPT KILL"),
    ("nogroup", "the group is made again; find out who destroyed it, or the stream"),
    (NOT_OWNER, "another worker goes on with the partition: nothing to do"),
    ("wrong_key", "rename or delete that key"),
];
const AUTH: &str = "auth";
const PERMISSION: &str = "permission";
const TIMEOUT: &str = "timeout";
const CONNECTION: &str = "connection";
const NO_MASTER: &str = "no_master";
const NOT_OWNER: &str = "not_owner";
const OTHER: &str = "other";
/// The script failed on what it was given.
pub const SCRIPT: &str = "script";

/// All kinds of trouble, as [`Error::kind`] names them.
pub fn kinds() -> BTreeSet<&'static str> {
    CODES
        .iter()
        .map(|(_, kind)| *kind)
        .chain([TIMEOUT, CONNECTION, NO_MASTER, OTHER, SCRIPT])
        .collect()
}

/// Whether the script ran and failed, as opposed to everything that is not the batch's fault.
fn is_script_failure(error: &RedisError) -> bool {
    let by_script = error.detail().is_some_and(|detail| detail.contains("script"));
    // Keys of a slot that migrates: some are there, some here, and the script cannot go on.
    let is_elsewhere = error.detail().is_some_and(|detail| detail.contains("non local key"));
    error.code() == Some("ERR") && by_script && !is_elsewhere && !is_missing_right(error)
}

/// Whether a script lacked a right: servers say so under the code of any error, in words of their own.
fn is_missing_right(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| {
        detail.contains("The user executing the script can't")
            || detail.contains("ACL failure in script")
    })
}

/// The error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some errors say their cause themselves, and then have it as their source, too.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_trouble_has_a_remedy_or_is_in_the_log() {
        let known: BTreeSet<_> = REMEDIES.iter().map(|(kind, _)| *kind).collect();
        let without: Vec<_> = kinds().difference(&known).copied().collect();
        assert_eq!(without, [OTHER, SCRIPT]);
        assert!(known.is_subset(&kinds()) && known.len() == REMEDIES.len());
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Error::Redis { step: "connecting", source: refused.into() };
        let words = error.hindrance();
        assert!(
            words.starts_with("connecting failed: ") && words.contains("--redis-url"),
            "{words}"
        );
        assert!(Error::ReaderGone.hindrance().ends_with("; it is tried again; see the log"));
    }
}
