//! A lane: the path of one partition's events to its stream, one entry after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout_at};
use tracing::warn;

use super::elements::Element;
use super::pack::{Batch, Budget, Outcome, Pack};
use super::{Taken, Trouble};
use crate::config::{Config, Live, Server};
use crate::entry::EntryId;
use crate::error::{Error, chain};
use crate::event::Limits;
use crate::key::Keys;
use crate::redis::connect::connect;
use crate::state::Shared;
use crate::telemetry::metrics::ServeMetrics;

/// How long the server may take to answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was silent for longer is tested before an entry is sent over it.
const TRUSTED: Duration = Duration::from_millis(20);
/// Pauses between attempts while the server is down.
const PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(20)..=Duration::from_millis(500);

/// One partition's lane.
pub(super) struct Lane {
    partition: u16,
    server: Server,
    keys: Keys,
    live: Live,
    pack: Mutex<Pack>,
    added: Notify,
    budget: Arc<Budget>,
    state: Shared,
    metrics: ServeMetrics,
}

/// The pending answer for a request.
pub(super) struct Answer {
    partition: u16,
    /// The events that it is about, by their indices in the request.
    places: Vec<usize>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Answer {
    /// Waits for the answer, and records the results of the events.
    pub(super) async fn into(self, taken: &mut Taken) {
        // If the lane is gone, it has not sent them.
        match self.outcome.await.unwrap_or(Err(Trouble::Away)) {
            Ok(id) => taken.entries.push((self.partition, id)),
            Err(trouble) => taken.failed.extend(self.places.into_iter().map(|p| (p, trouble))),
        }
    }
}

/// The connection of a lane, and when it last answered.
struct Link {
    connection: MultiplexedConnection,
    answered: Instant,
}

impl Lane {
    pub(super) fn new(
        config: &Config,
        partition: u16,
        budget: Arc<Budget>,
        state: Shared,
        metrics: ServeMetrics,
    ) -> Self {
        let deployment = &config.deployment;
        Self {
            partition,
            server: config.redis.server(),
            keys: Keys::new(&deployment.prefix, deployment.partitions, partition),
            live: config.live.clone(),
            pack: Mutex::default(),
            added: Notify::new(),
            budget,
            state,
            metrics,
        }
    }

    /// Adds elements of one request, for which there is room.
    pub(super) fn add(&self, elements: &[Element], limits: &Limits, answers: &mut Vec<Answer>) {
        let added = self.pack().add(elements.iter().map(|e| e.json.as_str()), limits);
        let mut places = elements.iter().map(|element| element.place);
        answers.extend(added.into_iter().map(|(count, outcome)| {
            let places = places.by_ref().take(count).collect();
            Answer { partition: self.partition, places, outcome }
        }));
        self.added.notify_one();
    }

    fn pack(&self) -> MutexGuard<'_, Pack> {
        self.pack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries until `stop` turns true and nothing is waiting.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut link = None;
        loop {
            let Some(due) = self.pack().due(self.live.get().linger) else {
                tokio::select! {
                    () = self.added.notified() => continue,
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                if self.pack().due(self.live.get().linger).is_none() {
                    return;
                }
                continue;
            };
            // While more events may come, makes sure that there is a connection.
            self.prepare(&mut link, due + self.budget.time()).await;
            self.linger_until(due).await;
            let Some(batch) = self.pack().take() else { continue };
            let (events, bytes) = (batch.events, batch.bytes());
            self.deliver(&mut link, batch).await;
            self.budget.give(events, bytes);
        }
    }

    /// Waits until the entry is due or full.
    async fn linger_until(&self, due: Instant) {
        let mut due = due;
        while due > Instant::now() {
            tokio::select! {
                () = sleep_until(due.into()) => return,
                () = self.added.notified() => {}
            }
            due = self.pack().due(self.live.get().linger).unwrap_or(due);
        }
    }

    /// Sends an entry, once, as soon as a server accepts it.
    async fn deliver(&self, link: &mut Option<Link>, batch: Batch) {
        let array = batch.array();
        let mut pause = *PAUSES.start();
        let until = batch.since + self.budget.time();
        let outcome = loop {
            self.prepare(link, until).await;
            let why = match link.as_mut() {
                None => None,
                Some(open) => match self.send(open, &array).await {
                    Ok(id) => break Ok(id),
                    Err(error) => Some(error),
                },
            };
            match why.map_or(Doubt::NotSent, Doubt::of) {
                Doubt::NotSent => {}
                Doubt::Refused(error) => {
                    *link = None;
                    if is_final(&error) {
                        warn!(partition = self.partition, "cannot add events: {}", chain(&error));
                        break Err(Trouble::Refused);
                    }
                }
                Doubt::Unknown(error) => {
                    *link = None;
                    warn!(
                        partition = self.partition,
                        events = batch.events,
                        "it is unknown whether an entry was added: {}",
                        chain(&error)
                    );
                    break Err(Trouble::InDoubt);
                }
            }
            self.state.doubt();
            if Instant::now() + pause > until {
                break Err(Trouble::Away);
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(*PAUSES.end());
        };
        batch.answer(outcome);
    }

    /// Makes sure that the connection works: an entry sent over a dead one would be in doubt.
    async fn prepare(&self, link: &mut Option<Link>, until: Instant) {
        if let Some(open) = link {
            if open.answered.elapsed() < TRUSTED {
                return;
            }
            let ping = redis::cmd("PING");
            let answer = ping.query_async::<redis::Value>(&mut open.connection);
            match timeout_at(until.into(), answer).await {
                // A refusal is an answer, too.
                Ok(answer) if answer.as_ref().err().is_none_or(|error| error.code().is_some()) => {
                    open.answered = Instant::now()
                }
                _ => *link = None,
            }
        }
        if link.is_none() {
            let key = self.stream();
            let connecting = connect(&self.server, &key, RESPONSE_TIMEOUT);
            if let Ok(Ok(connection)) = timeout_at(until.into(), connecting).await {
                *link = Some(Link { connection, answered: Instant::now() });
            }
        }
    }

    fn stream(&self) -> String {
        self.keys.named(&self.state.facts().deployment.stream)
    }

    async fn send(&self, link: &mut Link, array: &str) -> Result<EntryId, Error> {
        const STEP: &str = "adding events";
        let mut add = redis::cmd("XADD");
        add.arg(self.stream()).arg("*").arg("data").arg(array);
        let begun = Instant::now();
        let id: String = add.query_async(&mut link.connection).await.map_err(Error::at(STEP))?;
        link.answered = Instant::now();
        self.metrics.entry_added(begun.elapsed());
        id.parse().map_err(|_| Error::Reply { step: STEP, found: id })
    }
}

/// What a failed attempt means for the entry.
enum Doubt {
    /// It was not sent.
    NotSent,
    /// The server refused it.
    Refused(Error),
    /// It was sent, and the result is unknown.
    Unknown(Error),
}

impl Doubt {
    fn of(error: Error) -> Self {
        match &error {
            Error::Redis { source, .. } if source.code().is_some() => Self::Refused(error),
            Error::CrossSlot(_) => Self::Refused(error),
            _ => Self::Unknown(error),
        }
    }
}

/// Whether the server will continue to refuse it: the right is missing, the stream's key has another type, or its ids
/// are used up.
fn is_final(error: &Error) -> bool {
    let code = match error {
        Error::Redis { source, .. } => source.code(),
        _ => None,
    };
    matches!(code, Some("NOPERM" | "WRONGTYPE" | "ERR")) || matches!(error, Error::CrossSlot(_))
}
