//! The projector: a worker's part in one partition. It stands by, takes the partition when it is available, and then
//! reads batches from the cursor on, folds and applies them.
//!
//! After any failure it discards the current batch, takes the partition again and reads on from the cursor: what was
//! applied is before it, the rest is after it. Nothing is ever sent a second time from memory.

mod beat;
mod forward;
mod peers;
mod project;
mod quiet;
mod reader;
mod session;
mod sign;
mod single;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, watch as channel};
use tracing::{info, warn};

use crate::blocked::Blocked;
use crate::config::{Config, Deployment, Live, Server, Shell, WorkerConfig};
use crate::error::{Error, Fatal, Verdict, chain};
use crate::fold::FoldSettings;
use crate::key::Keys;
use crate::redis::nodes::Nodes;
use crate::redis::scripts::erase::digest;
use crate::redis::scripts::layout::{check_layout, check_partition};
use crate::redis::scripts::owner::{Cause, Ownership, Seen};
use crate::seal::SessionKeys;
use crate::telemetry::health::Pulse;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::{self, Role, WorkerMetrics};
use crate::telemetry::trace;

use forward::Forwarder;
use peers::Peers;
use quiet::Quiet;
use session::Memory;
use sign::Sign;
use watch::Watch;

/// The first pause after a failure, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a standby looks at its partition.
const LOOK: Duration = Duration::from_millis(250);
/// How often a worker that does not stand by checks whether it has to.
const IDLE_LOOK: Duration = Duration::from_secs(2);
/// How long nothing may change before workers that do not stand by watch as well: a little less than three of their
/// waits. Half of it has to exceed such a wait, or a look that comes late would begin the count again.
const NEGLECT: Duration = Duration::from_millis(5_800);
/// How often each worker reports to, and looks at, every partition.
const REVIEW: Duration = Duration::from_secs(10);
/// How long a worker may report nothing new before it counts as dead.
const SILENCE: Duration = Duration::from_secs(25);
/// How many sessions may fail in a row before a worker gives the partition up to others.
const PATIENCE: u32 = 8;

/// The state that the partitions of one process share.
#[derive(Clone)]
pub struct Worker {
    name: String,
    host: String,
    nodes: Arc<Nodes>,
    quiet: Quiet,
    /// When a partition was last given to another worker; only one is given at a time.
    granted: Arc<Mutex<Option<Instant>>>,
    /// What encrypts session data, if anything.
    session_keys: Option<SessionKeys>,
}

impl Worker {
    /// A worker of this name, which must be unique to this start of this process.
    pub fn new(config: &Config, name: String) -> Self {
        let response_timeout = (config.worker.takeover / 2).max(Duration::from_millis(500));
        Self {
            name,
            host: config.name.clone(),
            nodes: Arc::new(Nodes::new(config.redis.server(), response_timeout)),
            quiet: Quiet::default(),
            granted: Arc::default(),
            session_keys: None,
        }
    }

    /// The same; session data is encrypted if there are keys.
    pub fn with_session_keys(self, session_keys: Option<SessionKeys>) -> Self {
        Self { session_keys, ..self }
    }
}

/// A worker's part in one partition.
pub struct Projector {
    server: Server,
    /// Makes the commands that log lines and health pages suggest.
    shell: Shell,
    deployment: Deployment,
    settings: WorkerConfig,
    live: Live,
    keys: Keys,
    fold: FoldSettings,
    worker: Worker,
    ownership: Ownership,
    peers: Arc<Mutex<Peers>>,
    memory: Memory,
    /// Forwards entries sent to earlier layouts, during a session.
    forwarder: Option<Forwarder>,
    /// The users whose events are refused.
    blocked: Blocked,
    /// Shows others that this process is alive, if it was the last to have the partition.
    sign: Option<Sign>,
    metrics: WorkerMetrics,
    pulse: Pulse,
    batches: trace::Batches,
    /// The trace of the current batch, for the line that says why it failed.
    in_hand: trace::Span,
    stop: channel::Receiver<bool>,
}

/// What to do after a look at the partition.
enum Next {
    /// Look again later.
    Wait,
    /// Take it.
    Take(Cause),
}

impl Projector {
    /// The part of `worker` in `partition`, until `stop` turns true.
    pub fn new(
        config: &Config,
        partition: u16,
        worker: &Worker,
        pulse: Pulse,
        stop: channel::Receiver<bool>,
    ) -> Self {
        let deployment = config.deployment.clone();
        let keys = Keys::new(&deployment.prefix, deployment.partitions, partition);
        let rules = deployment.rules();
        let server = config.redis.server();
        Self {
            batches: trace::Batches::new(&deployment, partition, &worker.name, &server.info),
            in_hand: trace::Span::default(),
            server,
            shell: Shell::of(&config.redis, &deployment),
            fold: FoldSettings { rules, projections: deployment.projections, partition },
            ownership: Ownership::new(&deployment, &keys, worker.name.clone()),
            peers: Arc::new(Mutex::new(Peers::new(&worker.name, &worker.host, partition, SILENCE))),
            memory: Memory::default(),
            forwarder: None,
            blocked: Blocked::new([], digest),
            sign: None,
            settings: config.worker.clone(),
            live: config.live.clone(),
            worker: worker.clone(),
            deployment,
            keys,
            metrics: WorkerMetrics::registered(partition),
            pulse,
            stop,
        }
    }

    /// How long its pulse may be silent: a call may take a whole deadline, another one may wait as long for a missing
    /// reply, and connecting takes a while.
    pub fn patience(config: &Config) -> Duration {
        config.worker.batch_deadline() * 3 + Duration::from_secs(30)
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// Only errors that waiting does not help against, such as settings that differ from the deployment's.
    pub async fn run(mut self) -> Result<(), Fatal> {
        let mut failures = 0;
        while !*self.stop.borrow() {
            match self.turn(&mut failures).await {
                Ok(()) => {}
                Err(error) if error.verdict() == Verdict::Fatal => {
                    return Err(error.fatal(&self.shell));
                }
                Err(error) => {
                    self.worker.nodes.heed(&error);
                    self.pause(&error, &mut failures).await;
                }
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Stands by until the partition is available, and owns it for as long as possible.
    async fn turn(&mut self, failures: &mut u32) -> Result<(), Error> {
        let Some((seen, cause)) = self.stand_by(*failures).await? else { return Ok(()) };
        self.own(&seen, cause, failures).await
    }

    /// Watches the partition until it is available; `None` once told to stop.
    async fn stand_by(&mut self, failures: u32) -> Result<Option<(Seen, Cause)>, Error> {
        let mut connection = self.worker.nodes.connect(&self.keys.meta()).await?;
        check_layout(&self.server, &mut connection, &self.deployment, &self.keys).await?;
        self.ownership.check_settings(&mut connection).await?;
        let mut watch = Watch::new(self.settings.takeover);
        let mut neglect = Watch::new(NEGLECT);
        let mut begun = Instant::now();
        let (mut review_due, mut epoch) = (begun, None);
        self.metrics.role(Role::Idle);
        while !*self.stop.borrow() {
            let asked = Instant::now();
            let is_review = asked >= review_due;
            let seen = if is_review {
                review_due = asked + REVIEW.mul_f64(0.9 + fastrand::f64() / 5.0);
                check_partition(&mut connection, &self.deployment, &self.keys).await?;
                speak(&self.ownership, &self.peers, &mut connection).await?
            } else {
                self.ownership.look(&mut connection).await?
            };
            // Another layout, or another setting, has another epoch.
            if epoch.replace(seen.epoch.clone()).is_some_and(|before| before != seen.epoch) {
                check_partition(&mut connection, &self.deployment, &self.keys).await?;
            }
            if seen.owner != self.worker.name {
                self.step_back(&mut connection).await?;
            }
            let is_still = watch.look(&seen, asked, Instant::now());
            // The standbys may have died with the owner; the order shows that only later.
            if neglect.look(&seen, asked, Instant::now()) {
                begun = Instant::now();
            }
            let place = self.peers.lock().await.place_behind(&seen.owner);
            // A worker that has just joined, gave the partition up, or sees it neglected watches until the others notice.
            let is_watching = place < self.live.get().standbys || begun.elapsed() < REVIEW;
            let has_given_up = failures >= PATIENCE && self.peers.lock().await.has_others();
            if is_review {
                self.ask_if_first(&mut connection, &seen).await?;
            }
            if is_watching && (is_still || !has_given_up) {
                let next = self.judge(&mut connection, &seen, is_still).await?;
                if let Next::Take(cause) = next {
                    return Ok(Some((seen, cause)));
                }
            }
            self.pulse.waiting();
            self.metrics.role(if is_watching { Role::Standby } else { Role::Idle });
            let wait = if is_watching { LOOK } else { IDLE_LOOK };
            // Either the wait is over or the stop has come.
            let _either = tokio::time::timeout(wait, self.stop.wait_for(|stop| *stop)).await;
        }
        Ok(None)
    }

    /// Whether the partition is available, and why.
    async fn judge(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &Seen,
        is_still: bool,
    ) -> Result<Next, Error> {
        let own = self.ownership.worker();
        if seen.owner == own {
            return Ok(Next::Take(Cause::Again));
        }
        if seen.owner.is_empty() {
            let is_anothers = !seen.heir.is_empty() && seen.heir != own && !is_still;
            return Ok(if is_anothers { Next::Wait } else { Next::Take(Cause::Free) });
        }
        let lives = self.ownership.owner_lives(connection, seen).await?;
        if lives == Some(false) {
            self.peers.lock().await.forget(&seen.owner);
            return Ok(Next::Take(Cause::Death));
        }
        if is_still {
            // If nothing shows whether the process is alive, it may have died on the entry it had named.
            return Ok(Next::Take(if lives.is_none() { Cause::Death } else { Cause::Stall }));
        }
        Ok(Next::Wait)
    }

    /// Asks the owner for the partition, if it should be this worker's.
    async fn ask_if_first(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &Seen,
    ) -> Result<(), Error> {
        let own = self.ownership.worker();
        if seen.owner.is_empty() || seen.owner == own || !self.peers.lock().await.is_first(own) {
            return Ok(());
        }
        self.ownership.ask(connection).await
    }

    /// Says goodbye if the server can be reached; otherwise others notice the silence.
    async fn leave(&self) {
        let left = async {
            let mut connection = self.worker.nodes.connect(&self.keys.meta()).await?;
            self.ownership.leave(&mut connection).await
        };
        if let Err(error) = left.await {
            info!(error = chain(&error), "could not leave in an orderly way; others will notice");
        }
    }

    /// Waits before the next attempt, longer each time, unless told to stop.
    async fn pause(&mut self, error: &Error, failures: &mut u32) {
        self.metrics.role(Role::Idle);
        if error.is_lost_ownership() {
            info!(
                partition = self.fold.partition,
                "another worker has the partition, or its stream began again"
            );
            return;
        }
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
        // Either the pause is over or the stop has come.
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

/// Reports that this worker is alive, and learns who else is.
async fn speak(
    ownership: &Ownership,
    peers: &Mutex<Peers>,
    connection: &mut MultiplexedConnection,
) -> Result<Seen, Error> {
    let says = peers.lock().await.words();
    let (words, seen) = ownership.live(connection, &says).await?;
    let dead = peers.lock().await.hear(Instant::now(), words);
    for (name, said) in dead {
        ownership.bury(connection, &name, &said).await?;
    }
    Ok(seen)
}
