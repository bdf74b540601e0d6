//! All kinds of trouble at once, in random order.

use std::time::{Duration, Instant};

use fastrand::Rng;
use rollcall::redis::private_server::Options;

use super::command;
use crate::process::Worker;
use crate::scene::{SOON, Scene, Traffic, in_parallel};
use crate::support::{rounds, seed};

/// Everything that leaves the guarantee whole, in random order. For a longer hunt
/// `ROLLCALL_TEST_SEED` and `ROLLCALL_TEST_ROUNDS` say which and how many.
#[test]
fn random_trouble_leaves_the_guarantee_whole() {
    let seeds: Vec<u64> = (seed()..).take(rounds(2) as usize).collect();
    for two in seeds.chunks(2) {
        in_parallel(two, |seed| round(*seed));
    }
}

fn round(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let partitions = rng.choice(["1", "1", "3"]).unwrap();
    eprintln!("seed {seed}, {partitions} partitions");
    let appendonly = rng.bool();
    let extra_args = ["--appendfsync", "always"].map(str::to_owned).to_vec();
    let options = Options { appendonly, extra_args, ..Options::default() };
    let flags = [("thresholds", "3:1"), ("partitions", partitions), ("viewed-cap", "5")];
    let mut scene = Scene::start_with(&flags, options);
    let mut trouble = RandomTrouble::new(&scene, rng);
    let traffic = Traffic::start(&scene, seed, 300);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        trouble.strike(&mut scene, appendonly);
    }
    traffic.stop();
    trouble.calm_down();
    let what = format!("seed {seed}: {}", trouble.done.join(" "));
    scene.wait_finished(Duration::from_secs(30), &what);
    scene.verify(&what);
}

struct RandomTrouble {
    rng: Rng,
    workers: Vec<Worker>,
    janitors: Vec<Worker>,
    asleep: Vec<Worker>,
    done: Vec<&'static str>,
}

impl RandomTrouble {
    fn new(scene: &Scene, rng: Rng) -> Self {
        let (workers, janitors) = (
            (0..3).map(|_| Self::worker(scene)).collect(),
            (0..2).map(|_| scene.janitor(&[])).collect(),
        );
        Self { rng, workers, janitors, asleep: Vec::new(), done: Vec::new() }
    }

    fn worker(scene: &Scene) -> Worker {
        scene.worker(&["--max-deliveries", "1000000"])
    }

    fn strike(&mut self, scene: &mut Scene, appendonly: bool) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(5..200)));
        let which = self.rng.usize(..self.workers.len());
        let short = Duration::from_millis(self.rng.u64(10..600));
        let pause = short.as_millis().to_string();
        let blows = [
            "kill", "kill", "term", "sleep", "janitor", "clients", "pause", "scripts", "flush",
            "server", "oom", "readonly", "meta",
        ];
        let blow = self.rng.choice(blows).unwrap();
        self.done.push(blow);
        match blow {
            "kill" => self.workers[which] = Self::worker(scene),
            "term" => {
                self.workers[which].signal("TERM");
                let old = std::mem::replace(&mut self.workers[which], Self::worker(scene));
                self.asleep.push(old);
            }
            "sleep" => {
                self.workers[which].signal("STOP");
                let old = std::mem::replace(&mut self.workers[which], Self::worker(scene));
                self.asleep.push(old);
                if self.rng.bool() {
                    self.asleep[0].signal("CONT");
                }
            }
            "janitor" => self.janitors[0] = scene.janitor(&[]),
            "clients" => command(scene, &["CLIENT", "KILL", "TYPE", "normal"]),
            "pause" => command(scene, &["CLIENT", "PAUSE", &pause, "ALL"]),
            "scripts" => command(scene, &["SCRIPT", "FLUSH"]),
            "flush" => command(scene, &["FLUSHALL"]),
            "server" => {
                if !appendonly {
                    command(scene, &["SAVE"]);
                    std::thread::sleep(short);
                }
                scene.deployment.server.restart().unwrap();
            }
            "meta" => command(scene, &["DEL", "rollcall:meta"]),
            "oom" => {
                command(scene, &["CONFIG", "SET", "maxmemory", "1"]);
                std::thread::sleep(short);
                command(scene, &["CONFIG", "SET", "maxmemory", "0"]);
            }
            _ => {
                command(scene, &["REPLICAOF", "127.0.0.1", "1"]);
                std::thread::sleep(short);
                command(scene, &["REPLICAOF", "NO", "ONE"]);
            }
        }
    }

    /// Whoever sleeps wakes up, and everyone but the last workers leaves.
    fn calm_down(&mut self) {
        for sleeper in &mut self.asleep {
            if sleeper.runs() {
                sleeper.signal("CONT");
                sleeper.signal("TERM");
            }
        }
        for sleeper in &mut self.asleep {
            let status = sleeper.wait(SOON);
            // A signal may come before there is anything to stop.
            let ended = status.code() == Some(0) || sleeper.log().is_empty();
            assert!(ended, "{status}:\n{}", sleeper.log());
        }
        self.janitors.clear();
        self.workers.truncate(1);
    }
}
