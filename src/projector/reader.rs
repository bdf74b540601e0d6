//! The reader. While there is a backlog, it stays one batch ahead of what is being applied. Otherwise it reads when a
//! batch is wanted: a call costs the server as much as several events, so everything that came meanwhile goes with
//! one call.
//!
//! It reads on from its position, over a connection of its own. It has no effect on the server, so it may be
//! cancelled at any moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::quiet::Quiet;
use crate::config::Address;
use crate::config::Live;
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::redis::feed::Feed;
use crate::redis::feed::parse::{Bounds, Delivered};
use crate::redis::stream::read_after;
use crate::telemetry::health::Pulse;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::trace::Read;

/// How long a read waits for new entries.
pub(super) const BLOCK: Duration = Duration::from_secs(1);
/// How many bytes of entries a read should bring; fewer entries are requested if they are large.
const READ_BYTES: usize = 4 << 20;
/// How many entries a session's first read requests, since their size is not known yet.
pub(super) const FIRST_COUNT: usize = 16;

/// Entries that were read together.
#[derive(Debug)]
pub(super) struct Batch {
    /// The entries, in the order of their ids.
    pub(super) entries: Vec<Entry>,
    /// The entry that they follow.
    pub(super) after: EntryId,
    /// The read that brought them.
    pub(super) read: Read,
    /// When they were read.
    pub(super) since: Instant,
}

/// Where the reading connection leads, and what proves that it is the server that applies.
pub(super) struct Place {
    /// The node.
    pub(super) at: Address,
    /// How long a reply may take.
    pub(super) response_timeout: Duration,
    /// The key that holds the owner's fence.
    pub(super) meta: String,
    /// The fence that must be there.
    pub(super) fence: String,
}

impl Place {
    /// Connects, and checks that the server has this owner's fence.
    async fn open(&self) -> Result<Feed, Error> {
        let mut feed = Feed::open(&self.at, self.response_timeout).await?;
        match feed.field(&self.meta, "fence").await? {
            Some(fence) if fence == self.fence => Ok(feed),
            _ => Err(Error::OtherServer),
        }
    }
}

/// Reads a partition's stream.
pub(super) struct Source {
    place: Place,
    feed: Feed,
    /// When it last brought something, or returned empty.
    fed: Instant,
    stream: String,
    bounds: Bounds,
    quiet: Quiet,
    metrics: WorkerMetrics,
}

impl Source {
    /// Connects. The reply is kept within `bounds`.
    pub(super) async fn open(
        place: Place,
        stream: String,
        bounds: Bounds,
        quiet: Quiet,
        metrics: WorkerMetrics,
    ) -> Result<Self, Error> {
        let feed = place.open().await?;
        Ok(Self { place, feed, fed: Instant::now(), stream, bounds, quiet, metrics })
    }

    /// Up to `count` entries after an id; none if nothing came within [`BLOCK`].
    pub(super) async fn read(&mut self, after: EntryId, count: usize) -> Result<Batch, Error> {
        self.read_guarded(after, count, false).await.map(|(batch, _)| batch)
    }

    async fn read_guarded(
        &mut self,
        after: EntryId,
        count: usize,
        guarded: bool,
    ) -> Result<(Batch, bool), Error> {
        if self.fed.elapsed() > BLOCK {
            // It was idle for longer than some servers and proxies allow, and no request is in flight on it.
            self.feed = self.place.open().await?;
        }
        let (started, read) = (Instant::now(), Read::begin());
        let command = read_after(&self.stream, after, count, BLOCK);
        let gate = guarded.then(|| self.quiet.gate());
        let Delivered { entries, is_cut } = self.feed.read(&command, self.bounds, gate).await?;
        self.fed = Instant::now();
        self.metrics.read_took(started.elapsed());
        self.metrics.read(&entries);
        let is_full = is_cut || entries.len() >= count;
        Ok((Batch { entries, after, read: read.end(), since: Instant::now() }, is_full))
    }
}

/// Hands out batches.
#[derive(Debug)]
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<Batch, Error>>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Starts to read after an entry, first `count` at a time, at most a batch.
    pub(super) fn start(
        source: Source,
        after: EntryId,
        (count, live): (usize, Live),
        pulse: Pulse,
    ) -> Self {
        let wanted = Arc::new(Notify::new());
        let (sender, batches) = mpsc::channel(1);
        let task = ReadTask {
            source,
            after,
            count: count.min(live.get().batch),
            live,
            is_behind: false,
            wanted: wanted.clone(),
            pulse,
        };
        Self { batches, wanted, task: tokio::spawn(task.run(sender)) }
    }

    /// The next batch; `None` if the reader ended without a reason. The future may be dropped and the method called
    /// again.
    pub(super) async fn next(&mut self) -> Option<Result<Batch, Error>> {
        self.wanted.notify_one();
        self.batches.recv().await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct ReadTask {
    source: Source,
    after: EntryId,
    count: usize,
    live: Live,
    /// Whether the last read brought as many entries as it requested, so that there are more.
    is_behind: bool,
    /// Notified whenever a batch is requested.
    wanted: Arc<Notify>,
    pulse: Pulse,
}

impl ReadTask {
    async fn run(mut self, sender: mpsc::Sender<Result<Batch, Error>>) {
        let mut is_wanted = false;
        loop {
            if !self.is_behind && !is_wanted {
                self.wanted.notified().await;
                is_wanted = true;
            }
            let batch = match self.read().await {
                Ok(Some(batch)) => Ok(batch),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            if !is_wanted {
                self.wanted.notified().await;
            }
            is_wanted = false;
            let failed = batch.is_err();
            if sender.send(batch).await.is_err() || failed {
                return;
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Batch>, Error> {
        let (batch, is_full) = self.source.read_guarded(self.after, self.count, true).await?;
        self.is_behind = is_full;
        let Some(last) = batch.entries.last() else {
            self.pulse.idle();
            return Ok(None);
        };
        self.after = last.id;
        self.adapt_count(&batch.entries);
        Ok(Some(batch))
    }

    /// Large entries are read a few at a time, so that a batch takes little memory here and in the server's buffer.
    fn adapt_count(&mut self, entries: &[Entry]) {
        let size =
            |entry: &Entry| entry.oversize().map_or(entry.size(), |large| large.bytes as usize);
        let bytes: usize = entries.iter().map(size).sum();
        self.count = if bytes > READ_BYTES {
            (entries.len() * READ_BYTES / bytes).max(1)
        } else {
            (self.count * 2).min(self.live.get().batch)
        };
    }
}
