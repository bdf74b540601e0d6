//! A deployment with worker processes and traffic, for tests that break things under it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::Connection;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::private_server::Options;

use crate::harness::{Deployment, dead_servers, id, is_finished, wait_until, xadd};
use crate::process::Worker;
use crate::support::dump::{self, DeadLetter};
use crate::support::events::{Events, field};

/// The time limit for anything that is not itself a wait.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Scene {
    pub deployment: Deployment,
    arguments: Vec<String>,
}

impl Scene {
    /// A server; processes get these settings as flags.
    pub fn start(flags: &[(&str, &str)]) -> Self {
        Self::start_with(flags, Options::default())
    }

    pub fn start_with(flags: &[(&str, &str)], options: Options) -> Self {
        let arguments =
            flags.iter().flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
        Self { deployment: Deployment::start_with(flags, options), arguments: arguments.collect() }
    }

    /// A worker with small batches that takes over after a second.
    pub fn worker(&self, extra: &[&str]) -> Worker {
        self.worker_with(extra, &[])
    }

    pub fn worker_with(&self, extra: &[&str], env: &[(&str, &str)]) -> Worker {
        self.worker_at(&self.url(), extra, env)
    }

    /// The same at another address.
    pub fn worker_at(&self, url: &str, extra: &[&str], env: &[(&str, &str)]) -> Worker {
        let mut arguments = extra.to_vec();
        for (name, value) in [("--batch", "7"), ("--takeover", "1s")] {
            if !extra.contains(&name) {
                arguments.extend([name, value]);
            }
        }
        Worker::start(url, &self.with_settings(&arguments), env)
    }

    /// A janitor that sweeps ten times a second.
    pub fn janitor(&self, extra: &[&str]) -> Worker {
        self.janitor_with(extra, &[])
    }

    pub fn janitor_with(&self, extra: &[&str], env: &[(&str, &str)]) -> Worker {
        let mut arguments = extra.to_vec();
        if !extra.contains(&"--janitor-interval") {
            arguments.extend(["--janitor-interval", "100ms"]);
        }
        Worker::start_as("janitor", &self.url(), &self.with_settings(&arguments), env)
    }

    /// A process that serves applications and browsers, on a free port unless told otherwise.
    pub fn serve(&self, extra: &[&str]) -> Worker {
        let mut arguments = extra.to_vec();
        if !extra.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        Worker::start_as("serve", &self.url(), &self.with_settings(&arguments), &[])
    }

    /// A process that notifies other systems.
    pub fn notifier(&self, extra: &[&str], env: &[(&str, &str)]) -> Worker {
        Worker::start_as("notifier", &self.url(), &self.with_settings(extra), env)
    }

    /// The server's time.
    pub fn now(&self) -> u64 {
        dump::server_now(&mut self.connection())
    }

    fn with_settings<'a>(&'a self, extra: &[&'a str]) -> Vec<&'a str> {
        self.arguments.iter().map(String::as_str).chain(extra.iter().copied()).collect()
    }

    pub fn url(&self) -> String {
        self.deployment.server.url()
    }

    pub fn connection(&self) -> Connection {
        self.deployment.connection()
    }

    pub fn streams(&self) -> Vec<String> {
        (0..self.deployment.partitions())
            .map(|partition| self.deployment.stream(partition))
            .collect()
    }

    /// Adds random entries of all kinds, within some seconds before now.
    pub fn add_random(&self, seed: u64, count: u64) {
        let now = dump::server_now(&mut self.connection());
        let mut events = self.events(seed, now);
        let mut partitions = vec![Vec::new(); usize::from(self.deployment.partitions())];
        for n in 0..count {
            let (partition, fields) = events.entry();
            partitions[usize::from(partition)]
                .push(Entry::new(id(now - 5_000 + n / 3, n % 3), fields));
        }
        (0..)
            .zip(&partitions)
            .for_each(|(partition, entries)| self.deployment.add(partition, entries));
    }

    /// Adds random entries to streams that have some, with the server's ids.
    pub fn add_random_later(&self, seed: u64, count: u64) {
        let mut conn = self.connection();
        let mut events = self.events(seed, dump::server_now(&mut conn));
        for _ in 0..count {
            let (partition, fields) = events.entry();
            add(&mut conn, &self.deployment.stream(partition), &fields);
        }
    }

    pub fn events(&self, seed: u64, around: u64) -> Events {
        let mut events = Events::new(seed, around);
        events.partitions = self.deployment.partitions();
        events
    }

    /// Adds one entry to partition 0 with the server's id.
    pub fn add(&self, fields: &[Field]) -> EntryId {
        add(&mut self.connection(), &self.deployment.stream(0), fields)
    }

    pub fn add_heartbeat(&self, user: &str) -> EntryId {
        self.add(&heartbeat(user))
    }

    /// How often the server ran a command since it started.
    pub fn calls(&self, command: &str) -> u64 {
        dump::calls(&mut self.connection(), command)
    }

    /// Whether every entry in the streams has had its effect; not while the server is away.
    pub fn is_finished(&self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let Ok(mut conn) = client.get_connection() else { return false };
        // A server that has just come back answers LOADING at first.
        let ready = redis::cmd("PING").query::<String>(&mut conn).is_ok();
        ready
            && (0..self.deployment.partitions()).all(|partition| {
                let (keys, stream) =
                    (self.deployment.keys(partition), self.deployment.stream(partition));
                is_finished(&mut conn, &keys, &stream)
            })
    }

    pub fn wait_finished(&self, deadline: Duration, what: &str) {
        wait_until(deadline, what, || self.is_finished());
    }

    /// Everything is finished; state, changes and dead letters are what the entries in the stream say.
    pub fn verify(&self, what: &str) {
        assert!(self.is_finished(), "{what}: all is applied");
        block_on(self.deployment.verify(what));
    }

    /// The same if entries may have been written off; returns which were.
    pub fn verify_but(&self, what: &str) -> Vec<EntryId> {
        assert!(self.is_finished(), "{what}: all is applied");
        block_on(self.deployment.verify_but(what))
    }

    /// The same after kills at random moments: two that hit an entry which is tried alone write it off.
    pub fn verify_after_kills(&self, what: &str, kills: usize) {
        let written_off = self.verify_but(what);
        eprintln!("{what}: {} written off", written_off.len());
        assert!(written_off.len() <= kills / 2, "{what}: {written_off:?} after {kills} kills");
    }

    /// The workers that report to partition 0.
    pub fn workers(&self) -> Vec<String> {
        self.command(&["HKEYS", &self.deployment.keys(0).workers()])
    }

    /// Waits until a worker owns partition 0.
    pub fn wait_owned(&self) {
        let meta = self.deployment.keys(0).meta();
        wait_until(SOON, "a worker owns the partition", || {
            let owner: Option<String> = self.command(&["HGET", &meta, "owner"]);
            owner.is_some_and(|owner| !owner.is_empty())
        });
    }

    /// Waits until a janitor has finished a round over partition 0 with everything finished.
    pub fn wait_for_round(&self) {
        let janitor = self.deployment.keys(0).janitor();
        for _ in 0..2 {
            // The last field it writes; the current round may have begun before this.
            self.command::<u64>(&["HDEL", &janitor, "unfinished"]);
            wait_until(SOON, "the janitor ends a round", || {
                self.command(&["HEXISTS", &janitor, "unfinished"])
            });
        }
    }

    /// The last entry of partition 0 that has had its effect.
    pub fn cursor(&self) -> Option<String> {
        self.command(&["HGET", &self.deployment.keys(0).meta(), "cursor"])
    }

    pub fn letters(&self) -> Vec<DeadLetter> {
        dump::dead_letters(&mut self.connection(), &self.deployment.keys(0))
    }

    pub fn is_present(&self, field: &str) -> bool {
        self.command(&["HEXISTS", &self.deployment.keys(0).presence(), field])
    }

    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        try_command(&mut self.connection(), words)
            .unwrap_or_else(|error| panic!("{}{words:?}: {error}", dead_servers()))
    }

    /// Ends a worker cleanly.
    pub fn drain(&self, mut worker: Worker) -> String {
        assert_eq!(worker.terminate(), 0, "a clean stop:\n{}", worker.log());
        worker.log()
    }
}

pub fn try_command<T: redis::FromRedisValue>(
    conn: &mut Connection,
    words: &[&str],
) -> redis::RedisResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query(conn)
}

pub fn heartbeat(user: &str) -> Vec<Field> {
    vec![field("type", "heartbeat"), field("user", user)]
}

/// An entry with more fields than a script can pass on.
pub fn giant() -> Vec<Field> {
    let mut giant = heartbeat("giant");
    giant.extend((0..4_000).map(|n| field(&n.to_string(), "")));
    giant
}

pub fn add(conn: &mut Connection, stream: &str, fields: &[Field]) -> EntryId {
    try_add(conn, stream, fields).unwrap()
}

pub fn try_add(
    conn: &mut Connection,
    stream: &str,
    fields: &[Field],
) -> redis::RedisResult<EntryId> {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg("*");
    xadd(&mut command, fields);
    Ok(command.query::<String>(conn)?.parse().unwrap())
}

/// A producer that continues whatever happens to the server.
pub struct Traffic {
    /// Its events are about this instant.
    pub around: u64,
    stop: Arc<AtomicBool>,
    added: Arc<Mutex<Vec<Added>>>,
    thread: JoinHandle<()>,
}

/// The partition and id of an entry that the server accepted.
pub type Added = (u16, EntryId);

/// What makes the next entry: its partition and its fields.
pub type Source = Box<dyn FnMut() -> (u16, Vec<Field>) + Send>;
/// What adds it: its id, if the server said that it took it.
pub type Sink = Box<dyn FnMut(u16, &[Field]) -> Option<EntryId> + Send>;

impl Traffic {
    /// About this many entries a second, until stopped.
    pub fn start(scene: &Scene, seed: u64, per_second: u64) -> Self {
        Self::start_with(scene, seed, per_second, |_| ())
    }

    /// The same with other events.
    pub fn start_with(
        scene: &Scene,
        seed: u64,
        per_second: u64,
        set: impl Fn(&mut Events),
    ) -> Self {
        let around = dump::server_now(&mut scene.connection());
        let mut events = scene.events(seed, around);
        set(&mut events);
        Self::start_from(scene, around, per_second, Box::new(move || events.entry()))
    }

    /// The same with entries of any other source.
    pub fn start_from(scene: &Scene, around: u64, per_second: u64, source: Source) -> Self {
        let client = redis::Client::open(scene.url()).unwrap();
        Self::start_to(around, per_second, source, one_server(client, scene.streams()))
    }

    /// The same, added to any other servers.
    pub fn start_to(around: u64, per_second: u64, source: Source, sink: Sink) -> Self {
        let (stop, added) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let producer =
            Producer { source, sink, stop: Arc::clone(&stop), added: Arc::clone(&added) };
        let thread = std::thread::spawn(move || producer.run(per_second));
        Self { around, stop, added, thread }
    }

    /// What was certainly added so far.
    pub fn added(&self) -> Vec<Added> {
        self.added.lock().unwrap().clone()
    }

    /// What was certainly added in total.
    pub fn stop(self) -> Vec<Added> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.added.lock().unwrap())
    }
}

struct Producer {
    source: Source,
    sink: Sink,
    stop: Arc<AtomicBool>,
    added: Arc<Mutex<Vec<Added>>>,
}

impl Producer {
    fn run(mut self, per_second: u64) {
        const AT_ONCE: u64 = 3;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1000 * AT_ONCE / per_second));
            for _ in 0..AT_ONCE {
                let (partition, fields) = (self.source)();
                if let Some(id) = (self.sink)(partition, &fields) {
                    self.added.lock().unwrap().push((partition, id));
                }
            }
        }
    }
}

/// Adds to the streams of one server, which may go and come back.
fn one_server(client: redis::Client, streams: Vec<String>) -> Sink {
    let mut connection = None;
    Box::new(move |partition, fields| {
        if connection.is_none() {
            connection = client.get_connection_with_timeout(Duration::from_secs(1)).ok();
        }
        match try_add(connection.as_mut()?, &streams[usize::from(partition)], fields) {
            Ok(id) => return Some(id),
            // The server refuses; the connection is fine.
            Err(error) if error.code().is_some() => {}
            Err(_) => connection = None,
        }
        None
    })
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs cases, which mostly wait, in parallel.
pub fn in_parallel<T: Send>(cases: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| run(case));
        }
    });
}

/// Polls one of a worker's HTTP pages until the answer is as expected.
pub fn wait_for_page(worker: &Worker, path: &str, is_right: impl Fn(u16, &str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let (status, body) = page(worker, path);
        if is_right(status, &body) {
            return body;
        }
        let is_time = start.elapsed() < SOON;
        assert!(is_time, "{}{path} says {status}:\n{body}\n{}", dead_servers(), worker.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Status and body of one of its pages; it must run with `--http 127.0.0.1:0`.
pub fn page(worker: &Worker, path: &str) -> (u16, String) {
    let mut addr = String::new();
    wait_until(SOON, "the address is logged", || {
        let log = worker.log();
        let found = log.split("http=").nth(1).and_then(|rest| rest.split([' ', '\n']).next());
        addr = found.unwrap_or_default().trim_matches('"').to_owned();
        !addr.is_empty()
    });
    let mut stream = TcpStream::connect(&addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The sum of a metric's series.
pub fn metric(worker: &Worker, name: &str) -> f64 {
    let (_, text) = page(worker, "/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let of = lines.filter(|line| line.split([' ', '{']).next() == Some(name));
    of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The 99.9th percentile of small commands.
pub fn latencies(conn: &mut Connection, mut goes_on: impl FnMut(usize) -> bool) -> Duration {
    let mut all = Vec::new();
    while goes_on(all.len()) {
        let begun = Instant::now();
        redis::cmd("SET").arg("other").arg(1).exec(conn).unwrap();
        all.push(begun.elapsed());
        std::thread::sleep(Duration::from_micros(200));
    }
    all.sort_unstable();
    all[(all.len() * 999 / 1000).min(all.len() - 1)]
}
