//! Settings that differ are refused; endings outlive the entries that they must.

use std::time::{Duration, Instant};

use super::pairs;
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::scene::{SOON, Scene, in_parallel};

/// The tombstone of a token or session stays while an older entry is unfinished, however long that takes.
#[test]
fn an_ending_outlives_every_entry_that_is_not_finished() {
    let scene = Scene::start(&[]);
    let mut worker = scene.worker(&[]);
    scene.add(&pairs(&[("type", "logout"), ("user", "u"), ("token", "t"), ("sid", "s")]));
    scene.wait_finished(SOON, "the logout is applied");
    worker.kill();
    let applied = Instant::now();
    let late = ("time", "9999999999999");
    scene.add(&pairs(&[("type", "view"), ("user", "u"), ("token", "t"), ("item", "i"), late]));
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", "{}"), late]));
    let keys = scene.deployment.keys(0);
    // Three seconds: the entries are that much younger than the logout, and no older.
    let _janitor = scene.janitor(&["--keep", "0s", "--horizon", "3s"]);
    wait_until(SOON, "the horizon passes", || applied.elapsed() > Duration::from_millis(4_500));
    assert!(scene.command::<bool>(&["EXISTS", &keys.tokens_ended()]), "an entry is unfinished");
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "the old entries are applied");
    for (kind, key, name) in [("HEXISTS", keys.login(), "t"), ("HEXISTS", keys.sessions(), "s")] {
        assert!(!scene.command::<bool>(&[kind, &key, name]), "{key}{name} stays ended");
    }
    assert!(!scene.command::<bool>(&["EXISTS", "session:s"]));
    assert!(!scene.command::<bool>(&["EXISTS", "viewed:t"]));
    // No older entry can come any more.
    scene.add_heartbeat("later");
    wait_until(SOON, "then the tombstones go", || {
        !scene.command::<bool>(&["EXISTS", &keys.tokens_ended()])
    });
}

#[test]
fn other_settings_are_refused_with_the_remedy() {
    let scene = Scene::start(&[]);
    let mut first = scene.worker(&[]);
    scene.wait_owned();
    for (role, other) in [
        ("worker", ["--thresholds", "3:1"]),
        ("janitor", ["--recent-cap", "5"]),
        ("run", ["--presence-ttl", "10s"]),
    ] {
        let mut second = Worker::start_as(role, &scene.url(), &other, &[]);
        assert_eq!(second.exit_code(SOON), 1, "{role} {other:?}");
        let remedy = format!("rollcall rebuild --change-settings {} {}", other[0], other[1]);
        assert!(
            second.log().contains(&remedy) && second.log().contains(other[1]),
            "{}",
            second.log()
        );
    }
    assert!(first.runs());
    assert_eq!(scene.workers().len(), 1, "who is refused leaves nothing behind");
    scene.add_random(1, 20);
    scene.wait_finished(SOON, "the first goes on");
    scene.verify("after refusals");
    scene.drain(first);
    let words = ["rebuild", "--change-settings", "--thresholds", "3:1", "--yes"];
    assert_eq!(ask_at(&scene.url(), &words).0, 0);
    let mut second = Worker::start(&scene.url(), &["--thresholds", "3:1"], &[]);
    wait_until(SOON, "the remedy helps", || second.log().contains("took the partition"));
    assert_eq!(second.terminate(), 0);
}

#[test]
fn another_number_of_partitions_is_refused() {
    in_parallel([("1", "4"), ("4", "1"), ("4", "64"), ("8", "4")], |(own, other)| {
        let scene = Scene::start(&[("partitions", own)]);
        let worker = scene.worker(&[]);
        scene.wait_owned();
        let mut second = Worker::start(&scene.url(), &["--partitions", other], &[]);
        assert_eq!(second.exit_code(Duration::from_secs(5)), 64, "{own} partitions, then {other}");
        let metas: Vec<String> = scene.command(&["KEYS", "*rollcall:meta"]);
        assert_eq!(metas.len().to_string(), own, "no other partition is begun: {metas:?}");
        drop(worker);
    });
}
