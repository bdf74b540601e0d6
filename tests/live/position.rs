//! The group's position is the cursor, so `XINFO GROUPS` is right for all tools that look at groups.

use std::collections::HashMap;

use crate::harness::wait_until;
use crate::scene::{SOON, Scene};

const STREAM: &str = "rollcall:events";

/// The server's figure for the entries that the group has not read.
fn lag(scene: &Scene) -> Option<u64> {
    let groups: Vec<HashMap<String, redis::Value>> = scene.command(&["XINFO", "GROUPS", STREAM]);
    redis::from_redis_value(groups[0]["lag"].clone()).unwrap()
}

/// The entries behind the cursor.
fn behind(scene: &Scene) -> u64 {
    let after = format!("({}", scene.cursor().unwrap());
    scene.command::<Vec<redis::Value>>(&["XRANGE", STREAM, &after, "+"]).len() as u64
}

fn check(scene: &Scene, what: &str, expected: u64) {
    wait_until(SOON, &format!("{what}: {expected} are behind"), || {
        (lag(scene), behind(scene)) == (Some(expected), expected)
    });
}

#[test]
fn the_lag_is_what_is_behind_the_cursor() {
    let scene = Scene::start(&[]);
    let arguments = ["--takeover", "10s", "--batch", "10"];
    scene.add_random(1, 30);
    let mut worker = scene.worker(&arguments);
    scene.wait_finished(SOON, "applied");
    check(&scene, "at the tail", 0);
    worker.signal("STOP");
    scene.add_random_later(2, 50);
    check(&scene, "while the owner stands still", 50);
    command(&scene, "XTRIM rollcall:events MAXLEN 60");
    check(&scene, "trimmed what is finished", 50);
    worker.signal("CONT");
    scene.wait_finished(SOON, "applied");
    check(&scene, "at the tail again", 0);
    worker.kill();
    scene.add_random_later(3, 20);
    check(&scene, "without an owner", 20);
    let mut worker = scene.worker(&arguments);
    scene.wait_finished(SOON, "applied");
    check(&scene, "after a restart", 0);
    // Trimmed past the cursor: what is left counts, once an owner has looked.
    worker.signal("STOP");
    scene.add_random_later(4, 40);
    command(&scene, "XTRIM rollcall:events MAXLEN 25");
    worker.signal("CONT");
    scene.wait_finished(SOON, "what is left is applied");
    check(&scene, "at the tail after a loss", 0);
    assert_eq!(worker.terminate(), 0);
    check(&scene, "after a stop", 0);
}

/// At every (atomic) look, while batches are applied and others look at the group.
#[test]
fn the_lag_is_right_at_every_moment_of_a_long_backlog() {
    let scene = Scene::start(&[]);
    let look = "local g = redis.call('XINFO', 'GROUPS', KEYS[1])[1]
        local info = {} for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
        local cursor = redis.call('HGET', KEYS[2], 'cursor')
        local behind = #redis.call('XRANGE', KEYS[1], '(' .. cursor, '+')
        return { cursor, info['last-delivered-id'], tostring(info.lag), tostring(behind) }";
    let _worker = scene.worker(&[]);
    scene.wait_owned();
    scene.add_random(5, 2_000);
    let mut looks = 0;
    wait_until(SOON * 2, "all is applied", || {
        let found: Vec<String> =
            scene.command(&["EVAL", look, "2", STREAM, &scene.deployment.keys(0).meta()]);
        assert_eq!((&found[0], &found[2]), (&found[1], &found[3]), "look {looks}: {found:?}");
        looks += 1;
        scene.is_finished()
    });
    assert!(looks > 5, "{looks}");
}

fn command(scene: &Scene, words: &str) {
    scene.command::<redis::Value>(&words.split(' ').collect::<Vec<_>>());
}
