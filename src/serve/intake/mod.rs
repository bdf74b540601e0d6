//! Intake: events from HTTP are added to the stream, many in one entry, and a request is answered once its entries
//! are there.
//!
//! ```text
//! request → elements (checked, each for its partition) → lane: pack for the linger → XADD → answer
//! ```
//!
//! While the server is down, events wait within the limits of `--buffer`. An entry is sent once. If no answer comes,
//! it is unknown whether the entry was added, and the response to the sender says so.

mod applied;
mod elements;
mod lane;
mod pack;
mod sender;
mod traces;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use elements::Body;
pub use sender::Sender;

use self::applied::Applied;
use self::elements::{Element, Elements, Reader};
use self::lane::Lane;
use self::pack::Budget;
use crate::config::Config;
use crate::entry::EntryId;
use crate::error::Error;
use crate::event::{Kind, Limits, Rejection};
use crate::state::Shared;
use crate::telemetry::metrics::ServeMetrics;

/// When a client that was refused because the server is down may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where events go; cheap to clone.
#[derive(Clone)]
pub struct Intake(Arc<Parts>);

struct Parts {
    lanes: Vec<Arc<Lane>>,
    applied: Vec<Arc<Applied>>,
    budget: Arc<Budget>,
    state: Shared,
    metrics: ServeMetrics,
}

/// How many events the elements belong to.
fn distinct_places(elements: &[Element]) -> u64 {
    if let [_] = elements {
        return 1;
    }
    elements.iter().map(|element| element.place).collect::<BTreeSet<_>>().len() as u64
}

/// The results for the events of a request, of which at least one is on the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The entries with the events: partition and id.
    pub entries: Vec<(u16, EntryId)>,
    /// Parts that are not events, by their index in the request.
    pub refused: Vec<(usize, Rejection)>,
    /// Events that are not on the stream, or may not be, by their index in the request.
    pub failed: Vec<(usize, Trouble)>,
}

/// Why no event of a request is certainly on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// None of them is an event, by their index in the request.
    Invalid(Vec<(usize, Rejection)>),
    /// The request is malformed as a whole.
    Malformed(Rejection),
    /// They could not be added.
    Failed(Trouble),
}

/// Why events could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Too many events are already waiting for the server.
    Full,
    /// The server was down for too long.
    Away,
    /// The connection broke before the server answered, so they may or may not be on the stream.
    InDoubt,
    /// The server refuses them permanently.
    Refused,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::Away, Self::InDoubt, Self::Refused];

    /// A word for it, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "buffer_full",
            Self::Away => "redis_away",
            Self::InDoubt => "in_doubt",
            Self::Refused => "redis_refuses",
        }
    }

    /// The meaning, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "too many events are waiting for Redis; send them again later",
            Self::Away => "Redis has been unreachable for too long; send the event again later",
            Self::InDoubt => {
                "the connection to Redis broke before it answered: the event may or may not be on the stream"
            }
            Self::Refused => "Redis refuses the event; the log says why",
        }
    }

    /// When to try again.
    pub fn retry_after(self) -> Duration {
        RETRY_AFTER
    }
}

impl Intake {
    /// An intake, and the tasks that add entries until `stop` turns true and nothing is waiting.
    pub(super) fn start(
        config: &Config,
        state: &Shared,
        metrics: &ServeMetrics,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<Result<(), Error>>,
    ) -> Self {
        let budget = Arc::new(Budget::new(config.serve.buffer));
        let parts = (0..config.deployment.partitions).map(|partition| {
            let (budget, state, metrics) = (budget.clone(), state.clone(), metrics.clone());
            let applied = Arc::new(Applied::new(partition, state.clone()));
            let lane = Arc::new(Lane::new(config, partition, budget, state, metrics));
            let (lane_stop, applied_stop) = (stop.clone(), stop.clone());
            let (running, looking) = (lane.clone(), applied.clone());
            tasks.spawn(async move {
                tokio::join!(running.run(lane_stop), looking.run(applied_stop));
                Ok(())
            });
            (lane, applied)
        });
        let (lanes, applied) = parts.unzip();
        let (state, metrics) = (state.clone(), metrics.clone());
        Self(Arc::new(Parts { lanes, applied, budget, state, metrics }))
    }

    /// Accepts events; returns once they are on the stream.
    ///
    /// # Errors
    /// If none of them is certainly there.
    pub async fn take(&self, body: Body<'_>, sender: &Sender) -> Result<Taken, Refusal> {
        let facts = self.0.state.facts();
        let reader = Reader { sender, deployment: &facts.deployment, now_ms: facts.now_ms() };
        let elements = reader.read(body).map_err(|rejection| {
            self.0.metrics.events_refused(rejection.reason.name(), 1);
            Refusal::Malformed(rejection)
        })?;
        let limits = &facts.deployment.limits;
        self.pass(elements, limits).await
    }

    /// Accepts one parsed event with the current time; returns once it is on the stream.
    ///
    /// # Errors
    /// If it is not certainly there.
    pub async fn add(&self, kind: Kind<'_>, sender: &Sender) -> Result<Taken, Refusal> {
        let facts = self.0.state.facts();
        let reader = Reader { sender, deployment: &facts.deployment, now_ms: facts.now_ms() };
        let elements = reader.event(kind);
        let limits = &facts.deployment.limits;
        self.pass(elements, limits).await
    }

    /// Passes elements to their lanes, and waits for the results.
    async fn pass(&self, elements: Elements, limits: &Limits) -> Result<Taken, Refusal> {
        let Parts { lanes, budget, metrics, .. } = &*self.0;
        let Elements { taken: waiting, refused } = elements;
        refused.iter().for_each(|(_, rejected)| metrics.events_refused(rejected.reason.name(), 1));
        if waiting.is_empty() {
            return Err(Refusal::Invalid(refused));
        }
        let events = distinct_places(&waiting);
        if !budget.take(waiting.len(), waiting.iter().map(|element| element.json.len()).sum()) {
            metrics.events_refused(Trouble::Full.name(), events);
            return Err(Refusal::Failed(Trouble::Full));
        }
        let mut answers = Vec::with_capacity(1);
        for of_lane in waiting.chunk_by(|a, b| a.partition == b.partition) {
            if let Some(lane) = lanes.get(usize::from(of_lane[0].partition)) {
                lane.add(of_lane, limits, &mut answers);
            }
        }
        drop(waiting);
        let mut taken = Taken { refused, ..Taken::default() };
        for answer in answers {
            answer.into(&mut taken).await;
        }
        // Parts of one event may have failed in several partitions.
        taken.failed.sort_by_key(|(place, _)| *place);
        taken.failed.dedup_by_key(|(place, _)| *place);
        metrics.events_taken(events - taken.failed.len() as u64);
        taken.failed.iter().for_each(|(_, trouble)| metrics.events_refused(trouble.name(), 1));
        match taken.failed.first() {
            Some((_, trouble)) if taken.entries.is_empty() => Err(Refusal::Failed(*trouble)),
            _ => Ok(taken),
        }
    }

    /// Waits until entries have had their effect; `false` if one has not in time.
    pub async fn applied(&self, entries: &[(u16, EntryId)], within: Duration) -> bool {
        let deadline = Instant::now() + within;
        for (partition, id) in entries {
            let Some(applied) = self.0.applied.get(usize::from(*partition)) else { return false };
            if !applied.wait(*id, deadline).await {
                return false;
            }
        }
        true
    }

    /// Events that are waiting, and the fraction of the buffer that they take.
    pub fn buffered(&self) -> (usize, f64) {
        self.0.budget.used()
    }
}
