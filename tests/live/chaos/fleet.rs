//! The processes of a schedule: workers and two janitors, those that are stopped, and those that have ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};

use super::plan::Strike;
use crate::harness::Layout;
use crate::process::{Worker, is_fault};
use crate::scene::{SOON, Scene, try_command};

/// The maximum batch of a worker.
pub const BATCH: usize = 25;
/// The initial and the maximum number of workers.
const WORKERS: (usize, usize) = (3, 6);
/// Lines about faults that a process may log in a second.
const MOST_FAULT_LINES: usize = 10;
const ABORTED: i32 = 6;

/// Makes a worker the owner, as if the current one had given it the partition.
const HAND_OVER: &str = "return redis.call('HSET', KEYS[1], 'owner', '', 'heir', ARGV[1])";

/// A worker or janitor, and the point at which it is to die, if any.
struct Member {
    process: Worker,
    doom: Option<&'static str>,
    is_behind_proxy: bool,
    begun: Instant,
}

/// Where a fleet works.
pub trait Site {
    fn layout(&self) -> &Layout;
    /// A connection to the server that has a partition.
    fn connect(&self, partition: u16) -> RedisResult<Connection>;
    /// A worker, by way of another address if one is given.
    fn worker(&self, url: Option<&str>, env: &[(&str, &str)]) -> Worker;
    fn janitor(&self, env: &[(&str, &str)]) -> Worker;
}

impl Site for Scene {
    fn layout(&self) -> &Layout {
        &self.deployment.layout
    }

    fn connect(&self, _partition: u16) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    fn worker(&self, url: Option<&str>, env: &[(&str, &str)]) -> Worker {
        let own = self.url();
        self.worker_at(url.unwrap_or(&own), &["--batch", &BATCH.to_string()], env)
    }

    fn janitor(&self, env: &[(&str, &str)]) -> Worker {
        self.janitor_with(&[], env)
    }
}

/// Which worker a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Who owns the partition.
    Owner,
    /// Another one.
    Standby,
}

pub struct Fleet {
    /// Another way to the server, which some workers take.
    proxy: Option<String>,
    workers: Vec<Member>,
    janitors: Vec<Member>,
    /// Stopped with SIGSTOP, and until when.
    asleep: Vec<(Member, Instant)>,
    /// Told to end.
    leaving: Vec<Member>,
    /// How many died at each point.
    pub deaths: BTreeMap<&'static str, u64>,
    /// Workers that were killed, at any point.
    pub kills: usize,
    /// The most lines about faults that any process logged in one second.
    pub most_fault_lines: usize,
}

impl Fleet {
    pub fn start(site: &impl Site, proxy: Option<String>, janitors: usize) -> Self {
        let mut fleet = Self {
            proxy,
            workers: Vec::new(),
            janitors: (0..janitors).map(|_| janitor(site, None)).collect(),
            asleep: Vec::new(),
            leaving: Vec::new(),
            deaths: BTreeMap::new(),
            kills: 0,
            most_fault_lines: 0,
        };
        for n in 0..WORKERS.0 {
            let next = fleet.worker(site, n == 1, None);
            fleet.workers.push(next);
        }
        fleet
    }

    /// A worker, and the point at which it is to die, if at any.
    fn worker(
        &self,
        site: &impl Site,
        is_behind_proxy: bool,
        doom: Option<(&'static str, u64)>,
    ) -> Member {
        let url = self.proxy.as_deref().filter(|_| is_behind_proxy);
        let point = point(doom);
        let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
        let process = site.worker(url, env.as_slice());
        let (doom, is_behind_proxy) = (doom.map(|(point, _)| point), url.is_some());
        Member { process, doom, is_behind_proxy, begun: Instant::now() }
    }

    /// The place of the worker that is struck.
    fn find(&self, site: &impl Site, partition: u16, target: Target, dice: u64) -> usize {
        let owner = owner(site, partition).unwrap_or_default();
        let owns = |member: &Member| owner.contains(&format!("-{}-", member.process.pid()));
        let start = dice as usize % self.workers.len();
        let places = (start..self.workers.len()).chain(0..start);
        let is_target = |place: &usize| owns(&self.workers[*place]) == (target == Target::Owner);
        places.clone().find(is_target).unwrap_or(start)
    }

    /// SIGKILL to a worker; another one takes its place.
    pub fn kill(&mut self, site: &impl Site, strike: &Strike, target: Target) {
        let which = self.find(site, strike.partition(site), target, strike.dice);
        let next = self.worker(site, strike.dice.is_multiple_of(2), None);
        let old = std::mem::replace(&mut self.workers[which], next);
        self.bury_worker(old);
    }

    /// The owner is killed, and in its place one works that is to die at a point.
    pub fn doom(&mut self, site: &impl Site, strike: &Strike, (point, pass): (&'static str, u64)) {
        let partition = strike.partition(site);
        let next = self.worker(site, strike.dice.is_multiple_of(2), Some((point, pass)));
        let which = self.find(site, partition, Target::Owner, strike.dice);
        hand_over(site, partition, &next.process);
        let old = std::mem::replace(&mut self.workers[which], next);
        self.bury_worker(old);
    }

    /// Whether a worker that was doomed to die at this point has died.
    pub fn has_died(&mut self, point: &str) -> bool {
        let mut doomed = self.workers.iter_mut().filter(|member| member.doom == Some(point));
        doomed.any(|member| !member.process.runs())
    }

    /// Makes a worker behind the proxy the owner, if there is one.
    pub fn bring_owner_behind_proxy(&mut self, site: &impl Site, partition: u16) {
        let mut proxied = self.workers.iter_mut().filter(|member| member.is_behind_proxy);
        if let Some(member) = proxied.find_map(|member| member.process.runs().then_some(member)) {
            hand_over(site, partition, &member.process);
        }
    }

    /// SIGKILL to a janitor; another one, which may be doomed, too, takes its place.
    pub fn replace_janitor(
        &mut self,
        site: &impl Site,
        dice: u64,
        doom: Option<(&'static str, u64)>,
    ) {
        let next = janitor(site, doom);
        let which = dice as usize % self.janitors.len();
        let old = std::mem::replace(&mut self.janitors[which], next);
        self.bury(old);
    }

    /// SIGSTOP to a janitor, and SIGCONT after `time`.
    pub fn stall_janitor(&mut self, dice: u64, time: Duration) {
        let which = dice as usize % self.janitors.len();
        signal(&mut self.janitors[which], "STOP");
        std::thread::sleep(time);
        signal(&mut self.janitors[which], "CONT");
    }

    /// One more worker, until there are enough.
    pub fn join(&mut self, site: &impl Site, strike: &Strike) {
        if self.workers.len() < WORKERS.1 {
            let next = self.worker(site, strike.dice.is_multiple_of(2), None);
            self.workers.push(next);
        } else {
            self.kill(site, strike, Target::Standby);
        }
    }

    /// Where all workers are doomed or dead, one comes that is not, as from whoever supervises them.
    pub fn keep_one(&mut self, site: &impl Site) {
        let stays = |worker: &mut Member| worker.doom.is_none() && worker.process.runs();
        if !self.workers.iter_mut().any(stays) {
            self.add(site);
        }
    }

    /// SIGTERM to a worker; another one takes its place.
    pub fn terminate(&mut self, site: &impl Site, strike: &Strike, target: Target) {
        let mut old = self.take(site, strike, target);
        signal(&mut old, "TERM");
        self.leaving.push(old);
    }

    /// SIGSTOP to a worker, SIGCONT at the first [`Fleet::wake`] after `time`; another one replaces it.
    pub fn put_to_sleep(
        &mut self,
        site: &impl Site,
        strike: &Strike,
        (target, time): (Target, Duration),
    ) {
        let mut old = self.take(site, strike, target);
        signal(&mut old, "STOP");
        self.asleep.push((old, Instant::now() + time));
    }

    fn take(&mut self, site: &impl Site, strike: &Strike, target: Target) -> Member {
        let which = self.find(site, strike.partition(site), target, strike.dice);
        let next = self.worker(site, strike.dice.is_multiple_of(2), None);
        std::mem::replace(&mut self.workers[which], next)
    }

    /// Wakes those that have slept long enough; they stay until the end.
    pub fn wake(&mut self) {
        let (up, down) = self.asleep.drain(..).partition(|(_, until)| *until <= Instant::now());
        self.asleep = down;
        let up: Vec<(Member, Instant)> = up;
        for (mut member, _) in up {
            signal(&mut member, "CONT");
            self.workers.push(member);
        }
    }

    /// One more worker, on which no trouble fell yet.
    pub fn add(&mut self, site: &impl Site) {
        let next = self.worker(site, false, None);
        self.workers.push(next);
    }

    /// Whoever sleeps wakes up; janitors and all that were told to leave end, cleanly. Workers stay.
    pub fn calm_down(&mut self) {
        for (member, _) in &mut self.asleep {
            signal(member, "CONT");
        }
        self.workers.extend(self.asleep.drain(..).map(|(member, _)| member));
        let janitors = std::mem::take(&mut self.janitors);
        self.leave(janitors);
    }

    /// All workers are told to end but the one that has run longest.
    pub fn leave_the_oldest(&mut self) {
        let mut workers = std::mem::take(&mut self.workers);
        workers.sort_by_key(|worker| (worker.doom.is_some(), worker.begun));
        let mut workers = workers.into_iter();
        self.workers.extend(workers.next());
        self.leave(workers);
    }

    fn leave(&mut self, members: impl IntoIterator<Item = Member>) {
        for mut member in members {
            signal(&mut member, "TERM");
            self.leaving.push(member);
        }
    }

    /// All processes end cleanly, within [`SOON`].
    pub fn end(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        self.leave(workers);
        for mut member in std::mem::take(&mut self.leaving) {
            member.process.wait(SOON);
            self.bury(member);
        }
    }

    fn bury_worker(&mut self, mut member: Member) {
        self.kills += usize::from(member.process.runs());
        self.bury(member);
    }

    /// Kills it if it is still running; it may have ended before only if it was doomed to.
    fn bury(&mut self, mut member: Member) {
        let ran = member.process.runs();
        let status = member.process.kill();
        let log = member.process.log();
        match member.doom {
            Some(point) if status.signal() == Some(ABORTED) => {
                *self.deaths.entry(point).or_default() += 1;
                self.kills += 1;
            }
            // A signal to stop may arrive before there is anything to stop.
            _ => assert!(
                ran || status.code() == Some(0) || log.is_empty(),
                "ended by itself, {status}:\n{log}"
            ),
        }
        let most = fault_lines_in_a_second(&log);
        assert!(most <= MOST_FAULT_LINES, "{most} lines about faults in a second:\n{log}");
        self.most_fault_lines = self.most_fault_lines.max(most);
    }
}

fn janitor(site: &impl Site, doom: Option<(&'static str, u64)>) -> Member {
    let point = point(doom);
    let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
    let process = site.janitor(env.as_slice());
    let doom = doom.map(|(point, _)| point);
    Member { process, doom, is_behind_proxy: false, begun: Instant::now() }
}

fn point(doom: Option<(&'static str, u64)>) -> Option<String> {
    doom.map(|(point, pass)| format!("{point}:{pass}"))
}

/// The worker that owns a partition, as far as the server knows.
fn owner(site: &impl Site, partition: u16) -> Option<String> {
    let meta = site.layout().keys(partition).meta();
    try_command(&mut site.connect(partition).ok()?, &["HGET", &meta, "owner"]).ok()?
}

/// Gives a partition to a worker, once it has spoken.
fn hand_over(site: &impl Site, partition: u16, to: &Worker) {
    let keys = site.layout().keys(partition);
    let start = Instant::now();
    while start.elapsed() < SOON / 4 {
        if let Ok(mut conn) = site.connect(partition) {
            let names: Vec<String> =
                try_command(&mut conn, &["HKEYS", &keys.workers()]).unwrap_or_default();
            let pid = format!("-{}-", to.pid());
            if let Some(name) = names.iter().find(|name| name.contains(&pid)) {
                // Refused by a server in trouble, it is left as it is.
                let _given: RedisResult<i64> =
                    try_command(&mut conn, &["EVAL", HAND_OVER, "1", &keys.meta(), name]);
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Not to a worker that died at its point.
fn signal(member: &mut Member, name: &str) {
    if member.process.runs() {
        member.process.signal(name);
    }
}

fn fault_lines_in_a_second(log: &str) -> usize {
    let mut seconds: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log.lines().filter(|line| is_fault(line)) {
        // 2026-01-31T12:00:00
        *seconds.entry(&line[..19]).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}
