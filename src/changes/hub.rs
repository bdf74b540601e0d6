//! The live changes of a deployment for any number of listeners in this process: one tail for each partition, and one
//! ring shared by all.
//!
//! Tails start with the first listener. Each has its own task and connection, so a partition whose server is down
//! delays no other. What they read is added to the ring in batches. With many listeners batches come at longer
//! intervals, because waking a listener costs the same for one change as for many.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::listener::Listener;
use super::position::{Point, Position};
use super::ring::{After, Found, Ring};
use super::source::TailError;
use super::tail::Tail;
use crate::change::Change;
use crate::config::Config;
use crate::error::chain;
use crate::key::Keys;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::{self, LiveMetrics};

/// How long a read waits for a change, and how long it may go unnoticed that a server silently lost its changes.
const BLOCK: Duration = Duration::from_secs(5);
/// How many reads may wait to be added to the ring; beyond that, tails wait.
const WAITING: usize = 64;
/// The time between two batches for each listener.
const PER_LISTENER: Duration = Duration::from_micros(12);
/// The maximum time between two batches.
const LONGEST: Duration = Duration::from_millis(250);
/// How long the first look at a partition may fail before the others start without it.
const STARTS_WITHOUT: Duration = Duration::from_secs(3);
/// The first pause after a failure.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The live changes; cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    config: Config,
    stop: watch::Receiver<bool>,
    metrics: LiveMetrics,
    state: Mutex<State>,
    /// Wakes listeners.
    moved: watch::Sender<()>,
    started: OnceLock<()>,
}

/// The state of the feed.
#[derive(Default)]
struct State {
    /// Grows with each gap. Places in the ring are valid within one generation.
    generation: u64,
    last_gap: Option<Instant>,
    /// `None` until the position of every partition is known.
    ring: Option<Ring>,
}

/// A place in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) generation: u64,
    /// The number of the next batch.
    pub(super) next: u64,
}

/// A message from a tail.
enum News {
    /// Its node cannot be reached, and its first position is not known.
    Away(u16),
    /// Its first position.
    Begins(u16, Point),
    /// Changes, in order.
    Changes(Vec<Change>),
    /// Changes were lost; it continues here.
    Gap(u16, Point),
}

/// The result of looking for a place in the ring.
pub enum Joined {
    /// It was found.
    Listener(Listener),
    /// Changes before those in the ring are missing and must be read from the stream first.
    Behind,
    /// The server must be asked whether the position is still valid.
    Unsure,
    /// The ring belongs to an earlier history of the server; its reader will notice.
    Outdated,
}

impl Hub {
    /// The changes of the deployment, until `stop` turns true.
    pub fn new(config: &Config, metrics: LiveMetrics, stop: watch::Receiver<bool>) -> Self {
        Self(Arc::new(Inner {
            config: config.clone(),
            stop,
            metrics,
            state: Mutex::default(),
            moved: watch::Sender::new(()),
            started: OnceLock::new(),
        }))
    }

    /// Listens from now on, once there is a ring.
    pub async fn listen(&self) -> Listener {
        self.start();
        let mut moved = self.0.moved.subscribe();
        loop {
            moved.mark_unchanged();
            {
                let State { generation, ring, .. } = &*self.state();
                if let Some(ring) = ring {
                    let place = Place { generation: *generation, next: ring.next() };
                    return Listener::new(self.clone(), moved, place, None, ring.end_id());
                }
            }
            // The sender lives as long as this value.
            let _never_gone = moved.changed().await;
        }
    }

    /// Listens from a position on, if the ring knows it. `sure_in` is the generation in which the position was
    /// verified.
    pub fn listen_from(&self, position: &Position, sure_in: Option<u64>) -> Joined {
        self.start();
        let State { generation, ring, .. } = &*self.state();
        let Some(ring) = ring else { return Joined::Unsure };
        let next = match (ring.find(position), sure_in == Some(*generation)) {
            (Found::At(next), _) | (Found::Ahead(next), true) => next,
            (Found::Behind, true) => return Joined::Behind,
            (Found::Other, true) => return Joined::Outdated,
            (_, false) => return Joined::Unsure,
        };
        let (moved, place) = (self.0.moved.subscribe(), Place { generation: *generation, next });
        let own = (ring.end() != position).then(|| position.clone());
        Joined::Listener(Listener::new(self.clone(), moved, place, own, ring.end_id()))
    }

    /// The generation of the ring, once there is one.
    pub async fn generation(&self) -> u64 {
        self.listen().await.generation()
    }

    /// When changes were last lost: an earlier snapshot is useless.
    pub fn last_gap(&self) -> Option<Instant> {
        self.state().last_gap
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u16 {
        self.0.config.deployment.partitions
    }

    /// The metrics of listeners.
    pub fn metrics(&self) -> &LiveMetrics {
        &self.0.metrics
    }

    /// What follows a place; `None` if it is of another generation.
    pub(super) fn after(&self, place: Place) -> Option<After> {
        let state = self.state();
        let ring = state.ring.as_ref().filter(|_| state.generation == place.generation)?;
        Some(ring.after(place.next))
    }

    /// If a position is the end of the ring: the place of the next batch, and the position as an event without data.
    pub(super) fn end_at(&self, position: &Position, generation: u64) -> Option<(Place, Bytes)> {
        let state = self.state();
        let ring = state.ring.as_ref().filter(|_| state.generation == generation)?;
        let place = Place { generation, next: ring.next() };
        (ring.end() == position).then(|| (place, ring.end_id()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the tails, once; listening does so as well.
    pub fn start(&self) {
        self.0.started.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING);
            for partition in 0..self.partitions() {
                tokio::spawn(self.clone().follow(partition, sender.clone()));
            }
            tokio::spawn(self.clone().publish(receiver));
        });
    }

    async fn follow(self, partition: u16, news: mpsc::Sender<News>) {
        let Inner { config, stop, .. } = &*self.0;
        let mut stop = stop.clone();
        tokio::select! {
            () = tail(config, partition, &news) => {}
            _stopped = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn publish(self, mut news: mpsc::Receiver<News>) {
        let mut begins: Vec<Option<Point>> = vec![None; usize::from(self.partitions())];
        let mut away = HashSet::new();
        while let Some(first) = news.recv().await {
            let (mut changes, mut next) = (Vec::new(), Some(first));
            while let Some(some) = next {
                match some {
                    News::Changes(more) => changes.extend(more),
                    News::Begins(partition, point) => {
                        self.push(std::mem::take(&mut changes), &mut begins);
                        begins[usize::from(partition)] = Some(point);
                        // The others did not wait for a partition that was unreachable.
                        let is_late = away.remove(&partition) && self.state().ring.is_some();
                        if is_late {
                            self.skip(partition, point);
                        } else {
                            self.begin(&begins, &away);
                        }
                    }
                    News::Away(partition) => {
                        away.insert(partition);
                        self.begin(&begins, &away);
                    }
                    News::Gap(partition, point) => {
                        self.push(std::mem::take(&mut changes), &mut begins);
                        begins[usize::from(partition)] = Some(point);
                        self.skip(partition, point);
                    }
                }
                next = news.try_recv().ok();
            }
            self.push(changes, &mut begins);
            let listeners = u32::try_from(self.0.moved.receiver_count()).unwrap_or(u32::MAX);
            sleep(PER_LISTENER.saturating_mul(listeners).min(LONGEST)).await;
        }
    }

    /// Creates the ring once every partition is either positioned or unreachable, and at least one is positioned.
    fn begin(&self, begins: &[Option<Point>], away: &HashSet<u16>) {
        let begins_at = |(partition, begins): (u16, &Option<Point>)| {
            begins.or_else(|| away.contains(&partition).then_some(Point::START))
        };
        let points: Option<Vec<Point>> = (0..).zip(begins).map(begins_at).collect();
        let is_anyone_there = begins.iter().any(Option::is_some);
        let Some(points) = points.filter(|_| is_anyone_there && self.state().ring.is_none()) else {
            return;
        };
        self.state().ring = Some(Ring::new(Position(points), 0));
        self.0.moved.send_replace(());
    }

    /// Adds changes to the ring. Without a ring, other partitions are not positioned yet, and this one will start
    /// after these changes.
    fn push(&self, changes: Vec<Change>, begins: &mut [Option<Point>]) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.state();
        let Some(ring) = &mut state.ring else {
            let points = changes.iter().map(|change| (usize::from(change.partition), change));
            return points.for_each(|(partition, change)| begins[partition] = Some(change.into()));
        };
        self.0.metrics.changes_came(&changes);
        ring.push(changes);
        drop(state);
        self.0.moved.send_replace(());
    }

    fn skip(&self, partition: u16, point: Point) {
        warn!(partition, "changes were lost: listeners get a gap and a new snapshot");
        self.0.metrics.gap();
        let mut state = self.state();
        if let Some(ring) = &mut state.ring {
            let mut position = ring.end().clone();
            if let Some(own) = position.0.get_mut(usize::from(partition)) {
                *own = point;
            }
            *ring = Ring::new(position, ring.next());
            state.generation += 1;
        }
        state.last_gap = Some(Instant::now());
        drop(state);
        self.0.moved.send_replace(());
    }
}

/// Reads one partition's changes endlessly.
async fn tail(config: &Config, partition: u16, news: &mpsc::Sender<News>) {
    let keys = Keys::new(&config.deployment.prefix, config.deployment.partitions, partition);
    let mut tail = Tail::new(config.redis.server(), &keys, partition, None, BLOCK);
    let (mut pause, mut is_away, mut has_begun, mut has_gap) = (PAUSE, false, false, false);
    let (mut trouble_since, mut is_told) = (None, false);
    loop {
        let read = match tail.open().await {
            Ok(point) if !has_begun => {
                has_begun = true;
                Ok(News::Begins(partition, point))
            }
            Ok(point) if std::mem::take(&mut has_gap) => Ok(News::Gap(partition, point)),
            Ok(_) => tail.next().await.map(News::Changes),
            Err(error) => Err(error),
        };
        match read {
            Ok(some) => {
                if std::mem::take(&mut is_away) {
                    info!(partition, "reading changes again");
                }
                if matches!(some, News::Changes(_)) {
                    pause = PAUSE;
                }
                // The receiver ends with the process.
                let _gone = news.send(some).await;
                continue;
            }
            Err(TailError::Gap { .. }) => {
                has_gap = has_begun;
                tail.skip_to_end();
            }
            Err(TailError::Server(error)) => {
                let since = *trouble_since.get_or_insert_with(Instant::now);
                if !has_begun && !is_told && since.elapsed() > STARTS_WITHOUT {
                    // The receiver ends with the process.
                    let _gone = news.send(News::Away(partition)).await;
                    is_told = true;
                }
                is_away = true;
                metrics::redis_error(error.kind());
                if let Some(times) = failure_line_due() {
                    let kind = error.kind();
                    warn!(partition, kind, times, "not reading changes: {}", chain(&error));
                }
            }
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
