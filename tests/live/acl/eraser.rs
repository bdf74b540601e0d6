//! The eraser takes every branch of its job with exactly these rights.

use redis::Connection;
use serde_json::{Value, json};

use super::{ERASER, Guarded, SOON, commands};
use crate::harness::{is_finished, wait_until};
use crate::query::ground::ask_at;

const BY_DIGEST: [&str; 2] = ["evalsha", "script|load"];

fn run(conn: &mut Connection, words: &[&str]) {
    redis::cmd(words[0]).arg(&words[1..]).exec(conn).unwrap();
}

fn erase(guarded: &Guarded, words: &[&str]) -> Value {
    let words = [&["erase", "vic", "--json", "--prefix", "acme:"], words].concat();
    let (code, out, error) = ask_at(&guarded.url(ERASER), &words);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn an_eraser_does_all_of_its_job_with_just_these_rights() {
    let guarded = Guarded::start("acme:");
    let mut admin = guarded.admin();
    let stream = "acme:rollcall:events";
    let mut worker = guarded.process("worker", &["--thresholds", "1:0"]);
    let add = |conn: &mut Connection, words: &str| {
        let fields: Vec<_> = words.split(' ').collect();
        run(conn, &[&["XADD", stream, "*"], &fields[..]].concat());
    };
    let all = "type heartbeat user vic ip 1 token t sid s doc d connection c";
    let data = json!([{"type": "view", "user": "vic", "token": "t", "item": "i"},
        {"type": "view", "user": "bob", "token": "b", "item": "i"}, {"type": "vew", "user": "vic"}]);
    let packed = format!("data {data}");
    let texts = [all, &packed, "type session sid s user vic data {}", "type hb user vic"];
    texts.iter().for_each(|text| add(&mut admin, text));
    (0..20).for_each(|n| add(&mut admin, &format!("type heartbeat user vic ip c{n}")));
    add(&mut admin, "type document doc d2 user vic action join");
    let keys = rollcall::key::Keys::new("acme:", 1, 0);
    let finished = |conn: &mut Connection| is_finished(conn, &keys, stream);
    wait_until(SOON, "applied", || finished(&mut admin));
    for text in ["type document doc d2 user vic action leave", "type logout user vic token t ip 1"]
    {
        add(&mut admin, text);
        wait_until(SOON, "applied", || finished(&mut admin));
    }
    add(&mut admin, "type login user vic token t2");
    wait_until(SOON, "applied", || finished(&mut admin));
    assert_eq!(worker.terminate(), 0);
    // A whole letter of a packed entry; keys that others removed or wrote; an entry that is still ahead of the
    // cursor.
    let letter = [
        "entry_id",
        "1-1",
        "reason",
        "wrong_type",
        "detail",
        "user-activity/vic",
        "deliveries",
        "1",
        "index",
        "",
        "stream",
        stream,
        "data",
    ];
    let text = data.to_string();
    run(
        &mut admin,
        &[&["XADD", "acme:rollcall:dead", "*"], &letter[..], &[text.as_str()]].concat(),
    );
    run(&mut admin, &["HSET", "acme:rollcall:docs:connections", "d9|vic", "1"]);
    run(&mut admin, &["SADD", "acme:sessions:doc:d9:users", "vic"]);
    run(&mut admin, &["EXPIRE", "acme:login:", "1000"]);
    run(&mut admin, &["HDEL", "acme:rollcall:janitor", "kept"]);
    run(&mut admin, &["DEL", "acme:rollcall:changes:seq"]);
    run(&mut admin, &["SADD", "acme:rollcall:docs:levels:none", "x"]);
    add(&mut admin, &packed);
    add(&mut admin, "type heartbeat user vic");
    guarded.called();
    let dry = erase(&guarded, &["--dry-run"]);
    let receipt = erase(&guarded, &["--yes", "--block"]);
    assert_eq!(receipt["entries_rewritten"], 2, "{receipt}");
    assert_eq!(dry["entries"], receipt["entries"]);
    for what in [
        "minutes",
        "activity",
        "presence",
        "sessions",
        "session_data",
        "tokens",
        "documents",
        "connections",
        "tombstones",
        "changes",
        "dead_letters",
        "dead_letters_rewritten",
    ] {
        assert!(receipt[what].as_u64() > Some(0), "{what}: {receipt}");
    }
    let called = guarded.called();
    let idle: Vec<_> = commands(ERASER).difference(&called).cloned().collect();
    assert_eq!(idle, BY_DIGEST, "an eraser is allowed what it never does");
    guarded.nothing_was_refused(&[worker.log()]);
}
