//! A producer: takes traffic at its rate and adds it to the streams until its end.
//!
//! If Redis is down, it logs this once and retries with growing pauses; meanwhile it takes no traffic. A batch
//! whose reply is in doubt is not sent again, so that nothing is counted twice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError};
use rollcall::config::Server;
use rollcall::error::{Error, chain};
use rollcall::key::Keys;
use rollcall::redis::connect::{MOST_IDLE, connect};
use tokio::sync::watch;
use tokio::time::Instant;

use super::event::Entry;
use super::traffic::Traffic;

/// Events in a batch, which takes one round trip.
const BATCH: u64 = 1_000;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The number of due events for which a producer wakes up.
const FEW: f64 = 8.0;
const TICK: Duration = Duration::from_millis(5);
const LONGEST_TICK: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where traffic goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The server, with credentials.
    pub server: Server,
    /// The prefix of every key.
    pub prefix: String,
    /// How many partitions there are.
    pub partitions: u16,
    /// The stream's name, without prefix and partition.
    pub stream: String,
}

impl Target {
    fn links(&self) -> Vec<Link> {
        let partitions = self.partitions.max(1);
        let stream = |index| Keys::new(&self.prefix, partitions, index).named(&self.stream);
        let link = |index| Link { stream: stream(index), connection: None, used: Instant::now() };
        (0..partitions).map(link).collect()
    }
}

/// What all producers have done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Events of acknowledged entries.
    pub events: AtomicU64,
    /// Entries that the server acknowledged.
    pub entries: AtomicU64,
    /// Events that were sent, and whose reply was missing or an error.
    pub in_doubt: AtomicU64,
    /// Whether the server is down, and this was logged.
    away: AtomicBool,
}

/// When a producer ends.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Events still to be acknowledged; `None` for no limit.
    pub quota: Option<u64>,
    /// At this time; `None` for never.
    pub until: Option<Instant>,
    /// Once this is true, or its sender is gone.
    pub stop: watch::Receiver<bool>,
}

impl End {
    fn is_here(&self) -> bool {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        late || *self.stop.borrow() || self.stop.has_changed().is_err() || self.quota == Some(0)
    }

    /// Sleeps, unless the end comes first.
    async fn sleep(&mut self, pause: Duration) {
        let wake = Instant::now() + pause;
        let wake = self.until.map_or(wake, |until| until.min(wake));
        // An error means that the sender is gone, which is the end, too.
        let _ = tokio::time::timeout_at(wake, self.stop.wait_for(|stop| *stop)).await;
    }
}

/// One partition's stream, and the connection to its node.
struct Link {
    stream: String,
    connection: Option<MultiplexedConnection>,
    used: Instant,
}

/// One producer.
pub(super) struct Producer {
    server: Server,
    links: Vec<Link>,
    traffic: Traffic,
    pace: Pace,
    end: End,
    counts: Arc<Counts>,
    pause: Duration,
}

impl Producer {
    /// A producer of `rate` events per second; 0 for as many as possible.
    pub(super) fn new(
        target: &Target,
        traffic: Traffic,
        rate: f64,
        end: End,
        counts: Arc<Counts>,
    ) -> Self {
        let (server, links, pace) = (target.server.clone(), target.links(), Pace::new(rate));
        Self { server, links, traffic, pace, end, counts, pause: FIRST_PAUSE }
    }

    /// Produces until the end.
    ///
    /// # Errors
    /// If waiting does not help: the server refuses the credentials, or adding to the stream.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        while !self.end.is_here() {
            if let Err(error) = self.connect().await {
                self.back_off(error).await?;
                continue;
            }
            match self.next_entries() {
                entries if entries.is_empty() => self.end.sleep(self.pace.wait()).await,
                entries => self.deliver(&entries).await?,
            }
        }
        let rest = self.traffic.rest();
        self.deliver(&rest).await
    }

    async fn connect(&mut self) -> Result<(), Error> {
        for link in self.links.iter_mut().filter(|link| link.connection.is_none()) {
            link.connect(&self.server).await?;
        }
        Ok(())
    }

    fn next_entries(&mut self) -> Vec<Entry> {
        let missing = self.end.quota.map(|quota| quota.saturating_sub(self.traffic.waiting()));
        if missing == Some(0) {
            return self.traffic.rest();
        }
        let events = self.pace.take(BATCH.min(missing.unwrap_or(BATCH)), Instant::now());
        self.traffic.entries(events, now_ms())
    }

    /// Sends entries, each partition's with one round trip.
    async fn deliver(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for (index, link) in (0..).zip(&mut self.links) {
            let own: Vec<&Entry> =
                entries.iter().filter(|entry| entry.partition == index).collect();
            let events = own.iter().map(|entry| entry.events).sum();
            match link.add(&self.server, &own).await {
                Ok(()) => {
                    self.counts.events.fetch_add(events, Ordering::Relaxed);
                    self.counts.entries.fetch_add(own.len() as u64, Ordering::Relaxed);
                    self.end.quota = self.end.quota.map(|quota| quota.saturating_sub(events));
                    if events > 0 && self.counts.away.swap(false, Ordering::Relaxed) {
                        tracing::info!("Redis accepts events again");
                    }
                    self.pause = FIRST_PAUSE;
                }
                Err(error) => {
                    self.counts.in_doubt.fetch_add(events, Ordering::Relaxed);
                    return self.back_off(error).await;
                }
            }
        }
        Ok(())
    }

    async fn back_off(&mut self, error: Error) -> Result<(), Error> {
        if is_lasting(&error) {
            return Err(error);
        }
        if !self.counts.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(error = chain(&error), "Redis does not accept events; retrying");
        }
        self.end.sleep(self.pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

impl Link {
    async fn connect(&mut self, server: &Server) -> Result<(), Error> {
        self.connection = Some(connect(server, &self.stream, ANSWER_WITHIN).await?);
        self.used = Instant::now();
        Ok(())
    }

    /// Adds entries. A failed connection is dropped.
    async fn add(&mut self, server: &Server, entries: &[&Entry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        // Some servers close idle connections; whatever is sent over one at that moment is in doubt.
        if self.used.elapsed() > MOST_IDLE {
            self.connect(server).await?;
        }
        let lost = || RedisError::from(io::Error::from(io::ErrorKind::NotConnected));
        let adding = Error::at("adding events");
        let Some(mut connection) = self.connection.take() else { return Err(adding(lost())) };
        let mut pipe = redis::Pipeline::with_capacity(entries.len());
        for entry in entries {
            let add = pipe.cmd("XADD").arg(&self.stream).arg("*");
            for (name, value) in &entry.fields {
                add.arg(*name).arg(value);
            }
            add.ignore();
        }
        let added = pipe.exec_async(&mut connection).await;
        added.map_err(|error| adding(first_of(error)))?;
        self.connection = Some(connection);
        self.used = Instant::now();
        Ok(())
    }
}

/// The first of a pipeline's errors.
fn first_of(error: RedisError) -> RedisError {
    let errors = error.clone().into_server_errors();
    errors.and_then(|errors| errors.first().map(|(_, first)| first.clone().into())).unwrap_or(error)
}

/// Whether waiting does not help.
fn is_lasting(error: &Error) -> bool {
    let is_impossible = |source: &RedisError| source.kind() == ErrorKind::InvalidClientConfig;
    error.redis().is_some_and(is_impossible)
        || matches!(error.kind(), "auth" | "permission" | "wrong_key")
}

/// How many events are due.
#[derive(Debug)]
struct Pace {
    rate: f64,
    credit: f64,
    since: Instant,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { rate, credit: 0.0, since: Instant::now() }
    }

    /// Takes at most `most` of the due events. At most a second's worth of events is kept, so an outage is not made up
    /// for.
    fn take(&mut self, most: u64, now: Instant) -> u64 {
        if self.rate == 0.0 {
            return most;
        }
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.credit = (self.credit + self.rate * passed).min(self.rate.max(1.0));
        let due = (self.credit as u64).min(most);
        self.credit -= due as f64;
        due
    }

    /// How long until a few events are due.
    fn wait(&self) -> Duration {
        if self.rate == 0.0 {
            return TICK;
        }
        let seconds = (FEW - self.credit) / self.rate;
        Duration::try_from_secs_f64(seconds).unwrap_or(TICK).clamp(TICK, LONGEST_TICK)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_and_outages_are_not_made_up_for() {
        let mut pace = Pace::new(50.0);
        let (mut now, mut taken) = (pace.since, 0);
        let end = now + Duration::from_secs(10);
        while now < end {
            now += pace.wait();
            taken += pace.take(BATCH, now);
        }
        assert!((485..=505).contains(&taken), "{taken}");
        assert_eq!(pace.take(BATCH, now + Duration::from_secs(60)), 50);
        assert_eq!(Pace::new(0.0).take(7, now), 7);
    }
}
