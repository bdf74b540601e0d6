//! Status: the server, the group's position, the workers, and the sizes of all structures.
//!
//! Every figure costs the server the same, however large the state is.

mod group;
pub mod survey;

use serde::Serialize;

pub use self::group::{Backlog, Held, Stream};
use super::ask::{AskError, ask, number};
use super::{Partition, State};
use crate::config::Deployment;
use crate::key::Keys;
use crate::redis::reply;
use crate::redis::scripts::turn;
use crate::state::Link;

/// The server with the first partition (`INFO`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Server {
    /// `redis` or `valkey`.
    pub software: String,
    /// Its version.
    pub version: String,
    /// `master` or `slave`.
    pub role: String,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Memory in use, in bytes.
    pub used_memory_bytes: u64,
    /// The limit, in bytes; 0 if there is none.
    pub maxmemory_bytes: u64,
    /// Its policy at that limit; anything but `noeviction` loses state and events.
    pub maxmemory_policy: String,
    /// Keys it evicted since it started.
    pub evicted_keys: u64,
    /// Replicas connected to it.
    pub replicas: u64,
    /// Whether a replica is connected to its primary; `true` on a primary.
    pub replication_link_up: bool,
}

/// The sections of `INFO` with these figures.
const INFO: &[&str] = &["server", "replication", "memory", "stats"];

/// The server's description of itself; `None` if this user may not ask, or the partition is unreachable.
///
/// # Errors
/// If the server refuses for another reason, or no reply came.
pub async fn server(connection: &mut Link) -> Result<Option<Server>, AskError> {
    let info = match ask(connection, &[&["INFO"], INFO].concat()).await {
        Err(error) if error.is_unavailable() => return Ok(None),
        reply => reply::text(reply?).unwrap_or_default(),
    };
    Ok(Some(read_info(&info)))
}

fn read_info(info: &str) -> Server {
    let mut server =
        Server { software: "redis".to_owned(), replication_link_up: true, ..Server::default() };
    for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
        let number = || value.parse().unwrap_or(0);
        match name {
            "redis_version" if server.version.is_empty() => value.clone_into(&mut server.version),
            // Valkey also gives the Redis version it is compatible with.
            "valkey_version" => {
                "valkey".clone_into(&mut server.software);
                value.clone_into(&mut server.version);
            }
            "role" => value.clone_into(&mut server.role),
            "uptime_in_seconds" => server.uptime_s = number(),
            "used_memory" => server.used_memory_bytes = number(),
            "maxmemory" => server.maxmemory_bytes = number(),
            "maxmemory_policy" => value.clone_into(&mut server.maxmemory_policy),
            "evicted_keys" => server.evicted_keys = number(),
            "connected_slaves" => server.replicas = number(),
            "master_link_status" => server.replication_link_up = value == "up",
            _ => {}
        }
    }
    server
}

/// A part of the state whose size is shown.
pub struct Structure {
    /// Its content.
    pub name: &'static str,
    /// The command that returns its size in constant time.
    command: &'static str,
    /// Its key, in an epoch minute.
    key: fn(&Keys, u64) -> String,
    /// Its cap.
    cap: fn(&Deployment) -> Option<u64>,
}

/// Declares a structure: name, command, key, and its cap if it has one.
macro_rules! structure {
    ($name:literal, $command:literal, $key:ident $(, $cap:ident)?) => {
        Structure {
            name: $name,
            command: $command,
            key: |keys, _| keys.$key(),
            cap: |_deployment| None$(.or(Some(_deployment.$cap)))?,
        }
    };
}

/// All such structures.
pub const STRUCTURES: &[Structure] = &[
    Structure {
        name: "seen_this_minute",
        command: "SCARD",
        key: Keys::online_minute,
        cap: |_| None,
    },
    structure!("presence", "HLEN", presence),
    structure!("sessions", "HLEN", sessions),
    structure!("session_data", "HLEN", session_data_versions),
    structure!("logins", "HLEN", login),
    structure!("recent_tokens", "ZCARD", recent, recent_cap),
    structure!("ranked_items", "ZCARD", viewed, ranking_cap),
    structure!("document_users", "HLEN", docs_connections),
    structure!("ended_tokens", "ZCARD", tokens_ended),
    structure!("ended_sessions", "ZCARD", sessions_ended),
    structure!("dead_letters", "XLEN", dead, dead_cap),
    structure!("changes", "XLEN", changes, changes_cap),
];

/// A structure, its size, and its cap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Its content.
    pub name: &'static str,
    /// The size, over all partitions.
    pub size: u64,
    /// The cap, over all partitions, if there is one.
    pub cap: Option<u64>,
}

/// The sizes of all structures, over all reachable partitions.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn sizes(state: &mut State) -> Result<Vec<Size>, AskError> {
    let mut total: Vec<Size> = Vec::new();
    let minute = state.now_ms / 60_000;
    for partition in state.partitions.iter_mut().filter(|one| one.connection.away().is_none()) {
        let sizes = partition_sizes(partition, &state.deployment, minute).await?;
        if total.is_empty() {
            total = sizes;
            continue;
        }
        for (all, one) in total.iter_mut().zip(sizes) {
            all.size += one.size;
            all.cap = all.cap.zip(one.cap).map(|(all, one)| all + one);
        }
    }
    Ok(total)
}

pub(crate) async fn partition_sizes(
    partition: &mut Partition,
    deployment: &Deployment,
    minute: u64,
) -> Result<Vec<Size>, AskError> {
    let mut sizes = Vec::with_capacity(STRUCTURES.len());
    for Structure { name, command, key, cap } in STRUCTURES {
        let key = key(&partition.keys, minute);
        let size = number(&ask(&mut partition.connection, &[*command, &key]).await?).unwrap_or(0);
        sizes.push(Size { name, size, cap: cap(deployment) });
    }
    Ok(sizes)
}

/// The activity in one partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Which partition, from 0.
    pub partition: u16,
    /// The stream; `None` if there is none yet.
    pub stream: Option<Stream>,
    /// When a janitor last swept, epoch milliseconds.
    pub janitor_last_run_ms: Option<u64>,
    /// The janitor that is sweeping, or was a moment ago.
    pub janitor: Option<String>,
    /// The number of the last change, 0 before the first.
    pub changes_seq: u64,
    /// Why nothing of this is known: the node cannot be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
}

/// The activity in one partition.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn work(
    partition: &mut Partition,
    deployment: &Deployment,
    now_ms: u64,
) -> Result<Work, AskError> {
    if let Some(why) = partition.connection.away() {
        return Ok(Work {
            partition: partition.index,
            stream: None,
            janitor_last_run_ms: None,
            janitor: None,
            changes_seq: 0,
            away: Some(why.to_owned()),
        });
    }
    let stream = group::stream(partition, deployment, now_ms).await?;
    let (keys, connection) = (&partition.keys, &mut partition.connection);
    let last_run = ask(connection, &["HGET", &keys.janitor(), "last_run"]).await?;
    let janitor = ask(connection, &["GET", &keys.janitor_lease()]).await?;
    let seq = ask(connection, &["GET", &keys.changes_seq()]).await?;
    Ok(Work {
        partition: partition.index,
        stream,
        janitor_last_run_ms: number(&last_run),
        janitor: reply::text(janitor).map(|holder| turn::owner(&holder).to_owned()),
        changes_seq: number(&seq).unwrap_or(0),
        away: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_who_it_is() {
        let redis = "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:7\r\n# Replication\r\n\
                     role:master\r\nused_memory:900\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
        let server = read_info(redis);
        assert_eq!((server.software.as_str(), server.version.as_str()), ("redis", "7.0.15"));
        assert_eq!((server.uptime_s, server.used_memory_bytes), (7, 900));
        assert_eq!(server.maxmemory_policy, "noeviction");
        assert!(server.replication_link_up, "a primary needs no link");
        let replica =
            "role:slave\r\nmaster_link_status:down\r\nconnected_slaves:2\r\nevicted_keys:3\r\n";
        let server = read_info(replica);
        assert_eq!(
            (server.replication_link_up, server.replicas, server.evicted_keys),
            (false, 2, 3)
        );
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
        let server = read_info(valkey);
        assert_eq!((server.software.as_str(), server.version.as_str()), ("valkey", "8.1.1"));
    }
}
