//! A server that runs one case after another, and what must hold after each step and at the end.

use std::time::Duration;

use redis::Connection;
use redis::aio::MultiplexedConnection;
use rollcall::decode::{Rules, decode};
use rollcall::entry::Entry;
use rollcall::event::Kind;
use rollcall::fold::{Avoided, FoldSettings, Folder};
use rollcall::key::Keys;
use rollcall::op::{CONSUMERS, Plan, STREAM};
use rollcall::private_server::Options;
use rollcall::projection::sweeps;
use rollcall::redis::feed::Feed;
use rollcall::redis::scripts::apply::{Applied, Applier, Outcome};
use rollcall::redis::scripts::group::Membership;
use rollcall::redis::scripts::shared_keys;
use rollcall::redis::scripts::sweep::Sweeper;
use rollcall::redis::stream::StreamReader;

use super::event::{Draft, entries};
use super::limits::{check_caps, check_change, check_presence};
use super::schedule::{Act, Case, How, Step, WORKERS};
use super::settings::Drawn;
use crate::harness::{Deployment, settle};
use crate::support::dump;
use crate::support::model::{Model, State};

/// A server and connections to it.
pub struct World {
    deployment: Deployment,
    connection: MultiplexedConnection,
    feed: Feed,
    conn: Connection,
}

/// One partition while a case runs.
struct Lane {
    partition: u16,
    model: Model,
    fold: FoldSettings,
    applier: Applier,
    sweeper: Sweeper,
    readers: Vec<StreamReader>,
    /// What each worker was ever given, as places in `entries`.
    held: [Vec<usize>; WORKERS],
    entries: Vec<Entry>,
    /// When the case began.
    base: u64,
    /// Of the lifetimes that sessions are given.
    longest_ttl_ms: u64,
    added: usize,
    read: usize,
    acknowledged: u64,
    /// After the last step.
    state: State,
    changes: u64,
}

impl World {
    pub async fn start() -> Self {
        // Small nodes, so that short streams are trimmed, too.
        let extra_args = ["--stream-node-max-entries", "2"].map(str::to_owned).to_vec();
        let deployment = Deployment::start_with(&[], Options { extra_args, ..Options::default() });
        let connection = deployment.async_connection(0).await;
        let (feed, conn) = (deployment.feed().await, deployment.connection());
        Self { deployment, connection, feed, conn }
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

    /// One plan for all does what a plan for each event does.
    ///
    /// # Errors
    /// What did not hold, or how the two differ.
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

    /// Compares what two lanes hold under prefixes of equal length, at one instant.
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
        drawn.configure(&mut self.deployment.config, base);
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
        let name = |worker: usize| format!("w{worker}");
        let membership = Membership::new(deployment, &keys, name(0));
        let epoch = membership.join(&mut self.connection).await.unwrap().epoch;
        let reader = |worker| StreamReader {
            stream: self.deployment.stream(partition),
            group: deployment.group.clone(),
            consumer: name(worker),
        };
        let mut model = self.deployment.model(partition);
        entries.iter().for_each(|entry| model.apply_entry(entry, base));
        let (rules, projections) = (self.deployment.rules(), deployment.projections);
        let longest_ttl_ms = longest_ttl_ms(&entries, partition, &rules);
        Lane {
            partition,
            model,
            fold: FoldSettings { rules, projections, partition },
            applier: Applier::new(deployment, &keys, epoch),
            // A consumer that has nothing pending counts as gone at once.
            sweeper: Sweeper::new(deployment, &keys, &config.janitor, 0),
            readers: (0..WORKERS).map(reader).collect(),
            held: Default::default(),
            entries,
            base,
            longest_ttl_ms,
            added: 0,
            read: 0,
            acknowledged: 0,
            state: State::new(),
            changes: 0,
        }
    }

    async fn step(&mut self, lanes: &mut [Lane], step: &Step) -> Result<(), String> {
        let count = lanes.len();
        let lane = &mut lanes[usize::from(step.partition) % count];
        match &step.act {
            Act::Add { count } => self.add(lane, *count),
            Act::Read { worker, count } => self.read(lane, *worker, *count).await,
            Act::Claim { worker, count } => drop(self.claim(lane, *worker, *count).await),
            Act::Apply { worker, picks, how } => {
                let held = &lane.held[*worker];
                if !held.is_empty() {
                    let picked = picks.iter().map(|n| held[usize::from(*n) % held.len()]).collect();
                    self.apply(lane, picked, *how).await?;
                }
            }
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
        // As if enough time had passed since they were kept last.
        redis::cmd("HDEL").arg(keys.janitor()).arg("kept").exec(&mut self.conn).unwrap();
    }

    fn add(&mut self, lane: &mut Lane, count: usize) {
        let end = (lane.added + count).min(lane.entries.len());
        self.deployment.add(lane.partition, &lane.entries[lane.added..end]);
        lane.added = end;
    }

    async fn read(&mut self, lane: &mut Lane, worker: usize, count: usize) {
        if lane.read < lane.added {
            let block = Duration::from_secs(10);
            let delivered = lane.readers[worker].read_new(&mut self.feed, count, block).await;
            let entries = delivered.unwrap().entries;
            lane.read += entries.len();
            lane.hold(worker, &entries);
        }
    }

    async fn claim(&mut self, lane: &mut Lane, worker: usize, count: usize) -> usize {
        let claimed =
            lane.readers[worker].claim(&mut self.connection, Duration::ZERO, "0-0", count).await;
        let delivered = claimed.unwrap().delivered;
        assert!(delivered.lost.is_empty(), "trimmed though pending: {:?}", delivered.lost);
        lane.hold(worker, &delivered.entries);
        delivered.entries.len()
    }

    async fn apply(&mut self, lane: &mut Lane, picked: Vec<usize>, how: How) -> Result<(), String> {
        match how {
            How::OnePlan => self.apply_batch(lane, &picked).await,
            How::EntryByEntry => {
                for one in picked {
                    self.apply_batch(lane, &[one]).await?;
                }
                Ok(())
            }
            How::EventByEvent => {
                for one in picked {
                    self.apply_events(lane, one).await?;
                }
                Ok(())
            }
            How::Twice => {
                self.apply_batch(lane, &picked).await?;
                self.apply_again(lane, &picked).await
            }
        }
    }

    /// A batch as a worker applies it.
    async fn apply_batch(&mut self, lane: &mut Lane, picked: &[usize]) -> Result<(), String> {
        let mut folder = Folder::new(&lane.fold);
        picked.iter().for_each(|n| folder.add(&lane.entries[*n], &Avoided::default()));
        let plan = folder.finish(&Avoided::default());
        let applied = self.send(&lane.applier, &plan).await;
        lane.acknowledged += applied.acknowledged;
        self.look(lane, applied.changes.total())
    }

    /// The events of an entry one by one, then its acknowledgement.
    async fn apply_events(&mut self, lane: &mut Lane, one: usize) -> Result<(), String> {
        let entry = lane.entries[one].clone();
        let mut changes = 0;
        for event in &decode(&entry, lane.partition, &lane.fold.rules).events {
            let mut plan = Plan::default();
            lane.fold.projections.fold(event, entry.id.ms, &mut plan);
            changes += self.send(&lane.applier, &plan).await.changes.total();
            self.look(lane, changes)?;
            changes = 0;
        }
        let mut folder = Folder::new(&lane.fold);
        folder.add(&entry, &Avoided::default());
        let Plan { acks, letters, .. } = folder.finish(&Avoided::default());
        let applied = self.send(&lane.applier, &Plan { acks, letters, ..Plan::default() }).await;
        lane.acknowledged += applied.acknowledged;
        self.look(lane, applied.changes.total())
    }

    /// Merging twice changes nothing.
    async fn apply_again(&mut self, lane: &mut Lane, picked: &[usize]) -> Result<(), String> {
        let (mut before, acknowledged, changes) =
            (lane.state.clone(), lane.acknowledged, lane.changes);
        self.apply_batch(lane, picked).await?;
        let now = dump::server_now(&mut self.conn);
        let mut after = lane.state.clone();
        for state in [&mut before, &mut after] {
            state.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry > now));
        }
        let differences = dump::diff(&before, &Default::default(), &after);
        if (lane.acknowledged, lane.changes) != (acknowledged, changes) || !differences.is_empty() {
            return Err(format!("merging twice is not merging once:\n{}", differences.join("\n")));
        }
        Ok(())
    }

    async fn send(&mut self, applier: &Applier, plan: &Plan<'_>) -> Applied {
        match applier.apply(&mut self.connection, plan, None).await.unwrap() {
            Outcome::Applied(applied) => applied,
            Outcome::WrongType(keys) => panic!("keys of another type: {keys:?}"),
        }
    }

    async fn sweep(&mut self, lane: &mut Lane, sweep: usize, limit: u64) -> Result<(), String> {
        let all: Vec<_> = sweeps().chain([CONSUMERS, STREAM]).collect();
        let name = all[sweep % all.len()].name;
        let swept = lane.sweeper.sweep(&mut self.connection, name, limit).await.unwrap();
        self.look(lane, swept.changes.total())
    }

    /// The changes of a call are what differs between before and after it, no more and no less.
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
        self.read(lane, 0, lane.entries.len().max(1)).await;
        lane.held[0].clear();
        while self.claim(lane, 0, batch).await > 0 {
            let pending = std::mem::take(&mut lane.held[0]);
            self.apply(lane, pending, how).await?;
        }
        if lane.acknowledged != lane.entries.len() as u64 {
            let (acknowledged, entries) = (lane.acknowledged, lane.entries.len());
            return Err(format!("{acknowledged} acknowledgements of {entries} entries"));
        }
        let keys = lane.model.keys();
        let state = self.settle(lane).await?;
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
    fn hold(&mut self, worker: usize, entries: &[Entry]) {
        for entry in entries {
            let place = self.entries.binary_search_by_key(&entry.id, |entry| entry.id);
            self.held[worker].push(place.expect("an entry of the case"));
        }
    }
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
