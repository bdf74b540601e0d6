//! A worker killed with SIGKILL between any two steps loses nothing and repeats nothing; one that is
//! told to stop finishes what it has and leaves.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::harness::{read_stream, wait_until};
use crate::process::Worker;
use crate::scene::{SOON, Scene, Traffic, giant, heartbeat, in_parallel};

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

/// The letter is written by one command of a transaction and settled by another: it is there once.
#[test]
fn killed_within_the_transaction_of_an_entry_with_very_many_fields() {
    let scene = Scene::start(&SETTINGS);
    for round in 0..3 {
        scene.add_heartbeat(&format!("beside{round}"));
        scene.add(&giant());
        die(&mut doomed(&scene, "in-giant", 1));
    }
    let _other = scene.worker(&[]);
    scene.wait_finished(SOON, "what the dead left");
    scene.verify("three giants");
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
        scene.wait_finished(SOON, "what dead consumers left");
        scene.verify(&format!("{partitions} partitions"));
    });
}

/// Three workers under traffic, of which a random one is killed and replaced again and again.
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
        scene.verify(&format!(
            "{partitions} partitions, {kills} kills, {added} entries, seed {seed}"
        ));
    });
}

/// Entries expire while they come in, two janitors sweep, and workers and janitors die.
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
            // Session data has no part in this: what a touch does to it depends on when it comes.
            events.types = vec!["heartbeat", "login", "logout", "view", "document"];
        });
        let around = traffic.around;
        let mut workers: Vec<Worker> = (0..2).map(|_| scene.worker(&[])).collect();
        let mut janitors: Vec<Worker> = (0..2).map(|_| scene.janitor(&[])).collect();
        let end = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(rng.u64(20..200)));
            let which = rng.usize(..2);
            if rng.u8(..3) == 0 {
                janitors[which].kill();
                janitors[which] = scene.janitor(&[]);
            } else {
                workers[which].kill();
                workers[which] = scene.worker(&[]);
            }
        }
        let added = traffic.stop().len();
        scene.wait_finished(SOON, "the last workers finish");
        drop(janitors);
        // The events' times are 2,501 ms apart: not in the moment in which the next ones expire.
        wait_until(SOON, "nothing expires just now", || {
            let now = crate::support::dump::server_now(&mut scene.connection());
            (300..1_500).contains(&((now - TTL_MS - (around - 30_000)) % 2_501))
        });
        scene.verify(&format!("{added} entries, seed {seed}"));
    });
}

/// Starts a worker on a long backlog and waits until it is in the middle of it.
fn in_the_middle(scene: &Scene) -> Worker {
    let worker = scene.worker(&["--batch", "10"]);
    wait_until(SOON, "the worker is in the middle", || {
        let entries = dump_len(scene, &scene.deployment.keys(0).presence());
        entries > 0 && scene.pending(None) > 0
    });
    worker
}

fn dump_len(scene: &Scene, hash: &str) -> u64 {
    scene.command(&["HLEN", hash])
}

#[test]
fn a_worker_that_stood_still_beyond_the_claim_time_repeats_nothing() {
    in_parallel([5, 6], |seed| {
        eprintln!("seed {seed}");
        let scene = Scene::start(&SETTINGS);
        scene.add_random(seed, 1_000);
        let sleeper = in_the_middle(&scene);
        sleeper.signal("STOP");
        let asleep = scene.consumers().remove(0);
        let in_hand = scene.pending(Some(&asleep));
        assert!(in_hand > 0, "it stands still with something in hand");
        let other = scene.worker(&[]);
        scene.wait_finished(SOON, "another worker takes what the sleeper has");
        sleeper.signal("CONT");
        // It is awake once it has taken new entries, with the other one gone.
        scene.drain(other);
        scene.add_random_later(seed + 100, 50);
        scene.wait_finished(SOON, "the sleeper goes on");
        scene.drain(sleeper);
        scene.verify(&format!("stood still with {in_hand} entries in hand, seed {seed}"));
    });
}

#[test]
fn a_stop_under_traffic_leaves_nothing_behind() {
    in_parallel(["TERM", "INT"], |signal| {
        let scene = Scene::start(&SETTINGS);
        scene.add_random(3, 1_500);
        let mut worker = in_the_middle(&scene);
        worker.signal(signal);
        assert_eq!(worker.exit_code(SOON), 0, "SIG{signal}:\n{}", worker.log());
        assert!(
            worker.log().contains("left the consumer group, nothing pending"),
            "{}",
            worker.log()
        );
        assert_eq!(scene.pending(None), 0, "SIG{signal}: nothing is left pending");
        assert_eq!(scene.consumers(), Vec::<String>::new(), "SIG{signal}: the consumer is gone");
        assert!(!scene.is_finished(), "it did not wait for the whole backlog");
        let _other = scene.worker(&[]);
        scene.wait_finished(SOON, "another worker does the rest");
        scene.verify(signal);
    });
}

#[test]
fn a_stop_does_not_care_what_is_pending_elsewhere() {
    let scene = Scene::start(&SETTINGS);
    scene.add_random(4, 50);
    die(&mut doomed(&scene, "after-read", 1));
    let left = scene.pending(None);
    assert!(left > 0);
    let patient = scene.worker(&["--claim-idle", "60s"]);
    wait_until(SOON, "all but what the dead one has", || {
        scene.pending(None) == left && undelivered(&scene) == 0
    });
    let log = scene.drain(patient);
    assert!(log.contains("left the consumer group, nothing pending"), "{log}");
    assert_eq!(scene.pending(None), left, "what is pending elsewhere stays so");
    assert_eq!(scene.consumers().len(), 1, "only the dead consumer is left");
    let _heir = scene.worker(&[]);
    scene.wait_finished(SOON, "the next one claims");
    scene.verify("a stop with entries pending elsewhere");
}

fn undelivered(scene: &Scene) -> i64 {
    let stream = scene.deployment.stream(0);
    let groups: Vec<std::collections::HashMap<String, redis::Value>> =
        scene.command(&["XINFO", "GROUPS", &stream]);
    redis::from_redis_value(groups[0]["lag"].clone()).unwrap_or(-1)
}

/// Leaving would drop what is pending: a worker that has something it cannot finish stays in the group.
#[test]
fn a_stop_with_something_pending_leaves_it_to_be_claimed() {
    let scene = Scene::start(&SETTINGS);
    scene.add_random(6, 7);
    die(&mut doomed(&scene, "after-read", 1));
    let dead = scene.consumers();
    let mut worker = scene.worker(&["--claim-idle", "60s"]);
    let later = scene.add(&heartbeat("later"));
    wait_until(SOON, "the worker reads new entries", || scene.is_present("later|"));
    assert_eq!(scene.pending(None), 7, "all but {later}");
    // Entries that are its own, as far as the server knows, but that never reached it.
    let own = scene.consumers().into_iter().find(|name| !dead.contains(name)).unwrap();
    let stream = scene.deployment.stream(0);
    for entry in read_stream(&mut scene.connection(), &stream).iter().take(7) {
        let id = entry.id.to_string();
        scene.command::<redis::Value>(&["XCLAIM", &stream, "rollcall", &own, "0", &id]);
    }
    assert_eq!(worker.terminate(), 0);
    let left = scene.pending(Some(&own));
    assert!(
        left == 7 && worker.log().contains("stays in the consumer group"),
        "{left}:\n{}",
        worker.log()
    );
    let _heir = scene.worker(&[]);
    scene.wait_finished(SOON, "the next one claims");
    scene.verify("a stop with something pending");
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
