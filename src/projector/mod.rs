//! The projector: reads batches of one partition's stream, folds them, applies and acknowledges them.
//!
//! After any failure it drops what is in hand and reads it again: what was applied is acknowledged, and
//! what was not is still pending. Nothing is ever sent a second time from memory.

mod project;
mod reader;

use std::collections::HashSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{Config, Deployment, Server, Shell, WorkerConfig};
use crate::decode::Rules;
use crate::entry::EntryId;
use crate::error::{Error, Fatal, Verdict, chain};
use crate::fold::FoldSettings;
use crate::key::Keys;
use crate::redis::connect::locate;
use crate::redis::scripts::apply::Applier;
use crate::redis::scripts::giant::take_back_trials;
use crate::redis::scripts::group::{Membership, check_layout};
use crate::telemetry::health::Pulse;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::{self, WorkerMetrics};
use crate::telemetry::trace;

use project::Projecting;
use reader::Reader;

/// The first pause after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Entries that the very first read asks for.
const FIRST_COUNT: usize = 64;

/// The worker of one partition.
#[derive(Debug)]
pub struct Projector {
    server: Server,
    /// Makes the commands that log lines and health pages suggest.
    shell: Shell,
    deployment: Deployment,
    worker: WorkerConfig,
    keys: Keys,
    fold: FoldSettings,
    membership: Membership,
    /// Entries being tried alone: a trial that the server's troubles ended is none.
    tried: HashSet<EntryId>,
    /// Entries that the first read of a session asks for, before it is known how large they are. Half as
    /// many as before after a failure: over a slow link they may have been too many for the time there is.
    first_count: usize,
    metrics: WorkerMetrics,
    pulse: Pulse,
    batches: trace::Batches,
    /// The trace of the batch in hand, for the line that says why it failed.
    in_hand: trace::Span,
    stop: watch::Receiver<bool>,
}

impl Projector {
    /// A worker for `partition`, called `consumer`, that stops in good order once `stop` turns true.
    pub fn new(
        config: &Config,
        partition: u16,
        consumer: String,
        pulse: Pulse,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let deployment = config.deployment.clone();
        let keys = Keys::new(&deployment.prefix, deployment.partitions, partition);
        let rules = Rules {
            limits: deployment.limits.clone(),
            max_skew_ms: deployment.max_skew_ms,
            partitions: deployment.partitions,
        };
        let server = config.redis.server();
        Self {
            batches: trace::Batches::new(&deployment, partition, &consumer, &server.info),
            in_hand: trace::Span::default(),
            server,
            shell: Shell::of(&config.redis, &deployment),
            fold: FoldSettings { rules, projections: deployment.projections, partition },
            membership: Membership::new(&deployment, &keys, consumer),
            first_count: config.worker.batch.min(FIRST_COUNT),
            worker: config.worker.clone(),
            deployment,
            keys,
            tried: HashSet::new(),
            metrics: WorkerMetrics::registered(),
            pulse,
            stop,
        }
    }

    /// How long its pulse may be silent: a call may take a deadline, and another one for the reply that does
    /// not come, and to connect takes a while.
    pub fn patience(config: &Config) -> Duration {
        config.worker.batch_deadline * 3 + Duration::from_secs(30)
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// Only what no waiting helps against, such as other settings than the deployment has.
    pub async fn run(mut self) -> Result<(), Fatal> {
        let mut failures = 0;
        while !*self.stop.borrow() {
            match self.session(&mut failures).await {
                Ok(()) => break,
                Err(error) if error.verdict() == Verdict::Fatal => {
                    return Err(error.fatal(&self.shell));
                }
                Err(error) => self.pause(&error, &mut failures).await,
            }
        }
        Ok(())
    }

    /// From connecting to a failure, or to the end of a drained stop.
    async fn session(&mut self, failures: &mut u32) -> Result<(), Error> {
        let (key, deadline) = (self.keys.meta(), self.worker.batch_deadline);
        let mut node = locate(&self.server, &key, deadline).await?;
        self.shell = self.shell.at(&node.info);
        check_layout(&self.server, &mut node.connection, &self.deployment).await?;
        take_back_trials(&mut node.connection, &self.keys, &mut self.tried).await?;
        let joined = self.membership.join(&mut node.connection).await?;
        if let Some(from) = &joined.created_from {
            let (partition, group) = (self.fold.partition, &self.deployment.group);
            info!(partition, group, from, "created the consumer group");
        }
        self.metrics.connected();
        let applier = Applier::new(&self.deployment, &self.keys, joined.epoch.clone());
        let mut reader = Reader::start(self, joined.epoch, &node).await?;
        let worked = self.work(&mut reader, applier, &mut node.connection, failures).await;
        // What it may still be given must be pending before the next session looks for what is pending.
        let asked = reader.end().await.unwrap_or(self.first_count);
        if worked.is_err() {
            self.first_count = (asked / 2).clamp(1, self.first_count);
        }
        worked?;
        self.leave(&mut node.connection).await
    }

    async fn work(
        &mut self,
        reader: &mut Reader,
        applier: Applier,
        connection: &mut MultiplexedConnection,
        failures: &mut u32,
    ) -> Result<(), Error> {
        let (pulse, stop) = (self.pulse.clone(), self.stop.clone());
        let mut projecting = Projecting::new(self, applier, connection);
        loop {
            let Some(batch) = reader.next().await else {
                return if *stop.borrow() { Ok(()) } else { Err(Error::ReaderGone) };
            };
            pulse.busy();
            projecting.project(batch?).await?;
            pulse.waiting();
            *failures = 0;
        }
    }

    async fn leave(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        let consumer = self.membership.consumer();
        if self.membership.leave(connection).await? {
            info!(consumer, "left the consumer group, nothing pending");
        } else {
            warn!(
                consumer,
                "stays in the consumer group: entries are pending, others will claim them"
            );
        }
        Ok(())
    }

    /// Waits before the next try, longer each time, but not once told to stop.
    async fn pause(&mut self, error: &Error, failures: &mut u32) {
        metrics::redis_error(error.kind());
        if self.pulse.unready(error.hindrance(&self.shell)) {
            *failures = 0;
        }
        let (first, longest) = BACKOFF;
        let pause = (first * 2_u32.pow((*failures).min(8)))
            .min(longest)
            .mul_f64(0.5 + fastrand::f64() / 2.0);
        *failures += 1;
        std::mem::take(&mut self.in_hand).within(|| self.report(error, pause));
        // Both ends of the wait are good: the pause is over, or the stop has come.
        let _either = tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await;
    }

    fn report(&self, error: &Error, pause: Duration) {
        if let Some(times) = failure_line_due() {
            warn!(
                partition = self.fold.partition,
                kind = error.kind(),
                times,
                retry_in_ms = pause.as_millis() as u64,
                "not projecting: {}",
                chain(error)
            );
        }
    }
}
