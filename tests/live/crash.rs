//! A worker killed with SIGKILL between any two steps loses nothing and repeats nothing; one that is told to stop
//! finishes its batch and leaves.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, Traffic, heartbeat, in_parallel};

const SETTINGS: [(&str, &str); 2] = [("thresholds", "3:1,2:0"), ("viewed-cap", "5")];
const ABORTED: i32 = 6;

/// A worker that dies at the n-th pass of a point.
fn doomed(scene: &Scene, failpoint: &str, pass: u64) -> Worker {
    let failpoint = format!("{failpoint}:{pass}");
    scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", &failpoint)])
}

fn die(worker: &mut Worker) {
    let status = worker.wait(SOON);
    assert_eq!(status.signal(), Some(ABORTED), "dies at its failpoint:\n{}", worker.log());
}

fn dies_at(failpoint: &str) {
    in_parallel([1, 2, 5, 19], |pass| {
        let scene = Scene::start(&SETTINGS);
        scene.add_random(pass, 200);
        die(&mut doomed(&scene, failpoint, pass));
        let _other = scene.worker(&[]);
        let what = format!("{failpoint}, pass {pass}");
        scene.wait_finished(SOON, &what);
        scene.verify(&what);
    });
}

#[test]
fn killed_after_reading() {
    dies_at("after-read");
}

#[test]
fn killed_after_folding() {
    dies_at("after-fold");
}

#[test]
fn killed_before_sending() {
    dies_at("before-send");
}

#[test]
fn killed_after_sending() {
    dies_at("after-send");
}

#[test]
fn killed_after_the_reply() {
    dies_at("after-reply");
}

/// Named, but not read yet: the next worker tries it, and so on.
#[test]
fn killed_after_naming_what_is_next() {
    in_parallel([1, 2, 5, 14], |pass| {
        let scene = Scene::start(&SETTINGS);
        scene.add_random(pass, 200);
        die(&mut doomed(&scene, "after-read", 1));
        die(&mut doomed(&scene, "after-naming", pass));
        let _other = scene.worker(&[]);
        scene.wait_finished(SOON, "named, and not to blame");
        scene.verify(&format!("after-naming, pass {pass}"));
    });
}

#[test]
fn one_worker_after_another_dies_with_a_batch_in_hand() {
    in_parallel([1, 4], |partitions| {
        let partitions = partitions.to_string();
        let scene = Scene::start(&[SETTINGS[0], ("partitions", &partitions)]);
        let mut rng = Rng::with_seed(17);
        scene.add_random(17, 300);
        for _ in 0..9 {
            let point = rng
                .choice(["after-read", "after-fold", "before-send", "after-send", "after-reply"])
                .unwrap();
            die(&mut doomed(&scene, point, rng.u64(1..4)));
        }
        let _last = [scene.worker(&[]), scene.worker(&[])];
        scene.wait_finished(SOON, "what the dead left");
        scene.verify_after_kills(&format!("{partitions} partitions"), 9);
    });
}

/// Three workers under traffic, of which a random one is killed and replaced repeatedly.
#[test]
fn killed_at_random_moments_under_traffic() {
    in_parallel([("1", 1), ("4", 2)], |(partitions, seed)| {
        eprintln!("seed {seed}");
        let scene = Scene::start(&[SETTINGS[0], ("partitions", partitions)]);
        let mut rng = Rng::with_seed(seed);
        let traffic = Traffic::start(&scene, seed, 250);
        let mut workers: Vec<Worker> = (0..3).map(|_| scene.worker(&[])).collect();
        let end = Instant::now() + Duration::from_millis(2_500);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(rng.u64(10..150)));
            let worker = rng.usize(..workers.len());
            workers[worker].kill();
            workers[worker] = scene.worker(&[]);
            kills += 1;
        }
        let added = traffic.stop().len();
        scene.wait_finished(SOON, "the last workers finish");
        let what = format!("{partitions} partitions, {kills} kills, {added} entries, seed {seed}");
        scene.verify_after_kills(&what, kills);
    });
}

/// Entries expire while they arrive, two janitors sweep, and workers and janitors die.
#[test]
fn killed_while_janitors_sweep() {
    const TTL_MS: u64 = 16_000;
    in_parallel([1, 2], |seed| {
        eprintln!("seed {seed}");
        let ttl = format!("{TTL_MS}ms");
        let flags =
            [SETTINGS[0], ("presence-ttl", &*ttl), ("session-ttl", &ttl), ("document-ttl", &ttl)];
        let scene = Scene::start(&flags);
        let mut rng = Rng::with_seed(seed);
        let traffic = Traffic::start_with(&scene, seed, 250, |events| {
            // Session data is left out: the effect of a touch on it depends on the schedule.
            events.types = vec!["heartbeat", "login", "logout", "view", "document"];
        });
        let around = traffic.around;
        let mut workers: Vec<Worker> = (0..2).map(|_| scene.worker(&[])).collect();
        let mut janitors: Vec<Worker> = (0..2).map(|_| scene.janitor(&[])).collect();
        let end = Instant::now() + Duration::from_millis(2_500);
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(rng.u64(20..200)));
            let which = rng.usize(..2);
            if rng.u8(..3) == 0 {
                janitors[which].kill();
                janitors[which] = scene.janitor(&[]);
            } else {
                workers[which].kill();
                workers[which] = scene.worker(&[]);
                kills += 1;
            }
        }
        let added = traffic.stop().len();
        scene.wait_finished(SOON, "the last workers finish");
        drop(janitors);
        // The events' times are 2,501 ms apart, so this is not the moment in which the next ones expire.
        wait_until(SOON, "nothing expires just now", || {
            let now = crate::support::dump::server_now(&mut scene.connection());
            (300..1_500).contains(&((now - TTL_MS - (around - 30_000)) % 2_501))
        });
        scene.verify_after_kills(&format!("{added} entries, seed {seed}"), kills);
    });
}

/// Starts a worker on a long backlog and waits until it is in the middle of it.
fn in_the_middle(scene: &Scene, url: &str) -> Worker {
    let worker = scene.worker_at(url, &["--batch", "10"], &[]);
    let presence = scene.deployment.keys(0).presence();
    wait_until(SOON, "the worker is in the middle", || {
        scene.command::<u64>(&["HLEN", &presence]) > 0
    });
    assert!(!scene.is_finished(), "it is not through yet");
    worker
}

#[test]
fn a_worker_that_stood_still_beyond_the_takeover_time_repeats_nothing() {
    in_parallel([5, 6], |seed| {
        eprintln!("seed {seed}");
        let scene = Scene::start(&SETTINGS);
        scene.add_random(seed, 1_000);
        let sleeper = in_the_middle(&scene, &scene.url());
        sleeper.signal("STOP");
        let stood_at = scene.cursor();
        let other = scene.worker(&[]);
        scene.wait_finished(SOON, "another worker continues from where the sleeper stood");
        sleeper.signal("CONT");
        // It is awake once it has applied something after the other one has ended.
        scene.drain(other);
        scene.add_random_later(seed + 100, 50);
        scene.wait_finished(SOON, "the sleeper goes on");
        scene.drain(sleeper);
        scene.verify(&format!("stood still at {stood_at:?}, seed {seed}"));
    });
}

/// The former owner wakes at any step, long after it was taken over and everything is applied.
#[test]
fn a_worker_that_wakes_at_any_point_after_a_takeover_changes_nothing() {
    let points = ["after-read", "after-fold", "before-send", "after-send", "after-reply"];
    in_parallel(points, |point| {
        let scene = Scene::start(&SETTINGS);
        scene.add_random(9, 200);
        let failpoint = format!("{point}:5:stop");
        let sleeper = scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", &failpoint)]);
        let stopped = || sleeper.is_stopped();
        wait_until(SOON, "it stands still", stopped);
        let other = scene.worker(&[]);
        scene.wait_finished(SOON, "another worker takes over");
        other.says("cause=\"stall\"");
        sleeper.signal("CONT");
        // What it notices first: the other owner, or that it slept through its batch's deadline.
        let notices = ["another worker has the partition", "was not applied within its deadline"];
        wait_until(SOON, "it notices that it slept", || {
            notices.iter().any(|notice| sleeper.log().contains(notice))
        });
        scene.add_random_later(10, 50);
        scene.wait_finished(SOON, "goes on");
        scene.verify(point);
    });
}

/// The former owner's call was in flight when it was taken over, and arrives later.
#[test]
fn a_call_that_arrives_after_a_takeover_has_no_effect() {
    let scene = Scene::start(&SETTINGS);
    let proxy = Proxy::start(scene.deployment.server.port());
    scene.add_random(7, 1_000);
    let sleeper = in_the_middle(&scene, &proxy.url());
    proxy.set(Mode::HoldCalls);
    let other = scene.worker(&[]);
    scene.wait_finished(SOON, "another worker continues");
    proxy.set(Mode::Pass);
    wait_until(SOON, "the late call is refused", || {
        sleeper.log().contains("another worker has the partition")
    });
    scene.add_random_later(8, 50);
    scene.wait_finished(SOON, "the new owner goes on");
    scene.verify("a late call");
    drop(other);
    scene.add_heartbeat("later");
    scene.wait_finished(SOON, "the former owner has it again");
    scene.drain(sleeper);
    scene.verify("back again");
}

#[test]
fn a_stop_under_traffic_leaves_nothing_behind() {
    in_parallel(["TERM", "INT"], |signal| {
        let scene = Scene::start(&SETTINGS);
        scene.add_random(3, 1_500);
        let mut worker = in_the_middle(&scene, &scene.url());
        worker.signal(signal);
        assert_eq!(worker.exit_code(SOON), 0, "SIG{signal}:\n{}", worker.log());
        assert!(worker.log().contains("gave the partition up"), "{}", worker.log());
        let owner: String = scene.command(&["HGET", &scene.deployment.keys(0).meta(), "owner"]);
        assert_eq!(owner, "", "SIG{signal}: nobody owns the partition");
        assert_eq!(scene.workers(), Vec::<String>::new(), "SIG{signal}: it said goodbye");
        assert!(!scene.is_finished(), "it did not wait for the whole backlog");
        let _other = scene.worker(&[]);
        scene.wait_finished(SOON, "another worker does the rest");
        scene.verify(signal);
    });
}

#[test]
fn a_stop_with_no_server_to_talk_to_ends_soon() {
    let mut scene = Scene::start(&SETTINGS);
    scene.add(&heartbeat("alice"));
    let mut worker = scene.worker(&[]);
    scene.wait_finished(SOON, "the worker runs");
    scene.deployment.server.kill();
    wait_until(SOON, "it notices", || worker.log().contains("not projecting"));
    worker.signal("TERM");
    worker.exit_code(Duration::from_secs(5));
}
