//! From `XADD` to applied, while events arrive at a steady rate.
//!
//! A probe is a view of a token that nobody has used before. The call that applies it creates the key
//! `viewed:<token>`, and a client that waits for that key in `BZPOPMIN` has its answer at the end of the call,
//! including acknowledgement. Nothing is polled, Rollcall is unaware of it, and 500 probes a second cost the server
//! almost nothing. The time runs from before the `XADD` is sent until that answer is read, so it contains both
//! network hops, the worker's read and the call. The floor has a client that acknowledges what it reads and creates
//! that key, nothing else: its time is that of the machine and the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::Connection;
use rollcall::entry::Entry;

use crate::Options;
use crate::fleet::{Fleet, Roles};
use crate::ground::{Ground, STREAM};
use crate::janitor::Load;
use crate::plain::Consumer;
use crate::report::{Row, Table};
use crate::subject::Subject;
use crate::traffic::event::Entry as Written;
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

const TICK: Duration = Duration::from_millis(1);
const TICKS_PER_S: u64 = 1_000;
/// Every second tick has a probe.
const TICKS_PER_PROBE: u64 = 2;
/// No event waits that long, however slow the machine.
const PATIENCE_S: u64 = 60;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let fleet = |workers, janitor| Some(Roles { workers, janitor, metrics: true });
    let works = [None, fleet(1, false), fleet(3, false), fleet(1, true)];
    let cases =
        works.into_iter().flat_map(|roles| [10_000, 50_000].map(|rate| Case { rate, roles }));
    let rows = cases.map(|case| case.measure(options)).collect();
    vec![Table {
        title: "Latency from XADD to applied".to_owned(),
        note: "Milliseconds, measured by a client that waits in BZPOPMIN for the key that applying a probe creates \
               (500 probes per second). If the janitor is at work, it constantly removes stale presence entries and \
               tokens over the cap. The floor acknowledges what it reads and creates the probe's key. A quarter \
               of the users."
            .to_owned(),
        columns: vec!["events/s reached", "p50", "p99", "p99.9", "max", "probes", "removed/s by the janitor"],
        rows,
    }]
}

#[derive(Clone, Copy)]
struct Case {
    rate: u64,
    /// The roles that run; `None` for the floor.
    roles: Option<Roles>,
}

impl Case {
    fn measure(self, options: &Options) -> Row {
        let flags = vec![("batch", options.batch.to_string()), ("recent-cap", "1000".to_owned())];
        let way = Way::Rollcall { workers: 1, metrics: true, flags: flags.clone() };
        let traffic = Traffic::new(Mix::Standard, options.users() / 4, 1, 1);
        let mut ground = Subject::prepare("latency", way, traffic, 0).ground;
        let Some(roles) = self.roles else { return self.measure_floor(&mut ground, options) };
        if roles.janitor {
            let many = options.size(1_000_000, 100_000);
            Load::Presence.fill(&mut ground, many, 0);
            Load::Tokens.fill(&mut ground, many, 0);
        }
        let before = members(&mut ground);
        let fleet = Fleet::start(&ground.config(&flags), roles);
        let (sent, took_s) = self.send_and_wait(&ground, options);
        ground.wait_until_drained(|| fleet.check());
        drop(fleet);
        let taken = before.saturating_sub(members(&mut ground));
        assert!(taken > 0 || !roles.janitor, "the janitor took nothing");
        self.row(sent, took_s, taken)
    }

    fn measure_floor(self, ground: &mut Ground, options: &Options) -> Row {
        let over = AtomicBool::new(false);
        let mut consumer = Consumer::new(ground.connection(), options.batch);
        thread::scope(|scope| {
            scope.spawn(|| consumer.acknowledge_as_they_come(probed, &over));
            let (sent, took_s) = self.send_and_wait(ground, options);
            ground.wait_until_drained(|| {});
            over.store(true, Ordering::Relaxed);
            self.row(sent, took_s, 0)
        })
    }

    /// Sends for a while: the probes' latencies, and how long sending took.
    fn send_and_wait(self, ground: &Ground, options: &Options) -> (Vec<Duration>, f64) {
        let (users, ticks) = (options.users() / 4, options.size(8, 1) * TICKS_PER_S);
        let (probes, waiting) = (ticks / TICKS_PER_PROBE, ground.connection());
        let receiver = thread::spawn(move || wait_for_probes(waiting, probes));
        let events =
            Traffic::new(Mix::Standard, users, 1, 1).batch(ticks * self.rate / TICKS_PER_S);
        let (mut conn, mut sent) = (ground.connection(), Vec::new());
        let started = Instant::now();
        for (tick, entries) in (0..).zip(events.entries.chunks((self.rate / TICKS_PER_S) as usize))
        {
            let due = started + TICK * tick;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let probe = u64::from(tick).is_multiple_of(TICKS_PER_PROBE).then_some(sent.len());
            let pipeline = written(entries, probe);
            let now = Instant::now();
            pipeline.exec(&mut conn).unwrap();
            sent.extend(probe.map(|_| now));
        }
        let took_s = started.elapsed().as_secs_f64();
        let applied = receiver.join().unwrap();
        assert_eq!(applied.len(), sent.len());
        let latencies = applied.iter().zip(&sent).map(|(applied, sent)| *applied - *sent);
        (latencies.collect(), took_s)
    }

    fn row(self, mut latencies: Vec<Duration>, took_s: f64, taken: u64) -> Row {
        latencies.sort();
        let last = latencies.len() - 1;
        let ms = |share: f64| latencies[(last as f64 * share).round() as usize].as_secs_f64() * 1e3;
        let sent = latencies.len() as u64 * TICKS_PER_PROBE * self.rate / TICKS_PER_S;
        let at_work = match self.roles {
            None => "the floor".to_owned(),
            Some(Roles { workers, janitor, .. }) => {
                let plural = if workers == 1 { "" } else { "s" };
                let janitor = if janitor { ", janitor at work" } else { "" };
                format!("{workers} worker{plural}{janitor}")
            }
        };
        let reached = sent as f64 / took_s;
        // Latency at another rate is another figure, so the row must say so.
        let missed = if reached < 0.95 * self.rate as f64 { " (**not reached**)" } else { "" };
        let taken = if taken > 0 { (taken as f64 / took_s).into() } else { "".into() };
        Row {
            name: format!("{} events/s{missed}, {at_work}", self.rate),
            cells: vec![
                reached.into(),
                ms(0.5).into(),
                ms(0.99).into(),
                ms(0.999).into(),
                ms(1.0).into(),
                (latencies.len() as u64).into(),
                taken,
            ],
        }
    }
}

/// Members of the structures that were filled for the janitor.
fn members(ground: &mut Ground) -> u64 {
    ground.sum("HLEN", |keys| keys.presence()) + ground.sum("ZCARD", |keys| keys.recent())
}

/// The key that reports a probe.
fn probed(entry: &Entry) -> Option<String> {
    let token = std::str::from_utf8(entry.get(b"token")?).unwrap();
    token.starts_with("probe-").then(|| format!("viewed:{token}"))
}

/// When each probe was found to be applied.
fn wait_for_probes(mut conn: Connection, probes: u64) -> Vec<Instant> {
    let mut applied = Vec::new();
    for probe in 0..probes {
        let mut wait = redis::cmd("BZPOPMIN");
        wait.arg(format!("viewed:probe-{probe}")).arg(PATIENCE_S);
        let popped: Option<(String, String, f64)> = wait.query(&mut conn).unwrap();
        assert!(popped.is_some(), "probe {probe} was not applied within {PATIENCE_S} s");
        applied.push(Instant::now());
    }
    applied
}

/// The entries of a tick, with the probe in the middle.
fn written(entries: &[Written], probe: Option<usize>) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for (position, entry) in entries.iter().enumerate() {
        pipeline.cmd("XADD").arg(STREAM).arg("*");
        for (name, value) in &entry.fields {
            pipeline.arg(*name).arg(value);
        }
        pipeline.ignore();
        if let Some(number) = probe.filter(|_| position == entries.len() / 2) {
            pipeline
                .cmd("XADD")
                .arg(STREAM)
                .arg("*")
                .arg("type")
                .arg("view")
                .arg("user")
                .arg("probe");
            pipeline.arg("token").arg(format!("probe-{number}")).arg("item").arg("probe").ignore();
        }
    }
    pipeline
}
