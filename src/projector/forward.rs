//! Forwarding: what producers send to the layout before goes where it belongs now. Each partition's owner looks after
//! the streams that are its to look after, and after what in its own stream belongs elsewhere.
//!
//! A target records how far it has what came from where, in the call that adds it: so whoever forwards, and how often,
//! each entry arrives once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Projector;
use crate::config::Deployment;
use crate::decode::{Former, Rules};
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::event::{Reason, Rejection};
use crate::forward::{Forwarded, Place, forward, forward_moved};
use crate::key::Keys;
use crate::op::Letter;
use crate::redis::nodes::Nodes;
use crate::redis::reply;
use crate::redis::scripts::forward::{Share, add};
use crate::redis::scripts::layout::forwarded_layouts;
use crate::telemetry::health::Pulse;
use crate::telemetry::metrics::WorkerMetrics;

/// Entries that are read at first, and at most.
const COUNT: (usize, usize) = (16, 500);
/// Bytes of entries that are read at once, about.
const BYTES: usize = 1 << 20;

/// What of one source entry each partition gets.
type Shares<'a> = BTreeMap<u16, Vec<(EntryId, Share<'a>)>>;

/// Forwards for one partition.
pub(super) struct Forwarder {
    nodes: Arc<Nodes>,
    deployment: Deployment,
    partition: u16,
    rules: Rules,
    streams: Vec<Source>,
    metrics: WorkerMetrics,
}

/// A stream of a layout before, which nobody else reads.
struct Source {
    place: Place,
    until_ms: u64,
    keys: Keys,
    stream: String,
    /// The last entry that was forwarded, once that is known.
    after: Option<EntryId>,
    count: usize,
}

impl Source {
    fn new(place: Place, until_ms: u64, deployment: &Deployment) -> Self {
        let keys = Keys::new(&deployment.prefix, place.partitions, place.index);
        let stream = keys.named(&deployment.stream);
        Self { place, until_ms, keys, stream, after: None, count: COUNT.0 }
    }
}

impl Forwarder {
    /// Learns what there is to forward (`HGET`).
    pub(super) async fn load(projector: &Projector) -> Result<Self, Error> {
        const STEP: &str = "asking what is forwarded";
        let (nodes, meta) = (projector.worker.nodes.clone(), projector.keys.meta());
        let mut ask = redis::cmd("HGET");
        ask.arg(&meta).arg("forwarded");
        let mut connection = nodes.connect(&meta).await?;
        let stored: Option<String> =
            ask.query_async(&mut connection).await.map_err(Error::at(STEP))?;
        let formers = forwarded_layouts(&stored.unwrap_or_default());
        let (deployment, partition) = (projector.deployment.clone(), projector.fold.partition);
        let streams = formers.iter().flat_map(|former| {
            let places = places(former.partitions, deployment.partitions, partition);
            places.map(|place| Source::new(place, former.until_ms, &deployment))
        });
        let streams = streams.collect();
        let metrics = projector.metrics.clone();
        let rules = Rules { moved_from: formers.clone(), ..deployment.rules() };
        Ok(Self { nodes, partition, rules, streams, metrics, deployment })
    }

    /// The layouts whose events are passed over in this partition's own stream.
    pub(super) fn formers(&self) -> Vec<Former> {
        self.rules.moved_from.clone()
    }

    /// Whether there are streams to look after.
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

    /// Forwards the next entries of each stream; whether there may be more.
    pub(super) async fn step(&mut self) -> Result<bool, Error> {
        let mut more = false;
        for at in 0..self.streams.len() {
            let entries = self.read(at).await?;
            let Some(last) = entries.last().map(|entry| entry.id) else { continue };
            more = true;
            let Source { place, until_ms, stream, .. } = &self.streams[at];
            let mut shares = Shares::new();
            for entry in &entries {
                let forwarded = match entry.id.ms < *until_ms {
                    true => forward(entry, *place, &self.rules),
                    false => too_late(entry, *place, self.deployment.partitions),
                };
                self.share(entry.id, forwarded, &mut shares);
            }
            self.add(*place, stream, shares).await?;
            self.pass(at, last).await?;
        }
        Ok(more)
    }

    /// Forwards what of entries of the partition's own stream belongs elsewhere.
    pub(super) async fn moved(&self, entries: &[Entry]) -> Result<(), Error> {
        let mut shares = Shares::new();
        for entry in entries {
            self.share(entry.id, forward_moved(entry, self.partition, &self.rules), &mut shares);
        }
        let partitions = self.deployment.partitions;
        let keys = Keys::new(&self.deployment.prefix, partitions, self.partition);
        let place = Place { partitions, index: self.partition };
        self.add(place, &keys.named(&self.deployment.stream), shares).await
    }

    fn share<'a>(&self, id: EntryId, forwarded: Forwarded<'a>, shares: &mut Shares<'a>) {
        let Forwarded { entries, letters } = forwarded;
        for (partition, entries) in entries {
            let share = Share { entries, letters: Vec::new() };
            shares.entry(partition).or_default().push((id, share));
        }
        if letters.is_empty() {
            return;
        }
        let own = shares.entry(self.partition).or_default();
        match own.last_mut().filter(|(last, _)| *last == id) {
            Some((_, share)) => share.letters = letters,
            None => own.push((id, Share { entries: Vec::new(), letters })),
        }
    }

    async fn add(&self, from: Place, stream: &str, shares: Shares<'_>) -> Result<(), Error> {
        for (partition, shares) in shares {
            let keys = Keys::new(&self.deployment.prefix, self.deployment.partitions, partition);
            let mut connection = self.nodes.connect(&keys.meta()).await?;
            let new =
                add(&mut connection, &self.deployment, &keys, (from, stream), &shares).await?;
            self.metrics.forwarded(new);
        }
        Ok(())
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
                let stored = stored.and_then(|stored| stored.parse().ok());
                stored.unwrap_or(EntryId { ms: 0, seq: 0 })
            }
        };
        source.after = Some(after);
        let mut read = redis::cmd("XRANGE");
        read.arg(&source.stream).arg(format!("({after}")).arg("+").arg("COUNT").arg(source.count);
        let value = read.query_async(&mut connection).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &redis::Value::Nil);
        let entries = reply::entries(value).ok_or(unexpected)?;
        let bytes: usize = entries.iter().map(Entry::size).sum();
        if !entries.is_empty() {
            let fits = entries.len() * BYTES / bytes.max(1);
            source.count = fits.clamp(1, (source.count * 4).min(COUNT.1));
        }
        Ok(entries)
    }

    /// Notes that entries up to one are where they belong: the layout before has no more use for them.
    async fn pass(&mut self, at: usize, last: EntryId) -> Result<(), Error> {
        let Source { keys, stream, after, .. } = &mut self.streams[at];
        let mut connection = self.nodes.connect(&keys.meta()).await?;
        let mut pass = redis::pipe();
        pass.hset(keys.meta(), "cursor", last.to_string()).ignore();
        pass.cmd("XTRIM").arg(&*stream).arg("MINID").arg(last.to_string()).ignore();
        let passed = pass.exec_async(&mut connection).await;
        passed.map_err(Error::at("passing entries of another layout"))?;
        *after = Some(last);
        Ok(())
    }
}

/// The partitions of a layout before whose streams a partition looks after: those that are not in this layout.
fn places(before: u16, now: u16, partition: u16) -> impl Iterator<Item = Place> {
    let stays = move |index: &u16| before > 1 && now > 1 && *index < now;
    let is_own = move |index: &u16| *index % now == partition;
    let indices = (0..before).filter(move |index| !stays(index) && is_own(index));
    indices.map(move |index| Place { partitions: before, index })
}

/// An entry that came when the layout before counted no more.
fn too_late(entry: &Entry, from: Place, partitions: u16) -> Forwarded<'_> {
    let detail = format!(
        "the entry was sent to partition {} of {}, but the deployment has {partitions} partitions; send it to the \
         stream that its identifier belongs to",
        from.index, from.partitions
    );
    let letter = Letter {
        id: entry.id,
        rejection: Rejection::new(Reason::WrongPartition, detail),
        index: None,
        fields: entry.fields().collect(),
    };
    Forwarded { letters: vec![letter], ..Forwarded::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_that_nobody_reads_has_one_who_forwards_it() {
        for (before, now) in [(1, 4), (4, 1), (4, 2), (2, 4), (7, 3), (1, 2)] {
            let found = (0..now).flat_map(|own| places(before, now, own));
            let mut found: Vec<u16> = found.map(|place| place.index).collect();
            found.sort_unstable();
            let stays = if before > 1 && now > 1 { now.min(before) } else { 0 };
            assert_eq!(found, (stays..before).collect::<Vec<_>>(), "{before} to {now}");
        }
    }
}
