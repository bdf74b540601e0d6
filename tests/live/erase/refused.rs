//! A blocked user: the user's events, and nobody else's, are refused for the horizon, whoever applies them and when.

use rollcall::entry::Field;
use serde_json::json;

use super::{erase, forms, places};
use crate::harness::{id, wait_until};
use crate::scene::{SOON, Scene, Traffic, add, heartbeat, metric};
use crate::support::dump;
use crate::support::events::field;

fn packed(events: &serde_json::Value) -> Vec<Field> {
    vec![("data".into(), events.to_string().into_bytes())]
}

#[test]
fn events_of_a_blocked_user_are_refused_up_to_the_horizon_by_every_worker() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&["--http", "127.0.0.1:0"]);
    scene.add_heartbeat("vic");
    scene.wait_finished(SOON, "applied");
    let now = dump::server_now(&mut scene.connection());
    let receipt = erase(&scene, "vic", &["--yes", "--block", "--horizon", "2h"]);
    let until = receipt["blocked_until_ms"].as_u64().unwrap();
    assert!((now + 7_200_000..now + 7_210_000).contains(&until), "{receipt}");
    let more = |n: u32| {
        scene.add_heartbeat("vic");
        scene.add(&packed(&json!([
            {"type": "view", "user": "vic", "token": "tv", "item": "i"},
            {"type": "view", "user": "bob", "token": format!("tb{n}"), "item": "i"},
            {"type": "session", "sid": "sv", "user": "vic", "data": {"a": 1}},
            {"type": "document", "doc": "d", "user": "vic", "action": "join"},
        ])));
        scene.add(&[heartbeat("vicky"), vec![field("doc", "d")]].concat());
        scene.wait_finished(SOON, "applied");
    };
    more(1);
    wait_until(SOON, "counted", || metric(&worker, "rollcall_events_blocked_total") == 4.0);
    let place = format!("{:?}", places(&mut scene.connection(), &forms("vic")));
    assert!(scene.is_present("vicky|") && !scene.is_present("vic|"), "{place}");
    scene.drain(worker);
    let worker = scene.worker(&[]);
    more(2);
    let views: Vec<String> = scene.command(&["ZRANGE", "viewed:", "0", "-1", "WITHSCORES"]);
    assert_eq!(views, ["i", "2"], "others' views in the same entries");
    let counts: Vec<Option<String>> = ["sessions:doc:d:count", "user-activity/vic", "session:sv"]
        .iter()
        .map(|key| scene.command(&["GET", key]))
        .collect();
    assert_eq!(counts, [Some("1".to_owned()), None, None]);
    assert_eq!(scene.letters(), [], "what is refused is kept nowhere");
    // Events that are still in the stream are removed by the next erasure; the block stays.
    erase(&scene, "vic", &["--yes"]);
    let left = places(&mut scene.connection(), &forms("vic"));
    assert!(left.iter().all(|place| place.contains("vicky")), "{left:?}");
    let blocked: Vec<String> = scene.command(&["ZRANGE", "rollcall:blocked", "0", "-1"]);
    assert!(blocked.len() == 1 && !blocked[0].contains("vic"), "{blocked:?}");
    // By the entry's id, not by any clock.
    let later = format!("{}-1", until + 1);
    let mut add_later = redis::cmd("XADD");
    add_later.arg("rollcall:events").arg(&later).arg(&["type", "heartbeat", "user", "vic"]);
    add_later.exec(&mut scene.connection()).unwrap();
    scene.wait_finished(SOON, "applied");
    assert!(scene.is_present("vic|"));
    assert!(add(&mut scene.connection(), "rollcall:events", &heartbeat("vic")) > id(until, 0));
    // A janitor forgets a block that no entry can hit any more.
    let janitor = scene.janitor(&[]);
    scene.command::<u64>(&["ZADD", "rollcall:blocked", "1", "old"]);
    wait_until(SOON, "it is forgotten", || {
        scene.command::<u64>(&["ZCOUNT", "rollcall:blocked", "0", "1"]) == 0
    });
    drop((worker, janitor));
}

#[test]
fn a_user_who_goes_on_all_the_time_is_gone_once_blocked() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&["--batch", "100"]);
    let traffic = Traffic::start_from(&scene, 0, 600, Box::new(|| (0, heartbeat("vic"))));
    wait_until(SOON, "there is something", || traffic.added().len() > 30);
    erase(&scene, "vic", &["--yes"]);
    let receipt = erase(&scene, "vic", &["--yes", "--block"]);
    assert!(receipt["blocked_until_ms"].is_u64(), "{receipt}");
    traffic.stop();
    let receipt = erase(&scene, "vic", &["--yes"]);
    assert_eq!(receipt["still_active"], false, "{receipt}");
    scene.wait_finished(SOON, "applied");
    assert_eq!(places(&mut scene.connection(), &forms("vic")), [""; 0]);
    drop(worker);
}
