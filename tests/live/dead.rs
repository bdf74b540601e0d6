//! Dead letters, retried and dropped: none twice, none lost, and the state is what it would have been.

mod death;
mod refusals;

use std::process::Command;

use redis::Connection;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::key::partition_of;
use serde_json::{Value, json};

use crate::harness::{id, read_stream, settle, xadd};
use crate::query::ground::{ask_at, command};
use crate::scene::{SOON, Scene, block_on};
use crate::support::dump;
use crate::support::events::field;

/// The JSON output of `rollcall dead …`, which must succeed.
fn dead(scene: &Scene, words: &[&str]) -> Value {
    let (code, out, error) = say(scene, words);
    assert_eq!((code, error.as_str()), (0, ""), "{words:?}: {out}");
    serde_json::from_str(&out).unwrap()
}

fn say(scene: &Scene, words: &[&str]) -> (i32, String, String) {
    let partitions = scene.deployment.partitions().to_string();
    let end = ["--json", "--partitions", &partitions];
    ask_at(&scene.url(), &[&["dead"], words, &end].concat())
}

fn start(scene: &Scene, words: &[&str]) -> Command {
    let mut command = command(&scene.url(), &[&["dead"], words].concat());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

/// Adds an entry under an id.
fn add(conn: &mut Connection, stream: &str, id: &str, fields: &[Field]) -> EntryId {
    let mut command = redis::cmd("XADD");
    command.arg(stream).arg(id);
    xadd(&mut command, fields);
    command.query::<String>(conn).unwrap().parse().unwrap()
}

/// Adds a dead letter according to the contract.
fn letter(conn: &mut Connection, header: [&str; 6], fields: &[Field]) -> EntryId {
    let names = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];
    let header = names.iter().zip(header).map(|(name, value)| field(name, value));
    let all: Vec<Field> = header.chain(fields.iter().cloned()).collect();
    add(conn, "rollcall:dead", "*", &all)
}

fn count_letters(scene: &Scene) -> u64 {
    let of = |partition| scene.command::<u64>(&["XLEN", &scene.deployment.keys(partition).dead()]);
    (0..scene.deployment.partitions()).map(of).sum()
}

/// Wrong entries, each with its correct form.
fn mistakes(partition: u16, partitions: u16) -> Vec<(Vec<Field>, Vec<Field>)> {
    let user = |name: &str| {
        let mut names = (0..).map(|n| format!("{name}{n}"));
        names.find(|user| partition_of(user, partitions) == partition).unwrap()
    };
    let (ann, bob, eve) = (user("ann\n"), user("bob|"), user("eve"));
    let data = |value: &Value| vec![("data".into(), value.to_string().into_bytes())];
    let view = |kind: &str, user: &str, item: &str| json!({"type": kind, "user": user, "token": format!("t-{user}"), "item": item});
    let msgpack = |kind: &str| {
        let event = json!({"type": kind, "user": eve, "token": "t-eve", "page": "/m"});
        let packed = rmp_serde::to_vec(&[event]).unwrap();
        vec![field("datacontenttype", "application/msgpack"), ("data".into(), packed)]
    };
    let flat = |kind: &str| {
        vec![field("type", kind), field("user", &ann), field("ua", "x"), field("page", "/p")]
    };
    let later = |kind: &str| [flat(kind), vec![field("time", "9999999999999")]].concat();
    vec![
        (flat("logn"), flat("heartbeat")),
        (later("logn"), later("heartbeat")),
        (data(&view("vew", &ann, "i1")), data(&view("view", &ann, "i1"))),
        (
            data(&json!([
                view("view", &bob, "i1"),
                view("vew", &bob, "i2"),
                view("vew", &eve, "i2")
            ])),
            data(&json!([
                view("view", &bob, "i1"),
                view("view", &bob, "i2"),
                view("view", &eve, "i2")
            ])),
        ),
        (msgpack("hb"), msgpack("heartbeat")),
    ]
}

/// Compares the state with what the entries should have done, each at its own time.
fn verify(scene: &Scene, partition: u16, entries: &[Entry]) {
    let deployment = &scene.deployment;
    let mut model = deployment.model(partition);
    entries.iter().for_each(|entry| model.apply_entry(entry, 0));
    block_on(async {
        let mut connection = deployment.async_connection(partition).await;
        let mut conn = scene.connection();
        let sweeper = deployment.sweeper(partition);
        settle(&mut connection, &mut conn, &sweeper, &model).await.unwrap();
    });
}

#[test]
fn what_is_tried_again_has_the_effect_it_would_have_had_and_views_count_once() {
    for partitions in ["1", "3"] {
        let scene = Scene::start(&[("partitions", partitions), ("max-skew", "60s")]);
        let worker = scene.worker(&[]);
        let mut conn = scene.connection();
        let count = scene.deployment.partitions();
        let mut right = Vec::new();
        for partition in 0..count {
            let ms = dump::server_now(&mut conn) - 20_000;
            let mut entries = Vec::new();
            for (n, (wrong, meant)) in (0..).zip(mistakes(partition, count)) {
                let id = id(ms + 1_000 * n, 7);
                add(&mut conn, &scene.deployment.stream(partition), &id.to_string(), &wrong);
                entries.push(Entry::new(id, meant));
            }
            right.push(entries);
        }
        scene.wait_finished(SOON, "what is wrong becomes dead letters");
        let all = 6 * u64::from(count);
        assert_eq!(count_letters(&scene), all);
        let dry = dead(&scene, &["retry", "--all", "--dry-run"]);
        let expected = json!({"dry_run": true, "matched": all, "retried": 0, "gone": 0, "left": {},
            "fail_again": {"unknown_type": all}});
        assert_eq!(dry, expected);
        for (wrong, right) in [("logn", "heartbeat"), ("vew", "view"), ("hb", "heartbeat")] {
            let set = format!("type={right}");
            let done = dead(&scene, &["retry", "--type", wrong, "--set", &set, "--rate", "1000"]);
            assert_eq!((&done["retried"], &done["matched"]), (&done["matched"], &done["retried"]));
            assert_eq!(done["fail_again"], json!({}), "{wrong}");
        }
        scene.wait_finished(SOON, "they are applied");
        assert_eq!(count_letters(&scene), 0);
        (0..count).zip(&right).for_each(|(partition, entries)| verify(&scene, partition, entries));
        drop(worker);
    }
}

#[test]
fn what_fails_again_names_the_first_entry() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    let whole = scene.add(&[field("type", "x")]);
    let packed = scene.add(&[field("data", r#"[{"type":"heartbeat","user":"a"},{"type":"y"}]"#)]);
    scene.wait_finished(SOON, "dead");
    for _ in 0..3 {
        assert_eq!(dead(&scene, &["retry", "--since", "1h"])["retried"], 2);
        scene.wait_finished(SOON, "dead again");
        let letters = &dead(&scene, &["list"])["letters"];
        let firsts = [format!("{packed}/1"), whole.to_string()];
        assert_eq!(
            (&letters[0]["retry_of"], &letters[1]["retry_of"]),
            (&json!(firsts[0]), &json!(firsts[1]))
        );
        assert_eq!((&letters[0]["index"], letters.as_array().unwrap().len()), (&json!(0), 2));
        assert_ne!(letters[1]["entry_id"], json!(whole.to_string()));
    }
    let (_, page, _) = ask_at(&scene.url(), &["dead", "list"]);
    assert!(page.contains(&format!("tries {whole} again")), "{page}");
    // By the entry's id, and by the letter's own.
    let letters = &dead(&scene, &["list"])["letters"];
    let (entry, own) =
        (letters[0]["entry_id"].as_str().unwrap(), letters[1]["id"].as_str().unwrap());
    assert_eq!(dead(&scene, &["list", "--entry", entry])["letters"], json!([letters[0]]));
    assert_eq!(dead(&scene, &["drop", "--entry", entry])["dropped"], 1);
    assert_eq!(dead(&scene, &["drop", own])["dropped"], 1);
    let (code, _, error) = say(&scene, &["drop", own]);
    assert!(code == 1 && error.contains("no dead letter with this id"), "{error}");
}

#[test]
fn an_id_means_one_letter_and_no_entry_and_no_other_partition() {
    let scene = Scene::start(&[("partitions", "2")]);
    let mut conn = scene.connection();
    let mut letter = |partition: u16, id: &str, entry_id: &str| {
        let header = [("entry_id", entry_id), ("reason", "x"), ("detail", ""), ("deliveries", "1")];
        let end = [("index", ""), ("stream", "rollcall:{p0}:events"), ("type", "hartbeat")];
        let pairs = header.iter().chain(&end).map(|(name, value)| field(name, value));
        add(&mut conn, &scene.deployment.keys(partition).dead(), id, &pairs.collect::<Vec<_>>());
    };
    for partition in 0..2 {
        letter(partition, "5-0", "4-0");
        letter(partition, "5-1", "5-0");
    }
    let ids = |scene: &Scene| -> Vec<String> {
        let letters = dead(scene, &["list"])["letters"].as_array().unwrap().clone();
        letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&scene), ["0:5-1", "1:5-1", "0:5-0", "1:5-0"]);
    let shown = |id: &str| -> Vec<String> {
        let letters = dead(&scene, &["show", id]).as_array().unwrap().clone();
        letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (shown("1:5-0"), shown("5-0")),
        (vec!["1:5-0".into()], vec!["0:5-0".into(), "1:5-0".into()])
    );
    assert_eq!(shown("4-0"), ["0:5-0", "1:5-0"]);
    assert_eq!(dead(&scene, &["drop", "1:5-0"])["dropped"], 1);
    assert_eq!(ids(&scene), ["0:5-1", "1:5-1", "0:5-0"]);
    // The same again finds nothing, although there are letters of an entry 5-0.
    assert_eq!(say(&scene, &["drop", "1:5-0"]).0, 1);
    assert_eq!(dead(&scene, &["drop", "5-0"])["dropped"], 1);
    assert_eq!(say(&scene, &["drop", "5-0"]).0, 1);
    assert_eq!(
        (ids(&scene), shown("5-0")),
        (vec!["0:5-1".into(), "1:5-1".into()], vec!["0:5-1".into(), "1:5-1".into()])
    );
    assert_eq!(dead(&scene, &["drop", "--entry", "5-0"])["dropped"], 2);
}

#[test]
fn an_entry_that_met_a_key_of_another_type_counts_its_views_once_it_is_out_of_the_way() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    scene.command::<u64>(&["RPUSH", "viewed:t", "x"]);
    let view = [("type", "view"), ("user", "a"), ("token", "t"), ("item", "books")];
    let view: Vec<Field> = view.iter().map(|(name, value)| field(name, value)).collect();
    let first = scene.add(&view);
    scene.wait_finished(SOON, "dead");
    scene.command::<u64>(&["DEL", "viewed:t"]);
    assert_eq!(dead(&scene, &["retry", "--reason", "wrong_type"])["retried"], 1);
    scene.wait_finished(SOON, "applied");
    assert_eq!(scene.command::<String>(&["ZSCORE", "viewed:", "books"]), "1");
    let again = read_stream(&mut scene.connection(), "rollcall:events").pop().unwrap();
    assert_eq!(again.get(b"retry_of"), Some(first.to_string().as_bytes()));
    verify(&scene, 0, &[Entry::new(first, view)]);
}
