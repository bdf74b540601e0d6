//! What earlier layouts leave: changes, streams, notes of an erasure, and runs of the command that were overtaken.

use rollcall::key::{Keys, partition_of};
use rollcall::redis::scripts::erase::Eraser;
use rollcall::redis::scripts::repartition::{Kind, Layout, Move, Row};
use serde_json::{Value, json};

use super::ground::EVENTS;
use super::run;
use crate::erase::{forms, places};
use crate::harness::wait_until;
use crate::listen::client::{Client, address};
use crate::notifier::{Heard, Stage};
use crate::query::ground::ask_at;
use crate::scene::{SOON, Scene, add, block_on, heartbeat};
use crate::support::dump;
use crate::support::events::field;

/// To another layout and back, with the partition of before.
#[test]
fn back_in_a_layout_its_old_changes_are_not_told_again_and_its_old_positions_are_gaps() {
    let plain = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n";
    let stage = Stage::start(&[], plain);
    let heard = Heard::on(&stage, "news");
    let mut notifier = stage.notifier_of(&["plain"]);
    stage.come(0..3);
    stage.wait_told("plain");
    assert_eq!(notifier.terminate(), 0);
    stage.come(3..5);
    let serve = stage.scene.serve(&[]);
    let position = Client::open(address(&serve), "snapshot=1", "", "").next().id;
    let (fine, said) = run(&stage.scene, &["--to", "2", "--yes"]);
    assert!(
        fine && said.contains("2 changes in removed partitions never reached the target plain."),
        "{said}"
    );
    let (fine, said) = run(&stage.scene, &["--partitions", "2", "--to", "1", "--yes"]);
    assert!(fine && said.contains("has 1 partition instead of 2"), "{said}");
    assert!(!said.contains("never reached"), "{said}");
    let _worker = stage.scene.worker(&[]);
    let _notifier = stage.notifier(&[]);
    stage.come(5..7);
    stage.wait_told("plain");
    heard.wait_for(5);
    let users: Vec<_> = heard.all().iter().map(|change| change["user"].clone()).collect();
    assert_eq!(users, ["u00000", "u00001", "u00002", "u00005", "u00006"]);
    let serve = stage.scene.serve(&[]);
    assert_eq!(Client::open(address(&serve), "", &position, "").next().name, "gap");
}

/// In the stream of the earlier layout, in its changes, and in the notes of an erasure that was stopped.
#[test]
fn a_user_is_erased_from_what_an_earlier_layout_left() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    let view = |user: &str, item: &str| json!({"type": "view", "user": user, "token": format!("t {user}"), "item": item});
    let packed = json!([view("vic", "one"), view("bob", "two")]).to_string();
    scene.add_heartbeat("vic");
    scene.add(&[field("data", &packed)]);
    scene.wait_finished(SOON, "it was applied");
    scene.drain(worker);
    let noted =
        Eraser::new(&scene.deployment.config.deployment, &Keys::new("", 1, 0), "vic", false);
    scene.command::<u64>(&["SADD", &noted.noted_key(), "tgone"]);
    let now = scene.now().to_string();
    scene.command::<u64>(&["ZADD", "rollcall:tokens:ended", &now, "gone"]);
    let (fine, said) = run(&scene, &["--to", "2", "--yes"]);
    assert!(fine, "{said}");
    // Sent to the earlier layout, and not forwarded yet.
    scene.add_heartbeat("vic");
    scene.add(&[field("data", &packed)]);
    let mut conn = scene.connection();
    assert!(!places(&mut conn, &forms("vic")).is_empty());
    let words = ["erase", "vic", "--yes", "--json", "--partitions", "2"];
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let receipt: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&receipt["entries"], &receipt["entries_rewritten"]), (&json!(2), &json!(2)));
    assert_eq!(places(&mut conn, &forms("vic")), [""; 0]);
    assert_eq!(
        scene.command::<Vec<String>>(&["KEYS", "*erasing*"]),
        [""; 0],
        "the notes moved along"
    );
    for keys in [0, 1].map(|index| Keys::new("", 2, index)) {
        let ended: Option<String> = scene.command(&["ZSCORE", &keys.tokens_ended(), "gone"]);
        assert_eq!(ended, None, "what the notes named is erased");
    }
    let _worker = scene.worker(&["--partitions", "2"]);
    let views = Keys::new("", 2, partition_of("bob", 2)).viewed();
    let others = Keys::new("", 2, partition_of("two", 2)).viewed();
    wait_until(SOON, "what is left is forwarded, and each view counted once", || {
        let count = |key: &str| scene.command::<Option<u64>>(&["ZSCORE", key, "two"]);
        let all = [&views, &others].map(|key| count(key).unwrap_or(0));
        if views == others { all[0] == 2 } else { all == [1, 1] }
    });
    assert!(scene.command::<Option<u64>>(&["XLEN", EVENTS]) > Some(0));
    assert_eq!(places(&mut conn, &forms("vic")), [""; 0]);
}

#[test]
fn while_the_state_moves_nobody_looks_for_all_of_it() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.add_heartbeat("ann");
    scene.wait_finished(SOON, "it was applied");
    scene.drain(worker);
    scene.command::<u64>(&["HSET", "rollcall:meta", "moving", "1:4"]);
    for words in [&["erase", "ann", "--yes"][..], &["verify"], &["rebuild", "--yes"]] {
        let (code, _, error) = ask_at(&scene.url(), words);
        assert!(
            code == 1 && error.contains("run this again once that is done"),
            "{words:?}: {error}"
        );
        assert!(error.contains("--partitions 4"), "{words:?}: {error}");
    }
    assert!(scene.command::<bool>(&["HEXISTS", "presence:users", "ann|"]));
}

/// A run that was stopped, and wakes after another one has completed the move.
#[test]
fn a_run_that_was_overtaken_changes_nothing() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.add(&heartbeat("ann"));
    scene.wait_finished(SOON, "it was applied");
    scene.drain(worker);
    let (fine, said) = run(&scene, &["--to", "2", "--yes"]);
    assert!(fine, "{said}");
    let all = || [0, 1].map(|index| dump::dump(&mut scene.connection(), &Keys::new("", 2, index)));
    let (before, from, to) = (all(), Keys::new("", 1, 0), Keys::new("", 2, 0));
    block_on(async {
        let mut connection = scene.deployment.async_connection(0).await;
        let this = Move::new(1, 2);
        let row = [Row::new("ann".to_owned(), from.base().to_owned())];
        let source = (to.base(), "user-activity/");
        assert_eq!(this.pause(&mut connection, from.base()).await.unwrap(), None);
        assert_eq!(this.members(&mut connection, Kind::Text, source, &row).await.unwrap(), None);
        let places = (from.base(), to.base());
        assert_eq!(this.letters(&mut connection, places, 1).await.unwrap(), None);
        let layout = Layout { new: vec![to.base().to_owned()], ..Layout::default() };
        assert_eq!(this.switch(&mut connection, from.base(), &layout).await.unwrap(), None);
    });
    assert_eq!(all(), before);
}

/// A letter is retried in the stream that it came from, and forwarded from there like other entries.
#[test]
fn letters_of_an_earlier_layout_are_retried_in_this_one() {
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    let users: Vec<String> = (0..12).map(|n| format!("u{n}")).collect();
    let mut layout = 1;
    for next in [4, 3] {
        let worker = scene.worker(&["--partitions", &layout.to_string()]);
        let letters = |partitions| {
            let dead = (0..partitions).map(|index| Keys::new("", partitions, index).dead());
            dead.map(|key| scene.command::<u64>(&["XLEN", &key])).sum::<u64>()
        };
        for user in &users {
            let (user, sid) = (format!("{user}-{next}"), format!("s-{user}"));
            let keys = Keys::new("", layout, partition_of(&user, layout));
            let event = [field("type", "logn"), field("user", &user), field("sid", &sid)];
            add(&mut conn, &keys.named(EVENTS), &event);
        }
        wait_until(SOON, "all are dead letters", || letters(layout) == 12);
        scene.drain(worker);
        let from = layout.to_string();
        let (fine, said) =
            run(&scene, &["--partitions", &from, "--to", &next.to_string(), "--yes"]);
        assert!(fine, "{said}");
        let to = next.to_string();
        let words = ["dead", "retry", "--all", "--set", "type=heartbeat", "--partitions", &to];
        let (code, out, error) = ask_at(&scene.url(), &words);
        assert_eq!((code, error.as_str()), (0, ""), "{out}");
        assert!(out.starts_with("12 dead letters retried."), "{out}");
        let worker = scene.worker(&["--partitions", &to]);
        wait_until(SOON, "they had their effect where they belong", || {
            users.iter().all(|user| {
                let user = format!("{user}-{next}");
                let keys = Keys::new("", next, partition_of(&user, next));
                scene.command::<bool>(&["HEXISTS", &keys.presence(), &format!("{user}|")])
            })
        });
        assert_eq!(letters(next), 0);
        scene.drain(worker);
        layout = next;
    }
}
