//! Strangers that read from the group, move it, destroy it, or change the stream itself. What they do to the group is
//! counted and repaired; nothing is repeated or left out because of it.

use std::time::Duration;

use super::{HTTP, command, pairs, survives};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, in_parallel, metric, try_command};

const STREAM: &str = "rollcall:events";
/// The owner looks twice a second, or as soon as the machine allows.
const A_BEAT: Duration = Duration::from_secs(5);

/// What a stranger may do, in steps. `@` is an entry that was not applied yet.
const DEEDS: [&str; 12] = [
    "XREADGROUP GROUP rollcall ghost COUNT 20 STREAMS rollcall:events >",
    "XREADGROUP GROUP rollcall ghost COUNT 20 NOACK STREAMS rollcall:events >",
    "XREADGROUP GROUP rollcall ghost STREAMS rollcall:events >; XACK rollcall:events rollcall @",
    "XREADGROUP GROUP rollcall ghost STREAMS rollcall:events >; XGROUP DELCONSUMER rollcall:events rollcall ghost",
    "XGROUP SETID rollcall:events rollcall $",
    "XGROUP SETID rollcall:events rollcall 0; XGROUP SETID rollcall:events rollcall $",
    "XGROUP SETID rollcall:events rollcall $; XGROUP SETID rollcall:events rollcall 0 ENTRIESREAD 3",
    "XGROUP SETID rollcall:events rollcall 9999999999999-0",
    "XGROUP DESTROY rollcall:events rollcall",
    "XGROUP DESTROY rollcall:events rollcall; XGROUP CREATE rollcall:events rollcall $",
    "XGROUP DESTROY rollcall:events rollcall; XGROUP CREATE rollcall:events rollcall 0",
    "XCLAIM rollcall:events rollcall ghost 0 @ FORCE JUSTID; XAUTOCLAIM rollcall:events rollcall ghost 0 0",
];

fn do_deed(scene: &Scene, deed: &str, id: &str) {
    for step in deed.replace('@', id).split("; ") {
        command(scene, &step.split(' ').collect::<Vec<_>>());
    }
}

fn interferences(worker: &Worker) -> f64 {
    metric(worker, "rollcall_group_interferences_total")
}

/// While nothing else happens the owner notices by itself, on its beat.
#[test]
fn what_strangers_do_to_an_idle_group_is_counted_and_set_right_within_the_beat() {
    let deeds = DEEDS.into_iter().filter(|deed| {
        // The others have no effect if nothing is waiting.
        ["DESTROY", "SETID", "XCLAIM"].iter().any(|word| deed.contains(word))
            && !deed.ends_with("$")
    });
    in_parallel(deeds, |deed| {
        let scene = Scene::start(&[]);
        let worker = scene.worker(&HTTP);
        scene.add_random(1, 50);
        scene.wait_finished(SOON, "applied");
        let _janitor = scene.janitor(&[]);
        let id = scene.cursor().unwrap();
        for round in 1..=2 {
            do_deed(&scene, deed, &id);
            wait_until(A_BEAT, deed, || {
                interferences(&worker) >= f64::from(round) && scene.is_finished()
            });
            scene.wait_for_round();
        }
        worker.says("another program read from, moved or destroyed");
        scene.add_random_later(2, 50);
        scene.wait_finished(SOON, "goes on");
        scene.verify(deed);
    });
}

/// The owner is stopped for a moment, so that entries wait and the stranger can read them.
#[test]
fn what_strangers_do_while_entries_wait_repeats_nothing_and_skips_nothing() {
    in_parallel(DEEDS, |deed| {
        let scene = Scene::start(&[]);
        let worker = scene.worker(&["--takeover", "10s", HTTP[0], HTTP[1]]);
        scene.add_random(3, 50);
        scene.wait_finished(SOON, "applied");
        let _janitor = scene.janitor(&[]);
        for round in 0..3 {
            worker.signal("STOP");
            scene.add_random_later(4 + round, 60);
            let id = scene.add_heartbeat("waits").to_string();
            do_deed(&scene, deed, &id);
            worker.signal("CONT");
            scene.wait_finished(SOON, "goes on");
            scene.wait_for_round();
        }
        if deed.starts_with("XREADGROUP GROUP rollcall ghost COUNT 20 STREAMS") {
            assert!(interferences(&worker) >= 20.0, "pending ones of strangers are counted");
        }
        scene.verify(deed);
    });
}

#[test]
fn strangers_under_traffic_repeat_nothing_and_skip_nothing() {
    let mut scene = Scene::start(&[]);
    let _janitor = scene.janitor(&[]);
    survives("strangers", &mut scene, 24, |scene, rng| {
        let id = scene.cursor().unwrap_or_else(|| "0-1".to_owned());
        for step in rng.choice(DEEDS).unwrap().replace('@', &id).split("; ") {
            // An earlier step may have left nothing to do.
            let words: Vec<_> = step.split(' ').collect();
            let _any = try_command::<redis::Value>(&mut scene.connection(), &words);
        }
    });
}

/// Everything that Rollcall knows of its position, except one of the three copies.
#[test]
fn of_three_copies_of_the_cursor_one_is_enough() {
    in_parallel(
        [
            "DEL rollcall:meta; XGROUP DESTROY rollcall:events rollcall",
            "DEL rollcall:meta rollcall:janitor",
            "DEL rollcall:janitor; XGROUP DESTROY rollcall:events rollcall",
            "DEL rollcall:meta; XGROUP SETID rollcall:events rollcall 0",
        ],
        |deed| {
            let mut scene = Scene::start(&[]);
            survives(deed, &mut scene, 6, |scene, _| {
                let mut at_once = redis::pipe();
                at_once.atomic();
                for step in deed.split("; ") {
                    let mut words = step.split(' ');
                    at_once.cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>());
                }
                // The group may be gone already.
                let _any = at_once.query::<redis::Value>(&mut scene.connection());
            });
        },
    );
}

fn view(scene: &Scene, item: &str) {
    let view = [("type", "view"), ("user", "u"), ("token", "t"), ("item", item)];
    scene.add(&pairs(&view));
}

fn views(scene: &Scene, item: &str) -> Option<u64> {
    scene.command(&["ZSCORE", "viewed:", item])
}

/// The ids of a producer with a wrong clock, and the doctor's remedy.
#[test]
fn ids_that_are_set_back_repeat_nothing_and_skip_nothing() {
    in_parallel([true, false], |is_idle| {
        let scene = Scene::start(&[]);
        let mut worker = scene.worker(&[]);
        (0..3).for_each(|_| view(&scene, "before"));
        let far = "1790000000000000-0";
        scene.command::<String>(&["XADD", STREAM, far, "type", "heartbeat", "user", "far"]);
        scene.wait_finished(SOON, "applied");
        let last: String = scene.command(&["HGET", "rollcall:meta", "last_id"]);
        wait_until(SOON, "the owner has seen it", || {
            last == far || { scene.command::<String>(&["HGET", "rollcall:meta", "last_id"]) == far }
        });
        if !is_idle {
            worker.kill();
        }
        let now = crate::support::dump::server_now(&mut scene.connection());
        command(&scene, &["XDEL", STREAM, far]);
        command(&scene, &["XSETID", STREAM, &format!("{now}-0")]);
        (0..2).for_each(|_| view(&scene, "after"));
        if !is_idle {
            worker = scene.worker(&[]);
        }
        wait_until(SOON, "what comes after is applied", || views(&scene, "after") == Some(2));
        scene.wait_finished(SOON, "finished");
        assert_eq!(views(&scene, "before"), Some(3), "{}", worker.log());
        assert!(!worker.log().contains("not the one from before"), "{}", worker.log());
    });
}

#[test]
fn other_figures_of_the_stream_repeat_nothing_and_skip_nothing() {
    for figures in [
        "9000000000000-7",
        "9000000000000-7 ENTRIESADDED 90 MAXDELETEDID 0-0",
        "CURSOR ENTRIESADDED 4",
    ] {
        let scene = Scene::start(&[]);
        let worker = scene.worker(&[]);
        (0..4).for_each(|_| view(&scene, "before"));
        scene.wait_finished(SOON, "applied");
        command(&scene, &["XTRIM", STREAM, "MAXLEN", "1"]);
        let words =
            format!("XSETID {STREAM} {figures}").replace("CURSOR", &scene.cursor().unwrap());
        command(&scene, &words.split(' ').collect::<Vec<_>>());
        (0..2).for_each(|_| view(&scene, "after"));
        wait_until(SOON, "what comes after is applied", || views(&scene, "after") == Some(2));
        scene.wait_finished(SOON, "finished");
        assert_eq!(views(&scene, "before"), Some(4), "{figures}:\n{}", worker.log());
    }
}

/// Begun again with ids smaller than the cursor, or with fewer entries, with or without an owner that looks.
#[test]
fn a_stream_that_begins_again_is_read_from_its_beginning_and_once() {
    in_parallel(
        [(true, true), (true, false), (false, true), (false, false)],
        |(is_far, is_idle)| {
            let scene = Scene::start(&[]);
            let mut worker = scene.worker(&[]);
            (0..5).for_each(|_| view(&scene, "before"));
            if is_far {
                let far =
                    ["XADD", STREAM, "1790000000000000-0", "type", "heartbeat", "user", "far"];
                scene.command::<String>(&far);
            }
            scene.wait_finished(SOON, "applied");
            if !is_idle {
                worker.kill();
            }
            let mut begin = redis::pipe();
            begin.atomic().cmd("DEL").arg(STREAM);
            let count = if is_far { 8 } else { 3 };
            for _ in 0..count {
                let view = ["type", "view", "user", "u", "token", "t", "item", "after"];
                begin.cmd("XADD").arg(STREAM).arg("*").arg(&view);
            }
            begin.exec(&mut scene.connection()).unwrap();
            if !is_idle {
                worker = scene.worker(&[]);
            }
            scene.wait_finished(SOON, "the new stream is read");
            worker.says("the stream is not the one from before");
            view(&scene, "after");
            scene.wait_finished(SOON, "goes on");
            assert_eq!(
                (views(&scene, "before"), views(&scene, "after")),
                (Some(5), Some(count + 1))
            );
        },
    );
}
