//! The processes under a schedule: workers and two janitors, those that sleep, and those that have gone.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use super::proxy::Proxy;
use crate::process::{Worker, is_fault};
use crate::scene::{SOON, Scene};

/// Workers there are at first, and at most.
const WORKERS: (usize, usize) = (3, 6);
/// Lines about faults that a process may log in a second.
const MOST_FAULT_LINES: usize = 10;
const ABORTED: i32 = 6;

/// A worker or janitor, and the point at which it is to die, if at any.
struct Member {
    process: Worker,
    doom: Option<&'static str>,
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
            most_fault_lines: 0,
        };
        for n in 0..WORKERS.0 {
            fleet.workers.push(worker(scene, proxy, n == 1, None));
        }
        fleet
    }

    /// SIGKILL to a worker; another one, which may be doomed to die at a point, takes its place.
    pub fn replace_worker(
        &mut self,
        scene: &Scene,
        proxy: &Proxy,
        dice: u64,
        doom: Option<(&'static str, u64)>,
    ) {
        let which = dice as usize % self.workers.len();
        let next = worker(scene, proxy, dice.is_multiple_of(2), doom);
        let old = std::mem::replace(&mut self.workers[which], next);
        self.bury(old);
    }

    /// Whether the worker that was put in place by these dice has ended.
    pub fn has_died(&mut self, dice: u64) -> bool {
        let which = dice as usize % self.workers.len();
        !self.workers[which].process.runs()
    }

    /// SIGKILL to a janitor; another one, which may be doomed, too, takes its place.
    pub fn replace_janitor(&mut self, scene: &Scene, dice: u64, doom: Option<(&'static str, u64)>) {
        let next = janitor(scene, doom);
        let old = std::mem::replace(&mut self.janitors[dice as usize % 2], next);
        self.bury(old);
    }

    /// One more worker, until there are enough.
    pub fn join(&mut self, scene: &Scene, proxy: &Proxy, dice: u64) {
        if self.workers.len() < WORKERS.1 {
            self.workers.push(worker(scene, proxy, dice.is_multiple_of(2), None));
        } else {
            self.replace_worker(scene, proxy, dice, None);
        }
    }

    /// Where all workers are doomed or dead, one comes that is not, as from whoever supervises them: only a
    /// worker makes a group anew.
    pub fn keep_one(&mut self, scene: &Scene, proxy: &Proxy) {
        let stays = |worker: &mut Member| worker.doom.is_none() && worker.process.runs();
        if !self.workers.iter_mut().any(stays) {
            self.workers.push(worker(scene, proxy, false, None));
        }
    }

    /// SIGTERM to a worker; another one takes its place.
    pub fn terminate(&mut self, scene: &Scene, proxy: &Proxy, dice: u64) {
        let mut old = self.take(scene, proxy, dice);
        signal(&mut old, "TERM");
        self.leaving.push(old);
    }

    /// SIGSTOP to a worker, SIGCONT at the first [`Fleet::wake`] after `time`; another one takes its place.
    pub fn put_to_sleep(&mut self, scene: &Scene, proxy: &Proxy, dice: u64, time: Duration) {
        let mut old = self.take(scene, proxy, dice);
        signal(&mut old, "STOP");
        self.asleep.push((old, Instant::now() + time));
    }

    fn take(&mut self, scene: &Scene, proxy: &Proxy, dice: u64) -> Member {
        let next = worker(scene, proxy, dice.is_multiple_of(2), None);
        let which = dice as usize % self.workers.len();
        std::mem::replace(&mut self.workers[which], next)
    }

    /// Lets those go on that have slept long enough; they stay until the end.
    pub fn wake(&mut self) {
        let (up, down) = self.asleep.drain(..).partition(|(_, until)| *until <= Instant::now());
        self.asleep = down;
        let up: Vec<(Member, Instant)> = up;
        for (mut member, _) in up {
            signal(&mut member, "CONT");
            self.workers.push(member);
        }
    }

    /// Whoever sleeps wakes up; janitors and all that were told to leave end, cleanly. Workers stay, and one
    /// more comes, on which no trouble ever fell.
    pub fn calm_down(&mut self, scene: &Scene, proxy: &Proxy) {
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

    /// Everybody ends in good order, within [`SOON`].
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

    /// Kills it if it still runs; nobody may have ended before, except where doomed to.
    fn bury(&mut self, mut member: Member) {
        let ran = member.process.runs();
        let status = member.process.kill();
        let log = member.process.log();
        match member.doom {
            Some(point) if status.signal() == Some(ABORTED) => {
                *self.deaths.entry(point).or_default() += 1;
            }
            // A signal to stop may come before there is anything to stop.
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

/// Every entry may be delivered any number of times: here it is the schedule that kills workers, not the entry.
/// Only one that is to die after counting a trial tries entries alone.
fn worker(
    scene: &Scene,
    proxy: &Proxy,
    behind_proxy: bool,
    doom: Option<(&'static str, u64)>,
) -> Member {
    let url = if behind_proxy { proxy.url() } else { scene.url() };
    let deliveries =
        if doom.is_some_and(|(point, _)| point == "after-trial") { "2" } else { "1000000" };
    let point = point(doom);
    let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
    let arguments = ["--max-deliveries", deliveries];
    let process = scene.worker_at(&url, &arguments, env.as_slice());
    Member { process, doom: doom.map(|(point, _)| point) }
}

fn janitor(scene: &Scene, doom: Option<(&'static str, u64)>) -> Member {
    let point = point(doom);
    let env = point.as_ref().map(|point| ("ROLLCALL_TEST_FAILPOINT", point.as_str()));
    Member { process: scene.janitor_with(&[], env.as_slice()), doom: doom.map(|(point, _)| point) }
}

fn point(doom: Option<(&'static str, u64)>) -> Option<String> {
    doom.map(|(point, pass)| format!("{point}:{pass}"))
}

/// Not to one that died at its point.
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
