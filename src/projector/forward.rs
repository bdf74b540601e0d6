//! Forwarding: entries that producers send to an earlier layout go where they belong now. Each partition's owner
//! forwards the old streams assigned to it, and the entries in its own stream that belong elsewhere.
//!
//! One call adds an entry to all its targets and records that. However often and by whomever it is forwarded, each
//! entry arrives once.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tracing::warn;

use super::Projector;
use crate::config::Deployment;
use crate::decode::{Former, Rules};
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::event::{Reason, Rejection};
use crate::forward::{Forwarded, forward, forward_moved};
use crate::key::Keys;
use crate::op::Letter;
use crate::redis::nodes::Nodes;
use crate::redis::reply;
use crate::redis::scripts::forward::{Origin, add};
use crate::redis::scripts::layout::forwarded_layouts;
use crate::telemetry::health::Pulse;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::WorkerMetrics;

/// How many entries are read at first, and at most.
const COUNT: (usize, usize) = (16, 500);
/// About how many bytes of entries are read at once.
const BYTES: usize = 1 << 20;

/// Forwards for one partition.
pub(super) struct Forwarder {
    nodes: Arc<Nodes>,
    deployment: Deployment,
    partition: u16,
    rules: Rules,
    streams: Vec<Source>,
    metrics: WorkerMetrics,
}

/// A stream of earlier layouts that nothing else reads.
struct Source {
    place: Place,
    /// The layouts that had it.
    formers: Vec<Former>,
    keys: Keys,
    stream: String,
    /// The last entry that was forwarded, once known.
    after: Option<EntryId>,
    count: usize,
}

/// A partition in any layout: with one partition keys have other names than with several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Only,
    OneOf(u16),
}

impl Place {
    fn index(self) -> u16 {
        match self {
            Self::Only => 0,
            Self::OneOf(index) => index,
        }
    }

    /// The partitions of a layout.
    fn all(partitions: u16) -> impl Iterator<Item = Self> {
        (0..partitions)
            .map(move |index| if partitions == 1 { Self::Only } else { Self::OneOf(index) })
    }
}

impl Source {
    fn new(place: Place, formers: Vec<Former>, deployment: &Deployment) -> Self {
        let partitions = formers.first().map_or(1, |former| former.partitions);
        let keys = Keys::new(&deployment.prefix, partitions, place.index());
        let stream = keys.named(&deployment.stream);
        Self { place, formers, keys, stream, after: None, count: COUNT.0 }
    }
}

impl Forwarder {
    /// Reads what there is to forward (`HGET`).
    pub(super) async fn load(projector: &Projector) -> Result<Self, Error> {
        const STEP: &str = "asking what is forwarded";
        let (nodes, keys) = (projector.worker.nodes.clone(), projector.keys.clone());
        let mut connection = nodes.connect(&keys.meta()).await?;
        let mut ask = redis::cmd("HGET");
        ask.arg(keys.meta()).arg("forwarded");
        let stored: Option<String> =
            ask.query_async(&mut connection).await.map_err(Error::at(STEP))?;
        let formers = forwarded_layouts(&stored.unwrap_or_default());
        let formers =
            if is_cluster(&mut connection, &formers).await? { Vec::new() } else { formers };
        let formers = done_under(&mut connection, &keys.meta(), &formers).await?;
        let (deployment, partition) = (projector.deployment.clone(), projector.fold.partition);
        let streams = places(&formers, deployment.partitions, partition).into_iter();
        let streams = streams.map(|(place, formers)| Source::new(place, formers, &deployment));
        let streams = streams.collect();
        let metrics = projector.metrics.clone();
        let rules = Rules { moved_from: formers.clone(), ..deployment.rules() };
        Ok(Self { nodes, partition, rules, streams, metrics, deployment })
    }

    /// The layouts whose events are passed over in this partition's own stream.
    pub(super) fn formers(&self) -> Vec<Former> {
        self.rules.moved_from.clone()
    }

    /// Whether there are streams to forward.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Forwards until nothing is left to forward.
    pub(super) async fn catch_up(&mut self, pulse: &Pulse) -> Result<(), Error> {
        while self.step().await? {
            pulse.busy();
        }
        Ok(())
    }

    /// Forwards the next entries of each stream; returns whether there may be more.
    pub(super) async fn step(&mut self) -> Result<bool, Error> {
        let mut more = false;
        for at in 0..self.streams.len() {
            let entries = self.read(at).await?;
            let Some(last) = entries.last().map(|entry| entry.id) else { continue };
            more = true;
            let Source { place, formers, keys, stream, after, .. } = &self.streams[at];
            let forwarded = entries.iter().map(|entry| {
                let forwarded = forward(entry, place.index(), formers, &self.rules);
                (entry.id, forwarded.unwrap_or_else(|| self.too_late(entry, stream)))
            });
            let forwarded: Vec<_> = forwarded.collect();
            let passed = self.add(Origin { keys, stream, after: *after }, &forwarded).await?;
            // If another process was faster, the cursor says how far it got.
            self.streams[at].after = passed.then_some(last);
        }
        Ok(more)
    }

    /// Forwards the parts of entries in the partition's own stream that belong elsewhere.
    pub(super) async fn moved(&self, entries: &[Entry]) -> Result<(), Error> {
        let forwarded = entries
            .iter()
            .map(|entry| (entry.id, forward_moved(entry, self.partition, &self.rules)));
        let forwarded: Vec<_> =
            forwarded.filter(|(_, forwarded)| !forwarded.entries.is_empty()).collect();
        if forwarded.is_empty() {
            return Ok(());
        }
        let Deployment { prefix, partitions, stream, .. } = &self.deployment;
        let keys = Keys::new(prefix, *partitions, self.partition);
        let stream = keys.named(stream);
        let origin = Origin { keys: &keys, stream: &stream, after: None };
        self.add(origin, &forwarded).await.map(drop)
    }

    /// Returns whether this call was the one that added.
    async fn add(
        &self,
        origin: Origin<'_>,
        forwarded: &[(EntryId, Forwarded<'_>)],
    ) -> Result<bool, Error> {
        let mut connection = self.nodes.connect(&origin.keys.meta()).await?;
        let added =
            add(&mut connection, &self.deployment, self.partition, origin, forwarded).await?;
        self.metrics.forwarded(added.unwrap_or(0));
        Ok(added.is_some())
    }

    /// Handles an entry that came when no earlier layout was forwarded any more.
    fn too_late<'a>(&self, entry: &'a Entry, stream: &str) -> Forwarded<'a> {
        let detail = format!(
            "the entry was sent to {stream}, but the deployment now has {} partitions; send it to the stream that \
             its identifier belongs to",
            self.deployment.partitions
        );
        let letter = Letter {
            id: entry.id,
            rejection: Rejection::new(Reason::WrongPartition, detail),
            index: None,
            fields: entry.fields().collect(),
        };
        Forwarded { letters: vec![letter], ..Forwarded::default() }
    }

    /// The next entries of a stream (`XRANGE`).
    async fn read(&mut self, at: usize) -> Result<Vec<Entry>, Error> {
        const STEP: &str = "reading entries of another layout";
        let source = &mut self.streams[at];
        let mut connection = self.nodes.connect(&source.keys.meta()).await?;
        let after = match source.after {
            Some(after) => after,
            None => {
                let mut ask = redis::cmd("HGET");
                ask.arg(source.keys.meta()).arg("cursor");
                let stored: Option<String> =
                    ask.query_async(&mut connection).await.map_err(Error::at(STEP))?;
                source.formers =
                    done_under(&mut connection, &source.keys.meta(), &source.formers).await?;
                let stored = stored.and_then(|stored| stored.parse().ok());
                stored.unwrap_or(EntryId { ms: 0, seq: 0 })
            }
        };
        source.after = Some(after);
        let mut read = redis::cmd("XRANGE");
        read.arg(&source.stream).arg(format!("({after}")).arg("+").arg("COUNT").arg(source.count);
        let value = read.query_async(&mut connection).await.map_err(Error::at(STEP))?;
        let entries = reply::entries(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
        let bytes: usize = entries.iter().map(Entry::size).sum();
        if !entries.is_empty() {
            let fits = entries.len() * BYTES / bytes.max(1);
            source.count = fits.clamp(1, (source.count * 4).min(COUNT.1));
        }
        Ok(entries)
    }
}

/// Layouts, with how far each has forwarded a partition's stream (`HGET`).
async fn done_under(
    connection: &mut MultiplexedConnection,
    meta: &str,
    formers: &[Former],
) -> Result<Vec<Former>, Error> {
    const STEP: &str = "asking how far a stream was forwarded";
    let mut found = Vec::new();
    for former in formers {
        let mut ask = redis::cmd("HGET");
        ask.arg(meta).arg(format!("forwarded:{}", former.partitions));
        let last: Option<String> = ask.query_async(connection).await.map_err(Error::at(STEP))?;
        found.push(Former { done: last.and_then(|last| last.parse().ok()), ..*former });
    }
    Ok(found)
}

/// Whether partitions are on several servers by now; then no call can add to all of them.
async fn is_cluster(
    connection: &mut MultiplexedConnection,
    formers: &[Former],
) -> Result<bool, Error> {
    if formers.is_empty() {
        return Ok(false);
    }
    let info: String = redis::cmd("INFO")
        .arg("cluster")
        .query_async(connection)
        .await
        .map_err(Error::at("asking whether this is a Cluster"))?;
    let is_cluster = info.contains("cluster_enabled:1");
    if is_cluster && failure_line_due().is_some() {
        warn!("on a Redis Cluster, entries sent to an earlier layout are not forwarded");
    }
    Ok(is_cluster)
}

/// The partitions of earlier layouts whose streams a partition forwards, each with the layouts that had it. They do
/// not exist in this layout.
fn places(formers: &[Former], now: u16, partition: u16) -> BTreeMap<Place, Vec<Former>> {
    let after: Vec<Place> = Place::all(now).collect();
    let mut found = BTreeMap::<Place, Vec<Former>>::new();
    for former in formers {
        for place in Place::all(former.partitions) {
            if !after.contains(&place) && place.index() % now == partition {
                found.entry(place).or_default().push(*former);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_that_nobody_reads_has_one_who_forwards_it() {
        for (before, now) in [(1, 4), (4, 1), (4, 2), (2, 4), (7, 3), (1, 2)] {
            let formers = [Former::new(before, 1)];
            let found = (0..now).flat_map(|own| places(&formers, now, own));
            let mut found: Vec<u16> = found.map(|(place, _)| place.index()).collect();
            found.sort_unstable();
            let stays = if before > 1 && now > 1 { now.min(before) } else { 0 };
            assert_eq!(found, (stays..before).collect::<Vec<_>>(), "{before} to {now}");
        }
    }
    #[test]
    fn a_stream_of_several_layouts_is_read_by_one() {
        let formers = [1, 4, 3].map(|partitions| Former::new(partitions, 1));
        let found: Vec<_> = (0..2)
            .flat_map(|own| places(&formers, 2, own))
            .map(|(place, formers)| {
                (place, formers.iter().map(|former| former.partitions).collect::<Vec<_>>())
            })
            .collect();
        let expected =
            [(Place::Only, vec![1]), (Place::OneOf(2), vec![4, 3]), (Place::OneOf(3), vec![4])];
        assert_eq!(found, expected);
    }
}
