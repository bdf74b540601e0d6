//! What to do about each kind of trouble, in words and in commands that reach the server in question.

use super::{
    AUTH, CONNECTION, DENIED, Error, MAXCLIENTS, MOVING, NO_COMMAND, NO_MASTER, NO_NODE, NOT_OWNER,
    PASSWORD_FILE, PERMISSION, REPARTITION, TIMEOUT, TLS, chain,
};
use crate::config::{Deployment, Shell};

/// What to do about each kind of trouble, and the command that shows more. Rollcall keeps trying meanwhile.
const REMEDIES: &[(&str, &str, &[&str])] = &[
    (
        NO_MASTER,
        "check the master's name, both logins, and that sentinels and master are up; list the masters",
        &["SENTINEL", "MASTERS"],
    ),
    (
        REPARTITION,
        "wait until the repartition is done; if it was stopped, run it again: rollcall repartition",
        &[],
    ),
    (
        NO_NODE,
        "bring the shard's nodes back, and check that they can be reached from here at the addresses that they \
         announce; name more of them in --redis-url; list the nodes",
        &["CLUSTER", "NODES"],
    ),
    (
        MOVING,
        "its slot is moving to another node, and work resumes afterwards; see where it is",
        &["CLUSTER", "NODES"],
    ),
    (CONNECTION, "check --redis-url, and that the server runs and can be reached", &[]),
    (
        TIMEOUT,
        "the server is too slow or does not respond; check its load and look for slow commands",
        &["SLOWLOG", "GET"],
    ),
    (AUTH, "check --redis-username and the password", &[]),
    (PASSWORD_FILE, "put the password into this file, readable for this process", &[]),
    (
        TLS,
        "put usable files there, readable for this process; they are read again for every connection",
        &[],
    ),
    (PERMISSION, "give the user the rights in deploy/acl", &[]),
    (
        DENIED,
        "the server is in protected mode: give it users or a password, or let it listen on loopback only",
        &[],
    ),
    (
        MAXCLIENTS,
        "the server has reached its limit of clients: disconnect some, or raise maxclients in redis.conf or in the \
         provider's settings",
        &[],
    ),
    (
        NO_COMMAND,
        "allow it in redis.conf (rename-command) or in the provider's settings; list everything that is missing",
        &["doctor"],
    ),
    ("oom", "raise maxmemory or free some memory; keep maxmemory-policy noeviction", &[]),
    ("loading", "wait until the server has loaded its data", &[]),
    ("readonly", "this is a replica: point --redis-url at the primary", &[]),
    (
        "misconf",
        "the server cannot write to its disk: free some space, then look at the server's log",
        &[],
    ),
    ("noreplicas", "bring the replicas back, or lower min-replicas-to-write", &[]),
    ("masterdown", "bring the primary back, or promote a replica", &[]),
    (
        "clusterdown",
        "bring the Cluster's missing nodes back; list the nodes",
        &["CLUSTER", "NODES"],
    ),
    ("busy", "another client's script blocks the server; end it", &["SCRIPT", "KILL"]),
    ("nogroup", "the group is created again; find out who destroyed it or the stream", &[]),
    (NOT_OWNER, "another worker continues with the partition; nothing to do", &[]),
    ("wrong_key", "rename or delete that key", &[]),
    (
        "torn",
        "another program removed a key of rollcall:docs; find out which; users are back with their next event",
        &[],
    ),
];

/// An error that waiting does not help against, with its remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}", advised(.error, .remedy.as_deref()))]
pub struct Fatal {
    /// What went wrong.
    pub error: Box<Error>,
    remedy: Option<String>,
}

impl Fatal {
    /// Whether this process has another number of partitions than the deployment. If it were started again unchanged,
    /// it would fail again.
    pub fn is_of_settings(&self) -> bool {
        matches!(*self.error, Error::Partitions { .. })
    }
}

impl Error {
    /// The error that ends a loop, with its remedy.
    pub fn fatal(self, shell: &Shell) -> Fatal {
        Fatal { remedy: self.remedy(shell), error: Box::new(self) }
    }

    /// What went wrong with all causes, and the remedy: the text of `/readyz`.
    pub fn hindrance(&self, shell: &Shell) -> String {
        let remedy = self.remedy(shell);
        advised(self, Some(remedy.as_deref().unwrap_or("Rollcall keeps trying; see the log")))
    }

    /// What to do about it, unless waiting is enough.
    pub fn remedy(&self, shell: &Shell) -> Option<String> {
        match self {
            Self::Settings { key, setting, .. }
                if Deployment::FIXED.contains(&setting.as_str()) =>
            {
                Some(format!(
                    "use the same setting everywhere, or stop every worker and janitor and let the next to start \
                 write its own: {}",
                    shell.redis_cli(&["HDEL", key, setting])
                ))
            }
            Self::Settings { setting, own, .. } => Some(format!(
                "use the same setting everywhere, or make this one the deployment's: {}",
                shell.rollcall(&["rebuild", "--change-settings", &format!("--{setting}"), own])
            )),
            Self::Partitions { stored, .. } => {
                Some(format!("use --partitions {stored}, or another --prefix for a new deployment"))
            }
            Self::Format { .. } => Some(
                "run the version that wrote it, or use another --prefix for a new deployment"
                    .to_owned(),
            ),
            Self::CrossSlot(_) => Some(
                "give --prefix a hash tag, such as '{acme}:', or use --partitions 2 or more"
                    .to_owned(),
            ),
            Self::Tls { remedy, .. } => Some((*remedy).to_owned()),
            Self::NoNode { tried, .. } => {
                tls_remedy(tried.iter()).or_else(|| of_kind(self.kind(), shell))
            }
            Self::NoMaster { tried, .. } => {
                let tried = tried.iter().map(|(_, error)| error);
                tls_remedy(tried).or_else(|| of_kind(self.kind(), shell))
            }
            _ => of_kind(self.kind(), shell),
        }
    }
}

/// The error with all its causes and its remedy, if any, on one line.
pub fn advised(error: &dyn std::error::Error, remedy: Option<&str>) -> String {
    let mut text = chain(error);
    if let Some(remedy) = remedy {
        text.push_str("; ");
        text.push_str(remedy);
    }
    text
}

/// The remedy for TLS, if TLS failed with one of several servers: it is likely to fail with all of them.
fn tls_remedy<'e>(mut tried: impl Iterator<Item = &'e Error>) -> Option<String> {
    tried.find_map(|error| match error {
        Error::Tls { remedy, .. } => Some((*remedy).to_owned()),
        _ => None,
    })
}

fn of_kind(kind: &str, shell: &Shell) -> Option<String> {
    let (_, advice, words) = REMEDIES.iter().find(|(known, ..)| *known == kind)?;
    let command = match *words {
        [] => return Some((*advice).to_owned()),
        ["doctor"] => shell.rollcall(words),
        ["SENTINEL", ..] => shell.sentinel_cli(words),
        _ => shell.redis_cli(words),
    };
    Some(format!("{advice}: {command}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{OTHER, SCRIPT, kinds};
    use super::*;
    use crate::config::{Config, Gathered};

    fn shell(url: &str) -> Shell {
        let config = Config::resolve(&Gathered::from_flags([("redis-url", url)]).unwrap()).unwrap();
        Shell::of(&config.redis, &config.deployment)
    }

    #[test]
    fn every_kind_of_trouble_has_a_remedy_or_is_in_the_log() {
        let known: BTreeSet<_> = REMEDIES.iter().map(|(kind, ..)| *kind).collect();
        let without: Vec<_> = kinds().difference(&known).copied().collect();
        assert_eq!(without, [OTHER, SCRIPT]);
        assert!(known.is_subset(&kinds()) && known.len() == REMEDIES.len());
        let shell = shell("redis://h:7");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = Error::Redis { step: "connecting", source: refused.into() };
        let words = error.hindrance(&shell);
        assert!(
            words.starts_with("connecting failed: ") && words.contains("--redis-url"),
            "{words}"
        );
        assert!(
            Error::ReaderGone.hindrance(&shell).ends_with("; Rollcall keeps trying; see the log")
        );
    }

    #[test]
    fn remedies_name_the_server_at_hand() {
        let command = |kind, url| of_kind(kind, &shell(url)).unwrap();
        let slow = command(TIMEOUT, "redis://:hunter2@h:7/2");
        assert!(slow.ends_with(": redis-cli -h h -p 7 -n 2 --askpass SLOWLOG GET"), "{slow}");
        let lost = command(NO_MASTER, "redis+sentinel://s1,s2/m");
        assert!(lost.ends_with(": redis-cli -h s1 -p 26379 SENTINEL MASTERS"), "{lost}");
        let gone = command(NO_COMMAND, "redis://h");
        assert!(gone.ends_with(": rollcall doctor --redis-url redis://h"), "{gone}");
    }
}
