//! The beat: a task beside the session that shows that the owner is alive, learns who asks for the partition, and
//! repairs the group. It stops beating while a batch takes too long, so that another worker takes over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use super::peers::Peers;
use super::{Projector, REVIEW, Worker, speak};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::scripts::owner::{Beat, Ownership, Tenure};
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::WorkerMetrics;

/// How long a worker keeps a partition before it gives it to another.
const STAY: Duration = Duration::from_secs(10);
/// The minimum time between two partitions that a process gives away.
pub(super) const GRANTS_APART: Duration = Duration::from_millis(500);
/// The minimum time between two log lines about interference.
const LINES: Duration = Duration::from_secs(10);

/// The state that session and beat share.
#[derive(Debug, Default)]
pub(super) struct Standing {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the session began.
    since: Option<Instant>,
    /// Since when a batch has been in progress.
    in_hand: Option<Instant>,
    asked_by: Option<String>,
}

impl Standing {
    /// A batch is in progress from now on.
    pub(super) fn begin(&self) {
        self.state().in_hand = Some(Instant::now());
    }

    /// It is applied.
    pub(super) fn end(&self) {
        self.state().in_hand = None;
    }

    /// Who asks for the partition.
    pub(super) fn asked_by(&self) -> Option<String> {
        self.state().asked_by.clone()
    }

    /// Waits until another worker than before asks for the partition.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether the session has lasted long enough for the partition to go to another worker.
    pub(super) fn is_settled(&self) -> bool {
        self.state().since.is_some_and(|since| since.elapsed() >= STAY)
    }

    /// Records who asks, and wakes the session once it may comply.
    fn note(&self, asked_by: Option<String>) {
        let wakes = asked_by.is_some();
        self.state().asked_by = asked_by;
        if wakes && self.is_settled() {
            self.asked.notify_one();
        }
    }

    fn in_hand_for(&self) -> Duration {
        self.state().in_hand.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running task; it ends when this is dropped.
pub(super) struct Beating {
    ended: oneshot::Receiver<Error>,
    task: JoinHandle<()>,
}

impl Beating {
    /// Starts to beat for the session under `tenure`.
    pub(super) fn start(
        projector: &Projector,
        tenure: Tenure,
        standing: std::sync::Arc<Standing>,
    ) -> Self {
        standing.state().since = Some(Instant::now());
        let (sender, ended) = oneshot::channel();
        let beater = Beater {
            ownership: projector.ownership.clone(),
            tenure,
            standing,
            worker: projector.worker.clone(),
            peers: projector.peers.clone(),
            keys: projector.keys.clone(),
            partition: projector.fold.partition,
            metrics: projector.metrics.clone(),
            deadline: projector.settings.batch_deadline(),
            lines: Throttle::new(LINES),
        };
        let period = (projector.settings.takeover / 6).min(Duration::from_millis(500));
        let task = tokio::spawn(async move {
            let error = beater.run(period).await;
            // The session has ended meanwhile.
            let _gone = sender.send(error);
        });
        Self { ended, task }
    }

    /// Waits until the session has to end, and returns the reason.
    pub(super) async fn ended(&mut self) -> Error {
        (&mut self.ended).await.unwrap_or(Error::NotOwner)
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Beater {
    ownership: Ownership,
    tenure: Tenure,
    standing: std::sync::Arc<Standing>,
    worker: Worker,
    peers: std::sync::Arc<tokio::sync::Mutex<Peers>>,
    keys: Keys,
    partition: u16,
    metrics: WorkerMetrics,
    /// How long a batch may take before the beat stops.
    deadline: Duration,
    lines: Throttle,
}

impl Beater {
    async fn run(mut self, period: Duration) -> Error {
        let mut review_due = Instant::now() + REVIEW / 2;
        loop {
            let in_hand = self.standing.in_hand_for();
            if in_hand > self.deadline * 2 + Duration::from_secs(10) {
                return Error::Hung { seconds: in_hand.as_secs() };
            }
            if in_hand <= self.deadline {
                match self.beat(&mut review_due).await {
                    Err(error) if error.is_lost_ownership() => return error,
                    // If the trouble lasts, the session meets it as well.
                    Err(error) => self.worker.nodes.heed(&error),
                    Ok(()) => {}
                }
            }
            tokio::time::sleep(period).await;
        }
    }

    async fn beat(&mut self, review_due: &mut Instant) -> Result<(), Error> {
        let mut connection = self.worker.nodes.connect(&self.keys.meta()).await?;
        match self.ownership.beat(&mut connection, &self.tenure).await? {
            Beat::OtherStream => return Err(Error::OtherStream),
            Beat::Kept { asked_by, interferences } => {
                self.standing.note(asked_by);
                self.report(interferences);
            }
        }
        if Instant::now() >= *review_due {
            *review_due = Instant::now() + REVIEW;
            speak(&self.ownership, &self.peers, &mut connection).await?;
        }
        Ok(())
    }

    fn report(&mut self, interferences: u64) {
        self.metrics.interfered(interferences);
        if let Some(count) = self.lines.add(interferences) {
            let partition = self.partition;
            warn!(
                partition,
                count,
                "another program read from, moved or destroyed the consumer group; it is repaired"
            );
        }
    }
}
