//! The reader: stays one batch ahead of what is being applied while there is more than one, and else reads when
//! a batch is wanted: a call costs the server as much as several events, so all that came meanwhile goes with one.
//! New entries come over a connection of its own; what is asked for once in a while goes over the one that applies.
//!
//! In this order: what is pending for this consumer, what dead consumers left, and then new entries,
//! with a look at what dead consumers left every now and then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::Projector;
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::redis::connect::{Node, keep_alive};
use crate::redis::feed::Feed;
use crate::redis::reply::Delivered;
use crate::redis::scripts::group::Membership;
use crate::redis::stream::StreamReader;
use crate::telemetry::health::Pulse;
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::{Delivery, WorkerMetrics};
use crate::telemetry::trace::Read;

/// How long a read waits for new entries; a stop waits as long.
const BLOCK: Duration = Duration::from_secs(1);
/// The least time between two log lines about the same thing.
const LINES: Duration = Duration::from_secs(1);
/// Bytes of entries a read should bring; fewer entries are asked for if they are large.
const READ_BYTES: usize = 4 << 20;

/// Entries that were delivered together.
#[derive(Debug)]
pub(super) struct Batch {
    /// The entries, in the order of their ids.
    pub(super) entries: Vec<Entry>,
    /// Those delivered so often that they are to be tried alone.
    pub(super) suspects: HashSet<EntryId>,
    /// The read that brought them.
    pub(super) read: Read,
    /// When they were delivered.
    pub(super) since: Instant,
}

/// Hands out batches.
#[derive(Debug)]
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<Batch, Error>>,
    wanted: Arc<Notify>,
    task: JoinHandle<usize>,
}

impl Reader {
    /// Connects to that node, too, and begins to read. Batches belong to `epoch`.
    pub(super) async fn start(
        projector: &Projector,
        epoch: String,
        node: &Node,
    ) -> Result<Self, Error> {
        let response_timeout = BLOCK + projector.worker.batch_deadline;
        let wanted = Arc::new(Notify::new());
        let reading = Reading {
            wanted: wanted.clone(),
            is_wanted: false,
            is_behind: false,
            feed: Feed::open(&node.info, response_timeout).await?,
            fed: Instant::now(),
            response_timeout,
            node: node.clone(),
            stream: StreamReader {
                stream: projector.keys.named(&projector.deployment.stream),
                group: projector.deployment.group.clone(),
                consumer: projector.membership.consumer().to_owned(),
            },
            membership: projector.membership.clone(),
            epoch,
            claim_idle: projector.worker.claim_idle,
            max_deliveries: projector.worker.max_deliveries,
            max_count: projector.worker.batch,
            count: projector.first_count,
            metrics: projector.metrics.clone(),
            pulse: projector.pulse.clone(),
            claimed: Throttle::new(LINES),
            stop: projector.stop.clone(),
        };
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(reading.run(sender));
        Ok(Self { batches, wanted, task })
    }

    /// The next batch; `None` once told to stop and all that was read is handed out.
    pub(super) async fn next(&mut self) -> Option<Result<Batch, Error>> {
        self.wanted.notify_one();
        self.batches.recv().await
    }

    /// Ends reading: a read that is under way is let finish, for what it brings is pending from then on. Tells
    /// how many entries were asked for at last, if it came to an end.
    pub(super) async fn end(mut self) -> Option<usize> {
        self.batches.close();
        let ended = tokio::time::timeout(BLOCK * 2, &mut self.task).await;
        self.task.abort();
        ended.ok()?.ok()
    }
}

type Sender = mpsc::Sender<Result<Batch, Error>>;

/// The receiver has gone: the session is over.
struct SessionOver;

struct Reading {
    /// Told whenever a batch is asked for.
    wanted: Arc<Notify>,
    /// Whether one was asked for and not handed over yet.
    is_wanted: bool,
    /// Whether the last read brought as many new entries as it asked for: there are more.
    is_behind: bool,
    feed: Feed,
    /// When it last brought something, or was asked in vain.
    fed: Instant,
    response_timeout: Duration,
    node: Node,
    stream: StreamReader,
    membership: Membership,
    epoch: String,
    claim_idle: Duration,
    max_deliveries: u64,
    max_count: usize,
    count: usize,
    metrics: WorkerMetrics,
    pulse: Pulse,
    claimed: Throttle,
    stop: watch::Receiver<bool>,
}

impl Reading {
    async fn run(mut self, sender: Sender) -> usize {
        if let Err(Some(error)) = self.read_all(&sender).await {
            // If the receiver has gone, the session failed for another reason already.
            let _gone = sender.send(Err(error)).await;
        }
        self.count
    }

    async fn read_all(&mut self, sender: &Sender) -> Result<(), Option<Error>> {
        self.replay(sender).await?;
        let mut next_claim = Instant::now();
        loop {
            if !self.is_behind {
                self.want(sender).await?;
            }
            if *self.stop.borrow() || sender.is_closed() {
                return Ok(());
            }
            if Instant::now() >= next_claim {
                self.refresh().await?;
                self.claim(sender).await?;
                next_claim = Instant::now() + self.claim_idle.div_f64(2.0 + fastrand::f64());
            }
            self.read_new(sender).await?;
        }
    }

    async fn read_new(&mut self, sender: &Sender) -> Result<(), Option<Error>> {
        if self.fed.elapsed() > BLOCK {
            // It was idle for longer than some servers and proxies bear, and nothing is on its way over it.
            self.feed = Feed::open(&self.node.info, self.response_timeout).await?;
        }
        let (started, read) = (Instant::now(), Read::begin(Delivery::New));
        let delivered = self.stream.read_new(&mut self.feed, self.count, BLOCK).await?;
        self.fed = Instant::now();
        self.metrics.read_took(started.elapsed());
        if delivered.entries.is_empty() {
            self.pulse.idle();
            keep_alive(&mut self.node.connection, &self.stream.stream).await?;
        }
        self.is_behind = delivered.entries.len() >= self.count;
        self.hand_out(sender, delivered, read.end()).await
    }

    /// Waits until a batch is wanted.
    async fn want(&mut self, sender: &Sender) -> Result<(), SessionOver> {
        if !self.is_wanted {
            tokio::select! {
                () = self.wanted.notified() => self.is_wanted = true,
                () = sender.closed() => return Err(SessionOver),
            }
        }
        Ok(())
    }

    /// Says that this consumer lives, and makes sure that batches still belong to the same epoch.
    async fn refresh(&mut self) -> Result<(), Error> {
        let joined = self.membership.join(&mut self.node.connection).await?;
        if joined.epoch == self.epoch {
            return Ok(());
        }
        Err(Error::Reply {
            step: "looking after the group",
            found: "a group that was created anew".to_owned(),
        })
    }

    /// What was delivered to this consumer before and not acknowledged.
    async fn replay(&mut self, sender: &Sender) -> Result<(), Option<Error>> {
        let mut after = "0-0".to_owned();
        loop {
            let read = Read::begin(Delivery::Pending);
            let delivered =
                self.stream.read_pending(&mut self.node.connection, self.count, &after).await?;
            let ids = delivered
                .entries
                .iter()
                .map(|entry| entry.id)
                .chain(delivered.lost.iter().copied());
            let Some(last) = ids.max() else { return Ok(()) };
            after = last.to_string();
            self.hand_out(sender, delivered, read.end()).await?;
        }
    }

    /// What consumers that are dead or stalled left pending.
    async fn claim(&mut self, sender: &Sender) -> Result<(), Option<Error>> {
        let mut start = "0-0".to_owned();
        loop {
            let read = Read::begin(Delivery::Claimed);
            let claimed = self
                .stream
                .claim(&mut self.node.connection, self.claim_idle, &start, self.count)
                .await?;
            self.hand_out(sender, claimed.delivered, read.end()).await?;
            match claimed.next {
                Some(next) if !*self.stop.borrow() => start = next,
                _ => return Ok(()),
            }
        }
    }

    /// Hands over what was delivered, once it is wanted.
    async fn hand_out(
        &mut self,
        sender: &Sender,
        delivered: Delivered,
        read: Read,
    ) -> Result<(), Option<Error>> {
        let Delivered { entries, lost } = delivered;
        let delivery = read.delivery;
        self.metrics.delivered(delivery, &entries);
        if delivery == Delivery::Claimed
            && let Some(entries) = self.claimed.add(entries.len() as u64)
        {
            info!(entries, "claimed entries that another consumer left pending");
        }
        self.forget(&lost).await?;
        self.adapt_count(delivery, &entries);
        if entries.is_empty() {
            return Ok(());
        }
        let suspects = if delivery == Delivery::New {
            HashSet::new()
        } else {
            self.suspects(&entries).await?
        };
        let batch = Batch { entries, suspects, read, since: Instant::now() };
        self.want(sender).await?;
        self.is_wanted = false;
        sender.send(Ok(batch)).await.map_err(|_| SessionOver.into())
    }

    /// Acknowledges ids whose entries were trimmed while they were pending: a loss, which the janitor tells.
    async fn forget(&mut self, lost: &[EntryId]) -> Result<(), Error> {
        if lost.is_empty() {
            return Ok(());
        }
        debug!(entries = lost.len(), first = %lost[0], "pending entries are gone from the stream");
        let mut ack = redis::cmd("XACK");
        ack.arg(&self.stream.stream).arg(&self.stream.group);
        for id in lost {
            ack.arg(id.to_string());
        }
        ack.query_async(&mut self.node.connection)
            .await
            .map_err(Error::at("acknowledging lost entries"))
    }

    async fn suspects(&mut self, entries: &[Entry]) -> Result<HashSet<EntryId>, Error> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(HashSet::new());
        };
        let counts = self
            .stream
            .deliveries(&mut self.node.connection, first.id, last.id, self.max_count * 4)
            .await?;
        Ok(counts
            .into_iter()
            .filter(|(_, count)| *count > self.max_deliveries)
            .map(|(id, _)| id)
            .collect())
    }

    /// Large entries are read few at a time, so that a batch stays small in memory. Only new ones may become
    /// more: others come over the connection that applies, which must not wait for long.
    fn adapt_count(&mut self, delivery: Delivery, entries: &[Entry]) {
        let bytes: usize = entries.iter().map(Entry::size).sum();
        self.count = if bytes > READ_BYTES {
            (entries.len() * READ_BYTES / bytes).max(1)
        } else if delivery == Delivery::New {
            (self.count * 2).min(self.max_count)
        } else {
            self.count
        };
    }
}

impl From<SessionOver> for Option<Error> {
    fn from(_: SessionOver) -> Self {
        None
    }
}
