//! What other programs do to single keys: expiries that they set, keys that they remove. What can be repaired is
//! repaired in the promised time, counted and reported; the rest is back with the next event.

mod taken;

use std::time::{Duration, Instant};

use redis::Connection;
use rollcall::redis::scripts::shared_keys;

use crate::harness::wait_until;
use crate::roles::Pages;
use crate::scene::{SOON, Scene, in_parallel};
use crate::support::events::field;
use crate::trouble::command;

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
/// The promised limit for an expiry on a shared key, 2 s, and one more second for a machine that is busy with tests.
const WITHIN: Duration = Duration::from_secs(2 + 1);

/// Adds an event, given as words between spaces.
fn event(scene: &Scene, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    let fields: Vec<_> = words.chunks(2).map(|pair| field(pair[0], pair[1])).collect();
    scene.add(&fields);
}

/// A scene in which every shared key has content.
fn full() -> Scene {
    let scene = Scene::start(&[("thresholds", "1:0")]);
    let _worker = scene.worker(&[]);
    for words in [
        "type heartbeat user al ip 1 page / token t1 sid s1 doc d1 connection c1",
        "type view user al token t1 item i1",
        "type session sid s1 user al data {} ttl 600",
        "type logout user bo ip 2 token t2 sid s2",
        "type document doc d2 user bo action leave",
        "type nonsense user al",
    ] {
        event(&scene, words);
    }
    // The addresses of a user with many are in a key of their own.
    (0..20).for_each(|ip| event(&scene, &format!("type heartbeat user many ip {ip}")));
    scene.wait_finished(SOON, "applied");
    scene
}

fn all(scene: &Scene) -> Vec<String> {
    let keys = shared_keys(&scene.deployment.config.deployment.stream, &scene.deployment.keys(0));
    keys.into_iter().map(|(key, _)| key).collect()
}

/// The remaining time of each key; -1: no expiry, -2: no key.
fn left(conn: &mut Connection, keys: &[String]) -> Vec<i64> {
    let mut ask = redis::pipe();
    keys.iter().for_each(|key| {
        ask.cmd("PTTL").arg(key);
    });
    ask.query(conn).unwrap()
}

/// Sets an expiry on each key; returns how long it takes until none has one any more, and all exist.
fn time_to_keep(scene: &Scene, keys: &[String], ttl_s: u64) -> Duration {
    let mut conn = scene.connection();
    let mut expire = redis::pipe();
    keys.iter().for_each(|key| {
        expire.cmd("EXPIRE").arg(key).arg(ttl_s);
    });
    let set: Vec<u64> = expire.query(&mut conn).unwrap();
    assert!(set.iter().all(|&set| set == 1), "all are there: {keys:?} {set:?}");
    let start = Instant::now();
    wait_until(SOON, "none has an expiry", || left(&mut conn, keys).iter().all(|&left| left < 0));
    let took = start.elapsed();
    let gone: Vec<_> =
        keys.iter().zip(left(&mut conn, keys)).filter(|(_, left)| *left != -1).collect();
    assert!(gone.is_empty(), "{gone:?}");
    took
}

fn repairs(pages: &Pages, what: &str) -> Option<f64> {
    pages.metric(&format!("rollcall_repairs_total{{repair=\"{what}\"}}"))
}

/// Either the janitor or a worker with entries to apply is enough to keep every shared key, with default settings.
#[test]
fn an_expiry_on_a_shared_key_is_taken_off_in_time() {
    in_parallel(["janitor", "worker"], |role| {
        let scene = full();
        let _process = if role == "janitor" {
            scene.janitor(&["--janitor-interval", "1s"])
        } else {
            scene.worker(&[])
        };
        let keys = all(&scene);
        assert!(keys.len() > 20, "{keys:?}");
        for _ in 0..3 {
            if role == "janitor" {
                let took = time_to_keep(&scene, &keys, 6);
                assert!(took < WITHIN, "{role}: {took:?}");
                continue;
            }
            let took = std::thread::scope(|scope| {
                let kept = scope.spawn(|| time_to_keep(&scene, &keys, 6));
                while !kept.is_finished() {
                    event(&scene, "type heartbeat user al");
                    std::thread::sleep(Duration::from_millis(100));
                }
                kept.join().unwrap()
            });
            assert!(took < WITHIN, "{role}: {took:?}");
        }
        scene.wait_finished(SOON, "nothing is in the way");
    });
}

/// The whole story of one key: nobody is lost, each time is counted, and one line reports all of them.
#[test]
fn nobody_is_lost_to_an_expiry_and_it_is_told() {
    let scene = full();
    let janitor = scene.janitor(&HTTP);
    let pages = Pages::of(&janitor);
    let before: u64 = scene.command(&["GET", "rollcall:changes:seq"]);
    for _ in 0..3 {
        command(&scene, &["EXPIRE", "presence:users", "6"]);
        wait_until(WITHIN, "it is taken off", || {
            scene.command::<i64>(&["TTL", "presence:users"]) == -1
        });
    }
    wait_until(SOON, "each is counted", || repairs(&pages, "expiry") == Some(3.0));
    assert!(scene.is_present("al|1"));
    assert_eq!(scene.command::<u64>(&["GET", "rollcall:changes:seq"]), before, "nobody went");
    janitor.says("another program set an expiry");
    let log = janitor.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let told = ["another program set an expiry", "last_key=\"presence:users\""];
    assert_eq!(lines.len(), 1, "{log}");
    assert!(told.iter().all(|words| lines[0].contains(words)), "{log}");
}

/// With an interval of a minute, shared keys are still kept every second.
#[test]
fn between_rounds_that_are_far_apart_keys_are_kept_too() {
    let scene = full();
    let _janitor = scene.janitor(&["--janitor-interval", "60s"]);
    let took = (0..3).map(|_| time_to_keep(&scene, &all(&scene), 6)).max().unwrap();
    assert!(took < WITHIN, "{took:?}");
}

/// Also while a key of another type keeps everybody from working.
#[test]
fn keys_are_kept_while_another_key_is_taken() {
    let scene = full();
    let _janitor = scene.janitor(&[]);
    command(&scene, &["DEL", "recent:"]);
    command(&scene, &["SET", "recent:", "theirs", "EX", "60"]);
    let mut keys = all(&scene);
    keys.retain(|key| key != "recent:");
    // The first call after an error comes a second later.
    time_to_keep(&scene, &keys, 6);
    assert!(scene.command::<i64>(&["TTL", "recent:"]) > 0, "what is theirs stays as they want it");
}

/// Keys of one id are kept when they are written: a token's viewed items, a document's set and count.
#[test]
fn keys_of_one_id_are_kept_where_they_are_written() {
    let scene = full();
    let _worker = scene.worker(&[]);
    let keys = ["viewed:t1", "sessions:doc:d1:users", "sessions:doc:d1:count"];
    keys.iter().for_each(|key| command(&scene, &["EXPIRE", key, "60"]));
    event(&scene, "type view user al token t1 item i1");
    event(&scene, "type document doc d1 user bo action join");
    scene.wait_finished(SOON, "written");
    for key in keys {
        assert_eq!(scene.command::<i64>(&["TTL", key]), -1, "{key}");
    }
    // Keys with their own expiry get it back.
    let own = ["session:s1", "user-activity/al"];
    own.iter().for_each(|key| command(&scene, &["PERSIST", key]));
    event(&scene, "type heartbeat user al sid s1");
    scene.wait_finished(SOON, "written");
    for key in own {
        assert!(scene.command::<i64>(&["TTL", key]) > 0, "{key}");
    }
    scene.verify("after others' expiries");
}

/// Others' `PERSIST` on a turn would make it a turn for ever.
#[test]
fn a_turn_without_an_end_is_ended() {
    let scene = full();
    let janitor = scene.janitor(&HTTP);
    let pages = Pages::of(&janitor);
    for key in ["rollcall:janitor:lease", "rollcall:janitor:survey"] {
        let before = repairs(&pages, "turn");
        // Again if the turn ended in time by itself.
        wait_until(SOON, "it is ended and counted", || {
            scene.command::<u64>(&["PERSIST", key]);
            repairs(&pages, "turn") > before
        });
        wait_until(WITHIN, "it has an end again", || scene.command::<i64>(&["PTTL", key]) != -1);
    }
}
