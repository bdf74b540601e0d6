//! Status: the server, how far the group is, who works, and how large everything is.
//!
//! Every figure costs the server the same however much there is.

mod group;

use redis::aio::MultiplexedConnection;
use serde::Serialize;

pub use self::group::{Backlog, Consumer, Held, Stream};
use super::ask::{AskError, ask, number};
use super::{Partition, State};
use crate::config::Deployment;
use crate::redis::reply;

/// The server that has the first partition (`INFO`).
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
    /// The most it may use, in bytes; 0 if nothing is set.
    pub maxmemory_bytes: u64,
    /// What it does at that limit; anything but `noeviction` loses state and events.
    pub maxmemory_policy: String,
}

/// What the server says of itself; `None` if this user may not ask.
///
/// # Errors
/// If the server refuses for another reason, or no reply came.
pub async fn server(connection: &mut MultiplexedConnection) -> Result<Option<Server>, AskError> {
    let info = match ask(connection, &["INFO", "server", "replication", "memory"]).await {
        Err(error) if error.is_forbidden() => return Ok(None),
        reply => reply::text(reply?).unwrap_or_default(),
    };
    Ok(Some(read_info(&info)))
}

fn read_info(info: &str) -> Server {
    let mut server = Server { software: "redis".to_owned(), ..Server::default() };
    for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
        let bytes = || value.parse().unwrap_or(0);
        match name {
            "redis_version" if server.version.is_empty() => value.clone_into(&mut server.version),
            // Valkey gives the Redis version it is compatible with, too.
            "valkey_version" => {
                "valkey".clone_into(&mut server.software);
                value.clone_into(&mut server.version);
            }
            "role" => value.clone_into(&mut server.role),
            "uptime_in_seconds" => server.uptime_s = bytes(),
            "used_memory" => server.used_memory_bytes = bytes(),
            "maxmemory" => server.maxmemory_bytes = bytes(),
            "maxmemory_policy" => value.clone_into(&mut server.maxmemory_policy),
            _ => {}
        }
    }
    server
}

/// A structure, how much is in it, and how much may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// What it holds.
    pub name: &'static str,
    /// How many, over all partitions.
    pub size: u64,
    /// How many may be, over all partitions, where there is a cap.
    pub cap: Option<u64>,
}

/// How large everything is, over all partitions.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn sizes(state: &mut State) -> Result<Vec<Size>, AskError> {
    let mut total: Vec<Size> = Vec::new();
    let minute = state.now_ms / 60_000;
    for partition in &mut state.partitions {
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

pub(in crate::redis) async fn partition_sizes(
    partition: &mut Partition,
    deployment: &Deployment,
    minute: u64,
) -> Result<Vec<Size>, AskError> {
    let keys = &partition.keys;
    let structures = [
        ("online_this_minute", "SCARD", keys.online_minute(minute), None),
        ("presence", "HLEN", keys.presence(), None),
        ("sessions", "HLEN", keys.sessions(), None),
        ("session_data", "HLEN", keys.session_data_versions(), None),
        ("logins", "HLEN", keys.login(), None),
        ("recent_tokens", "ZCARD", keys.recent(), Some(deployment.recent_cap)),
        ("ranked_items", "ZCARD", keys.viewed(), Some(deployment.ranking_cap)),
        ("document_users", "HLEN", keys.docs_connections(), None),
        ("ended_tokens", "ZCARD", keys.tokens_ended(), None),
        ("ended_sessions", "ZCARD", keys.sessions_ended(), None),
        ("dead_letters", "XLEN", keys.dead(), Some(deployment.dead_cap)),
        ("changes", "XLEN", keys.changes(), Some(deployment.changes_cap)),
    ];
    let mut sizes = Vec::with_capacity(structures.len());
    for (name, command, key, cap) in structures {
        let size = number(&ask(&mut partition.connection, &[command, &key]).await?).unwrap_or(0);
        sizes.push(Size { name, size, cap });
    }
    Ok(sizes)
}

/// What is going on in one partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Which partition, from 0.
    pub partition: u16,
    /// The stream; `None` if there is none yet.
    pub stream: Option<Stream>,
    /// When a janitor last swept, epoch milliseconds.
    pub janitor_last_run_ms: Option<u64>,
    /// Which janitor sweeps just now, or did within the last moment.
    pub janitor: Option<String>,
    /// The number of the last change, 0 before the first.
    pub changes_seq: u64,
}

/// What is going on in one partition.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn work(
    partition: &mut Partition,
    deployment: &Deployment,
    now_ms: u64,
) -> Result<Work, AskError> {
    let stream = group::stream(partition, deployment, now_ms).await?;
    let (keys, connection) = (&partition.keys, &mut partition.connection);
    let last_run = ask(connection, &["HGET", &keys.janitor(), "last_run"]).await?;
    let janitor = ask(connection, &["GET", &keys.janitor_lease()]).await?;
    let seq = ask(connection, &["GET", &keys.changes_seq()]).await?;
    Ok(Work {
        partition: partition.index,
        stream,
        janitor_last_run_ms: number(&last_run),
        janitor: reply::text(janitor),
        changes_seq: number(&seq).unwrap_or(0),
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
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
        let server = read_info(valkey);
        assert_eq!((server.software.as_str(), server.version.as_str()), ("valkey", "8.1.1"));
    }
}
