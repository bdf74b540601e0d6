//! The notifier: sends changes to other systems, for each target in order from the last position.
//!
//! There is one loop for each target and partition. A lease lets one notifier at a time have a target. The position
//! is kept beside it on the server, and moves in the call that publishes.

mod calls;
mod publish;
mod told;
mod webhook;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::changes::{Filter, Point, Source, Tail, TailError};
use crate::config::{Config, Deployment, Server, Shell, Target};
use crate::error::{Error, Fatal, Verdict, chain};
use crate::key::Keys;
use crate::redis::connect::{Node, locate};
use crate::redis::scripts::layout::{check_layout, check_partition};
use crate::redis::scripts::notify::{Borders, Place, Post, Publication, Stepped, Taken};
use crate::telemetry::health::Pulse;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::{self, NotifierMetrics};
use told::Missing;
use webhook::Caller;

/// How long a call may take before its connection counts as broken.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits for a change; after that the lease is renewed.
const BLOCK: Duration = Duration::from_secs(1);
/// How often a notifier without the target checks whether it is free.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// One target of one partition.
#[derive(Debug)]
pub struct Notifier {
    server: Server,
    shell: Shell,
    deployment: Deployment,
    partition: u16,
    keys: Keys,
    target: Target,
    filter: Filter,
    post: Post,
    /// The last change that this process sent.
    told: Option<Place>,
    /// The borders of the batch that was about to be sent.
    held: Option<Borders>,
    /// Calls the target, if it is a webhook.
    caller: Option<Caller>,
    /// When the oldest change that it has not sent was made, as far as it knows.
    waits_since: Option<u64>,
    metrics: NotifierMetrics,
    pulse: Pulse,
    stop: watch::Receiver<bool>,
}

/// Why a session ended without an error.
enum End {
    /// The process stops.
    Stopped,
    /// Another notifier has the target, or its position has changed: begin again.
    Again,
}

impl Notifier {
    /// A notifier called `name`, for the target with this `index` in the settings.
    pub fn new(
        config: &Config,
        index: u16,
        target: &Target,
        partition: u16,
        name: &str,
        pulse: Pulse,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let deployment = &config.deployment;
        let keys = Keys::new(&deployment.prefix, deployment.partitions, partition);
        let Target { kinds, users, docs, .. } = target.clone();
        Self {
            server: config.redis.server(),
            shell: Shell::of(&config.redis, deployment),
            deployment: deployment.clone(),
            partition,
            post: Post::new(&keys, &target.name, name),
            keys,
            target: target.clone(),
            filter: Filter { kinds, users, docs },
            told: None,
            held: None,
            caller: None,
            waits_since: None,
            metrics: NotifierMetrics::new(&target.name, index, partition),
            pulse,
            stop,
        }
    }

    /// How long its pulse may be silent.
    pub fn patience() -> Duration {
        RESPONSE_TIMEOUT * 3 + Duration::from_secs(15)
    }

    /// Notifies the target until it is told to stop.
    ///
    /// # Errors
    /// Only errors that waiting does not help against, such as another number of partitions.
    pub async fn run(mut self) -> Result<(), Fatal> {
        loop {
            match self.session().await {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Again) => {}
                Err(error) if error.verdict() == Verdict::Fatal => {
                    return Err(error.fatal(&self.shell));
                }
                Err(error) => {
                    metrics::redis_error(error.kind());
                    if self.waits_since.is_some() {
                        self.metrics.waits_since(self.waits_since);
                    }
                    self.pulse.unready(error.hindrance(&self.shell));
                    self.report(&error);
                    if self.wait(PAUSE).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn report(&self, error: &Error) {
        if let Some(times) = failure_line_due() {
            let (target, partition) = (&self.target.name, self.partition);
            warn!(target, partition, kind = error.kind(), times, "not notifying: {}", chain(error));
        }
    }

    async fn session(&mut self) -> Result<End, Error> {
        let Node { at, mut connection } =
            locate(&self.server, &self.keys.meta(), RESPONSE_TIMEOUT).await?;
        self.shell = self.shell.at(&at.info);
        check_layout(&self.server, &mut connection, &self.deployment, &self.keys).await?;
        self.metrics.connected();
        loop {
            self.check_partition(&mut connection).await?;
            let taken = self.post.take(&mut connection).await?;
            self.pulse.waiting();
            if let Taken::Mine(place, held) = taken {
                self.held = held;
                let (target, partition) = (&self.target.name, self.partition);
                info!(target, partition, "notifying");
                let place = self.begin(&mut connection, place).await?;
                let Some(place) = place else { return Ok(End::Again) };
                let end = self.tell(&mut connection, place).await?;
                if matches!(end, End::Stopped) {
                    self.post.release(&mut connection).await?;
                }
                return Ok(end);
            }
            self.waits(None);
            self.metrics.does_not_tell();
            if self.wait(LOOK).await {
                return Ok(End::Stopped);
            }
        }
    }

    /// The position to continue from: now, for a new target; after the server lost something, what it still has.
    /// `None` if another notifier has the target.
    async fn begin(
        &mut self,
        connection: &mut MultiplexedConnection,
        kept: Option<Place>,
    ) -> Result<Option<Place>, Error> {
        let went_back = self.told.as_ref().is_some_and(|told| went_back(told, kept.as_ref()));
        match kept {
            Some(place) if !went_back => return Ok(Some(place)),
            // The numbers are assigned again, to other changes.
            Some(place) => {
                let next = Place { epoch: epoch(), ..place.clone() };
                return self.move_to(connection, Some(&place), next, Vec::new()).await;
            }
            None if went_back => {}
            None => {
                let end = self.source().end(&mut connection.clone().into()).await?;
                return self.move_to(connection, None, place(epoch(), end), Vec::new()).await;
            }
        }
        let after = self.told.as_ref().map_or(0, |told| told.seq);
        self.skip(connection, None, after).await
    }

    /// Continues with the oldest change that is kept, and reports that earlier ones are missing.
    async fn skip(
        &mut self,
        connection: &mut MultiplexedConnection,
        from: Option<&Place>,
        after: u64,
    ) -> Result<Option<Place>, Error> {
        let start = self.source().start(&mut connection.clone().into()).await?;
        // If the numbers continue, none is assigned twice.
        let kept = from.filter(|_| start.seq > after).map(|from| from.epoch.clone());
        let next = place(kept.unwrap_or_else(epoch), start);
        let (target, partition, next_seq) = (&self.target.name, self.partition, start.seq + 1);
        warn!(
            target,
            partition,
            after,
            next = next_seq,
            "changes were lost: the target gets a gap"
        );
        self.metrics.gap();
        let missing = Missing::new(self.partition, after, next_seq);
        if let Some(webhook) = self.webhook()
            && !self.call_gap(connection, &webhook, from, &next, &missing).await?
        {
            return Ok(None);
        }
        let told = told::gap(&self.target.sink, &missing);
        self.move_to(connection, from, next, told).await
    }

    /// Publishes and moves the position; `None` if others changed the position.
    async fn move_to(
        &mut self,
        connection: &mut MultiplexedConnection,
        from: Option<&Place>,
        to: Place,
        told: Vec<Publication>,
    ) -> Result<Option<Place>, Error> {
        let steps = [(to.clone(), told)];
        Ok(self.step(connection, from, &steps).await?.then_some(to))
    }

    /// Whether the steps were done.
    async fn step(
        &mut self,
        connection: &mut MultiplexedConnection,
        from: Option<&Place>,
        steps: &[(Place, Vec<Publication>)],
    ) -> Result<bool, Error> {
        let stepped = self.post.publish(connection, from, steps).await?;
        let is_done = self.is_done(stepped);
        if is_done {
            self.told = steps.last().map(|(place, _)| place.clone());
        }
        Ok(is_done)
    }

    /// Whether a step was done; logs why not.
    fn is_done(&self, stepped: Stepped) -> bool {
        let (target, partition) = (&self.target.name, self.partition);
        match stepped {
            Stepped::Done => return true,
            Stepped::Others(holder) => {
                info!(target, partition, holder, "another notifier took over")
            }
            Stepped::Elsewhere(position) => {
                warn!(
                    target,
                    partition, position, "the position was changed or lost; looking it up again"
                );
            }
        }
        false
    }

    /// Sends the changes after a position, until this notifier loses the target.
    async fn tell(
        &mut self,
        connection: &mut MultiplexedConnection,
        mut at: Place,
    ) -> Result<End, Error> {
        let mut tail = self.tail(&at);
        self.waits(None);
        loop {
            let read = tokio::select! {
                read = tail.next() => read,
                _stopped = self.stop.wait_for(|stop| *stop) => return Ok(End::Stopped),
            };
            let next = match read {
                Ok(changes) if changes.is_empty() => {
                    self.waits(None);
                    self.check_partition(connection).await?;
                    match self.post.take(connection).await? {
                        Taken::Mine(Some(place), _) if place == at => Some(at),
                        _elsewhere => None,
                    }
                }
                Ok(changes) => match self.webhook() {
                    Some(webhook) => self.call_page(connection, &webhook, at, &changes).await?,
                    None => self.publish_page(connection, at, &changes).await?,
                },
                Err(TailError::Gap { after }) => {
                    let next = self.skip(connection, Some(&at), after).await?;
                    tail = self.tail(next.as_ref().unwrap_or(&at));
                    next
                }
                Err(TailError::Server(error)) => return Err(error),
            };
            self.pulse.waiting();
            match next {
                Some(next) => at = next,
                None => return Ok(End::Again),
            }
        }
    }

    /// Does not wait for a repartition: earlier changes are sent until the layout changes.
    async fn check_partition(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        match check_partition(connection, &self.deployment, &self.keys).await {
            Err(Error::Moving { .. }) => Ok(()),
            checked => checked,
        }
    }

    fn waits(&mut self, since: Option<u64>) {
        self.waits_since = since;
        self.metrics.waits_since(since);
    }

    fn source(&self) -> Source {
        Source::new(&self.keys, self.partition)
    }

    fn tail(&self, after: &Place) -> Tail {
        let point = Point { seq: after.seq, id: after.id };
        Tail::new(self.server.clone(), &self.keys, self.partition, Some(point), BLOCK)
    }

    /// Waits; returns whether the process stops.
    async fn wait(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }
}

/// Whether the server's position is before what this process sent; only another notifier can then continue.
fn went_back(told: &Place, kept: Option<&Place>) -> bool {
    kept.is_none_or(|kept| kept.epoch == told.epoch && kept.seq < told.seq)
}

fn place(epoch: String, point: Point) -> Place {
    Place { epoch, seq: point.seq, id: point.id }
}

fn epoch() -> String {
    format!("{:016x}", fastrand::u64(..))
}
