//! Queries: the state as typed values. They only read, and expect that any key may not be Rollcall's.
//!
//! Each call on a large structure is bounded: hashes and sets are walked page by page, sorted sets and streams are
//! read from one end. Nothing blocks the server for longer than one page takes.
//!
//! There is one function per query and partition; [`Listed::merged`] combines the answers of several partitions.

mod ask;
pub mod dead;
pub mod documents;
pub mod history;
mod link;
pub mod pages;
mod progress;
mod reach;
pub mod sessions;
mod shared;
mod statistics;
pub mod status;
pub mod tokens;
pub mod users;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use redis::aio::ConnectionLike;
use serde::Serialize;
use tokio::time::timeout;

pub use self::ask::AskError;
pub(crate) use self::ask::{Walk, ask, literal, number, range};
pub use self::link::Link;
pub use self::progress::cursor;
pub(crate) use self::reach::find_all;
use self::reach::reach;
pub use self::shared::{Away, Facts, Keeper, Shared};
pub use self::statistics::{Statistics, statistics};
use crate::config::{Config, Deployment, Millis, Shell, Threshold};
use crate::entry::EntryId;
use crate::error::{Error, chain};
use crate::key::{Keys, partition_of};
use crate::redis::nodes::Nodes;
use crate::redis::reply;
use crate::redis::scripts::layout::STATE_FORMAT;
use crate::seal::SessionKeys;

/// The time limit of one page.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of a look at one partition; after that the known state of the others is shown.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The beginning of a list, and its total length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// The total length.
    pub count: u64,
    /// The first of them.
    pub items: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { count: 0, items: Vec::new() }
    }
}

impl<T> Listed<T> {
    /// Combines the lists of several partitions: the first `limit` in this order.
    pub fn merged(
        parts: impl IntoIterator<Item = Self>,
        limit: usize,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.count += part.count;
            all.items.extend(part.items);
        }
        all.cut(limit, order);
        all
    }

    /// Counts an item and keeps it if it is among the first `limit`; uses memory for twice as many.
    fn push(&mut self, item: T, limit: usize, order: impl Fn(&T, &T) -> Ordering) {
        self.count += 1;
        self.items.push(item);
        if self.items.len() >= limit.saturating_mul(2).max(1024) {
            self.cut(limit, order);
        }
    }

    fn cut(&mut self, limit: usize, order: impl Fn(&T, &T) -> Ordering) {
        self.items.sort_by(order);
        self.items.truncate(limit);
    }
}

/// One partition, for queries.
#[derive(Clone)]
pub struct Partition {
    /// Its index, from 0.
    pub index: u16,
    /// Its key names.
    pub keys: Keys,
    /// A connection to its node, or the reason why there is none.
    pub connection: Link,
}

/// A deployment's state, for queries.
#[derive(Clone)]
pub struct State {
    nodes: Arc<Nodes>,
    /// The partitions in order.
    pub partitions: Vec<Partition>,
    /// The deployment's settings from `rollcall:meta`; missing ones are the process's own.
    pub deployment: Deployment,
    /// Whether there is a `rollcall:meta`, that is, whether any worker or janitor ever started here.
    pub found: bool,
    /// Makes the commands that answers suggest.
    pub shell: Shell,
    /// The server's time in milliseconds: ages and windows use the same clock as expiries.
    pub now_ms: u64,
    /// What decrypts session data, if there are keys.
    pub session_keys: Option<SessionKeys>,
}

impl State {
    /// Connects, reads the deployment's settings and checks the process's against them.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or has state of another format or partitioning.
    pub async fn open(config: &Config) -> Result<Self, AskError> {
        Self::open_with(config, RESPONSE_TIMEOUT).await
    }

    /// The same; replies may take `response_timeout`.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or has state of another format or partitioning.
    pub async fn open_with(config: &Config, response_timeout: Duration) -> Result<Self, AskError> {
        let deployment = config.deployment.clone();
        let server = config.redis.server();
        let nodes = Arc::new(Nodes::new(server, response_timeout));
        let (partitions, places) = reach(&nodes, &deployment).await?;
        let shell = Shell::of(&config.redis, &config.deployment);
        let shell = match places.as_slice() {
            [node] => shell.at(&node.at.info),
            _ => shell,
        };
        let mut state = Self {
            nodes,
            partitions,
            deployment,
            found: false,
            shell,
            now_ms: 0,
            session_keys: None,
        };
        let is_alone = state.partitions.len() == 1;
        let Some(Partition { connection, keys, .. }) = state.reachable() else {
            return Err(reply::unexpected("reaching the partitions", &Value::Nil).into());
        };
        let (mut connection, keys) = (connection.clone(), keys.clone());
        if is_alone {
            one_slot(&mut connection, &keys).await?;
        }
        state.found = read_meta(&mut connection, &keys, &mut state.deployment).await?;
        state.now_ms = server_time(&mut connection).await?;
        Ok(state)
    }

    /// The time of the query, and the default lifetime of sessions.
    pub fn session_clock(&self) -> sessions::Clock {
        sessions::Clock { now_ms: self.now_ms, usual_ms: self.deployment.session_ttl_ms }
    }

    /// The first partition whose node can be reached.
    pub fn reachable(&mut self) -> Option<&mut Partition> {
        self.partitions.iter_mut().find(|partition| partition.connection.away().is_none())
    }

    /// The partitions whose nodes cannot be reached, and why.
    pub fn away(&self) -> impl Iterator<Item = (u16, &str)> {
        self.partitions.iter().filter_map(|one| Some((one.index, one.connection.away()?)))
    }

    /// Looks at every partition, independently; updates the time and, on request, the settings.
    ///
    /// # Errors
    /// If no partition can be reached, or the deployment has changed.
    async fn look(&mut self, reads_settings: bool) -> Result<(), AskError> {
        let look = self.partitions.iter().map(|partition| async {
            timeout(LOOK_WITHIN, self.nodes.connect(&partition.keys.meta())).await
        });
        let mut reasons = Vec::new();
        let links: Vec<Link> = join_all(look)
            .await
            .into_iter()
            .map(|found| match found {
                Ok(Ok(connection)) => connection.into(),
                Ok(Err(error)) => {
                    let link = Link::Away(chain(&error).into());
                    reasons.push(error);
                    link
                }
                Err(_) => Link::Away("its node does not answer".into()),
            })
            .collect();
        for (partition, link) in self.partitions.iter_mut().zip(links) {
            partition.connection = link;
        }
        let reads_settings = reads_settings || !self.found;
        let Some(Partition { connection, keys, .. }) = self.reachable() else {
            let silent = || std::io::Error::from(std::io::ErrorKind::TimedOut).into();
            let error = reasons.into_iter().next();
            return Err(error
                .unwrap_or_else(|| Error::at("looking for the state")(silent()))
                .into());
        };
        let (mut connection, keys) = (connection.clone(), keys.clone());
        if reads_settings {
            self.found = read_meta(&mut connection, &keys, &mut self.deployment).await?;
        }
        self.now_ms = server_time(&mut connection).await?;
        Ok(())
    }

    /// The partition that an identifier belongs to.
    pub fn partition_of(&mut self, id: &str) -> &mut Partition {
        let index = partition_of(id, self.deployment.partitions);
        &mut self.partitions[usize::from(index)]
    }
}

pub(crate) async fn server_time(
    connection: &mut (impl ConnectionLike + Send),
) -> Result<u64, AskError> {
    let value = ask(connection, &["TIME"]).await?;
    let parts = reply::elements(&value).unwrap_or_default();
    match (parts.first().and_then(number), parts.get(1).and_then(number)) {
        (Some(seconds), Some(micros)) => Ok(seconds * 1000 + micros / 1000),
        _ => Err(reply::unexpected("TIME", &value).into()),
    }
}

/// The greatest id that a stream ever gave (`XINFO STREAM`).
pub(crate) async fn last_generated_id(
    connection: &mut Link,
    key: &str,
) -> Result<EntryId, AskError> {
    let info = ask(connection, &["XINFO", "STREAM", key]).await?;
    let last = reply::pairs_of(&info).unwrap_or_default().iter().find_map(|[name, id]| {
        reply::text_of(name).filter(|name| name == "last-generated-id")?;
        reply::entry_id_of(id)
    });
    last.ok_or_else(|| reply::unexpected("XINFO STREAM", &info).into())
}

/// The maximum time between the reply to `TIME` and the last reply of a look.
const LOOK_MS: u64 = 5_000;

/// How far a time stored by the server's clock is ahead of that clock. If it is, the clock went back, or a server
/// whose clock is behind took over.
pub fn clock_went_back(stored_ms: u64, now_ms: u64) -> Option<u64> {
    stored_ms.checked_sub(now_ms).filter(|ahead_ms| *ahead_ms > LOOK_MS)
}

/// Checks that the keys of a single partition share a slot, so that a Cluster which scatters them is reported as such
/// and not by a redirect of the first query.
async fn one_slot(connection: &mut Link, keys: &Keys) -> Result<(), AskError> {
    let words = ["EXISTS", &keys.meta(), &keys.presence(), &keys.login()];
    match ask(connection, &words).await {
        Err(AskError::Server(error @ Error::CrossSlot(_))) => Err(error.into()),
        // Any other error shows with the next query.
        _ => Ok(()),
    }
}

/// Overrides the process's settings with those of `rollcall:meta`; `false` if there are none.
async fn read_meta(
    connection: &mut Link,
    keys: &Keys,
    deployment: &mut Deployment,
) -> Result<bool, AskError> {
    let names: Vec<&str> = deployment.meta_fields().into_iter().map(|(name, _)| name).collect();
    let meta = keys.meta();
    let mut words = vec!["HMGET", meta.as_str(), "format"];
    words.extend(&names);
    let values = reply::array(ask(connection, &words).await?).unwrap_or_default();
    let mut stored = values.into_iter().map(reply::text);
    let Some(format) = stored.next().flatten() else {
        other_layout(connection, deployment).await?;
        return Ok(false);
    };
    if format != STATE_FORMAT {
        return Err(Error::Format { key: meta, stored: format, own: STATE_FORMAT }.into());
    }
    for (name, text) in names.into_iter().zip(stored) {
        let Some(text) = text else { continue };
        if name == "partitions" && text != deployment.partitions.to_string() {
            return Err(AskError::Partitions { key: meta, stored: text });
        }
        adopt(deployment, name, &text);
    }
    Ok(true)
}

/// If nothing was found: whether there is state with one partition instead of several, or the other way round. An
/// error of this look proves nothing.
async fn other_layout(connection: &mut Link, deployment: &Deployment) -> Result<(), AskError> {
    let partitions = if deployment.partitions == 1 { 2 } else { 1 };
    let key = Keys::new(&deployment.prefix, partitions, 0).meta();
    match ask(connection, &["HGET", &key, "partitions"]).await.map(reply::text) {
        Ok(Some(stored)) if stored != deployment.partitions.to_string() => {
            Err(AskError::Partitions { key, stored })
        }
        _ => Ok(()),
    }
}

/// Adopts one setting; if its text cannot be read, the process's own stays.
pub(crate) fn adopt(deployment: &mut Deployment, name: &str, text: &str) {
    let length = |own: &mut u64| {
        if let Ok(length) = text.parse::<Millis>() {
            *own = length.ms();
        }
    };
    let cap = |own: &mut u64| *own = text.parse().unwrap_or(*own);
    let size = |own: &mut usize| *own = text.parse().unwrap_or(*own);
    match name {
        "stream" => text.clone_into(&mut deployment.stream),
        "group" => text.clone_into(&mut deployment.group),
        "projections" => deployment.projections = text.parse().unwrap_or(deployment.projections),
        "thresholds" => deployment.thresholds = text.split(',').filter_map(threshold).collect(),
        "online-window" => length(&mut deployment.online_window_ms),
        "presence-ttl" => length(&mut deployment.presence_ttl_ms),
        "session-ttl" => length(&mut deployment.session_ttl_ms),
        "document-ttl" => length(&mut deployment.document_ttl_ms),
        "recent-cap" => cap(&mut deployment.recent_cap),
        "viewed-cap" => cap(&mut deployment.viewed_cap),
        "ranking-cap" => cap(&mut deployment.ranking_cap),
        "dead-cap" => cap(&mut deployment.dead_cap),
        "changes-cap" => cap(&mut deployment.changes_cap),
        "max-skew" => length(&mut deployment.max_skew_ms),
        "max-identifier-bytes" => size(&mut deployment.limits.max_identifier_bytes),
        "max-field-bytes" => size(&mut deployment.limits.max_field_bytes),
        "max-data-bytes" => size(&mut deployment.limits.max_data_bytes),
        "max-fields" => size(&mut deployment.limits.max_fields),
        "max-events" => size(&mut deployment.limits.max_events),
        _ => {}
    }
}

fn threshold(pair: &str) -> Option<Threshold> {
    let (up, down) = pair.split_once(':')?;
    Some(Threshold { up: up.parse().ok()?, down: down.parse().ok()? })
}

/// Milliseconds of a score in seconds; 0 if it is not a time.
fn score_ms(seconds: f64) -> u64 {
    // Saturates. Three decimals survive, as current scores have 21 bits for fractions of a second.
    (seconds * 1000.0).round() as u64
}

/// The value as a list.
fn list(value: Value) -> Vec<Value> {
    reply::array(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_merge_to_the_first_of_all_of_them() {
        let part = |count, items: &[u32]| Listed { count, items: items.to_vec() };
        let parts = [part(10, &[1, 4, 9]), part(2, &[2, 3]), part(0, &[])];
        let merged = Listed::merged(parts, 3, u32::cmp);
        assert_eq!(merged, Listed { count: 12, items: vec![1, 2, 3] });
    }

    #[test]
    fn a_list_keeps_the_first_in_bounded_memory() {
        let mut list = Listed::default();
        for n in (0..10_000_u32).rev() {
            list.push(n, 5, u32::cmp);
            assert!(list.items.len() < 1024);
        }
        list.cut(5, u32::cmp);
        assert_eq!(list, Listed { count: 10_000, items: vec![0, 1, 2, 3, 4] });
    }

    #[test]
    fn scores_keep_their_milliseconds() {
        for ms in [1_790_000_000_123, 1_999_999_999_999, 9_999_999_999_999] {
            let score: f64 = crate::time::EventTime::from_millis(ms).score().parse().unwrap();
            assert_eq!(score_ms(score), ms);
        }
        assert_eq!((score_ms(-1.0), score_ms(f64::NAN)), (0, 0));
    }
}
