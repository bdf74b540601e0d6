//! A deployment on a server of its own: the configuration, its model, and ways to put entries in and get the state
//! out.

use std::collections::HashMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use redis::Connection;
use redis::aio::MultiplexedConnection;
use rollcall::config::{Config, Gathered, RedisConfig};
use rollcall::decode::Rules;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::error::Error;
use rollcall::fold::{Avoided, FoldSettings, Planner};
use rollcall::key::Keys;
use rollcall::op::{Plan, SweepKind};
use rollcall::private_server::{Options, PrivateServer, ended_of_this_thread};
use rollcall::projection::sweeps;
use rollcall::redis::connect::connect;
use rollcall::redis::scripts::apply::{Applied, Applier, Outcome};
use rollcall::redis::scripts::owner::{Cause, Joined, Ownership, fence};
use rollcall::redis::scripts::sweep::Sweeper;

use crate::support::dump;
use crate::support::model::{Model, Settings, State};

pub const WORKER: &str = "test";

pub struct Deployment {
    pub server: PrivateServer,
    pub layout: Layout,
    /// When the server was there; nothing was applied before.
    pub started_ms: u64,
}

impl Deref for Deployment {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.layout
    }
}

/// The settings of a deployment and what follows from them, on whatever servers.
pub struct Layout {
    pub config: Config,
}

impl Deployment {
    /// A server and the settings given as flags.
    pub fn start(flags: &[(&str, &str)]) -> Self {
        Self::start_with(flags, Options::default())
    }

    pub fn start_with(flags: &[(&str, &str)], options: Options) -> Self {
        let server = PrivateServer::start(options).unwrap();
        let url = server.url();
        let started_ms = dump::server_now(&mut dump::connect(&url));
        Self { server, layout: Layout::new(&url, flags), started_ms }
    }

    pub fn connection(&self) -> Connection {
        dump::connect(&self.server.url())
    }

    /// Continues with another server; returns the previous one.
    pub fn move_to(&mut self, server: PrivateServer) -> PrivateServer {
        self.layout.config.redis = RedisConfig::new(server.url().into(), None, None).unwrap();
        std::mem::replace(&mut self.server, server)
    }

    /// Adds entries under given ids.
    pub fn add(&self, partition: u16, entries: &[Entry]) {
        let mut conn = self.connection();
        for chunk in entries.chunks(500) {
            let mut pipe = redis::pipe();
            for entry in chunk {
                let add = pipe.cmd("XADD").arg(self.stream(partition)).arg(entry.id.to_string());
                entry.fields().for_each(|(name, value)| add.add(name, value));
            }
            pipe.query::<Vec<String>>(&mut conn).unwrap();
        }
    }

    /// Compares every partition with the model of what stands in its stream, after a sweep; and the
    /// changes with the state they lead to.
    pub async fn verify(&self, what: &str) {
        assert_eq!(self.verify_but(what).await, [], "{what}: nothing is written off");
    }

    /// The same where entries may have been written off, because workers died while they were tried alone. Returns
    /// which were.
    pub async fn verify_but(&self, what: &str) -> Vec<EntryId> {
        let mut written_off = Vec::new();
        for partition in 0..self.partitions() {
            let mut conn = self.connection();
            let keys = self.keys(partition);
            let mut model = self.model(partition);
            let letters = dump::dead_letters(&mut conn, &keys);
            let poison = letters.iter().filter(|letter| letter.reason == "poison");
            poison.for_each(|letter| {
                model.write_off(letter.entry);
                written_off.push(letter.entry);
            });
            let entries = read_stream(&mut conn, &self.stream(partition));
            entries.iter().for_each(|entry| model.apply_entry(entry, self.started_ms));
            let mut connection = self.async_connection(partition).await;
            let found = settle(&mut connection, &mut conn, &self.sweeper(partition), &model)
                .await
                .unwrap_or_else(|fault| panic!("{what}, partition {partition}:\n{fault}"));
            assert_eq!(dump::dead(&letters), model.dead(), "{what}: dead letters");
            dump::check_changes(&dump::changes(&mut conn, &keys), &found, &keys)
                .unwrap_or_else(|fault| panic!("{what}: {fault}"));
        }
        written_off
    }
}

impl Layout {
    /// Of the server at `url`, with the settings given as flags.
    pub fn new(url: &str, flags: &[(&str, &str)]) -> Self {
        let all = flags.iter().copied().chain([("redis-url", url)]);
        Self { config: Config::resolve(&Gathered::from_flags(all).unwrap()).unwrap() }
    }

    pub fn partitions(&self) -> u16 {
        self.config.deployment.partitions
    }

    pub fn keys(&self, partition: u16) -> Keys {
        Keys::new(&self.config.deployment.prefix, self.partitions(), partition)
    }

    pub fn stream(&self, partition: u16) -> String {
        self.keys(partition).named(&self.config.deployment.stream)
    }

    pub fn rules(&self) -> Rules {
        let deployment = &self.config.deployment;
        Rules {
            limits: deployment.limits.clone(),
            max_skew_ms: deployment.max_skew_ms,
            partitions: deployment.partitions,
            moved_from: Vec::new(),
        }
    }

    /// The model of one partition under the same settings.
    pub fn model(&self, partition: u16) -> Model {
        Model::new(self.settings(), partition)
    }

    /// The settings of its model.
    pub fn settings(&self) -> Settings {
        let deployment = &self.config.deployment;
        Settings {
            prefix: deployment.prefix.clone(),
            partitions: deployment.partitions,
            projections: deployment.projections.iter().map(|p| p.name()).collect(),
            online_window_ms: deployment.online_window_ms,
            presence_ttl_ms: deployment.presence_ttl_ms,
            session_ttl_ms: deployment.session_ttl_ms,
            document_ttl_ms: deployment.document_ttl_ms,
            recent_cap: deployment.recent_cap as usize,
            viewed_cap: deployment.viewed_cap as usize,
            ranking_cap: deployment.ranking_cap as usize,
            thresholds: deployment.thresholds.iter().map(|t| (t.up, t.down)).collect(),
            horizon_ms: self.config.janitor.horizon_ms,
            rules: self.rules(),
        }
    }

    pub fn sweeper(&self, partition: u16) -> Sweeper {
        let keys = self.keys(partition);
        Sweeper::new(&self.config.deployment, &keys, &self.config.janitor)
    }

    /// Sweeps everything until nothing is due.
    pub async fn sweep(&self, partition: u16) {
        let mut connection = self.async_connection(partition).await;
        sweep_all(&mut connection, &self.sweeper(partition)).await;
    }

    pub async fn async_connection(&self, partition: u16) -> MultiplexedConnection {
        let key = self.keys(partition).meta();
        connect(&self.config.redis.server(), &key, Duration::from_secs(10)).await.unwrap()
    }

    /// One worker's view of the ownership of a partition.
    pub fn ownership(&self, partition: u16, worker: &str) -> Ownership {
        Ownership::new(&self.config.deployment, &self.keys(partition), worker.to_owned())
    }

    /// Takes a partition, whoever owns it.
    pub async fn take(&self, partition: u16, worker: &str) -> Joined {
        take(&mut self.async_connection(partition).await, &self.ownership(partition, worker)).await
    }

    /// Takes the partition and applies by hand what a worker would.
    pub async fn script(&self, partition: u16) -> Script {
        let joined = self.take(partition, WORKER).await;
        let deployment = &self.config.deployment;
        let (rules, projections) = (self.rules(), deployment.projections);
        Script {
            applier: Applier::new(deployment, &self.keys(partition), joined.tenure.clone()),
            connection: self.async_connection(partition).await,
            fold: FoldSettings { rules, projections, partition },
            joined,
        }
    }
}

/// Takes a partition, whoever owns it.
pub async fn take(connection: &mut MultiplexedConnection, ownership: &Ownership) -> Joined {
    let seen = ownership.look(connection).await.unwrap();
    let joined = ownership.join(connection, &seen, &fence(false), Cause::Stall).await.unwrap();
    joined.expect("nobody else takes it")
}

/// Sweeps everything until nothing is due.
async fn sweep_all(connection: &mut MultiplexedConnection, sweeper: &Sweeper) {
    for sweep in sweeps() {
        // A walk may have stopped anywhere: to its end, then once around.
        let rounds = if sweep.kind == SweepKind::Drain { 1 } else { 2 };
        for _ in 0..rounds {
            while sweeper.sweep(connection, sweep.name, 1000).await.unwrap().more {}
        }
    }
}

/// Sweeps a partition and compares it with its model at one instant, repeating until nothing that the model knows
/// expired between the first sweep and the look. Returns what was found.
///
/// # Errors
/// The differences.
pub async fn settle(
    connection: &mut MultiplexedConnection,
    conn: &mut Connection,
    sweeper: &Sweeper,
    model: &Model,
) -> Result<State, String> {
    settle_keys(connection, conn, sweeper, model, |_| true).await
}

/// The same for some keys.
///
/// # Errors
/// The differences.
pub async fn settle_keys(
    connection: &mut MultiplexedConnection,
    conn: &mut Connection,
    sweeper: &Sweeper,
    model: &Model,
    is_meant: impl Fn(&[u8]) -> bool,
) -> Result<State, String> {
    let only = |mut state: State| {
        state.retain(|key, _| is_meant(key));
        state
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The server keeps a key through the millisecond at which it expires.
        let before = dump::server_now(conn) - 1;
        sweep_all(connection, sweeper).await;
        let found = only(dump::dump(conn, &model.keys()));
        let after = dump::server_now(conn);
        let (expected, open) = (only(model.state(after)), model.open(after));
        if only(model.state(before)) == expected && model.open(before) == open {
            let differences = dump::diff(&expected, &open, &found);
            return if differences.is_empty() { Ok(found) } else { Err(differences.join("\n")) };
        }
        assert!(Instant::now() < deadline, "something expires all the time");
    }
}

/// The apply script, driven by hand.
pub struct Script {
    pub applier: Applier,
    pub connection: MultiplexedConnection,
    pub joined: Joined,
    fold: FoldSettings,
}

impl Script {
    /// Applies a batch as a worker would.
    pub async fn apply(&mut self, entries: &[Entry]) -> Applied {
        match self.try_apply(entries).await.unwrap() {
            Outcome::Applied(applied) => applied,
            Outcome::WrongType(keys) => panic!("keys of another type: {keys:?}"),
        }
    }

    /// Merges entries that need not be in the stream; the cursor stays.
    pub async fn merge(&mut self, entries: &[Entry]) {
        let plan = Plan { entries: 0, last: None, ..plan(&self.fold, entries) };
        let after = self.joined.cursor;
        let outcome = self.applier.apply(&mut self.connection, &plan, after).await.unwrap();
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
    }

    /// Like [`apply`](Self::apply), if the server may refuse.
    pub async fn try_apply(&mut self, entries: &[Entry]) -> Result<Outcome, Error> {
        let plan = plan(&self.fold, entries);
        let after = self.joined.cursor;
        let outcome = self.applier.apply(&mut self.connection, &plan, after).await?;
        if matches!(outcome, Outcome::Applied(_)) {
            self.joined.cursor = plan.last.unwrap_or(after);
        }
        Ok(outcome)
    }
}

fn plan<'e>(fold: &FoldSettings, entries: &'e [Entry]) -> Plan<'e> {
    let mut planner = Planner::new(fold);
    entries.iter().for_each(|entry| planner.add(entry, &Avoided::default()));
    planner.finish(&Avoided::default())
}

pub fn xadd(command: &mut impl XaddArgs, fields: &[Field]) {
    fields.iter().for_each(|(name, value)| command.add(name, value));
}

/// A command to add fields to.
pub trait XaddArgs {
    fn add(&mut self, name: &[u8], value: &[u8]);
}

impl XaddArgs for redis::Pipeline {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.arg(name).arg(value);
    }
}

impl XaddArgs for redis::Cmd {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        self.arg(name).arg(value);
    }
}

/// All entries of a stream.
pub fn read_stream(conn: &mut Connection, stream: &str) -> Vec<Entry> {
    let value = redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query(conn).unwrap();
    rollcall::redis::reply::entries(&value).unwrap()
}

/// Whether the cursor, and the group's position with it, is at the last entry of the stream.
pub fn is_finished(conn: &mut redis::Connection, keys: &Keys, stream: &str) -> bool {
    let newest =
        redis::cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1).query(conn);
    let newest: Vec<(String, redis::Value)> = newest.unwrap();
    let Some((last, _)) = newest.first() else { return true };
    let cursor: Option<String> =
        redis::cmd("HGET").arg(keys.meta()).arg("cursor").query(conn).unwrap();
    let info: redis::RedisResult<Vec<HashMap<String, redis::Value>>> =
        redis::cmd("XINFO").arg("GROUPS").arg(stream).query(conn);
    cursor.as_ref() == Some(last)
        && info.is_ok_and(|groups| {
            groups.iter().any(|group| {
                let text =
                    |name: &str| redis::from_redis_value::<String>(group[name].clone()).unwrap();
                text("pending") == "0" && text("last-delivered-id") == *last
            })
        })
}

/// Ids for entries added at about `ms`.
pub fn id(ms: u64, seq: u64) -> EntryId {
    EntryId { ms, seq }
}

/// Polls until `done`; fails after `deadline`, and reports it if a server of this test has died.
pub fn wait_until(deadline: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < deadline, "{}not within {deadline:?}: {what}", dead_servers());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The servers of this test that have died, one paragraph each: they are then the cause of any failure.
pub fn dead_servers() -> String {
    ended_of_this_thread().iter().map(|said| format!("{said}\n")).collect()
}

#[test]
fn a_server_that_died_is_named_in_place_of_what_did_not_come_about() {
    let server = PrivateServer::start(Options::default()).unwrap();
    let kill = format!("kill -SEGV {}", server.pid().unwrap());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    wait_until(Duration::from_secs(20), "it has ended", || !dead_servers().is_empty());
    let failed = std::panic::catch_unwind(|| {
        wait_until(Duration::ZERO, "something comes about", || false);
    });
    let said = failed.unwrap_err().downcast::<String>().unwrap();
    let named = format!("the server on port {} ended (signal: 11", server.port());
    assert!(said.starts_with(&named), "{said}");
}
