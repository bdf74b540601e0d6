//! A subject: one way, on a server of its own that has been running for a while, measured round by round in turn with
//! the others.

use rollcall::config::Projection;

use crate::ground::{Commands, GROUP, Ground, STREAM};
use crate::meter::{Cost, watch};
use crate::report::{Cell, Row, Spread};
use crate::traffic::{Batch, Traffic};
use crate::way::Way;

/// How many users' state is brought in at a time.
const WARMED_TOGETHER: u32 = 50_000;

pub(crate) struct Subject {
    pub(crate) name: String,
    way: Way,
    traffic: Traffic,
    events: u64,
    pub(crate) ground: Ground,
    views: u64,
    pub(crate) costs: Vec<Cost>,
    producing: Vec<Cost>,
    /// The server's commands in each round, before and after.
    pub(crate) commands: Vec<[Commands; 2]>,
}

impl Subject {
    /// Starts the server and fills the state: every user has everything. `events` is the size of a round.
    pub(crate) fn prepare(
        name: impl Into<String>,
        way: Way,
        traffic: Traffic,
        events: u64,
    ) -> Self {
        Self::prepare_on(Ground::start(traffic.partitions), name, way, traffic, events)
    }

    /// The same on an existing ground.
    pub(crate) fn prepare_on(
        ground: Ground,
        name: impl Into<String>,
        way: Way,
        traffic: Traffic,
        events: u64,
    ) -> Self {
        let name = name.into();
        let mut subject = Self {
            name,
            way,
            traffic,
            events,
            ground,
            views: 0,
            costs: Vec::new(),
            producing: Vec::new(),
            commands: Vec::new(),
        };
        let Some(way) = subject.way.warming() else { return subject };
        for first in (0..subject.traffic.users).step_by(WARMED_TOGETHER as usize) {
            let last = (first + WARMED_TOGETHER).min(subject.traffic.users);
            let batch = subject.traffic.everything_of(first..last);
            subject.project(&way, batch);
        }
        subject
    }

    /// Continues with other traffic of the same users; its rounds are counted from here.
    pub(crate) fn turn_to(&mut self, traffic: Traffic) {
        self.traffic = traffic;
        self.costs.clear();
        self.producing.clear();
        self.commands.clear();
    }

    /// One round: adds entries, brings them into the state, and checks that they are there.
    pub(crate) fn round(&mut self) {
        let batch = self.traffic.batch(self.events);
        let way = self.way.clone();
        let (producing, cost, commands) = self.project(&way, batch);
        self.producing.push(producing);
        self.costs.push(cost);
        self.commands.push(commands);
    }

    /// The cost of adding the batch and of bringing it into the state, and the commands of the latter.
    fn project(&mut self, way: &Way, batch: Batch) -> (Cost, Cost, [Commands; 2]) {
        let started_ms = self.ground.now_ms();
        let server_before_s = self.ground.server_cpu_s();
        let took = watch(|| self.ground.add(&batch.entries));
        let server_s = self.ground.server_cpu_s() - server_before_s;
        let before = self.ground.commands();
        let cost = way.drain(&mut self.ground, batch.events);
        let commands = [before, self.ground.commands()];
        self.views += batch.views;
        self.check(way, &batch, started_ms);
        self.ground.trim();
        let producing = Cost { events: batch.events, took, server_s, written_bytes: 0.0 };
        (producing, cost, commands)
    }

    fn spread(&self, of: impl Fn(&Cost) -> f64) -> Spread {
        Spread::of(self.costs.iter().map(of))
    }

    pub(crate) fn client_us(&self) -> Spread {
        self.spread(Cost::client_us)
    }

    pub(crate) fn bytes(&self) -> Spread {
        self.spread(Cost::bytes)
    }

    pub(crate) fn server_us(&self) -> Spread {
        self.spread(Cost::server_us)
    }

    /// The server's cost in each round as a multiple of the floor's.
    pub(crate) fn times(&self, floor: &Self) -> Spread {
        Spread::of(self.costs.iter().zip(&floor.costs).map(|(c, f)| c.server_us() / f.server_us()))
    }

    /// A row of the [`COLUMNS`].
    pub(crate) fn row(&self, floor: &Self) -> Row {
        let producing = |of: fn(&Cost) -> f64| Spread::of(self.producing.iter().map(of));
        let cells: Vec<Cell> = vec![
            self.spread(Cost::events_per_s).into(),
            self.server_us().into(),
            self.client_us().into(),
            self.times(floor).into(),
            producing(Cost::server_us).into(),
            producing(Cost::client_us).into(),
        ];
        Row { name: self.name.clone(), cells }
    }

    /// Fails unless everything is acknowledged and the state shows it.
    fn check(&mut self, way: &Way, batch: &Batch, started_ms: u64) {
        let name = &self.name;
        for keys in self.ground.keys() {
            let ask = redis::cmd("XPENDING").arg(keys.named(STREAM)).arg(GROUP).to_owned();
            let pending: (u64, redis::Value, redis::Value, redis::Value) = self.ground.ask(&ask);
            assert_eq!(pending.0, 0, "{name}: entries are pending");
        }
        assert_eq!(self.ground.backlog(), Some(0), "{name}: entries were not read");
        if way.keeps(Projection::Ranking) {
            let views = views_counted(&mut self.ground);
            assert_eq!(views, self.views, "{name}: views counted");
        }
        if way.keeps(Projection::Activity) {
            for user in &batch.seen {
                let seen_s = last_seen_s(&mut self.ground, user);
                assert!(seen_s >= started_ms / 1000, "{name}: {user} was last seen at {seen_s}");
            }
        }
    }

    /// Fails unless every user has everything that the way keeps.
    pub(crate) fn check_sizes(&mut self) {
        let users = u64::from(self.traffic.users);
        let way = &self.way;
        let expected = |projection| if way.keeps(projection) { users } else { 0 };
        let ground = &mut self.ground;
        let name = &self.name;
        let found = ground.sum("HLEN", |keys| keys.presence());
        assert_eq!(found, expected(Projection::Presence), "{name}: users present");
        for (command, size) in [("HLEN", "login"), ("ZCARD", "recent")] {
            let found = ground
                .sum(command, |keys| if size == "login" { keys.login() } else { keys.recent() });
            assert_eq!(found, expected(Projection::Tokens), "{name}: tokens in {size}");
        }
        let found = ground.sum("HLEN", |keys| keys.sessions());
        assert_eq!(found, expected(Projection::Sessions), "{name}: sessions");
    }
}

/// The columns of a subject's row.
pub(crate) const COLUMNS: [&str; 6] =
    ["events/s", "server µs", "client µs", "× floor", "producer: server µs", "producer: client µs"];

fn views_counted(ground: &mut Ground) -> u64 {
    let mut sum = 0.0;
    for keys in ground.keys() {
        let ask =
            redis::cmd("ZRANGE").arg(keys.viewed()).arg(0).arg(-1).arg("WITHSCORES").to_owned();
        let items: Vec<(String, f64)> = ground.ask(&ask);
        sum += items.iter().map(|(_, count)| count).sum::<f64>();
    }
    sum as u64
}

fn last_seen_s(ground: &mut Ground, user: &str) -> u64 {
    let partition = rollcall::key::partition_of(user, ground.partitions);
    let key = format!("{}{user}", ground.keys()[usize::from(partition)].activity());
    ground.ask::<Option<u64>>(redis::cmd("GET").arg(key)).unwrap_or_default()
}

/// Measures all in turn, round by round, and checks them.
pub(crate) fn interleave<'s>(subjects: impl IntoIterator<Item = &'s mut Subject>, rounds: u32) {
    let mut subjects: Vec<_> = subjects.into_iter().collect();
    for _ in 0..rounds {
        subjects.iter_mut().for_each(|subject| subject.round());
    }
    subjects.iter_mut().for_each(|subject| subject.check_sizes());
}
