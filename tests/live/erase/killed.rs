//! The command is killed at any moment and run again, workers die, and batches are in progress meanwhile.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rollcall::entry::EntryId;
use serde_json::json;

use super::crowd::Crowd;
use super::{erase, forms, places};
use crate::harness::{id, wait_until};
use crate::query::ground::command;
use crate::scene::{SOON, Scene, in_parallel};

const NOBODY: EntryId = EntryId { ms: 0, seq: 0 };

#[test]
fn no_batch_in_hand_brings_the_user_back_and_others_are_applied_once() {
    let points = ["after-read", "after-fold", "before-send", "after-send", "after-reply"];
    in_parallel(points, |point| {
        let scene = Scene::start(&[("thresholds", "2:1")]);
        let mut crowd = Crowd::new(&scene, 11, "vic|%", &["bob", "cy", "ann"]);
        // Each batch ends with an entry that stays as it is.
        let view = |user: &str, n: u32| json!({"type": "view", "user": user, "token": format!("t{user}"), "item": format!("i{n}")});
        for n in 0..42 {
            let both = vec![view("vic|%", n), view("bob", n)];
            crowd.add_packed(&scene, if n % 7 == 6 { vec![view("bob", n)] } else { both });
        }
        crowd.add(&scene, 40);
        let failpoint = format!("{point}:4:stop");
        let worker = scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", &failpoint)]);
        wait_until(SOON, "it stands still with a batch in hand", || worker.is_stopped());
        erase(&scene, &crowd.user, &["--yes"]);
        let mut conn = scene.connection();
        assert_eq!(places(&mut conn, &forms(&crowd.user)), [""; 0], "{point}: erased");
        worker.signal("CONT");
        scene.wait_finished(SOON, "applied");
        assert_eq!(places(&mut conn, &forms(&crowd.user)), [""; 0], "{point}: stays erased");
        crowd.verify(&scene, NOBODY, point);
        crowd.verify_letters(&scene);
        crowd.verify_numbers(&scene);
    });
}

#[test]
fn what_is_erased_unread_is_not_lost() {
    let scene = Scene::start(&[]);
    let (worker, janitor) = (scene.worker(&[]), scene.janitor(&["--http", "127.0.0.1:0"]));
    scene.add_heartbeat("bob");
    scene.wait_finished(SOON, "applied");
    scene.wait_for_round();
    scene.drain(worker);
    let mut crowd = Crowd::new(&scene, 2, "vic", &["bob"]);
    crowd.add(&scene, 40);
    let receipt = erase(&scene, "vic", &["--yes"]);
    assert!(receipt["entries"].as_u64() > Some(0), "{receipt}");
    let worker = scene.worker(&[]);
    scene.wait_finished(SOON, "applied");
    scene.wait_for_round();
    assert_eq!(crate::scene::metric(&janitor, "rollcall_entries_lost_total"), 0.0);
    // What others remove unread is lost, as ever.
    scene.drain(worker);
    let id = scene.add_heartbeat("bob").to_string();
    scene.command::<u64>(&["XDEL", "rollcall:events", &id]);
    scene.wait_for_round();
    assert_eq!(crate::scene::metric(&janitor, "rollcall_entries_lost_total"), 1.0);
}

/// Others go on meanwhile; longer with `ROLLCALL_TEST_ROUNDS`.
#[test]
fn killed_at_random_under_traffic_it_ends_with_nothing_left_and_nothing_of_others_changed() {
    let rounds = std::env::var("ROLLCALL_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let seed = std::env::var("ROLLCALL_TEST_SEED").map_or(7, |n| n.parse().unwrap());
    (seed..seed + rounds).for_each(kill_at_random);
}

fn kill_at_random(seed: u64) {
    let scene = Scene::start(&[("partitions", "2"), ("thresholds", "2:1")]);
    let mut crowd = Crowd::new(&scene, seed, "vic*|", &["bob", "cy", "ann"]);
    let mut rng = Rng::with_seed(seed);
    let mut worker = scene.worker(&["--batch", "40"]);
    let janitor = scene.janitor(&["--http", "127.0.0.1:0"]);
    crowd.add(&scene, 400);
    let stop = AtomicBool::new(false);
    let kills = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            crowd.only_others = true;
            while !stop.load(Ordering::Relaxed) {
                crowd.add(&scene, 3);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut kills = 0;
        loop {
            let words = ["erase", "vic*|", "--yes", "--json", "--partitions", "2"];
            let mut command = command(&scene.url(), &words);
            let mut child = command.stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(rng.u64(5..60 + 40 * kills)));
            let done = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            if done.is_some_and(|status| status.success()) && kills > 4 {
                break;
            }
            kills += 1;
            assert!(kills < 100, "seed {seed}: it makes no progress");
            if kills % 3 == 0 {
                worker.kill();
                worker = scene.worker(&["--batch", "40"]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        others.join().unwrap();
        kills
    });
    let what = format!("seed {seed}, {kills} kills");
    scene.wait_finished(SOON, &what);
    assert_eq!(places(&mut scene.connection(), &forms("vic*|")), [""; 0], "{what}");
    let poison = scene.letters().iter().filter(|letter| letter.reason == "poison").count();
    assert_eq!(poison, 0, "{what}: written off");
    crowd.verify(&scene, id(0, 0), &what);
    crowd.verify_letters(&scene);
    crowd.verify_numbers(&scene);
    scene.wait_for_round();
    let lost = crate::scene::metric(&janitor, "rollcall_entries_lost_total");
    assert_eq!(lost, 0.0, "{what}: what was erased is not lost");
    eprintln!("{what}");
    drop(worker);
}
