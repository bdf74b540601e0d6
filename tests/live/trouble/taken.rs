//! Keys with another program's content, and entries that are gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rollcall::entry::Field;

use super::{HTTP, command, pairs};
use crate::harness::{wait_until, xadd};
use crate::process::is_fault;
use crate::scene::{SOON, Scene, giant, heartbeat, in_parallel, metric, page, wait_for_page};
use crate::support::dump;

#[test]
fn an_entry_whose_key_is_taken_becomes_a_dead_letter_and_the_key_stays() {
    in_parallel(["", "after-reply:1", "after-fold:2"], |failpoint| {
        let scene = Scene::start(&[]);
        let foreign: [&[&str]; 6] = [
            &["RPUSH", "user-activity/x", "theirs"],
            &["SET", "viewed:t", "theirs"],
            &["RPUSH", "session:s", "theirs"],
            &["SET", "sessions:doc:d:users", "theirs"],
            &["RPUSH", "sessions:doc:e:users:count", "theirs"],
            &["SET", "viewed:t%|", "theirs"],
        ];
        foreign.iter().for_each(|words| command(&scene, words));
        let hit: Vec<Vec<Field>> = vec![
            pairs(&[("type", "heartbeat"), ("user", "x")]),
            pairs(&[("type", "view"), ("user", "v"), ("token", "t"), ("item", "i")]),
            pairs(&[("type", "session"), ("sid", "s"), ("data", "{}")]),
            pairs(&[("type", "document"), ("doc", "d"), ("user", "y"), ("action", "join")]),
            pairs(&[("type", "document"), ("doc", "e:users"), ("user", "y"), ("action", "leave")]),
            pairs(&[("type", "view"), ("user", "v"), ("token", "t%|"), ("item", "i")]),
            pairs(&[("type", "heartbeat"), ("user", "x"), ("ip", "2")]),
            pairs(&[(
                "data",
                r#"[{"type":"heartbeat","user":"packed"},{"type":"nonsense"},{"type":"view","user":"x","token":"u","item":"i"}]"#,
            )]),
        ];
        let ids: BTreeSet<_> = hit
            .iter()
            .enumerate()
            .map(|(n, fields)| {
                scene.add_heartbeat(&format!("good{n}"));
                scene.add(fields)
            })
            .collect();
        if !failpoint.is_empty() {
            scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", failpoint)]).wait(SOON);
        }
        let _worker = scene.worker(&[]);
        scene.wait_finished(SOON, "nothing sticks");
        let letters = scene.letters();
        assert!(
            letters.iter().all(|letter| letter.reason == "wrong_type" && letter.index.is_none()),
            "{letters:?}"
        );
        assert_eq!(letters.len(), hit.len(), "each once: {letters:?}");
        assert_eq!(letters.iter().map(|letter| letter.entry).collect::<BTreeSet<_>>(), ids);
        for (letter, fields) in letters.iter().zip(&hit) {
            assert_eq!(letter.original, *fields);
        }
        // Their effects on other keys stand; neighbours are not affected.
        for user in (0..hit.len())
            .map(|n| format!("good{n}|"))
            .chain(["x|", "x|2", "packed|"].map(str::to_owned))
        {
            assert!(scene.is_present(&user), "{user}");
        }
        assert!(scene.command::<bool>(&["HEXISTS", "sessions:active", "s"]));
        assert_eq!(scene.command::<String>(&["HGET", "login:", "t"]), "v");
        assert!(
            !scene.command::<bool>(&["EXISTS", "viewed:"]),
            "views of dead letters are not counted"
        );
        for words in foreign {
            assert_eq!(scene.command::<i64>(&["TTL", words[1]]), -1, "{}", words[1]);
            let kind = if words[0] == "SET" { "string" } else { "list" };
            assert_eq!(scene.command::<String>(&["TYPE", words[1]]), kind, "{}", words[1]);
        }
    });
}

/// Session data that was Rollcall's, then replaced by another program's list of the same name.
#[test]
fn a_key_taken_later_is_left_alone() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", "{}")]));
    scene.wait_finished(SOON, "the data is there");
    command(&scene, &["DEL", "session:s"]);
    command(&scene, &["RPUSH", "session:s", "theirs"]);
    scene.add(&pairs(&[("type", "session"), ("sid", "s")]));
    scene.wait_finished(SOON, "touched");
    assert_eq!(scene.command::<i64>(&["TTL", "session:s"]), -1, "a touch gives it no expiry");
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("action", "terminate")]));
    scene.wait_finished(SOON, "terminated");
    assert_eq!(
        scene.command::<String>(&["TYPE", "session:s"]),
        "list",
        "an ending does not delete it"
    );
}

#[test]
fn a_taken_key_of_a_document_does_not_stop_the_janitor() {
    let scene = Scene::start(&[("document-ttl", "1s")]);
    let _worker = scene.worker(&[]);
    for doc in ["d0", "d1", "d2"] {
        scene.add(&pairs(&[("type", "document"), ("doc", doc), ("user", "u"), ("action", "join")]));
    }
    scene.wait_finished(SOON, "joined");
    command(&scene, &["SET", "sessions:doc:d1:users", "theirs"]);
    let janitor = scene.janitor(&[]);
    let gone = |key: &str| !scene.command::<bool>(&["EXISTS", key]);
    wait_until(Duration::from_secs(5), "the users of the other documents go", || {
        ["d0", "d2"].iter().all(|doc| {
            gone(&format!("sessions:doc:{doc}:users")) && gone(&format!("sessions:doc:{doc}:count"))
        })
    });
    assert_eq!(scene.command::<String>(&["GET", "sessions:doc:d1:users"]), "theirs");
    let changes = dump::changes(&mut scene.connection(), &scene.deployment.keys(0));
    let left = changes.iter().filter(|change| change["kind"] == b"document_left").count();
    assert!(left >= 2, "the changes are recorded: {changes:?}");
    scene.wait_for_round();
    assert!(!janitor.log().contains("not sweeping"), "{}", janitor.log());
}

#[test]
fn a_taken_shared_key_stops_the_worker_until_it_is_free() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&HTTP);
    wait_for_page(&worker, "/readyz", |status, _| status == 200);
    for key in
        ["presence:users", "recent:", "rollcall:dead", "sessions:active", "rollcall:tokens:ended"]
    {
        command(&scene, &["DEL", key]);
        command(&scene, &["SET", key, "theirs"]);
        scene.add(&pairs(&[("type", "nonsense")]));
        scene.add(&pairs(&[("type", "login"), ("user", "u"), ("token", key)]));
        let body = wait_for_page(&worker, "/readyz", |status, _| status == 503);
        assert!(body.contains(key), "says which: {body}");
        assert_eq!(page(&worker, "/livez").0, 200, "waiting is no reason to be restarted");
        assert_eq!(scene.command::<String>(&["GET", key]), "theirs");
        command(&scene, &["DEL", key]);
        scene.wait_finished(SOON, "goes on once the key is free");
        wait_for_page(&worker, "/readyz", |status, _| status == 200);
    }
    let stream = scene.deployment.stream(0);
    command(&scene, &["SET", &stream, "theirs"]);
    wait_for_page(&worker, "/readyz", |status, body| status == 503 && body.contains(&stream));
    command(&scene, &["DEL", &stream]);
    scene.add_heartbeat("after");
    wait_until(SOON, "goes on with the new stream", || scene.is_present("after|"));
}

#[test]
fn a_giant_entry_is_written_off_once_even_if_a_shared_key_is_taken() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.wait_owned();
    command(&scene, &["SET", "presence:users", "theirs"]);
    let id = scene.add(&giant());
    wait_until(SOON, "the worker stops", || worker.log().matches("not projecting").count() >= 2);
    command(&scene, &["DEL", "presence:users"]);
    scene.wait_finished(SOON, "goes on once the key is free");
    let letters = scene.letters();
    assert_eq!(letters.iter().map(|letter| letter.entry).collect::<Vec<_>>(), [id]);
    scene.verify("a giant");
}

#[test]
fn entries_trimmed_before_they_are_applied_are_counted_and_do_not_stick() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    let mut worker = scene.worker(&[]);
    let janitor = scene.janitor(&HTTP);
    let lost = || metric(&janitor, "rollcall_entries_lost_total");
    scene.add_heartbeat("first");
    scene.wait_finished(SOON, "applied");
    scene.wait_for_round();
    // First entries that nobody has read.
    worker.kill();
    for n in 0..5 {
        scene.add_heartbeat(&format!("v{n}"));
    }
    command(&scene, &["XTRIM", &stream, "MAXLEN", "2"]);
    wait_until(SOON, "the loss is counted", || lost() == 3.0);
    let worker = scene.worker(&[]);
    scene.wait_finished(SOON, "what is left is applied");
    janitor.says("trimmed or deleted from the stream before they were applied");

    command(&scene, &["RENAME", "presence:users", "aside"]);
    command(&scene, &["SET", "presence:users", "theirs"]);
    // Then entries that the worker is applying, all at once, and reads again after its failure.
    let mut adding = redis::pipe();
    adding.atomic();
    for n in 0..4 {
        xadd(adding.cmd("XADD").arg(&stream).arg("*"), &heartbeat(&format!("w{n}")));
    }
    adding.exec(&mut scene.connection()).unwrap();
    wait_until(SOON, "it cannot apply them", || worker.log().contains("WRONGKEY"));
    command(&scene, &["XTRIM", &stream, "MAXLEN", "1"]);
    command(&scene, &["RENAME", "aside", "presence:users"]);
    scene.wait_finished(SOON, "goes on without what is gone");
    wait_until(SOON, "the loss is counted", || lost() == 6.0);
    assert!(scene.is_present("w3|"));
}

/// Each entry with too many fields is counted, but the log has only a few lines.
#[test]
fn entries_written_off_by_the_hundred_do_not_flood_the_log() {
    let scene = Scene::start(&[]);
    for _ in 0..100 {
        scene.add(&giant());
    }
    let start = Instant::now();
    let worker = scene.worker(&HTTP);
    wait_until(SOON * 2, "all are counted", || {
        metric(&worker, "rollcall_events_rejected_total") == 100.0
    });
    let seconds = start.elapsed().as_secs() as usize + 1;
    let faults = worker.log().lines().filter(|line| is_fault(line)).count();
    // One line a second, and one for anything else that may go wrong.
    assert!((1..=2 * seconds).contains(&faults), "{faults} in {seconds} s:\n{}", worker.log());
}

/// Presence that was written while another program used a user's activity key is not undone by older events.
#[test]
fn presence_of_a_user_whose_key_was_taken_stays_the_newest() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    let now = dump::server_now(&mut scene.connection());
    let at = |ago_s: u64| heartbeat_at(&scene, now - ago_s * 1000);
    command(&scene, &["RPUSH", "user-activity/u", "theirs"]);
    at(5);
    command(&scene, &["DEL", "user-activity/u"]);
    at(20);
    at(10);
    assert_eq!(last_seen(&scene), now - 5_000);
}

fn heartbeat_at(scene: &Scene, time: u64) {
    let time = time.to_string();
    scene.add(&pairs(&[("type", "heartbeat"), ("user", "u"), ("time", &time)]));
    scene.wait_finished(SOON, "applied");
}

fn last_seen(scene: &Scene) -> u64 {
    let present: String = scene.command(&["HGET", "presence:users", "u|"]);
    serde_json::from_str::<serde_json::Value>(&present).unwrap()["lastSeen"].as_u64().unwrap()
}

/// Nor if another client removed the key.
#[test]
fn presence_of_a_user_whose_activity_was_deleted_stays_the_newest() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    let now = dump::server_now(&mut scene.connection());
    let at = |ago_s: u64| heartbeat_at(&scene, now - ago_s * 1000);
    at(5);
    command(&scene, &["DEL", "user-activity/u"]);
    at(20);
    at(10);
    assert_eq!(last_seen(&scene), now - 5_000);
}
