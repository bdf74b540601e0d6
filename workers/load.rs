//! `rollcall load`: synthetic traffic against any Redis.
//!
//! What users do is pure and seeded (`traffic`); this file has the flags, the producers and their totals.

mod crowd;
mod event;
mod names;
mod producer;
mod standard;
mod traffic;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rollcall::config::Millis;
use rollcall::error::Error;
use rollcall::telemetry::lines;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::producer::Target;
use self::producer::{Counts, End, Producer};
pub(crate) use self::traffic::Mix;
use self::traffic::{Shape, Traffic};
use crate::out::Out;

/// What traffic to make.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadOptions {
    /// Events per second of all producers together; 0 for as many as possible
    #[arg(long, value_name = "EVENTS", default_value_t = 200)]
    pub rate: u32,
    /// Number of users
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// End after this time [default: never]
    #[arg(long, value_name = "TIME")]
    pub duration: Option<Millis>,
    /// End after this many events
    #[arg(long, value_name = "EVENTS")]
    pub count: Option<u64>,
    /// Number of producers that share the users, each with its own connection
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub producers: u32,
    /// Events per entry; more than 1 are packed as a JSON array
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pack: u32,
    /// What users do
    #[arg(long, value_enum, default_value_t)]
    pub mix: Mix,
    /// Seed of the random numbers; the same seed makes the same events [default: random]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Running producers.
pub(crate) struct Load {
    producers: JoinSet<Result<(), Error>>,
    counts: Arc<Counts>,
    since: Instant,
}

impl Load {
    /// Starts the producers. They end when `stop` becomes true or its sender is dropped.
    pub(crate) fn start(
        options: &LoadOptions,
        target: &Target,
        stop: &watch::Receiver<bool>,
    ) -> Self {
        let (counts, since) = (Arc::new(Counts::default()), Instant::now());
        let until = options.duration.map(|duration| since + Duration::from(duration));
        let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
        let rate = f64::from(options.rate) / f64::from(options.producers);
        let mut producers = JoinSet::new();
        for number in 0..options.producers {
            let traffic = Traffic::new(Shape {
                mix: options.mix,
                users: options.users,
                partitions: target.partitions.max(1),
                pack: options.pack,
                seed,
                producer: number,
                producers: options.producers,
            });
            let quota = options.count.map(|count| share(count, number, options.producers));
            let end = End { quota, until, stop: stop.clone() };
            producers.spawn(Producer::new(target, traffic, rate, end, Arc::clone(&counts)).run());
        }
        Self { producers, counts, since }
    }

    /// What they have sent so far.
    pub(crate) fn so_far(&self) -> Sent {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Sent {
            events: count(&self.counts.events),
            entries: count(&self.counts.entries),
            in_doubt: count(&self.counts.in_doubt),
            within: self.since.elapsed(),
        }
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// If the server refuses for a reason that waiting does not change: credentials, rights, the stream's type.
    pub(crate) async fn ended(&mut self) -> Result<Sent, Error> {
        while let Some(ended) = self.producers.join_next().await {
            ended.unwrap_or(Ok(()))?;
        }
        Ok(self.so_far())
    }
}

/// The users of [`Mix::Crowd`].
pub(crate) fn user_names(users: u32) -> impl Iterator<Item = String> {
    (0..users).map(names::user)
}

/// What producers have sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Events in acknowledged entries.
    pub events: u64,
    /// Acknowledged entries.
    pub entries: u64,
    /// Events that may or may not be in the stream.
    pub in_doubt: u64,
    /// The time it took.
    pub within: Duration,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.within.as_secs_f64();
        let rate = self.events as f64 / seconds.max(0.001);
        write!(f, "sent {} events in {} entries", self.events, self.entries)?;
        write!(f, " within {seconds:.1} s: {rate:.0} events/s")?;
        if self.in_doubt > 0 {
            write!(f, "; {} more went unanswered", self.in_doubt)?;
        }
        Ok(())
    }
}

/// Runs `rollcall load` to its end, with a line per second on a terminal, and a summary.
///
/// # Errors
/// As [`Load::ended`].
pub(crate) async fn run(
    options: &LoadOptions,
    target: &Target,
    stop: &watch::Receiver<bool>,
) -> Result<Sent, Error> {
    let mut load = Load::start(options, target, stop);
    let mut before = load.so_far();
    let watched = io::stderr().is_terminal();
    let mut seconds = tokio::time::interval_at(Instant::now() + SECOND, SECOND);
    let sent = loop {
        tokio::select! {
            sent = load.ended() => break sent?,
            _ = seconds.tick(), if watched => before = report(before, load.so_far()),
        }
    };
    // Even if nobody reads the summary, the traffic was sent.
    let _unread = Out::open().map(|out| out.send(format!("{sent}\n")));
    Ok(sent)
}

const SECOND: Duration = Duration::from_secs(1);

fn report(before: Sent, now: Sent) -> Sent {
    let seconds = (now.within - before.within).as_secs_f64().max(0.001);
    let rate = (now.events - before.events) as f64 / seconds;
    let (total, doubt) = (now.events, now.in_doubt);
    lines::say(&format!("{rate:8.0} events/s, {total} sent, {doubt} unanswered"));
    now
}

/// The share of `count` for one of `producers`; the shares add up to `count`.
fn share(count: u64, producer: u32, producers: u32) -> u64 {
    let (producer, producers) = (u64::from(producer), u64::from(producers.max(1)));
    count / producers + u64::from(producer < count % producers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for count in [0, 1, 7, 100] {
            assert_eq!((0..3).map(|producer| share(count, producer, 3)).sum::<u64>(), count);
        }
    }
}
