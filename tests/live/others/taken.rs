//! Keys that others remove whole (`DEL`, `RENAME`): what follows from other keys is restored, and the rest is back
//! with the next event.

use std::time::Duration;

use super::{HTTP, event, repairs};
use crate::harness::wait_until;
use crate::roles::Pages;
use crate::scene::{SOON, Scene};
use crate::support::dump;
use crate::trouble::command;

/// The promised limit for documents.
const MINUTE: Duration = Duration::from_secs(60);

fn members(scene: &Scene, key: &str) -> Vec<String> {
    let mut members: Vec<String> = scene.command(&["SMEMBERS", key]);
    members.sort();
    members
}

fn kinds(scene: &Scene) -> Vec<String> {
    let changes = dump::changes(&mut scene.connection(), &scene.deployment.keys(0));
    changes.iter().map(|change| String::from_utf8(change["kind"].clone()).unwrap()).collect()
}

/// A document's set and count, removed or changed, follow the connections again, without a change.
#[test]
fn a_document_s_set_and_count_are_put_back() {
    let scene = Scene::start(&[("thresholds", "3:1")]);
    let _worker = scene.worker(&[]);
    for user in ["al", "bo", "cy"] {
        event(&scene, &format!("type document doc d user {user} action join"));
    }
    scene.wait_finished(SOON, "joined");
    let (users, count) = ("sessions:doc:d:users", "sessions:doc:d:count");
    let before = kinds(&scene);
    let janitor = scene.janitor(&HTTP);
    let pages = Pages::of(&janitor);
    let blows: [&[&str]; 6] = [
        &["DEL", users],
        &["PEXPIREAT", users, "1"],
        &["RENAME", users, "elsewhere"],
        &["DEL", count],
        &["SET", count, "7"],
        &["SREM", users, "bo"],
    ];
    for blow in blows {
        command(&scene, blow);
        wait_until(MINUTE, &format!("it is put back after {blow:?}"), || {
            members(&scene, users) == ["al", "bo", "cy"]
                && scene.command::<Option<String>>(&["GET", count]).as_deref() == Some("3")
        });
    }
    for key in [users, count] {
        command(&scene, &["EXPIRE", key, "50"]);
        wait_until(MINUTE, "its expiry is taken off", || scene.command::<i64>(&["TTL", key]) == -1);
    }
    let counted = || ["user", "count"].map(|what| repairs(&pages, what).unwrap());
    wait_until(SOON, "counted", || counted() == [10.0, 2.0]);
    assert_eq!(kinds(&scene), before, "nobody came or went");
    command(&scene, &["DEL", "elsewhere"]);
    scene.verify("after others took a document's keys");
}

/// With default settings, and more documents than a round examines.
#[test]
fn many_documents_are_put_back_within_a_minute() {
    const DOCS: usize = 1_000;
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&["--batch", "500"]);
    let joins = (0..DOCS)
        .map(|n| format!(r#"{{"type":"document","doc":"d{n}","user":"u","action":"join"}}"#));
    let joins: Vec<_> = joins.collect();
    for packed in joins.chunks(500) {
        scene.add(&[(b"data".to_vec(), format!("[{}]", packed.join(",")).into_bytes())]);
    }
    scene.wait_finished(SOON, "joined");
    let mut taking = redis::pipe();
    (0..DOCS).for_each(|n| {
        taking.cmd("DEL").arg(format!("sessions:doc:d{n}:users"));
    });
    taking.exec(&mut scene.connection()).unwrap();
    let _janitor = scene.janitor(&["--janitor-interval", "1s"]);
    wait_until(MINUTE, "all are back", || {
        let mut asking = redis::pipe();
        (0..DOCS).for_each(|n| {
            asking.cmd("EXISTS").arg(format!("sessions:doc:d{n}:users"));
        });
        asking.query::<Vec<u64>>(&mut scene.connection()).unwrap().iter().sum::<u64>()
            == DOCS as u64
    });
    scene.verify("after others took all sets");
}

/// The joined connections are kept in two keys. Without one of them all users leave, with a change each, and are back
/// with their next event; nobody stays for ever, and nobody leaves with the first of two connections.
#[test]
fn who_is_joined_is_right_again_with_the_next_events() {
    for taken in ["rollcall:docs:joined", "rollcall:docs:connections"] {
        for janitor_mends in [true, false] {
            let scene = Scene::start(&[("thresholds", "3:1")]);
            let _worker = scene.worker(&[]);
            let join = |doc: &str, user: &str, connection: &str| {
                event(
                    &scene,
                    &format!(
                        "type document doc {doc} user {user} connection {connection} action join"
                    ),
                );
            };
            let all = || {
                for user in ["al", "b|o", "cy"] {
                    ["1", "2"].iter().for_each(|connection| join("d", user, connection));
                }
                join("e", "al", "1");
            };
            all();
            scene.wait_finished(SOON, "joined");
            command(&scene, &["DEL", taken]);
            let janitor = janitor_mends.then(|| scene.janitor(&HTTP));
            if let Some(janitor) = &janitor {
                wait_until(SOON, "all have left", || {
                    !scene.command::<bool>(&[
                        "EXISTS",
                        "sessions:doc:d:users",
                        "sessions:doc:e:users",
                    ])
                });
                let pages = Pages::of(janitor);
                wait_until(SOON, "it is counted", || repairs(&pages, "joined") > Some(0.0));
            }
            all();
            scene.wait_finished(SOON, "joined again");
            event(&scene, "type document doc d user al connection 2 action leave");
            event(&scene, "type document doc e user al connection 1 action leave");
            scene.wait_finished(SOON, "left");
            let users = members(&scene, "sessions:doc:d:users");
            assert_eq!(users, ["al", "b|o", "cy"], "{taken}, {janitor_mends}");
            scene.verify(&format!("without {taken}, {janitor_mends}"));
            let left = kinds(&scene).iter().filter(|kind| *kind == "document_left").count();
            assert_eq!(left, 4 + 1, "each once, and e's at the end");
        }
    }
}

/// With more joined connections than a call removes, nobody joins before all are out.
#[test]
fn many_who_are_joined_leave_in_pieces() {
    const USERS: usize = 1_600;
    for taken in ["rollcall:docs:joined", "rollcall:docs:connections"] {
        let scene = Scene::start(&[]);
        let worker = scene.worker(&["--batch", "500"]);
        let all = || {
            let joins = (0..USERS).map(|n| {
                format!(
                    r#"{{"type":"document","doc":"d{}","user":"u{n}","action":"join"}}"#,
                    n % 50
                )
            });
            let joins: Vec<_> = joins.collect();
            for packed in joins.chunks(500) {
                scene.add(&[(b"data".to_vec(), format!("[{}]", packed.join(",")).into_bytes())]);
            }
        };
        all();
        scene.wait_finished(SOON, "joined");
        command(&scene, &["DEL", taken]);
        all();
        scene.wait_finished(SOON * 2, "joined again, by the worker alone");
        worker.says("TORN");
        scene.verify(&format!("without {taken}"));
    }
}

/// Tokens in use stay known, as the oldest; their users are known with their next use.
#[test]
fn tokens_are_whole_again() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    let use_all = || {
        for token in ["t1", "t2"] {
            event(&scene, &format!("type login user al token {token}"));
        }
    };
    use_all();
    scene.wait_finished(SOON, "logged in");
    let janitor = scene.janitor(&HTTP);
    command(&scene, &["DEL", "recent:"]);
    let pages = Pages::of(&janitor);
    wait_until(SOON, "they are recent again", || {
        scene.command::<Vec<String>>(&["ZRANGE", "recent:", "0", "0", "BYSCORE"]) == ["t1", "t2"]
    });
    wait_until(SOON, "counted", || repairs(&pages, "token") == Some(2.0));
    use_all();
    scene.wait_finished(SOON, "used");
    scene.verify("without recent:, after the next use");
    command(&scene, &["DEL", "login:"]);
    use_all();
    scene.wait_finished(SOON, "used");
    assert_eq!(scene.command::<Vec<String>>(&["HVALS", "login:"]), ["al", "al"]);
}

/// Numbering continues from the last existing change.
#[test]
fn changes_go_on_counting() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    for user in ["al", "bo", "cy"] {
        command(&scene, &["DEL", "rollcall:changes:seq"]);
        event(&scene, &format!("type heartbeat user {user}"));
        scene.wait_finished(SOON, "applied");
    }
    assert_eq!(scene.command::<u64>(&["GET", "rollcall:changes:seq"]), 3);
    scene.verify("without the sequence number");
}

/// Users in presence when others removed it are reported offline within a minute; those who are still there are
/// online with the next heartbeat.
#[test]
fn presence_that_is_taken_is_told() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    for words in ["user al ip 1", "user al ip 2", "user bo"] {
        event(&scene, &format!("type heartbeat {words}"));
    }
    scene.wait_finished(SOON, "present");
    command(&scene, &["DEL", "presence:users"]);
    let janitor = scene.janitor(&HTTP);
    wait_until(MINUTE, "all are told offline", || {
        kinds(&scene).iter().filter(|kind| *kind == "offline").count() == 3
    });
    let pages = Pages::of(&janitor);
    wait_until(SOON, "counted", || repairs(&pages, "present") >= Some(2.0));
    event(&scene, "type heartbeat user al ip 1");
    scene.wait_finished(SOON, "back");
    let changes = dump::changes(&mut scene.connection(), &scene.deployment.keys(0));
    let state = dump::dump(&mut scene.connection(), &scene.deployment.keys(0));
    dump::check_changes(&changes, &state, &scene.deployment.keys(0)).unwrap();
}
