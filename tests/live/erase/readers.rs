//! Readers of changes learn that some were erased, in their places, and of no gap.

use serde_json::Value;

use super::{erase, forms, places};
use crate::harness::wait_until;
use crate::listen::client::{Client, address};
use crate::notifier::{Heard, Stage};
use crate::scene::{SOON, Scene, heartbeat};
use crate::support::events::field;

fn come(scene: &Scene, users: &[&str]) {
    for user in users {
        let ips = ["1", "2"].map(|ip| [heartbeat(user), vec![field("ip", ip)]].concat());
        ips.iter().for_each(|fields| _ = scene.add(fields));
    }
    scene.wait_finished(SOON, "applied");
}

/// The next changes up to a number, which must be consecutive.
fn hear(client: &mut Client, last: u64) -> Vec<Value> {
    let mut heard: Vec<Value> = Vec::new();
    while heard.last().is_none_or(|change| change["seq"] != last) {
        let change = client.change();
        let before = heard.last().map_or(Value::Null, |change| change["seq"].clone());
        let follows = before.is_null() || change["seq"].as_u64() == before.as_u64().map(|n| n + 1);
        assert!(follows, "{change} after {before}");
        heard.push(change);
    }
    heard
}

fn kinds(changes: &[Value]) -> Vec<&str> {
    changes.iter().map(|change| change["kind"].as_str().unwrap()).collect()
}

#[test]
fn listeners_hear_that_changes_were_erased_and_of_no_gap() {
    let scene = Scene::start(&[]);
    let (worker, serve) = (scene.worker(&[]), scene.serve(&[]));
    let open = |query: &str, id: &str| Client::open(address(&serve), query, id, "");
    let (mut live, mut copies) = (open("", ""), open("snapshot=1", ""));
    copies.snapshot();
    come(&scene, &["bob"]);
    let bobs = hear(&mut live, 2);
    let after_bob = live.last_id.clone();
    come(&scene, &["vic"]);
    hear(&mut live, 3);
    let within = live.last_id.clone();
    hear(&mut live, 4);
    let after_vic = live.last_id.clone();
    assert_eq!(kinds(&bobs), ["online"; 2]);
    erase(&scene, "vic", &["--yes"]);
    // A listener learns who is gone.
    let gone = hear(&mut live, 6);
    assert!(gone.iter().all(|change| change["kind"] == "offline" && change["user"] == "vic"));
    assert_eq!(kinds(&hear(&mut copies, 6))[4..], ["offline"; 2]);
    assert_eq!(places(&mut scene.connection(), &forms("vic")), [""; 0]);
    // Another process has none of them: at the end of the numbers, where they continue, and with a copy of the state.
    let other = scene.serve(&[]);
    let back = |query: &str, id: &str| Client::open(address(&other), query, id, "");
    let mut at_end = [back("", &after_vic), back("", &within), back("", &live.last_id)];
    let mut copy = back("snapshot=1", &after_bob);
    come(&scene, &["eve"]);
    for (client, erased) in at_end.iter_mut().zip([2, 3, 0]) {
        let heard = hear(client, 8);
        let mut expected = vec!["erased"; erased];
        expected.extend(["online"; 2]);
        assert_eq!(kinds(&heard), expected);
        assert!(heard.iter().all(|change| change.get("user") != Some(&"vic".into())));
    }
    let mut heard = Vec::new();
    let snapshot = loop {
        let event = copy.next();
        assert_ne!(event.name, "gap");
        if event.name == "snapshot" {
            break event.json();
        }
        heard.push(event.json());
    };
    assert_eq!(kinds(&heard)[..4], ["erased"; 4]);
    let users: Vec<_> =
        snapshot["presence"].as_array().unwrap().iter().map(|p| &p["user"]).collect();
    assert!(!users.contains(&&"vic".into()) && users.contains(&&"bob".into()), "{users:?}");
    let mut later = back("", &after_bob);
    assert_eq!(
        kinds(&hear(&mut later, 8)),
        ["erased", "erased", "erased", "erased", "online", "online"]
    );
    assert_eq!(kinds(&hear(&mut live, 8)), ["online"; 2]);
    assert!(
        !serve.log().contains("changes were lost") && !other.log().contains("changes were lost")
    );
    // What the cap drops afterwards is a gap, as ever.
    scene.command::<u64>(&["XTRIM", "rollcall:changes", "MAXLEN", "1"]);
    assert_eq!(Client::open(address(&other), "", "1.1", "").next().name, "gap");
    drop(worker);
}

#[test]
fn a_target_that_was_away_is_told_what_was_erased_number_by_number() {
    let file = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n\
        [[notify]]\nname = \"rooms\"\nkind = \"socketio-python\"\nchannel = \"socketio\"\n";
    let stage = Stage::start(&[], file);
    let (plain, rooms) = (Heard::on(&stage, "news"), Heard::on(&stage, "socketio"));
    let mut notifier = stage.notifier_of(&["plain", "rooms"]);
    come(&stage.scene, &["bob"]);
    ["plain", "rooms"].iter().for_each(|target| stage.wait_told(target));
    assert_eq!(notifier.terminate(), 0, "{}", notifier.log());
    let before = rooms.all().len();
    come(&stage.scene, &["vic"]);
    erase(&stage.scene, "vic", &["--yes"]);
    come(&stage.scene, &["eve"]);
    let notifier = stage.notifier_of(&["plain", "rooms"]);
    ["plain", "rooms"].iter().for_each(|target| stage.wait_told(target));
    let heard = plain.all();
    assert_eq!(
        kinds(&heard),
        ["online", "online", "erased", "erased", "erased", "erased", "online", "online"]
    );
    let numbers: Vec<_> = heard.iter().map(|change| change["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let told = &rooms.all()[before..];
    let erased = told.iter().filter(|call| call["event"] == "erased").count();
    assert_eq!(erased, 1, "rooms have no numbers: {told:?}");
    assert!(!told.iter().any(|call| call.to_string().contains("vic") || call["event"] == "gap"));
    assert!(!notifier.log().contains("changes were lost"), "{}", notifier.log());
}

#[test]
fn erased_numbers_are_forgotten_with_the_changes_around_them() {
    let scene = Scene::start(&[("changes-cap", "6")]);
    let (worker, janitor) = (scene.worker(&[]), scene.janitor(&[]));
    come(&scene, &["bob"]);
    come(&scene, &["vic"]);
    erase(&scene, "vic", &["--yes"]);
    let numbers = || scene.command::<Vec<u64>>(&["ZRANGE", "rollcall:changes:erased", "0", "-1"]);
    assert_eq!(numbers(), [3, 4, 5, 6]);
    // If others remove the counter, no erased number is assigned again.
    scene.command::<u64>(&["DEL", "rollcall:changes:seq"]);
    come(&scene, &["ann", "cy", "di", "eve"]);
    wait_until(SOON, "the cap has dropped what was around them", || numbers().is_empty());
    assert_eq!(scene.command::<u64>(&["GET", "rollcall:changes:seq"]), 14);
    drop((worker, janitor));
}
