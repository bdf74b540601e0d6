//! A deployment on a server of its own: the configuration, the model that goes with it, and ways to
//! put entries in and get the state out.

use std::time::{Duration, Instant};

use redis::Connection;
use redis::aio::MultiplexedConnection;
use rollcall::config::{Config, Gathered};
use rollcall::decode::Rules;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::fold::{Avoided, FoldSettings, Folder};
use rollcall::key::Keys;
use rollcall::op::SweepKind;
use rollcall::projection::sweeps;
use rollcall::redis::apply::{Applied, Applier, Outcome};
use rollcall::redis::connect::connect;
use rollcall::redis::group::Membership;
use rollcall::redis::private_server::{Options, PrivateServer};
use rollcall::redis::stream::StreamReader;
use rollcall::redis::sweep::Sweeper;

use crate::support::dump;
use crate::support::model::{Model, Settings};

pub const CONSUMER: &str = "test";

pub struct Deployment {
    pub server: PrivateServer,
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
        let all = flags.iter().copied().chain([("redis-url", url.as_str())]);
        let config = Config::resolve(&Gathered::from_flags(all).unwrap()).unwrap();
        Self { server, config }
    }

    pub fn connection(&self) -> Connection {
        dump::connect(&self.server.url())
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

    fn rules(&self) -> Rules {
        let deployment = &self.config.deployment;
        Rules {
            limits: deployment.limits.clone(),
            max_skew_ms: deployment.max_skew_ms,
            partitions: deployment.partitions,
        }
    }

    /// The model of one partition under the same settings.
    pub fn model(&self, partition: u16) -> Model {
        let deployment = &self.config.deployment;
        let settings = Settings {
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
        };
        Model::new(settings, partition)
    }

    /// Adds entries under given ids.
    pub fn add(&self, partition: u16, entries: &[Entry]) {
        let mut conn = self.connection();
        for chunk in entries.chunks(500) {
            let mut pipe = redis::pipe();
            for entry in chunk {
                xadd(
                    pipe.cmd("XADD").arg(self.stream(partition)).arg(entry.id.to_string()),
                    &entry.fields,
                );
            }
            pipe.query::<Vec<String>>(&mut conn).unwrap();
        }
    }

    /// Compares every partition with the model of what stands in its stream, after a sweep; and the
    /// changes with the state they lead to.
    pub async fn verify(&self, what: &str) {
        for partition in 0..self.partitions() {
            self.sweep(partition).await;
            let mut conn = self.connection();
            let keys = self.keys(partition);
            let entries = read_stream(&mut conn, &self.stream(partition));
            let now = dump::server_now(&mut conn);
            let mut model = self.model(partition);
            entries.iter().for_each(|entry| model.apply_entry(entry, now));
            let found = dump::dump(&mut conn, &keys);
            let differences = dump::diff(&model.state(now), &found);
            assert!(
                differences.is_empty(),
                "{what}, partition {partition}:\n{}",
                differences.join("\n")
            );
            let letters = dump::dead_letters(&mut conn, &keys);
            assert_eq!(dump::dead(&letters), model.dead(), "{what}: dead letters");
            dump::check_changes(&dump::changes(&mut conn, &keys), &found, &keys)
                .unwrap_or_else(|fault| panic!("{what}: {fault}"));
        }
    }

    /// Sweeps everything until nothing is left to take.
    pub async fn sweep(&self, partition: u16) {
        let keys = self.keys(partition);
        let sweeper = Sweeper::new(&self.config.deployment, &keys, &self.config.janitor, 600_000);
        let mut conn = self.async_connection(partition).await;
        for sweep in sweeps() {
            let rounds = if sweep.kind == SweepKind::Walk { 50 } else { 1 };
            for _ in 0..rounds {
                while sweeper.sweep(&mut conn, sweep.name, 100).await.unwrap().more {}
            }
        }
    }

    pub async fn async_connection(&self, partition: u16) -> MultiplexedConnection {
        let key = self.keys(partition).meta();
        connect(&self.config.redis.connection_info(), &key, Duration::from_secs(10)).await.unwrap()
    }

    /// Makes the group and puts all entries of the stream in the test consumer's pending list.
    pub async fn deliver_all(&self, partition: u16) -> Script {
        let keys = self.keys(partition);
        let deployment = self.config.deployment.clone();
        let mut connection = self.async_connection(partition).await;
        let membership = Membership::new(&deployment, &keys, CONSUMER.to_owned());
        let epoch = membership.join(&mut connection).await.unwrap().epoch;
        let reader = StreamReader {
            stream: self.stream(partition),
            group: deployment.group.clone(),
            consumer: CONSUMER.to_owned(),
        };
        loop {
            let delivered =
                reader.read_new(&mut connection, 1000, Duration::from_millis(1)).await.unwrap();
            if delivered.entries.is_empty() {
                break;
            }
        }
        let fold =
            FoldSettings { rules: self.rules(), projections: deployment.projections, partition };
        Script { applier: Applier::new(&deployment, &keys, epoch), connection, fold }
    }
}

/// The apply script, driven by hand.
pub struct Script {
    pub applier: Applier,
    pub connection: MultiplexedConnection,
    fold: FoldSettings,
}

impl Script {
    /// Applies a batch as a worker would.
    pub async fn apply(&mut self, entries: &[Entry]) -> Applied {
        let mut folder = Folder::new(&self.fold);
        entries.iter().for_each(|entry| folder.add(entry, &Avoided::default()));
        let plan = folder.finish(&Avoided::default());
        match self.applier.apply(&mut self.connection, &plan, None).await.unwrap() {
            Outcome::Applied(applied) => applied,
            Outcome::WrongType(keys) => panic!("keys of another type: {keys:?}"),
        }
    }
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
    rollcall::redis::reply::delivered(value).unwrap().entries
}

/// Ids for entries added at about `ms`.
pub fn id(ms: u64, seq: u64) -> EntryId {
    EntryId { ms, seq }
}

/// Polls until `done`; fails with what `state` says after `deadline`.
pub fn wait_until(deadline: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
