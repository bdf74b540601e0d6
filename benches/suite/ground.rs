//! The ground of a measurement: a private server, and queries to it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, FromRedisValue, Pipeline, Value};
use rollcall::config::{Config, Gathered};
use rollcall::key::Keys;
use rollcall::private_server::{Options, PrivateServer};

use crate::machine::pin_server;
use crate::traffic::event::Entry;

pub(crate) const STREAM: &str = "rollcall:events";
pub(crate) const GROUP: &str = "rollcall";

/// The time limit for any backlog here, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// Entries that a producer sends together.
const SENT_TOGETHER: usize = 200;

/// By the name of a command, in lower case.
pub(crate) type Commands = HashMap<String, Calls>;

/// How often a command was called, and its time. Calls from a script count here, and their time also in the script's
/// own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) count: u64,
    pub(crate) took_us: u64,
}

/// What a server does with each command besides running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeping {
    Nothing,
    /// An append-only file, written every second.
    File,
    /// A replica on the clients' core.
    Replica,
}

pub(crate) struct Ground {
    server: PrivateServer,
    _replica: Option<PrivateServer>,
    conn: Connection,
    pub(crate) partitions: u16,
}

impl Ground {
    pub(crate) fn start(partitions: u16) -> Self {
        Self::keeping(partitions, Keeping::Nothing)
    }

    pub(crate) fn keeping(partitions: u16, keeping: Keeping) -> Self {
        let extra_args = ["--auto-aof-rewrite-percentage", "0"].map(str::to_owned).into();
        let appendonly = keeping == Keeping::File;
        let options = Options { appendonly, extra_args, ..Options::default() };
        let server = PrivateServer::start(options).unwrap();
        pin_server(server.pid().unwrap());
        let replica = (keeping == Keeping::Replica).then(|| {
            let of = ["--replicaof", "127.0.0.1", &server.port().to_string()].map(str::to_owned);
            let options = Options { extra_args: of.into(), ..Options::default() };
            PrivateServer::start(options).unwrap()
        });
        let conn = connect(&server.url());
        let mut ground = Self { server, _replica: replica, conn, partitions };
        while keeping == Keeping::Replica
            && ground.info("slave0").is_none_or(|line| !line.contains("online"))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        ground
    }

    /// Bytes that went to the append-only file or to the replica so far.
    pub(crate) fn written_bytes(&mut self) -> f64 {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0.0);
        number(self.info("aof_current_size")) + number(self.info("master_repl_offset"))
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// A connection of its own.
    pub(crate) fn connection(&self) -> Connection {
        connect(&self.url())
    }

    /// The settings of a deployment on this server.
    pub(crate) fn config(&self, flags: &[(&'static str, String)]) -> Config {
        let own = [("redis-url", self.url()), ("partitions", self.partitions.to_string())];
        let all = own.into_iter().chain(flags.iter().cloned());
        Config::resolve(&Gathered::from_flags(all).unwrap()).unwrap()
    }

    pub(crate) fn keys(&self) -> Vec<Keys> {
        (0..self.partitions).map(|index| Keys::new("", self.partitions, index)).collect()
    }

    pub(crate) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> T {
        command.query(&mut self.conn).unwrap()
    }

    /// Sends the same query for every partition's key and adds up the answers.
    pub(crate) fn sum(&mut self, command: &str, key: impl Fn(&Keys) -> String) -> u64 {
        let keys = self.keys();
        let ask = |keys: &Keys| redis::cmd(command).arg(key(keys)).to_owned();
        keys.iter().map(|keys| self.ask::<u64>(&ask(keys))).sum()
    }

    pub(crate) fn all<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> T {
        pipeline.query(&mut self.conn).unwrap()
    }

    /// Adds entries like a producer that sends some at a time and waits for the ids.
    pub(crate) fn add(&mut self, entries: &[Entry]) {
        let streams: Vec<String> = self.keys().iter().map(|keys| keys.named(STREAM)).collect();
        for together in entries.chunks(SENT_TOGETHER) {
            let mut pipeline = redis::pipe();
            for entry in together {
                pipeline.cmd("XADD").arg(&streams[usize::from(entry.partition)]).arg("*");
                for (name, value) in &entry.fields {
                    pipeline.arg(*name).arg(value);
                }
                pipeline.ignore();
            }
            self.all::<()>(&pipeline);
        }
    }

    /// A line of `INFO everything`.
    pub(crate) fn info(&mut self, name: &str) -> Option<String> {
        let text: String = self.ask(redis::cmd("INFO").arg("everything"));
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
    }

    pub(crate) fn number(&mut self, name: &str) -> f64 {
        self.info(name).unwrap().parse().unwrap()
    }

    /// Seconds of processor time that the server has used, according to itself.
    pub(crate) fn server_cpu_s(&mut self) -> f64 {
        self.number("used_cpu_user") + self.number("used_cpu_sys")
    }

    /// Calls and time of each command since the server started, according to itself.
    pub(crate) fn commands(&mut self) -> Commands {
        let text: String = self.ask(redis::cmd("INFO").arg("commandstats"));
        let read = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let figure = |name: &str| {
                figures
                    .split(',')
                    .find_map(|f| f.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            };
            Some((name.to_owned(), Calls { count: figure("calls")?, took_us: figure("usec")? }))
        };
        text.lines().filter_map(read).collect()
    }

    /// The server's clock, in milliseconds.
    pub(crate) fn now_ms(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&redis::cmd("TIME"));
        seconds * 1000 + micros / 1000
    }

    /// Entries that are not acknowledged yet, over all partitions; `None` while a group is missing.
    pub(crate) fn backlog(&mut self) -> Option<u64> {
        let streams: Vec<String> = self.keys().iter().map(|keys| keys.named(STREAM)).collect();
        let mut sum = 0;
        for stream in streams {
            let ask = redis::cmd("XINFO").arg("GROUPS").arg(stream).to_owned();
            let groups: Vec<HashMap<String, Value>> = ask.query(&mut self.conn).ok()?;
            let count = |name: &str| match groups.first()?.get(name)? {
                Value::Int(count) => u64::try_from(*count).ok(),
                _ => None,
            };
            sum += count("lag")? + count("pending")?;
        }
        Some(sum)
    }

    /// Waits until everything is acknowledged; `check` fails if the workers have given up. It polls seldom, since
    /// every query costs the server as much as some events: after half of the time that seems to be left.
    pub(crate) fn wait_until_drained(&mut self, mut check: impl FnMut()) {
        let (started, mut first) = (Instant::now(), None);
        loop {
            check();
            assert!(started.elapsed() < PATIENCE, "still a backlog of {:?}", self.backlog());
            let left = self.backlog();
            if left == Some(0) {
                return;
            }
            let left = left.unwrap_or(u64::MAX);
            let (since, before) = *first.get_or_insert((Instant::now(), left));
            let done = before.saturating_sub(left).max(1);
            let remaining = since.elapsed().mul_f64(left as f64 / done as f64 / 2.0);
            std::thread::sleep(
                remaining.clamp(Duration::from_millis(1), Duration::from_millis(50)),
            );
        }
    }

    /// Removes all entries from the streams.
    pub(crate) fn trim(&mut self) {
        for keys in self.keys() {
            self.ask::<()>(redis::cmd("XTRIM").arg(keys.named(STREAM)).arg("MAXLEN").arg(0));
        }
    }
}

fn connect(url: &str) -> Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}
