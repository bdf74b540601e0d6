//! The janitor sweeping large structures, and its effect on other clients of the server, compared with the loops of
//! the original recipes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::{Commands as _, Connection};
use rollcall::key::Keys;

use crate::Options;
use crate::fleet::{Fleet, Roles};
use crate::ground::Ground;
use crate::meter::Took;
use crate::report::{Cell, Row, Table};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

/// The time limit of a sweep, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// Members that one call of the loading script makes.
const LOADED_TOGETHER: u64 = 5_000;
/// The time between two pings: short compared with a pause that anyone would notice.
const PING_EVERY: Duration = Duration::from_millis(1);

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let members = options.members.unwrap_or(options.size(400_000, 40_000));
    let rollcall = |loads: &[Load]| measure(loads, members, sweep);
    let rows = vec![
        ("nothing: idle", idle(Duration::from_millis(options.size(10_000, 500)))),
        ("presence, half of it stale", rollcall(&[Load::Presence])),
        (
            "presence, the recipe: HGETALL, HDEL",
            measure(&[Load::Presence], members, naive_presence),
        ),
        ("tokens, half of them over the cap", rollcall(&[Load::Tokens])),
        (
            "tokens, the recipe: ZRANGE 1000, DEL, HDEL, ZREM",
            measure(&[Load::Tokens], members, naive_tokens),
        ),
        (
            "sessions, versions of their data, document connections, tombstones: a quarter as many of each",
            measure(&[Load::Sessions, Load::Documents, Load::Tombstones], members / 4, sweep),
        ),
    ];
    let note = format!(
        "{members} members of each structure; half of them must be removed. The delay is what a client sees that pings every \
         millisecond; the cost of the pings is subtracted. Rollcall's janitor pauses only 100 ms between rounds here; the default \
         is a second. The recipes send `HDEL` in pipelines of 1000, which favours them."
    );
    let row = |(name, cells): (&str, Vec<_>)| Row { name: name.to_owned(), cells };
    vec![Table {
        title: "What the janitor removes".to_owned(),
        note,
        columns: vec![
            "removed",
            "seconds",
            "server µs per removed",
            "client µs per removed",
            "delay p99.9, ms",
            "longest, ms",
        ],
        rows: rows.into_iter().map(row).collect(),
    }]
}

/// The structure that is filled with members of which half must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Presence,
    Tokens,
    Sessions,
    Documents,
    Tombstones,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Tokens => "tokens",
            Self::Sessions => "sessions",
            Self::Documents => "documents",
            Self::Tombstones => "tombstones",
        }
    }

    /// Longer than anything of that kind is kept.
    fn stale_age_ms(self) -> u64 {
        let minutes = match self {
            Self::Presence | Self::Tokens => 60,
            Self::Sessions | Self::Documents => 120,
            Self::Tombstones => 25 * 60,
        };
        minutes * 60_000
    }

    /// Fills it with `members`, of which every `fresh_every`th is fresh (0: none).
    pub(crate) fn fill(self, ground: &mut Ground, members: u64, fresh_every: u64) {
        let script = redis::Script::new(include_str!("load.lua"));
        let (now_ms, mut conn) = (ground.now_ms(), ground.connection());
        for first in (0..members).step_by(LOADED_TOGETHER as usize) {
            let last = (first + LOADED_TOGETHER).min(members) - 1;
            let mut call = script.prepare_invoke();
            call.arg(self.name()).arg(first).arg(last).arg(now_ms);
            call.arg(self.stale_age_ms()).arg(fresh_every).invoke::<()>(&mut conn).unwrap();
        }
    }

    /// How many members there are now.
    fn size(self, ground: &mut Ground) -> u64 {
        let mut count = |command, key: fn(&Keys) -> String| ground.sum(command, key);
        match self {
            Self::Presence => count("HLEN", Keys::presence),
            Self::Tokens => count("ZCARD", Keys::recent),
            // Each session has the version of its data, which is removed as well.
            Self::Sessions => {
                count("HLEN", Keys::sessions) + count("HLEN", Keys::session_data_versions)
            }
            Self::Documents => count("ZCARD", Keys::docs_joined),
            Self::Tombstones => count("ZCARD", Keys::tokens_ended),
        }
    }
}

/// How long a ping waits on an idle server: the row to compare all others with.
fn idle(time: Duration) -> Vec<Cell> {
    let ground = Ground::start(1);
    let pinger = Pinger::start(&ground);
    thread::sleep(time);
    let silences = pinger.end();
    let mut cells: Vec<Cell> = vec![0_u64.into(), time.as_secs_f64().into(), "".into(), "".into()];
    cells.extend(silences.cells());
    cells
}

type Sweep = fn(&mut Ground, &[Load], u64, &[(&'static str, String)]) -> Took;

fn size(loads: &[Load], ground: &mut Ground) -> u64 {
    loads.iter().map(|load| load.size(ground)).sum()
}

/// Fills, sweeps, and checks that exactly the right members are gone: the cells of a row.
fn measure(loads: &[Load], members: u64, sweep: Sweep) -> Vec<Cell> {
    let flags = [
        ("recent-cap", (members / 2).to_string()),
        // One round after the other: as much disturbance as possible.
        ("janitor-interval", "100ms".to_owned()),
    ];
    let mut ground = Ground::start(1);
    // A deployment in use: the group exists, and no endings are older than its entries.
    ground.add(&Traffic::new(Mix::Heartbeats, 1, 1, 1).batch(1).entries);
    Way::Rollcall { workers: 1, metrics: true, flags: flags.to_vec() }.drain(&mut ground, 1);
    ground.ask::<()>(redis::cmd("DEL").arg("presence:users"));
    loads.iter().for_each(|load| load.fill(&mut ground, members, 2));
    let before = size(loads, &mut ground);

    let pinger = Pinger::start(&ground);
    let us_per_ping = pinger.price_us(&mut ground);
    let (server_before_s, pings_before) = (ground.server_cpu_s(), pinger.count());
    let took = sweep(&mut ground, loads, before / 2, &flags);
    let server_s = ground.server_cpu_s() - server_before_s;
    let silences = pinger.end();

    let left = size(loads, &mut ground);
    assert_eq!(left, before / 2, "{loads:?}: what is left of {before}");
    let taken = before - left;
    let pings = silences.0.len() as u64 - pings_before;
    let server_us = server_s * 1e6 - pings as f64 * us_per_ping;
    let mut cells: Vec<Cell> = vec![
        taken.into(),
        took.wall_s.into(),
        (server_us / taken as f64).into(),
        (took.client_s * 1e6 / taken as f64).into(),
    ];
    cells.extend(silences.cells());
    cells
}

/// Rollcall's janitor, at its own pace.
fn sweep(ground: &mut Ground, loads: &[Load], left: u64, flags: &[(&'static str, String)]) -> Took {
    let config = ground.config(flags);
    crate::meter::watch(|| {
        let (fleet, started) = (
            Fleet::start(&config, Roles { workers: 0, janitor: true, metrics: true }),
            Instant::now(),
        );
        while size(loads, ground) > left {
            fleet.check();
            assert!(started.elapsed() < PATIENCE, "{loads:?}: still {}", size(loads, ground));
            thread::sleep(Duration::from_millis(50));
        }
    })
}

/// Reads the whole hash, and deletes what is stale by its own clock.
fn naive_presence(ground: &mut Ground, _: &[Load], _: u64, _: &[(&'static str, String)]) -> Took {
    let stale_before_ms = ground.now_ms() - 300_000;
    let mut conn = ground.connection();
    crate::meter::watch(move || {
        let all: Vec<(String, String)> = conn.hgetall("presence:users").unwrap();
        let stale = all.into_iter().filter(|(_, value)| {
            let value: serde_json::Value = serde_json::from_str(value).unwrap();
            value["lastSeen"].as_u64().unwrap() < stale_before_ms
        });
        let fields: Vec<String> = stale.map(|(field, _)| field).collect();
        for together in fields.chunks(1000) {
            let mut pipeline = redis::pipe();
            for field in together {
                pipeline.hdel("presence:users", field).ignore();
            }
            pipeline.exec(&mut conn).unwrap();
        }
    })
}

/// Removes the oldest thousand until there are few enough.
fn naive_tokens(ground: &mut Ground, _: &[Load], limit: u64, _: &[(&'static str, String)]) -> Took {
    let mut conn = ground.connection();
    crate::meter::watch(move || {
        loop {
            let size: u64 = conn.zcard("recent:").unwrap();
            if size <= limit {
                return;
            }
            let last = (size - limit).min(1000) as isize - 1;
            let tokens: Vec<String> = conn.zrange("recent:", 0, last).unwrap();
            let viewed: Vec<String> =
                tokens.iter().map(|token| format!("viewed:{token}")).collect();
            conn.del::<_, ()>(viewed).unwrap();
            conn.hdel::<_, _, ()>("login:", &tokens).unwrap();
            conn.zrem::<_, _, ()>("recent:", &tokens).unwrap();
        }
    })
}

/// A client that checks all the time whether the server answers.
struct Pinger {
    state: Arc<State>,
    thread: JoinHandle<Silences>,
}

#[derive(Default)]
struct State {
    count: std::sync::atomic::AtomicU64,
    stop: AtomicBool,
}

impl Pinger {
    fn start(ground: &Ground) -> Self {
        let (state, conn) = (Arc::<State>::default(), ground.connection());
        let thread = thread::spawn({
            let state = Arc::clone(&state);
            move || ping(conn, &state)
        });
        Self { state, thread }
    }

    fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    /// The cost of a ping for the server, in µs, while nothing else happens.
    fn price_us(&self, ground: &mut Ground) -> f64 {
        let (server_s, count) = (ground.server_cpu_s(), self.count());
        thread::sleep(Duration::from_millis(500));
        (ground.server_cpu_s() - server_s) * 1e6 / (self.count() - count) as f64
    }

    /// How long each ping waited for its answer.
    fn end(self) -> Silences {
        self.state.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long each ping waited.
#[derive(Default)]
struct Silences(Vec<Duration>);

impl Silences {
    /// The 99.9th percentile and the maximum, in milliseconds.
    fn cells(mut self) -> [Cell; 2] {
        self.0.sort();
        let last = self.0.len() - 1;
        [last - self.0.len() / 1000, last].map(|place| (self.0[place].as_secs_f64() * 1e3).into())
    }
}

fn ping(mut conn: Connection, state: &State) -> Silences {
    let mut silences = Silences::default();
    while !state.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        redis::cmd("PING").exec(&mut conn).unwrap();
        silences.0.push(asked.elapsed());
        state.count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PING_EVERY);
    }
    silences
}
