//! The janitor: rounds of sweeps over one partition's structures, in short calls with pauses between them.
//!
//! Any number may run. A short lease lets one at a time do a round, and every sweep checks again within its script,
//! so two at once would only do the same work twice.

mod losses;
mod repairs;

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::config::{Config, Deployment, JanitorConfig, Live, Server, Shell};
use crate::error::{Error, Fatal, Verdict, chain};
use crate::failpoint::Failpoint;
use crate::key::Keys;
use crate::op::{ERASED, STREAM, SweepKind};
use crate::projection::sweeps;
use crate::redis::connect::{MOST_IDLE, Node, keep_alive, locate};
use crate::redis::scripts::layout::{check_layout, check_partition};
use crate::redis::scripts::owner::Ownership;
use crate::redis::scripts::script::drop_others;
use crate::redis::scripts::sweep::{Sweeper, Swept};
use crate::redis::scripts::turn::Turn;
use crate::state::status::survey::survey;
use crate::telemetry::health::Pulse;
use crate::telemetry::log::{Throttle, failure_line_due};
use crate::telemetry::metrics::{self, JanitorMetrics, Round};
use crate::telemetry::trace::{self, Span};

use losses::Watch;
use repairs::Repairs;

/// How many hash fields a call examines.
const WALK: u64 = 200;
/// How many hash fields a call examines if many are stale, and how many members it removes from a sorted set: about 2
/// ms.
const DRAIN: u64 = 100;
/// The maximum number of entries that a call trims.
const TRIM: u64 = 10_000;
/// The time limit of a walk over a whole large hash.
const PASS: Duration = Duration::from_secs(60);
/// The minimum number of calls of a walk in each round, so that small hashes are examined whole every time.
const WALK_CALLS: u64 = 10;
/// Pause between calls, so that other clients get their turn.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a round may spend on removing from one structure.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call may take before its connection counts as broken.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often one of the janitors surveys the server.
const SURVEY: Duration = Duration::from_secs(5);

/// How often the libraries of other versions are removed from the server.
const CLEARING: Duration = Duration::from_secs(3600);

/// How often a lasting fault is logged.
const REMINDER: Duration = Duration::from_secs(60);

/// The janitor of one partition.
#[derive(Debug)]
pub struct Janitor {
    server: Server,
    /// Makes the commands that log lines and health pages suggest.
    shell: Shell,
    deployment: Deployment,
    partition: u16,
    keys: Keys,
    name: String,
    settings: JanitorConfig,
    live: Live,
    sweeper: Sweeper,
    ownership: Ownership,
    watch: Watch,
    /// The owner and its beat at this janitor's last survey, if no other janitor has surveyed since.
    owner_seen: Option<(Option<String>, u64)>,
    repairs: Repairs,
    metrics: JanitorMetrics,
    pulse: Pulse,
    blocked: Throttle,
    horizon: Throttle,
    clearing: Throttle,
    /// The trace of the current round, for the line that says why it failed.
    under_way: Span,
    stop: watch::Receiver<bool>,
}

impl Janitor {
    /// A janitor for `partition`, called `name`, that stops once `stop` turns true.
    pub fn new(
        config: &Config,
        partition: u16,
        name: String,
        pulse: Pulse,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let deployment = &config.deployment;
        let keys = Keys::new(&deployment.prefix, deployment.partitions, partition);
        let metrics = JanitorMetrics::new(partition);
        Self {
            server: config.redis.server(),
            shell: Shell::of(&config.redis, deployment),
            deployment: deployment.clone(),
            partition,
            sweeper: Sweeper::new(deployment, &keys, &config.janitor),
            ownership: Ownership::new(deployment, &keys, name.clone()),
            watch: Watch::new(deployment, &keys, partition),
            settings: config.janitor.clone(),
            live: config.live.clone(),
            keys,
            name,
            owner_seen: None,
            repairs: Repairs::new(partition, metrics.clone()),
            metrics,
            pulse,
            blocked: Throttle::new(REMINDER),
            horizon: Throttle::new(REMINDER),
            clearing: Throttle::new(CLEARING),
            under_way: Span::default(),
            stop,
        }
    }

    /// How long its pulse may be silent: a pause, a call, and the time to connect.
    pub fn patience(config: &Config) -> Duration {
        config.janitor.interval * 2 + RESPONSE_TIMEOUT * 3 + Duration::from_secs(30)
    }

    /// Sweeps until it is told to stop.
    ///
    /// # Errors
    /// Only errors that waiting does not help against, such as settings that differ from the deployment's.
    pub async fn run(mut self) -> Result<(), Fatal> {
        while !*self.stop.borrow() {
            match self.session().await {
                Ok(()) => break,
                Err(error) if error.verdict() == Verdict::Fatal => {
                    return Err(error.fatal(&self.shell));
                }
                Err(error) => {
                    metrics::redis_error(error.kind());
                    self.metrics.did_not_sweep();
                    self.metrics.did_not_survey();
                    self.pulse.unready(error.hindrance(&self.shell));
                    std::mem::take(&mut self.under_way).within(|| self.report(&error));
                    self.wait(self.settings.interval.max(Duration::from_secs(1))).await;
                }
            }
        }
        Ok(())
    }

    fn report(&self, error: &Error) {
        if let Some(times) = failure_line_due() {
            warn!(
                partition = self.partition,
                kind = error.kind(),
                times,
                "not sweeping: {}",
                chain(error)
            );
        }
    }

    async fn session(&mut self) -> Result<(), Error> {
        let Node { at, mut connection } =
            locate(&self.server, &self.keys.meta(), RESPONSE_TIMEOUT).await?;
        self.shell = self.shell.at(&at.info);
        check_layout(&self.server, &mut connection, &self.deployment, &self.keys).await?;
        self.ownership.check_settings(&mut connection).await?;
        let mut epoch = self.ownership.look(&mut connection).await?.epoch;
        self.metrics.connected();
        while !*self.stop.borrow() {
            self.follow_settings();
            check_partition(&mut connection, &self.deployment, &self.keys).await?;
            // Shorter than the shortest wait, so that the janitor that had it can have it again.
            let length_ms = (self.settings.interval.as_millis() as u64 * 7 / 10).max(1);
            let turn = self.sweeper.sweep_turn(&mut connection, &self.name, length_ms).await?;
            if self.is_due(turn) {
                // Changed settings come with another epoch.
                let seen = self.ownership.look(&mut connection).await?;
                if seen.epoch != epoch {
                    self.ownership.check_settings(&mut connection).await?;
                    epoch = seen.epoch;
                }
                let span = trace::round(self.partition);
                self.under_way = span.clone();
                span.around(self.round(&mut connection)).await?;
                self.under_way = Span::default();
            } else {
                self.metrics.did_not_sweep();
            }
            self.survey(&mut connection).await?;
            if self.clearing.add(1).is_some() {
                self.clear(&mut connection).await?;
            }
            self.pulse.waiting();
            self.rest(&mut connection, turn).await?;
        }
        Ok(())
    }

    /// Takes over reloaded settings.
    fn follow_settings(&mut self) {
        let settings = self.live.get().janitor;
        if settings != self.settings {
            self.sweeper = Sweeper::new(&self.deployment, &self.keys, &settings);
            self.settings = settings;
        }
    }

    /// Whether this janitor has a turn that begins now.
    fn is_due(&mut self, turn: Turn) -> bool {
        if let Turn::Now { overran: true } = turn {
            self.repairs.ended_a_turn();
        }
        matches!(turn, Turn::Now { .. })
    }

    /// Waits for the next round. Meanwhile the janitor that swept keeps the shared keys free of expiries, and the
    /// others keep their connections alive.
    async fn rest(
        &mut self,
        connection: &mut MultiplexedConnection,
        turn: Turn,
    ) -> Result<(), Error> {
        let mut left = self.settings.interval.mul_f64(0.75 + fastrand::f64() / 2.0);
        while left > MOST_IDLE && !*self.stop.borrow() {
            self.wait(MOST_IDLE).await;
            left -= MOST_IDLE;
            self.pulse.waiting();
            if self.live.get().janitor != self.settings {
                return Ok(());
            }
            match turn {
                Turn::Now { .. } => self.repairs.look(&self.sweeper, connection).await?,
                _ => keep_alive(connection, &self.keys.meta()).await?,
            }
        }
        self.wait(left).await;
        Ok(())
    }

    /// One round over all structures.
    async fn round(&mut self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        let started = Instant::now();
        let mut unfinished = Vec::new();
        for sweep in sweeps() {
            let span = trace::sweep(sweep.name);
            let more = match sweep.kind {
                SweepKind::Walk => {
                    span.around(self.walk(connection, sweep.name, WALK_CALLS)).await?
                }
                SweepKind::Patrol => span.around(self.walk(connection, sweep.name, 1)).await?,
                SweepKind::Drain => {
                    span.around(self.drain(connection, sweep.name, DRAIN)).await?.more
                }
            };
            if sweep.takes() {
                unfinished.push((sweep.name, more));
            }
        }
        let trimmed = self.drain(connection, STREAM.name, TRIM);
        let last = trace::sweep(STREAM.name).around(trimmed).await?;
        unfinished.push((STREAM.name, last.more));
        let forgotten = self.drain(connection, ERASED.name, DRAIN);
        let forgotten = trace::sweep(ERASED.name).around(forgotten).await?;
        unfinished.push((ERASED.name, forgotten.more));
        self.report_position(&last);
        self.watch.look(connection).await?;
        self.repairs.look(&self.sweeper, connection).await?;
        let round = Round {
            unfinished,
            blocked_by_own: last.blocked_by == self.deployment.group,
            blocked_by_other: !last.blocked_by.is_empty()
                && last.blocked_by != self.deployment.group,
            horizon_used: last.unfinished_age_ms as f64 / self.settings.horizon_ms as f64,
        };
        self.metrics.round_ended(&round, started.elapsed());
        Ok(())
    }

    /// Surveys the server, if it is this janitor's turn.
    async fn survey(&mut self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        let period = SURVEY.max(self.settings.interval.mul_f64(1.5)).as_millis() as u64;
        let turn = self.sweeper.survey_turn(connection, &self.name, period).await?;
        if self.is_due(turn) {
            let found =
                survey(&mut connection.clone().into(), &self.deployment, &self.keys).await?;
            let owner = found.group.as_ref().and_then(|group| group.owner.clone());
            let life = (owner, found.beat);
            let is_unowned = life.0.is_none() || self.owner_seen.as_ref() == Some(&life);
            self.owner_seen = Some(life);
            self.metrics.surveyed(&found, is_unowned);
        } else if turn == Turn::Others {
            self.owner_seen = None;
            self.metrics.did_not_survey();
        }
        Ok(())
    }

    /// Removes the functions of other versions, if this user may.
    async fn clear(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        match drop_others(connection).await {
            Ok(0) => {}
            Ok(libraries) => info!(libraries, "dropped the function libraries of other versions"),
            Err(error) if error.code().is_some() => {
                debug!(%error, "cannot drop the function libraries of other versions");
            }
            Err(error) => return Err(Error::at("dropping function libraries")(error)),
        }
        Ok(())
    }

    /// Examines the part of a hash that completes a whole pass in [`PASS`]; returns whether much of it was stale.
    async fn walk(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &'static str,
        least_calls: u64,
    ) -> Result<bool, Error> {
        let size = self.sweeper.size(connection, structure).await?;
        if size == 0 {
            return Ok(false);
        }
        let share = self.settings.interval.as_secs_f64() / PASS.as_secs_f64();
        let part = ((size as f64 * share).ceil() as u64).max(WALK * least_calls).min(size);
        let (mut looked_at, mut removed, mut limit, mut ends) = (0, 0, WALK, 0);
        loop {
            let swept = self.sweep(connection, structure, limit).await?;
            limit = if is_much(swept.removed, swept.looked_at) { DRAIN } else { WALK };
            looked_at += swept.looked_at;
            removed += swept.removed;
            ends += u8::from(!swept.more);
            // After reaching the end twice it has examined everything, however little others left of it.
            let is_whole = looked_at >= size || ends == 2;
            if is_whole || looked_at >= part || *self.stop.borrow() {
                // If much of this part was stale, much of the rest probably is as well.
                return Ok(!is_whole && is_much(removed, looked_at));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes until nothing is due, or patience is over.
    async fn drain(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &'static str,
        limit: u64,
    ) -> Result<Swept, Error> {
        let started = Instant::now();
        loop {
            let swept = self.sweep(connection, structure, limit).await?;
            if !swept.more || started.elapsed() > PATIENCE || *self.stop.borrow() {
                return Ok(swept);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn sweep(
        &self,
        connection: &mut MultiplexedConnection,
        structure: &'static str,
        limit: u64,
    ) -> Result<Swept, Error> {
        self.pulse.busy();
        let started = Instant::now();
        let swept = self.sweeper.sweep(connection, structure, limit).await?;
        Failpoint::MidSweep.pass();
        self.metrics.swept(structure, &swept, started.elapsed());
        if swept.removed > 0 {
            debug!(partition = self.partition, structure, removed = swept.removed, "swept");
        }
        Ok(swept)
    }

    /// Reports which group keeps the stream from being trimmed, and when endings may be forgotten too soon.
    fn report_position(&mut self, swept: &Swept) {
        let blocked = !swept.blocked_by.is_empty();
        let age_s = swept.unfinished_age_ms / 1000;
        if blocked && self.blocked.add(1).is_some() {
            warn!(
                partition = self.partition,
                group = swept.blocked_by,
                oldest_unfinished_s = age_s,
                "a group has not finished old entries, so the stream cannot be trimmed past them"
            );
        }
        if swept.unfinished_age_ms > self.settings.horizon_ms / 10 * 9
            && self.horizon.add(1).is_some()
        {
            warn!(
                partition = self.partition,
                oldest_unfinished_s = age_s,
                "the oldest unfinished entry nears the horizon"
            );
        }
    }

    /// Waits, unless told to stop.
    async fn wait(&mut self, time: Duration) {
        // Either the time is over or the stop has come.
        let _either = tokio::time::timeout(time, self.stop.wait_for(|stop| *stop)).await;
    }
}

/// Whether so much of a hash is stale that other clients would notice the work.
fn is_much(removed: u64, looked_at: u64) -> bool {
    removed * 4 > looked_at
}
