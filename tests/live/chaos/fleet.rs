//! The processes of a schedule: workers and two janitors, those that are stopped, and those that have ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use super::proxy::{Mode, Proxy};
use super::schedule::Strike;
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
    pub fn start(scene: &Scene, proxy: &Proxy) -> Self {
        let mut fleet = Self {
            workers: Vec::new(),
            janitors: (0..2).map(|_| janitor(scene, None)).collect(),
            asleep: Vec::new(),
            leaving: Vec::new(),
            deaths: BTreeMap::new(),
            kills: 0,
            most_fault_lines: 0,
        };
        for n in 0..WORKERS.0 {
            fleet.workers.push(worker(scene, proxy, n == 1, None));
        }
        fleet
    }

    /// The index of the struck worker.
    fn find(&self, scene: &Scene, partition: u16, target: Target, dice: u64) -> usize {
        let owner = owner(scene, partition).unwrap_or_default();
        let owns = |member: &Member| owner.contains(&format!("-{}-", member.process.pid()));
        let start = dice as usize % self.workers.len();
        let places = (start..self.workers.len()).chain(0..start);
        let is_target = |place: &usize| owns(&self.workers[*place]) == (target == Target::Owner);
        places.clone().find(is_target).unwrap_or(start)
    }

    /// SIGKILL to a worker; another one replaces it.
    pub fn kill(&mut self, scene: &Scene, proxy: &Proxy, strike: &Strike, target: Target) {
        let which = self.find(scene, strike.partition(scene), target, strike.dice);
        let next = worker(scene, proxy, strike.dice.is_multiple_of(2), None);
        let old = std::mem::replace(&mut self.workers[which], next);
        self.bury_worker(old);
    }

    /// The owner is killed, and its replacement is to die at a point.
    pub fn doom(
        &mut self,
        scene: &Scene,
        proxy: &Proxy,
        strike: &Strike,
        (point, pass): (&'static str, u64),
    ) {
        let partition = strike.partition(scene);
        let next = worker(scene, proxy, strike.dice.is_multiple_of(2), Some((point, pass)));
        let which = self.find(scene, partition, Target::Owner, strike.dice);
        hand_over(scene, partition, &next.process);
        let old = std::mem::replace(&mut self.workers[which], next);
        self.bury_worker(old);
    }

    /// Whether a worker that was doomed to die at this point has died.
    pub fn has_died(&mut self, point: &str) -> bool {
        let mut doomed = self.workers.iter_mut().filter(|member| member.doom == Some(point));
        doomed.any(|member| !member.process.runs())
    }

    /// Makes a worker behind the proxy the owner, if there is one.
    pub fn bring_owner_behind_proxy(&mut self, scene: &Scene, partition: u16) {
        let mut proxied = self.workers.iter_mut().filter(|member| member.is_behind_proxy);
        if let Some(member) = proxied.find_map(|member| member.process.runs().then_some(member)) {
            hand_over(scene, partition, &member.process);
        }
    }

    /// SIGKILL to a janitor; another one, which may be doomed as well, replaces it.
    pub fn replace_janitor(&mut self, scene: &Scene, dice: u64, doom: Option<(&'static str, u64)>) {
        let next = janitor(scene, doom);
        let old = std::mem::replace(&mut self.janitors[dice as usize % 2], next);
        self.bury(old);
    }

    /// One more worker, until there are enough.
    pub fn join(&mut self, scene: &Scene, proxy: &Proxy, strike: &Strike) {
        if self.workers.len() < WORKERS.1 {
            self.workers.push(worker(scene, proxy, strike.dice.is_multiple_of(2), None));
        } else {
            self.kill(scene, proxy, strike, Target::Standby);
        }
    }

    /// If all workers are doomed or dead, starts one that is not, like a supervisor.
    pub fn keep_one(&mut self, scene: &Scene, proxy: &Proxy) {
        let stays = |worker: &mut Member| worker.doom.is_none() && worker.process.runs();
        if !self.workers.iter_mut().any(stays) {
            self.workers.push(worker(scene, proxy, false, None));
        }
    }

    /// SIGTERM to a worker; another one replaces it.
    pub fn terminate(&mut self, scene: &Scene, proxy: &Proxy, strike: &Strike, target: Target) {
        let mut old = self.take(scene, proxy, strike, target);
        signal(&mut old, "TERM");
        self.leaving.push(old);
    }

    /// SIGSTOP to a worker, SIGCONT at the first [`Fleet::wake`] after `time`; another one replaces it.
    pub fn put_to_sleep(
        &mut self,
        scene: &Scene,
        proxy: &Proxy,
        strike: &Strike,
        (target, time): (Target, Duration),
    ) {
        let mut old = self.take(scene, proxy, strike, target);
        signal(&mut old, "STOP");
        self.asleep.push((old, Instant::now() + time));
    }

    fn take(&mut self, scene: &Scene, proxy: &Proxy, strike: &Strike, target: Target) -> Member {
        let which = self.find(scene, strike.partition(scene), target, strike.dice);
        let next = worker(scene, proxy, strike.dice.is_multiple_of(2), None);
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

    /// The network works. Sleepers wake up; janitors and everything that was told to leave end cleanly. Workers stay,
    /// and one more is started that never had any trouble.
    pub fn calm_down(&mut self, scene: &Scene, proxy: &Proxy) {
        proxy.set(Mode::Pass);
        for (member, _) in &mut self.asleep {
            signal(member, "CONT");
        }
        self.workers.extend(self.asleep.drain(..).map(|(member, _)| member));
        self.workers.push(worker(scene, proxy, false, None));
        for mut janitor in std::mem::take(&mut self.janitors) {
            signal(&mut janitor, "TERM");
            self.leaving.push(janitor);
        }
    }

    /// All processes end cleanly, within [`SOON`].
    pub fn end(&mut self) {
        for mut worker in std::mem::take(&mut self.workers) {
            signal(&mut worker, "TERM");
            self.leaving.push(worker);
        }
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

fn worker(
    scene: &Scene,
    proxy: &Proxy,
    is_behind_proxy: bool,
    doom: Option<(&'static str, u64)>,
) -> Member {
    let url = if is_behind_proxy { proxy.url() } else { scene.url() };
    let point = point(doom);
    let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
    let process = scene.worker_at(&url, &["--batch", &BATCH.to_string()], env.as_slice());
    Member { process, doom: doom.map(|(point, _)| point), is_behind_proxy }
}

fn janitor(scene: &Scene, doom: Option<(&'static str, u64)>) -> Member {
    let point = point(doom);
    let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
    let process = scene.janitor_with(&[], env.as_slice());
    Member { process, doom: doom.map(|(point, _)| point), is_behind_proxy: false }
}

fn point(doom: Option<(&'static str, u64)>) -> Option<String> {
    doom.map(|(point, pass)| format!("{point}:{pass}"))
}

/// The worker that owns a partition, as far as the server knows.
fn owner(scene: &Scene, partition: u16) -> Option<String> {
    let meta = scene.deployment.keys(partition).meta();
    try_command(&mut scene.connection(), &["HGET", &meta, "owner"]).ok()?
}

/// Gives a partition to a worker, once that has reported.
fn hand_over(scene: &Scene, partition: u16, to: &Worker) {
    let keys = scene.deployment.keys(partition);
    let mut conn = scene.connection();
    let start = Instant::now();
    while start.elapsed() < SOON / 4 {
        let names: Vec<String> =
            try_command(&mut conn, &["HKEYS", &keys.workers()]).unwrap_or_default();
        if let Some(name) = names.iter().find(|name| name.contains(&format!("-{}-", to.pid()))) {
            // If the server refuses because of its trouble, the owner stays.
            let _given: redis::RedisResult<i64> =
                try_command(&mut conn, &["EVAL", HAND_OVER, "1", &keys.meta(), name]);
            return;
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
