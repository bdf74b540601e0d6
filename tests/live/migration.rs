//! From state format 1, whose position was the group's with its pending entries, to the cursor.

use std::collections::HashMap;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, in_parallel, wait_for_page};
use crate::support::events::field;

const STREAM: &str = "rollcall:events";
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

fn command(scene: &Scene, words: &str) {
    scene.command::<redis::Value>(&words.split(' ').collect::<Vec<_>>());
}

fn add_views(scene: &Scene, count: usize) {
    for _ in 0..count {
        let view = [("type", "view"), ("user", "u"), ("token", "t"), ("item", "i")];
        scene.add(&view.map(|(name, value)| field(name, value)));
    }
}

fn views(scene: &Scene) -> Option<u64> {
    scene.command(&["ZSCORE", "viewed:", "i"])
}

/// The state of the previous version: ten views applied, two still to come, and its bookkeeping.
fn old_state(pending: usize) -> Scene {
    let scene = Scene::start(&[]);
    add_views(&scene, 10);
    let worker = scene.worker(&[]);
    scene.wait_finished(SOON, "the state is there");
    scene.drain(worker);
    let settings: HashMap<String, String> = scene.command(&["HGETALL", "rollcall:meta"]);
    let of_format_2 = ["owner", "term", "fence", "cursor", "beat", "read", "last_id", "added"];
    let of_format_2 = of_format_2.into_iter().chain(["deleted", "named", "deaths", "heir", "ask"]);
    let gone: Vec<_> = of_format_2.filter(|name| settings.contains_key(*name)).collect();
    command(&scene, &format!("HDEL rollcall:meta {}", gone.join(" ")));
    command(&scene, "HSET rollcall:meta format 1");
    command(&scene, "HDEL rollcall:janitor cursor");
    command(&scene, "DEL rollcall:workers");
    command(&scene, "ZADD rollcall:consumers 1790000000000 old-1-ab");
    command(&scene, "HSET rollcall:suspects 1-1 1");
    add_views(&scene, 2);
    if pending > 0 {
        let read = format!("XREADGROUP GROUP rollcall old-1-ab COUNT {pending} STREAMS {STREAM} >");
        command(&scene, &read);
    }
    scene
}

#[test]
fn with_nothing_pending_it_goes_on_where_the_group_is() {
    in_parallel([true, false], |janitor_comes_first| {
        let scene = old_state(0);
        let _janitor = janitor_comes_first.then(|| scene.janitor(&[]));
        if janitor_comes_first {
            let format = || scene.command::<String>(&["HGET", "rollcall:meta", "format"]);
            wait_until(SOON, "the format is the new one", || format() == "2");
            // An old worker that has not noticed yet; what it reads is not applied.
            command(&scene, &format!("XREADGROUP GROUP rollcall old-1-ab STREAMS {STREAM} >"));
        }
        let _worker = scene.worker(&[]);
        scene.wait_finished(SOON, "goes on");
        assert_eq!(views(&scene), Some(12), "each view once");
        let old = ["rollcall:consumers", "rollcall:suspects"];
        assert_eq!(scene.command::<u64>(&["EXISTS", old[0], old[1]]), 0, "old keys are gone");
        assert_eq!(scene.command::<String>(&["HGET", "rollcall:meta", "format"]), "2");
        add_views(&scene, 3);
        scene.wait_finished(SOON, "goes on");
        scene.verify("migrated");
    });
}

/// The group was destroyed, but the janitor had recorded its position.
#[test]
fn without_the_group_it_goes_on_where_the_janitor_says_that_it_was() {
    let scene = old_state(0);
    let groups: Vec<HashMap<String, redis::Value>> = scene.command(&["XINFO", "GROUPS", STREAM]);
    let finished: String = redis::from_redis_value(groups[0]["last-delivered-id"].clone()).unwrap();
    command(&scene, &format!("HSET rollcall:janitor finished:rollcall {finished}"));
    command(&scene, &format!("XGROUP DESTROY {STREAM} rollcall"));
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "goes on");
    assert_eq!(views(&scene), Some(12), "each view once");
    let noted: bool = scene.command(&["HEXISTS", "rollcall:janitor", "finished:rollcall"]);
    assert!(!noted, "old notes are gone");
    scene.verify("migrated");
}

#[test]
fn with_entries_pending_it_is_refused_until_they_are_finished() {
    for role in ["worker", "janitor", "run"] {
        let scene = old_state(2);
        let mut process = Worker::start_as(role, &scene.url(), &HTTP, &[]);
        let remedy = "2 entries of rollcall:events that the previous version read are pending in the group \
                      rollcall; let its workers finish, or stop them once XPENDING";
        wait_for_page(&process, "/readyz", |status, body| status == 503 && body.contains(remedy));
        process.says(remedy);
        assert!(process.runs(), "it waits for them");
        let of = |key: &str, name: &str| scene.command::<Option<String>>(&["HGET", key, name]);
        assert_eq!(of("rollcall:meta", "format").as_deref(), Some("1"), "nothing is touched");
        assert_eq!(of("rollcall:meta", "cursor"), None);
        assert_eq!(scene.command::<u64>(&["EXISTS", "rollcall:suspects"]), 1);
        assert_eq!(views(&scene), Some(10));
        // The old workers finish: their views are counted and acknowledged.
        command(&scene, "ZINCRBY viewed: 2 i");
        let ids: Vec<(String, String, u64, u64)> =
            scene.command(&["XPENDING", STREAM, "rollcall", "-", "+", "10"]);
        for (id, ..) in ids {
            command(&scene, &format!("XACK {STREAM} rollcall {id}"));
        }
        wait_for_page(&process, "/readyz", |status, _| status == 200);
        let _worker = (role == "janitor").then(|| scene.worker(&[]));
        scene.wait_finished(SOON, "goes on");
        assert_eq!(views(&scene), Some(12), "none is counted again");
        add_views(&scene, 1);
        scene.wait_finished(SOON, "goes on");
        assert_eq!(views(&scene), Some(13));
    }
}

#[test]
fn other_settings_are_refused_before_anything_is_migrated() {
    let scene = old_state(0);
    let mut other = Worker::start(&scene.url(), &["--viewed-cap", "7"], &[]);
    assert_eq!(other.exit_code(SOON), 1, "{}", other.log());
    assert!(other.log().contains("use the same setting everywhere"), "{}", other.log());
    let format: String = scene.command(&["HGET", "rollcall:meta", "format"]);
    assert_eq!(format, "1", "the old version may go on");
    assert_eq!(scene.command::<u64>(&["EXISTS", "rollcall:suspects"]), 1);
}
