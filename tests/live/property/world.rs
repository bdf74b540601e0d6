//! A server that runs one case after another, and what must hold after each step and at the end.

use std::time::Duration;

use redis::Connection;
use redis::aio::MultiplexedConnection;
use rollcall::decode::{Rules, decode};
use rollcall::entry::{Entry, EntryId};
use rollcall::event::Kind;
use rollcall::fold::{Avoided, FoldSettings, Planner};
use rollcall::key::Keys;
use rollcall::op::{Plan, STREAM};
use rollcall::private_server::Options;
use rollcall::projection::sweeps;
use rollcall::redis::scripts::apply::{Applier, Outcome};
use rollcall::redis::scripts::owner::{Ownership, Tenure};
use rollcall::redis::scripts::shared_keys;
use rollcall::redis::scripts::sweep::Sweeper;

use super::event::{Draft, entries};
use super::limits::{check_caps, check_change, check_presence};
use super::schedule::{Act, Case, How, Step, WORKERS};
use super::settings::Drawn;
use crate::harness::{Deployment, settle, take};
use crate::support::dump;
use crate::support::model::{Model, State};

mod group;

/// A server and connections to it.
pub struct World {
    deployment: Deployment,
    connection: MultiplexedConnection,
    conn: Connection,
}

/// One worker's part in a partition.
struct Part {
    ownership: Ownership,
    tenure: Option<Tenure>,
    /// The entry before those that it has read and not applied.
    cursor: EntryId,
    /// Entries it has read, as indices into `entries`, including those that it has applied.
    read: std::ops::Range<usize>,
}

/// One partition while a case runs.
struct Lane {
    partition: u16,
    model: Model,
    fold: FoldSettings,
    sweeper: Sweeper,
    parts: Vec<Part>,
    /// The worker that has taken the partition last.
    owner: usize,
    entries: Vec<Entry>,
    /// When the case began.
    base: u64,
    /// Of the lifetimes that sessions are given.
    longest_ttl_ms: u64,
    added: usize,
    /// Entries that the cursor has passed.
    passed: u64,
    /// After the last step.
    state: State,
    changes: u64,
}

impl World {
    pub async fn start() -> Self {
        // Small nodes, so that even short streams are trimmed.
        let extra_args = ["--stream-node-max-entries", "2"].map(str::to_owned).to_vec();
        let deployment = Deployment::start_with(&[], Options { extra_args, ..Options::default() });
        let connection = deployment.async_connection(0).await;
        let conn = deployment.connection();
        Self { deployment, connection, conn }
    }

    /// Runs a case on the emptied server.
    ///
    /// # Errors
    /// What did not hold.
    pub async fn run(&mut self, case: &Case) -> Result<(), String> {
        let base = self.begin();
        let mut lanes = self.lanes(&case.drawn, &case.drafts, base).await;
        for (n, step) in case.steps.iter().enumerate() {
            self.step(&mut lanes, step)
                .await
                .map_err(|fault| format!("step {n}, {step:?}: {fault}"))?;
        }
        for lane in &mut lanes {
            self.finish(lane, case.rest, How::OnePlan)
                .await
                .map_err(|fault| format!("partition {}, at the end: {fault}", lane.partition))?;
        }
        Ok(())
    }

    /// One plan for all events has the same effect as one plan for each event.
    ///
    /// # Errors
    /// What did not hold, or the difference between the two.
    pub async fn run_twins(&mut self, case: &Case) -> Result<(), String> {
        let base = self.begin();
        let mut twins = Vec::new();
        for (prefix, batch, how) in
            [("a:", case.drafts.len(), How::OnePlan), ("b:", 1, How::EventByEvent)]
        {
            let drawn = Drawn { prefix, ..case.drawn.clone() };
            let mut lanes = self.lanes(&drawn, &case.drafts, base).await;
            for lane in &mut lanes {
                self.finish(lane, batch, how).await?;
            }
            twins.push(lanes);
        }
        for (one, each) in twins[0].iter().zip(&twins[1]) {
            self.compare(one, each).await?;
        }
        Ok(())
    }

    /// Compares the content of two lanes under prefixes of equal length, at one instant.
    async fn compare(&mut self, one: &Lane, other: &Lane) -> Result<(), String> {
        loop {
            let first = self.settle(one).await?;
            let second = self.settle(other).await?;
            if self.settle(one).await? == first {
                let open = one.model.open(dump::server_now(&mut self.conn));
                let base = other.model.keys().base().len();
                let renamed = second.into_iter().map(|(key, value)| {
                    ([one.model.keys().base().as_bytes(), &key[base..]].concat(), value)
                });
                let differences = dump::diff(&first, &open, &renamed.collect());
                return if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) };
            }
        }
    }

    fn begin(&mut self) -> u64 {
        redis::cmd("FLUSHALL").exec(&mut self.conn).unwrap();
        dump::server_now(&mut self.conn)
    }

    async fn lanes(&mut self, drawn: &Drawn, drafts: &[Draft], base: u64) -> Vec<Lane> {
        drawn.configure(&mut self.deployment.layout.config, base);
        let mut lanes = Vec::new();
        for partition in 0..drawn.partitions {
            let here = drafts.iter().filter(|draft| draft.partition(drawn.partitions) == partition);
            lanes.push(self.lane(partition, entries(here, drawn, base), base).await);
        }
        lanes
    }

    async fn lane(&mut self, partition: u16, entries: Vec<Entry>, base: u64) -> Lane {
        let (config, keys) = (&self.deployment.config, self.deployment.keys(partition));
        let deployment = &config.deployment;
        let part = |worker: usize| Part {
            ownership: self.deployment.ownership(partition, &format!("w{worker}")),
            tenure: None,
            cursor: EntryId { ms: 0, seq: 0 },
            read: 0..0,
        };
        let mut model = self.deployment.model(partition);
        entries.iter().for_each(|entry| model.apply_entry(entry, base));
        let (rules, projections) = (self.deployment.rules(), deployment.projections);
        let longest_ttl_ms = longest_ttl_ms(&entries, partition, &rules);
        let mut lane = Lane {
            partition,
            model,
            fold: FoldSettings { rules, projections, partition },
            sweeper: Sweeper::new(deployment, &keys, &config.janitor),
            parts: (0..WORKERS).map(part).collect(),
            owner: 0,
            entries,
            base,
            longest_ttl_ms,
            added: 0,
            passed: 0,
            state: State::new(),
            changes: 0,
        };
        self.take(&mut lane, 0).await;
        lane
    }

    async fn step(&mut self, lanes: &mut [Lane], step: &Step) -> Result<(), String> {
        let count = lanes.len();
        let lane = &mut lanes[usize::from(step.partition) % count];
        match &step.act {
            Act::Add { count } => self.add(lane, *count),
            Act::Take { worker } => self.take(lane, *worker).await,
            Act::Read { worker, count } => lane.read(*worker, *count),
            Act::Apply { worker, count, how } => {
                self.apply(lane, *worker, *count, *how).await?;
            }
            Act::Beat { worker } => self.beat(lane, *worker).await?,
            Act::Meddle { deed } => self.meddle(lane, *deed),
            Act::Sweep { sweep, limit } => self.sweep(lane, *sweep, *limit).await?,
            Act::Expire { key } => self.expire(lane, *key),
            Act::Pass(ms) => std::thread::sleep(Duration::from_millis(*ms)),
            Act::PassSecond => {
                let past = dump::server_now(&mut self.conn) % 1000;
                std::thread::sleep(Duration::from_millis(1000 - past));
            }
        }
        Ok(())
    }

    fn expire(&mut self, lane: &Lane, key: usize) {
        let keys = lane.model.keys();
        let all = shared_keys(&self.deployment.config.deployment.stream, &keys);
        redis::cmd("EXPIRE").arg(&all[key % all.len()].0).arg(100).exec(&mut self.conn).unwrap();
        // As if enough time had passed since they were last kept.
        redis::cmd("HDEL").arg(keys.janitor()).arg("kept").exec(&mut self.conn).unwrap();
    }

    fn add(&mut self, lane: &mut Lane, count: usize) {
        let end = (lane.added + count).min(lane.entries.len());
        self.deployment.add(lane.partition, &lane.entries[lane.added..end]);
        lane.added = end;
    }

    async fn take(&mut self, lane: &mut Lane, worker: usize) {
        let joined = take(&mut self.connection, &lane.parts[worker].ownership).await;
        let place = lane.entries.partition_point(|entry| entry.id <= joined.cursor);
        assert_eq!(place as u64, lane.passed, "the cursor is where it was moved to");
        let part = &mut lane.parts[worker];
        (part.tenure, part.cursor, part.read) = (Some(joined.tenure), joined.cursor, place..place);
        lane.owner = worker;
    }

    /// Applies the next entries that a worker has read; a worker that does not own the partition is refused.
    async fn apply(
        &mut self,
        lane: &mut Lane,
        worker: usize,
        count: usize,
        how: How,
    ) -> Result<(), String> {
        let part = &mut lane.parts[worker];
        let end = (part.read.start + count).min(part.read.end);
        let picked = part.read.start..end;
        if picked.is_empty() {
            return Ok(());
        }
        part.read.start = end;
        match how {
            How::OnePlan => self.apply_batch(lane, worker, picked).await.map(drop),
            How::EntryByEntry => {
                for one in picked {
                    if !self.apply_batch(lane, worker, one..one + 1).await? {
                        break;
                    }
                }
                Ok(())
            }
            How::EventByEvent => {
                for one in picked {
                    if !self.apply_events(lane, worker, one).await? {
                        break;
                    }
                }
                Ok(())
            }
            How::CutOff => {
                let entries = lane.entries[picked.clone()].to_vec();
                let plan = plan_of(lane, &entries);
                let merges = Plan { views: Default::default(), letters: Vec::new(), ..plan };
                if self.merge(lane, worker, merges).await? {
                    self.apply_batch(lane, worker, picked).await?;
                }
                Ok(())
            }
        }
    }

    /// A batch as a worker applies it.
    async fn apply_batch(
        &mut self,
        lane: &mut Lane,
        worker: usize,
        picked: std::ops::Range<usize>,
    ) -> Result<bool, String> {
        let entries = lane.entries[picked].to_vec();
        let plan = plan_of(lane, &entries);
        self.send(lane, worker, &plan).await
    }

    /// The events of an entry one by one, then the move of the cursor.
    async fn apply_events(
        &mut self,
        lane: &mut Lane,
        worker: usize,
        one: usize,
    ) -> Result<bool, String> {
        let entry = lane.entries[one].clone();
        for event in &decode(&entry, lane.partition, &lane.fold.rules).events {
            let mut plan = Plan::default();
            lane.fold.projections.fold(event, entry.id.ms, &mut plan);
            plan.views.clear();
            if !self.merge(lane, worker, plan).await? {
                return Ok(false);
            }
        }
        let entries = [entry];
        let Plan { views, letters, entries, last, .. } = plan_of(lane, &entries);
        self.send(lane, worker, &Plan { views, letters, entries, last, ..Plan::default() }).await
    }

    /// Merges without moving the cursor.
    async fn merge(
        &mut self,
        lane: &mut Lane,
        worker: usize,
        plan: Plan<'_>,
    ) -> Result<bool, String> {
        self.send(lane, worker, &Plan { entries: 0, last: None, ..plan }).await
    }

    /// Sends a plan. A worker that no longer owns the partition is refused, and nothing changes. Returns whether the
    /// session continues.
    async fn send(
        &mut self,
        lane: &mut Lane,
        worker: usize,
        plan: &Plan<'_>,
    ) -> Result<bool, String> {
        let deployment = &self.deployment.config.deployment;
        let part = &lane.parts[worker];
        let Some(tenure) = part.tenure.clone() else { return Ok(false) };
        let keys = self.deployment.keys(lane.partition);
        let applier = Applier::new(deployment, &keys, tenure);
        let outcome = applier.apply(&mut self.connection, plan, part.cursor).await;
        let is_owner = lane.owner == worker;
        match outcome {
            Ok(Outcome::Applied(applied)) if is_owner => {
                lane.passed += plan.entries;
                let part = &mut lane.parts[worker];
                part.cursor = plan.last.unwrap_or(part.cursor);
                self.look(lane, applied.changes.total())?;
                Ok(true)
            }
            Err(error) if error.is_lost_ownership() && !is_owner => {
                self.look(lane, 0)?;
                Ok(false)
            }
            // Somebody has destroyed the group: the session begins again and creates it.
            Err(error) if error.kind() == "nogroup" && is_owner => {
                self.look(lane, 0)?;
                self.take(lane, worker).await;
                Ok(false)
            }
            other => Err(format!("worker {worker}, owner {}: {other:?}", lane.owner)),
        }
    }

    async fn sweep(&mut self, lane: &mut Lane, sweep: usize, limit: u64) -> Result<(), String> {
        let all: Vec<_> = sweeps().chain([STREAM]).collect();
        let name = all[sweep % all.len()].name;
        let swept = lane.sweeper.sweep(&mut self.connection, name, limit).await.unwrap();
        self.look(lane, swept.changes.total())
    }

    /// The changes of a call are exactly the difference between the state before and after it.
    fn look(&mut self, lane: &mut Lane, told: u64) -> Result<(), String> {
        let keys = lane.model.keys();
        let after = dump::dump(&mut self.conn, &keys);
        let mut changes = dump::changes(&mut self.conn, &keys);
        changes.retain(|change| seq(change) > lane.changes);
        let before = std::mem::replace(&mut lane.state, after);
        lane.changes += told;
        if changes.last().is_some_and(|last| seq(last) != lane.changes) {
            return Err(format!("told of {told} changes, but the last is {:?}", changes.last()));
        }
        let deployment = &self.deployment.config.deployment;
        let longest_ttl_ms = lane.longest_ttl_ms;
        let check = |change| check_change(change, deployment, longest_ttl_ms, lane.base);
        changes.iter().try_for_each(check)?;
        check_presence(&lane.state, &keys)?;
        // Otherwise the cap has dropped some of them at once.
        if changes.len() as u64 == told {
            dump::check_transitions(&before, &lane.state, &changes, &keys)?;
        }
        Ok(())
    }

    /// Everything is read and applied; state, changes and dead letters are what the entries say.
    async fn finish(&mut self, lane: &mut Lane, batch: usize, how: How) -> Result<(), String> {
        self.add(lane, usize::MAX / 2);
        self.take(lane, 0).await;
        lane.read(0, usize::MAX / 2);
        while !lane.parts[0].read.is_empty() {
            self.apply(lane, 0, batch, how).await?;
            if lane.parts[0].read.is_empty() {
                lane.read(0, usize::MAX / 2);
            }
        }
        if lane.passed != lane.entries.len() as u64 {
            return Err(format!("{} of {} entries passed", lane.passed, lane.entries.len()));
        }
        self.beat(lane, 0).await?;
        self.check_position(lane)?;
        let (keys, state) = (lane.model.keys(), self.settle(lane).await?);
        dump::check_changes(&dump::changes(&mut self.conn, &keys), &state, &keys)?;
        self.check_letters(lane, &keys)?;
        check_caps(&state, &keys, &self.deployment.config.deployment)
    }

    async fn settle(&mut self, lane: &Lane) -> Result<State, String> {
        settle(&mut self.connection, &mut self.conn, &lane.sweeper, &lane.model).await
    }

    fn check_letters(&mut self, lane: &Lane, keys: &Keys) -> Result<(), String> {
        let cap = self.deployment.config.deployment.dead_cap as usize;
        let found = dump::dead(&dump::dead_letters(&mut self.conn, keys));
        let expected = lane.model.dead();
        let fits = if expected.len() <= cap {
            found == expected
        } else {
            found.len() == cap && found.iter().all(|letter| expected.contains(letter))
        };
        if fits { Ok(()) } else { Err(format!("dead letters: {expected:?}, found {found:?}")) }
    }
}

impl Lane {
    fn read(&mut self, worker: usize, count: usize) {
        let part = &mut self.parts[worker];
        part.read.end = part.read.end.saturating_add(count).min(self.added);
    }
}

fn plan_of<'e>(lane: &Lane, entries: &'e [Entry]) -> Plan<'e> {
    let mut planner = Planner::new(&lane.fold);
    entries.iter().for_each(|entry| planner.add(entry, &Avoided::default()));
    planner.finish(&Avoided::default())
}

fn longest_ttl_ms(entries: &[Entry], partition: u16, rules: &Rules) -> u64 {
    let events = entries.iter().flat_map(|entry| decode(entry, partition, rules).events);
    let ttls = events.filter_map(|event| match event.kind {
        Kind::Session(session) => session.ttl,
        _ => None,
    });
    u64::from(ttls.max().unwrap_or(0)) * 1000
}

fn seq(change: &dump::Change) -> u64 {
    std::str::from_utf8(&change["seq"]).unwrap().parse().unwrap()
}
