//! The statistics of a server: figures of `INFO` under their familiar names.

use super::ask::{AskError, ask, number};
use crate::redis::reply;
use crate::state::Link;

/// Figures of the server with the first partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Memory in use, readable for people; `Unknown` if this user may not ask.
    pub memory_used: String,
    /// Clients that are connected.
    pub connected_clients: u64,
    /// Commands since the server started.
    pub total_commands_processed: u64,
    /// Lookups of keys that succeeded.
    pub keyspace_hits: u64,
    /// Lookups of keys that failed.
    pub keyspace_misses: u64,
    /// Keys of the database.
    pub db_size: u64,
}

/// Figures of a server; those that this user may not read are 0.
///
/// # Errors
/// If the server refuses for another reason, or no reply came.
pub async fn statistics(connection: &mut Link) -> Result<Statistics, AskError> {
    let mut statistics = Statistics { memory_used: "Unknown".to_owned(), ..Statistics::default() };
    let info = match ask(connection, &["INFO"]).await {
        Err(error) if error.is_forbidden() => String::new(),
        reply => reply::text(reply?).unwrap_or_default(),
    };
    for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
        let count = || value.parse().unwrap_or(0);
        match name {
            "used_memory_human" => value.clone_into(&mut statistics.memory_used),
            "connected_clients" => statistics.connected_clients = count(),
            "total_commands_processed" => statistics.total_commands_processed = count(),
            "keyspace_hits" => statistics.keyspace_hits = count(),
            "keyspace_misses" => statistics.keyspace_misses = count(),
            _ => {}
        }
    }
    statistics.db_size = match ask(connection, &["DBSIZE"]).await {
        Err(error) if error.is_forbidden() => 0,
        size => number(&size?).unwrap_or(0),
    };
    Ok(statistics)
}
