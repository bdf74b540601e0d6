//! Entries that are no letters, letters that cannot be retried, and refusals of the server.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Scene, add, count_letters, dead, letter, say};
use crate::harness::read_stream;
use crate::scene::SOON;
use crate::support::events::field;

const STREAM: &str = "rollcall:events";

#[test]
fn letters_of_any_bytes_are_tried_and_what_is_none_is_left() {
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    let big = "x".repeat(1_000_000);
    let header = |entry| [entry, "unknown_type", "why\n", "1", "", STREAM];
    let binary = [(b"a\xff\n".to_vec(), b"\0\xfe".to_vec()), field("type", "x"), field("", "")];
    letter(&mut conn, header("5-1"), &binary);
    letter(&mut conn, header("1790000000000-2"), &[field("type", "x"), field("data", &big)]);
    letter(&mut conn, header("7-0"), &[]);
    letter(&mut conn, ["7-1", "x", "", "1", "", "another"], &[field("type", "x")]);
    letter(&mut conn, header("no id"), &[field("type", "x")]);
    letter(&mut conn, ["7-3", "x", "", "1", "index", STREAM], &[field("type", "x")]);
    add(&mut conn, "rollcall:dead", "*", &[field("a", "b")]);
    let left = json!({"empty": 1, "foreign": 3, "other_stream": 1});
    let done = dead(&scene, &["retry", "--all"]);
    assert_eq!((&done["matched"], &done["retried"], &done["left"]), (&json!(7), &json!(2), &left));
    let entries = read_stream(&mut conn, STREAM);
    let fields: Vec<_> = entries[0].fields().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
    assert_eq!(fields[..3], binary);
    assert_eq!(fields[3..], [field("time", "1000000000000"), field("retry_of", "5-1")]);
    assert_eq!(entries[1].get(b"data").unwrap().len(), big.len());
    // They are letters again and can be retried, and the state continues.
    let worker = scene.worker(&[]);
    scene.wait_finished(SOON, "dead again");
    assert_eq!(count_letters(&scene), 7);
    drop(worker);
    assert_eq!(dead(&scene, &["drop", "--reason", "poison"])["matched"], 0);
    assert_eq!(dead(&scene, &["drop", "--until", "1h"])["dropped"], 0);
    let (code, out, error) = say(&scene, &["drop", "--all"]);
    assert!(code == 64 && out.is_empty() && error.contains("--yes"), "{code} {error}");
    assert_eq!(dead(&scene, &["drop", "--all", "--dry-run"])["matched"], 7);
    assert_eq!(dead(&scene, &["drop", "--all", "--yes"])["dropped"], 7);
    assert_eq!(count_letters(&scene), 0);
    let (code, _, error) = say(&scene, &["retry"]);
    assert!(code == 64 && error.contains("--all"), "{error}");
}

/// `script` gives it a terminal.
#[test]
fn who_sits_at_a_terminal_is_asked_before_all_are_dropped() {
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    letter(&mut conn, ["7-0", "x", "", "1", "", STREAM], &[field("type", "x")]);
    let answer = |words: &str, answer: &str| {
        let program = env!("CARGO_BIN_EXE_rollcall");
        let line = format!("{program} dead {words} --redis-url {}; echo ended $?", scene.url());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for no in ["n\n", "\n", "yess\n"] {
        let said = answer("drop --all", no);
        // The terminal may echo the answer in the middle of the question.
        assert!(said.contains("[y/N]") && said.contains("ended 1"), "{said}");
        assert_eq!(count_letters(&scene), 1);
    }
    // The line with the progress is removed.
    let said = answer("retry --all --dry-run", "");
    let (progress, page) = said.rsplit_once("\r\u{1b}[K").unwrap();
    assert!(progress.contains("1 looked at, 1 retried"), "{said}");
    assert!(page.starts_with("1 dead letter would be retried."), "{said}");
    let said = answer("drop --all", "y\n");
    assert!(said.contains("1 dead letter dropped.") && said.contains("ended 0"), "{said}");
    assert_eq!(count_letters(&scene), 0);
}

#[test]
fn an_event_of_another_partition_is_left_and_told() {
    let scene = Scene::start(&[("partitions", "2")]);
    let _worker = scene.worker(&[]);
    let here = (0..).map(|n| format!("u{n}"));
    let user = here.into_iter().find(|u| rollcall::key::partition_of(u, 2) == 1).unwrap();
    scene.add_heartbeat(&user);
    scene.wait_finished(SOON, "dead");
    let done = dead(&scene, &["retry", "--all"]);
    assert_eq!((&done["retried"], &done["left"]), (&json!(0), &json!({"elsewhere": 1})));
    assert_eq!(count_letters(&scene), 1);
}

#[test]
fn a_key_of_another_type_is_named_and_nothing_is_lost() {
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    letter(&mut conn, ["7-0", "x", "", "1", "", STREAM], &[field("type", "x")]);
    scene.command::<String>(&["SET", STREAM, "1"]);
    let (code, _, error) = say(&scene, &["retry", "--all"]);
    assert!(code == 1 && error.contains("rollcall:events holds a string"), "{error}");
    assert_eq!(count_letters(&scene), 1);
    scene.command::<u64>(&["DEL", STREAM]);
    assert_eq!(dead(&scene, &["retry", "--all"])["retried"], 1);
    scene.command::<String>(&["SET", "rollcall:dead", "1"]);
    for deed in ["retry", "drop"] {
        let (code, _, error) = say(&scene, &[deed, "--reason", "poison"]);
        assert!(code == 1 && error.contains("rollcall:dead holds a string"), "{error}");
    }
}

#[test]
fn a_server_without_memory_loses_no_letter() {
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    letter(&mut conn, ["7-0", "x", "", "1", "", STREAM], &[field("type", "x")]);
    scene.command::<String>(&["CONFIG", "SET", "maxmemory", "1"]);
    let (code, _, error) = say(&scene, &["retry", "--all"]);
    assert!(code == 1 && error.contains("OOM"), "{error}");
    assert_eq!((count_letters(&scene), read_stream(&mut conn, STREAM).len()), (1, 0));
    assert_eq!(dead(&scene, &["drop", "--entry", "7-0"])["dropped"], 1, "dropping needs none");
}
