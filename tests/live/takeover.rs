//! Ownership of partitions: how soon work resumes when the owner dies, stalls or leaves, and how partitions are
//! shared out.

use std::time::{Duration, Instant};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::{SOON, Scene, heartbeat, in_parallel};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
/// The extra time that a busy machine may need for what takes half a second.
const SLACK: Duration = Duration::from_secs(3);

/// A series of a worker for a partition.
fn gauge(worker: &Worker, name: &str, partition: u16) -> f64 {
    let series = format!("{name}{{partition=\"{partition}\"}}");
    Pages::of(worker).metric(&series).unwrap_or_default()
}

fn owns(worker: &Worker, partition: u16) -> bool {
    gauge(worker, "rollcall_partition_owned", partition) == 1.0
}

fn stands_by(worker: &Worker, partition: u16) -> bool {
    gauge(worker, "rollcall_partition_standby", partition) == 1.0
}

fn takeovers(worker: &Worker, cause: &str) -> f64 {
    Pages::of(worker).metric(&format!("rollcall_takeovers_total{{cause=\"{cause}\"}}")).unwrap()
}

/// An owner that has applied something, and a worker that stands by.
fn pair(scene: &Scene, takeover: &str) -> (Worker, Worker) {
    let arguments = ["--takeover", takeover, HTTP[0], HTTP[1]];
    let owner = scene.worker(&arguments);
    scene.add_heartbeat("before");
    scene.wait_finished(SOON, "the owner works");
    let standby = scene.worker(&arguments);
    wait_until(SOON, "the other one stands by", || stands_by(&standby, 0));
    (owner, standby)
}

/// How long it takes until an event added now is applied.
fn time_to_apply(scene: &Scene, user: &str) -> Duration {
    let start = Instant::now();
    scene.add_heartbeat(user);
    wait_until(SOON, "it is applied", || scene.is_present(&format!("{user}|")));
    start.elapsed()
}

#[test]
fn after_a_kill_the_partition_goes_on_long_before_the_takeover_time() {
    let scene = Scene::start(&[]);
    let (mut owner, standby) = pair(&scene, "10s");
    owner.kill();
    let took = time_to_apply(&scene, "after");
    assert!(took < SLACK, "{took:?}");
    assert_eq!(takeovers(&standby, "death"), 1.0, "{}", standby.log());
    scene.verify("killed");
}

#[test]
fn after_a_stall_the_partition_goes_on_after_the_takeover_time() {
    let scene = Scene::start(&[]);
    let (owner, standby) = pair(&scene, "3s");
    owner.signal("STOP");
    let took = time_to_apply(&scene, "after");
    // The owner may have shown its last progress half a second ago.
    let right = Duration::from_millis(2_400)..Duration::from_secs(3) + SLACK;
    assert!(right.contains(&took), "{took:?}");
    assert_eq!(takeovers(&standby, "stall"), 1.0, "{}", standby.log());
    owner.signal("CONT");
    wait_until(SOON, "the former owner stands by", || stands_by(&owner, 0));
    owner.says("another worker has the partition");
    scene.add_heartbeat("later");
    scene.wait_finished(SOON, "goes on");
    scene.verify("stalled");
}

#[test]
fn a_stop_hands_the_partition_over_at_once() {
    let scene = Scene::start(&[]);
    let (mut owner, standby) = pair(&scene, "10s");
    assert_eq!(owner.terminate(), 0);
    let took = time_to_apply(&scene, "after");
    assert!(took < SLACK, "{took:?}");
    assert_eq!(takeovers(&standby, "free"), 1.0, "{}", standby.log());
    scene.verify("stopped");
}

/// An owner that is only slow is left alone, and one that is resumed in time has lost nothing.
#[test]
fn a_short_stall_changes_no_owner() {
    let scene = Scene::start(&[]);
    let (owner, standby) = pair(&scene, "5s");
    for round in 0..3 {
        owner.signal("STOP");
        scene.add_heartbeat(&format!("meets{round}"));
        std::thread::sleep(Duration::from_millis(500));
        owner.signal("CONT");
        scene.wait_finished(SOON, "the owner goes on");
    }
    assert!(owns(&owner, 0) && stands_by(&standby, 0), "{}", standby.log());
    scene.verify("short stalls");
}

/// It keeps failing for a reason that is not its own: it is alive, and keeps the partition for a while.
#[test]
fn an_owner_that_only_fails_is_not_taken_for_dead() {
    let scene = Scene::start(&[]);
    let (owner, standby) = pair(&scene, "10s");
    scene.command::<()>(&["SET", "rollcall:changes:seq", "theirs"]);
    scene.add_heartbeat("waits");
    let failures = || owner.log().matches("not projecting").count();
    wait_until(SOON, "the owner fails again and again", || failures() >= 5);
    assert_eq!(takeovers(&standby, "death"), 0.0, "{}", standby.log());
    scene.command::<()>(&["SET", "rollcall:changes:seq", "1"]);
    scene.wait_finished(SOON, "goes on");
    scene.verify("failures");
}

/// How many of these workers own each partition.
fn owners(workers: &[Worker], partitions: u16) -> Vec<usize> {
    let count = |partition| workers.iter().filter(|worker| owns(worker, partition)).count();
    (0..partitions).map(count).collect()
}

#[test]
fn of_three_workers_on_four_partitions_any_may_die() {
    let scene = Scene::start(&[("partitions", "4")]);
    let start = || scene.worker(&["--takeover", "10s", HTTP[0], HTTP[1]]);
    let mut workers: Vec<_> = (0..3).map(|_| start()).collect();
    let all_owned = |workers: &[Worker]| owners(workers, 4) == [1; 4];
    let add = |seed| {
        scene.add_random_later(seed, 100);
        scene.wait_finished(SLACK + SOON, "all partitions work");
    };
    wait_until(SOON, "each has one owner", || all_owned(&workers));
    add(1);
    for round in 0..3 {
        let place = workers.iter().position(|w| (0..4).any(|p| owns(w, p))).unwrap();
        let mut dead = workers.remove(place);
        let killed = Instant::now();
        dead.kill();
        wait_until(SOON, "the others have its partitions", || all_owned(&workers));
        assert!(killed.elapsed() < SLACK, "{:?}", killed.elapsed());
        add(2 + round);
        workers.push(start());
        // A worker that has just joined watches everything until the others have noticed.
        wait_until(SOON, "somebody watches each", || {
            (0..4).all(|partition| workers.iter().any(|worker| stands_by(worker, partition)))
        });
    }
    scene.verify("three workers");
}

/// The third, who does not watch the partition, notices that nobody does its work.
#[test]
fn owner_and_standby_may_die_at_once() {
    let scene = Scene::start(&[]);
    let start = || scene.worker(&["--takeover", "10s", HTTP[0], HTTP[1]]);
    let mut workers: Vec<_> = (0..3).map(|_| start()).collect();
    let is_in_a_role = |worker: &&Worker| owns(worker, 0) || stands_by(worker, 0);
    // Who has come lately watches, too.
    wait_until(SOON, "all own it or stand by", || workers.iter().all(|w| is_in_a_role(&w)));
    // An owner that nobody has asked for two reviews is the first in the order: no handover is to come.
    let all_there = Instant::now();
    wait_until(SOON * 2, "the first in the order has it", || {
        terms(&scene, 1)[0].1 > 1 || all_there.elapsed() > Duration::from_secs(22)
    });
    let mut since = Instant::now();
    wait_until(SOON, "one owns it and one stands by, and that stays so", || {
        if workers.iter().filter(is_in_a_role).count() != 2 {
            since = Instant::now();
        }
        // Who is idle looks every two seconds whether it has to stand by now.
        since.elapsed() > Duration::from_secs(3)
    });
    let third = workers.iter().position(|worker| !is_in_a_role(&worker)).unwrap();
    let third = workers.remove(third);
    for worker in &mut workers {
        worker.kill();
    }
    let took = time_to_apply(&scene, "after");
    // It looks every two seconds, and the fourth time it has seen no change for 5.8 s.
    assert!(took < Duration::from_secs(8) + SLACK, "{took:?}");
    assert_eq!(takeovers(&third, "death"), 1.0, "{}", third.log());
    scene.verify("both killed");
}

/// What a partition's owner and term are.
fn terms(scene: &Scene, partitions: u16) -> Vec<(String, u64)> {
    let of = |partition| {
        let meta = scene.deployment.keys(partition).meta();
        scene.command::<(String, u64)>(&["HMGET", &meta, "owner", "term"])
    };
    (0..partitions).map(of).collect()
}

#[test]
fn a_newcomer_gets_its_share_and_then_all_is_calm() {
    let scene = Scene::start(&[("partitions", "8")]);
    let arguments = [HTTP[0], HTTP[1]];
    let mut workers = vec![scene.worker(&arguments)];
    wait_until(SOON, "the first has all", || owners(&workers, 8) == [1; 8]);
    workers.push(scene.worker(&arguments));
    let shares = || {
        let terms = terms(&scene, 8);
        let of = |worker: &Worker| {
            terms.iter().filter(|(owner, _)| owner.contains(&format!("-{}-", worker.pid()))).count()
        };
        (of(&workers[0]), of(&workers[1]))
    };
    let mut calm_since = (Instant::now(), terms(&scene, 8));
    // There is a review every ten seconds, and the minimum stay is as long.
    wait_until(SOON * 4, "the newcomer has a share, and nothing changes any more", || {
        let now = terms(&scene, 8);
        if calm_since.1 != now {
            calm_since = (Instant::now(), now);
        }
        let (first, second) = shares();
        first > 0 && second > 0 && calm_since.0.elapsed() > Duration::from_secs(15)
    });
    let handovers: u64 = terms(&scene, 8).iter().map(|(_, term)| term - 1).sum();
    assert_eq!(handovers as usize, shares().1, "each went over once");
    scene.add_random_later(5, 100);
    scene.wait_finished(SOON, "all partitions work");
    scene.verify("shared out");
    let logs: Vec<_> = workers.into_iter().map(|worker| scene.drain(worker)).collect();
    assert!(logs.iter().all(|log| !log.contains("not projecting")), "{logs:?}");
}

/// Without the right to subscribe nothing shows that a process died, so its partition resumes like after a stall.
#[test]
fn without_a_subscription_a_death_is_found_by_the_takeover_time() {
    let rules = ["-subscribe", "resetchannels"];
    in_parallel(rules, |rule| {
        let scene = Scene::start(&[]);
        scene.command::<()>(&["ACL", "SETUSER", "default", rule]);
        let (mut owner, standby) = pair(&scene, "2s");
        owner.kill();
        let took = time_to_apply(&scene, "after");
        let right = Duration::from_millis(1_400)..Duration::from_secs(2) + SLACK;
        assert!(right.contains(&took), "{rule}: {took:?}");
        assert_eq!(takeovers(&standby, "death"), 1.0, "{}", standby.log());
        scene.add(&heartbeat("later"));
        scene.wait_finished(SOON, "goes on");
        scene.verify(rule);
    });
}
