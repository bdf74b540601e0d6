//! The state for a long-running process: connections are kept, checked, and renewed after failures.
//!
//! One task looks after them. Once a second, and whenever a query failed, it asks each node whether its partitions
//! are still there, and for the time; if anything is odd, it reconnects. Queries meanwhile fail at once: nobody waits
//! for a server that is down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::{AskError, State};
use crate::config::{Config, Deployment, Shell};
use crate::error::{Error, chain};

/// How long a reply may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The minimum pause between two checks, however many failures are reported.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// How many looks there are between two readings of the deployment's settings.
const LOOKS_PER_READING: u32 = 10;

/// The current state, for queries; cheap to clone.
#[derive(Clone)]
pub struct Shared {
    current: watch::Receiver<Current>,
    facts: watch::Receiver<Facts>,
    doubt: Arc<Notify>,
}

#[derive(Clone)]
enum Current {
    Known(Arc<State>),
    Away(Arc<str>),
}

/// What the last successful look learned of the deployment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its settings.
    pub deployment: Arc<Deployment>,
    server_ms: u64,
    at: Instant,
}

impl Facts {
    /// The estimated current time of the server, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.server_ms.saturating_add(passed)
    }
}

/// The state cannot be queried now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the state cannot be queried now: {0}")]
pub struct Away(pub Arc<str>);

/// The task that looks after the connections.
pub struct Keeper {
    config: Config,
    shell: Shell,
    current: watch::Sender<Current>,
    facts: watch::Sender<Facts>,
    doubt: Arc<Notify>,
    tell: Tell,
    stop: watch::Receiver<bool>,
}

/// Called again and again with the reason why the state cannot be queried, or `None` if it can.
type Tell = Box<dyn Fn(Option<String>) + Send + Sync>;

impl Shared {
    /// A state to query, and the task that must [run](Keeper::run) for it and reports how it goes.
    pub fn new(
        config: &Config,
        tell: impl Fn(Option<String>) + Send + Sync + 'static,
        stop: watch::Receiver<bool>,
    ) -> (Self, Keeper) {
        let (current_sender, current) = watch::channel(Current::Away("not connected yet".into()));
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let server_ms = u64::try_from(clock.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let deployment = Arc::new(config.deployment.clone());
        let (facts_sender, facts) =
            watch::channel(Facts { deployment, server_ms, at: Instant::now() });
        let doubt = Arc::new(Notify::new());
        let keeper = Keeper {
            config: config.clone(),
            shell: Shell::of(&config.redis, &config.deployment),
            current: current_sender,
            facts: facts_sender,
            doubt: doubt.clone(),
            tell: Box::new(tell),
            stop,
        };
        (Self { current, facts, doubt }, keeper)
    }

    /// The state, with the estimated current time of the server.
    ///
    /// # Errors
    /// If the server is down; the error has the reason.
    pub fn get(&self) -> Result<State, Away> {
        match &*self.current.borrow() {
            Current::Known(state) => Ok(State { now_ms: self.now_ms(), ..(**state).clone() }),
            Current::Away(why) => Err(Away(why.clone())),
        }
    }

    /// The same, once it is available.
    pub async fn wait(&self) -> State {
        let mut current = self.current.clone();
        loop {
            if let Ok(state) = self.get() {
                return state;
            }
            if current.changed().await.is_err() {
                // The keeper is gone, and so is the process.
                std::future::pending::<()>().await;
            }
        }
    }

    /// What was last learned of the deployment, even while the server is down; before that, the process's own
    /// settings.
    pub fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// The estimated current time of the server, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.facts.borrow().now_ms()
    }

    /// Reports that a query failed; the connections are checked now.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }
}

impl Keeper {
    /// How long it may be silent.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// Keeps the connections until it is told to stop.
    ///
    /// # Errors
    /// If the deployment differs from the settings; waiting does not help.
    pub async fn run(self) -> Result<(), Error> {
        let mut stop = self.stop.clone();
        tokio::select! {
            ended = self.keep() => ended,
            _ = stop.wait_for(|stop| *stop) => Ok(()),
        }
    }

    async fn keep(&self) -> Result<(), Error> {
        let mut pause = LEAST_PAUSE;
        let mut is_told = false;
        loop {
            match State::open_with(&self.config, RESPONSE_TIMEOUT).await {
                Ok(state) => {
                    (pause, is_told) = (LEAST_PAUSE, false);
                    let why = fatal(self.watch(state).await, &self.config)?;
                    self.away(&why);
                }
                Err(error) => {
                    let why = fatal(error, &self.config)?;
                    if !std::mem::replace(&mut is_told, true) {
                        warn!("the state cannot be queried: {}", chain(&why));
                    }
                    self.away(&why);
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                    pause = (pause * 2).min(LOOK);
                }
            }
        }
    }

    fn away(&self, why: &AskError) {
        let words = match why {
            AskError::Server(error) => error.hindrance(&self.shell),
            other => other.to_string(),
        };
        (self.tell)(Some(words.clone()));
        self.current.send_replace(Current::Away(words.into()));
    }

    /// Hands out a state until it is no longer valid; returns the reason.
    async fn watch(&self, mut state: State) -> AskError {
        let (mut look, mut away) = (0_u32, 0);
        loop {
            self.show(&state);
            (self.tell)(None);
            report(&state, &mut away);
            look = look.wrapping_add(1);
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.doubt.notified() => tokio::time::sleep(LEAST_PAUSE).await,
            }
            if let Err(error) = state.look(look.is_multiple_of(LOOKS_PER_READING)).await {
                return error;
            }
        }
    }

    fn show(&self, state: &State) {
        let known = self.facts.borrow().deployment.clone();
        let is_same = *known == state.deployment;
        let deployment = if is_same { known } else { Arc::new(state.deployment.clone()) };
        let (server_ms, at) = (state.now_ms, Instant::now());
        self.facts.send_replace(Facts { deployment, server_ms, at });
        self.current.send_replace(Current::Known(Arc::new(state.clone())));
    }
}

/// Logs once which partitions cannot be queried, and once that all can again.
fn report(state: &State, before: &mut usize) {
    let away = state.away().count();
    match (std::mem::replace(before, away), state.away().next()) {
        (before, Some((partition, why))) if before != away => {
            warn!(partition, away, "partitions cannot be queried; the first of them: {why}");
        }
        (1.., None) => info!("all partitions can be queried again"),
        _ => {}
    }
}

/// Errors that waiting does not help against, as errors that end a process.
fn fatal(error: AskError, config: &Config) -> Result<AskError, Error> {
    match error {
        AskError::Partitions { key, stored } => {
            let own = config.deployment.partitions.to_string();
            Err(Error::Partitions { key, stored, own })
        }
        // Workers of this version convert an older format.
        AskError::Server(Error::Format { ref stored, own, .. })
            if stored
                .parse()
                .is_ok_and(|stored: u32| own.parse().is_ok_and(|own| stored < own)) =>
        {
            Ok(error)
        }
        AskError::Server(error @ (Error::Format { .. } | Error::CrossSlot(_))) => Err(error),
        other => Ok(other),
    }
}
