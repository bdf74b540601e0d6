//! The reading code of the documents that Rollcall comes from, command by command, against the state after traffic of
//! every event type in every form of an entry.
//!
//! The readers work under the read-only user of `deploy/acl/`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use redis::{Connection, FromRedisValue};
use rollcall::key::Keys;
use serde_json::{Value, json};

use crate::acl::{Guarded, commands};
use crate::harness::{is_finished, wait_until};
use crate::process::Worker;
use crate::support::dump;

const STREAM: &str = "rollcall:events";
const FORMS: [&str; 4] = ["flat", "json", "cloudevent", "packed"];

fn ask<T: FromRedisValue>(conn: &mut Connection, words: &[&str]) -> T {
    let reply = redis::cmd(words[0]).arg(&words[1..]).query(conn);
    reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Adds an event in one of the forms; JSON alternates with MessagePack and both modes of CloudEvents.
fn add(conn: &mut Connection, form: &str, event: &Value, other: bool) {
    let members = event.as_object().unwrap();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut add = redis::cmd("XADD");
    add.arg(STREAM).arg("*");
    match (form, other) {
        ("flat", _) => {
            for (name, value) in members {
                add.arg(name).arg(text(value));
            }
        }
        ("json", false) => {
            add.arg("data").arg(event.to_string()).arg("trace").arg("x");
        }
        ("json", true) => {
            let packed = rmp_serde::to_vec(event).unwrap();
            add.arg("datacontenttype").arg("application/msgpack").arg("data").arg(packed);
        }
        ("cloudevent", false) => {
            let kind = text(&event["type"]);
            add.arg(&["specversion", "1.0", "id", "7", "source", "/test", "type", &kind]);
            add.arg("data").arg(event.to_string());
        }
        ("cloudevent", true) => {
            let whole = json!({"specversion": "1.0", "id": "7", "source": "/test",
                "type": event["type"], "data": event});
            add.arg("data").arg(whole.to_string());
        }
        _ => {
            add.arg("data").arg(json!([event]).to_string());
        }
    }
    add.exec(conn).unwrap();
}

/// The activity of one form's users: `form` is part of every name, so that forms do not collide.
fn traffic(form: &str) -> Vec<Value> {
    let name = |what: &str| format!("{what}-{form}");
    let (user, left, token, gone) = (name("user"), name("left"), name("token"), name("gone"));
    let (sid, ended, doc) = (name("sid"), name("ended"), name("doc"));
    let (away, kept) = (name("away"), name("kept"));
    vec![
        json!({"type": "heartbeat", "user": user, "ip": "10.0.0.7", "ua": "Ü/1.0", "page": "/home"}),
        json!({"type": "heartbeat", "user": left, "ip": "10.0.0.8", "page": "/admin"}),
        json!({"type": "heartbeat", "user": away, "ip": "10.0.1.1"}),
        json!({"type": "heartbeat", "user": away, "ip": "10.0.1.2"}),
        json!({"type": "login", "user": user, "token": token, "ip": "10.0.0.9", "ua": "curl"}),
        json!({"type": "login", "user": left, "token": gone}),
        json!({"type": "view", "user": user, "token": token, "item": "books"}),
        json!({"type": "view", "user": user, "token": token, "item": "records"}),
        json!({"type": "view", "user": left, "token": gone, "item": "books"}),
        json!({"type": "session", "sid": sid, "user": user, "ip": "10.0.0.7", "ua": "Ü/1.0",
            "data": {"cart": ["item1", "item2"], "theme": "dark"}}),
        json!({"type": "session", "sid": kept, "user": user, "ip": "10.0.0.7", "ua": "Ü/1.0",
            "data": {"theme": "light"}, "ttl": 7200}),
        json!({"type": "session", "sid": ended, "data": {"cart": []}}),
        json!({"type": "document", "doc": doc, "user": user, "action": "join", "connection": "a"}),
        json!({"type": "document", "doc": doc, "user": left, "action": "join"}),
        json!({"type": "logout", "user": left, "ip": "10.0.0.8", "token": gone}),
        json!({"type": "logout", "user": away}),
        json!({"type": "session", "sid": ended, "action": "terminate"}),
        json!({"type": "document", "doc": doc, "user": left, "action": "leave"}),
    ]
}

/// Adds everything, and waits until a worker has applied it.
pub fn apply_everything(guarded: &Guarded) -> Now {
    let mut admin = guarded.admin();
    let before_ms = dump::server_now(&mut admin);
    let mut producer = guarded.as_user("producer");
    for (n, form) in FORMS.iter().enumerate() {
        for (i, event) in traffic(form).iter().enumerate() {
            add(&mut producer, form, event, (n + i) % 2 == 1);
        }
    }
    let mut worker = Worker::start_as("run", &guarded.url("run"), &[], &[]);
    let keys = Keys::new("", 1, 0);
    wait_until(Duration::from_secs(15), "all is applied", || {
        is_finished(&mut admin, &keys, STREAM)
    });
    assert_eq!(worker.terminate(), 0);
    let letters = dump::dead_letters(&mut admin, &keys);
    assert!(letters.is_empty(), "{letters:?}");
    Now { before_ms, after_ms: dump::server_now(&mut admin) }
}

#[test]
fn readers_find_what_they_look_for() {
    let guarded = Guarded::start("");
    let now = apply_everything(&guarded);
    let mut reader = guarded.as_user("reader");
    online_users_and_last_activity(&mut reader, &now);
    tokens_and_viewed_items(&mut reader, &now);
    presence_of_the_last_five_minutes(&mut reader, &now);
    active_sessions(&mut reader, &now);
    documents(&mut reader);
    session_data(&mut reader);
}

/// The output of a query under the read-only user, and its exit code.
pub fn query(guarded: &Guarded, words: &str) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(words.split(' ')).args(["--redis-url", &guarded.url("reader")]);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

#[test]
fn readers_and_queries_need_just_the_rights_of_a_reader() {
    let guarded = Guarded::start("");
    apply_everything(&guarded);
    let mut admin = guarded.admin();
    let bad = ["XADD", STREAM, "*", "type", "nonsense"];
    ask::<String>(&mut admin, &bad);
    let mut worker = Worker::start_as("run", &guarded.url("run"), &[], &[]);
    wait_until(Duration::from_secs(15), "the bad one is written off", || {
        is_finished(&mut admin, &Keys::new("", 1, 0), STREAM)
    });
    assert_eq!(worker.terminate(), 0);
    let letter: Vec<(String, Vec<String>)> =
        ask(&mut admin, &["XRANGE", "rollcall:dead", "-", "+"]);
    // The status shows other groups, too.
    ask::<()>(&mut admin, &["XGROUP", "CREATE", STREAM, "reports", "0"]);
    let read = ["XREADGROUP", "GROUP", "reports", "c", "COUNT", "1", "STREAMS", STREAM, ">"];
    ask::<redis::Value>(&mut admin, &read);
    guarded.called();
    let now = Now { before_ms: 0, after_ms: dump::server_now(&mut admin) };
    let mut reader = guarded.as_user("reader");
    online_users_and_last_activity(&mut reader, &now);
    tokens_and_viewed_items(&mut reader, &now);
    presence_of_the_last_five_minutes(&mut reader, &now);
    active_sessions(&mut reader, &now);
    documents(&mut reader);
    session_data(&mut reader);
    for (words, answer) in [
        ("online --json", "user-flat"),
        ("seen --json", "left-flat"),
        ("user user-flat", "10.0.0.7"),
        ("presence --json", "left-json"),
        ("sessions", "sid-packed"),
        ("sessions sid-packed --json", "theme"),
        ("recent --full", "token-cloudevent"),
        ("viewed", "books"),
        ("viewed token-flat", "records"),
        ("document", "doc-flat"),
        ("document doc-flat --json", "user-flat"),
        ("status --json", "dead_letters"),
        ("dead list", "unknown_type"),
        (&format!("dead show {}", letter[0].0), "nonsense"),
    ] {
        let (text, code) = query(&guarded, words);
        assert_eq!(code, Some(0), "rollcall {words}: {text}");
        assert!(text.contains(answer) && !text.contains("NOPERM"), "rollcall {words}: {text}");
    }
    ask::<()>(&mut admin, &["SET", "presence:users", "x"]);
    let (text, code) = query(&guarded, "presence");
    assert_eq!(code, Some(1));
    assert!(text.contains("presence:users holds a string"), "{text}");
    // For merging the rankings of several partitions, see acl.rs.
    let called: BTreeSet<_> = guarded.called().into_iter().chain(["zmscore".to_owned()]).collect();
    let idle: Vec<_> = commands("reader").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "a reader is allowed what no reader does: {idle:?}");
}

/// The time span in which everything happened.
pub struct Now {
    before_ms: u64,
    after_ms: u64,
}

impl Now {
    fn covers_ms(&self, ms: u64) -> bool {
        (self.before_ms..=self.after_ms).contains(&ms)
    }

    fn covers_seconds(&self, seconds: f64) -> bool {
        // Scores have milliseconds.
        self.covers_ms((seconds * 1000.0).round() as u64)
    }
}

/// A name of each form.
fn each(what: &str) -> BTreeSet<String> {
    FORMS.iter().map(|form| format!("{what}-{form}")).collect()
}

/// `get_online_users` and `get_user_last_activity` of counting-online-users.md.
fn online_users_and_last_activity(conn: &mut Connection, now: &Now) {
    let current = now.after_ms / 60_000;
    let minutes: Vec<String> = (0..5).map(|x| format!("online-users/{}", current - x)).collect();
    let words: Vec<&str> =
        std::iter::once("SUNION").chain(minutes.iter().map(String::as_str)).collect();
    let online: BTreeSet<String> = ask(conn, &words);
    assert_eq!(online, [each("user"), each("left"), each("away")].into_iter().flatten().collect());
    for user in &online {
        // The reader does `int(last_active)`.
        let last_active: String = ask(conn, &["GET", &format!("user-activity/{user}")]);
        let seconds: u64 = last_active.parse().unwrap();
        assert!(
            (now.before_ms / 1000..=now.after_ms / 1000).contains(&seconds),
            "{user}: {seconds}"
        );
    }
    assert_eq!(ask::<Option<String>>(conn, &["GET", "user-activity/nobody"]), None);
}

/// `check_token` and the `recent:` and `viewed:` lists of login-tokens-and-viewed-items.md.
fn tokens_and_viewed_items(conn: &mut Connection, now: &Now) {
    for form in FORMS {
        let holder: Option<String> = ask(conn, &["HGET", "login:", &format!("token-{form}")]);
        assert_eq!(holder, Some(format!("user-{form}")));
        let gone: Option<String> = ask(conn, &["HGET", "login:", &format!("gone-{form}")]);
        assert_eq!(gone, None, "logged out");
        let viewed: Vec<String> =
            ask(conn, &["ZREVRANGE", &format!("viewed:token-{form}"), "0", "-1"]);
        assert_eq!(
            viewed.iter().cloned().collect::<BTreeSet<_>>(),
            BTreeSet::from(["books".into(), "records".into()])
        );
        assert_eq!(ask::<u64>(conn, &["ZCARD", &format!("viewed:gone-{form}")]), 0);
    }
    let recent: Vec<(String, f64)> = ask(conn, &["ZRANGE", "recent:", "0", "-1", "WITHSCORES"]);
    assert_eq!(
        recent.iter().map(|(token, _)| token.clone()).collect::<BTreeSet<_>>(),
        each("token")
    );
    assert!(recent.iter().all(|(_, score)| now.covers_seconds(*score)), "{recent:?}");
    assert!(recent.is_sorted_by(|a, b| a.1 <= b.1));
    // `zrange(…, desc=True, withscores=True)`.
    let words = ["ZRANGE", "recent:", "0", "-1", "REV", "WITHSCORES"];
    let newest_first: Vec<(String, f64)> = ask(conn, &words);
    assert_eq!(newest_first, recent.into_iter().rev().collect::<Vec<_>>());
    let ranking: Vec<(String, f64)> = ask(conn, &["ZREVRANGE", "viewed:", "0", "-1", "WITHSCORES"]);
    assert_eq!(ranking, [("books".to_owned(), 8.0), ("records".to_owned(), 4.0)]);
}

/// `get_presence_redis` of presence-and-sessions-flask.md: the whole hash, filtered by `lastSeen`.
fn presence_of_the_last_five_minutes(conn: &mut Connection, now: &Now) {
    let all: BTreeMap<String, String> = ask(conn, &["HGETALL", "presence:users"]);
    let cutoff = now.after_ms as f64 - 300_000.0;
    let mut active = BTreeMap::new();
    for (key, value) in &all {
        let user: Value = serde_json::from_str(value).unwrap();
        if user["lastSeen"].as_f64().unwrap() > cutoff {
            active.insert(key.clone(), user);
        }
    }
    let mut expected = BTreeSet::new();
    for form in FORMS {
        expected.extend([
            format!("user-{form}|10.0.0.7"),
            format!("user-{form}|10.0.0.9"),
            format!("left-{form}|"),
        ]);
        let home = &active[&format!("user-{form}|10.0.0.7")];
        assert!(now.covers_ms(home["lastSeen"].as_u64().unwrap()));
        let expected = json!({"lastSeen": home["lastSeen"], "user": format!("user-{form}"),
            "ip": "10.0.0.7", "ua": "Ü/1.0", "page": "/home"});
        assert_eq!(home, &expected);
        assert_eq!(active[&format!("user-{form}|10.0.0.9")]["page"], "/", "a login's page");
    }
    assert_eq!(
        active.into_keys().collect::<BTreeSet<_>>(),
        expected,
        "without those who logged out"
    );
}

/// `get_sessions_redis` of presence-and-sessions-flask.md.
fn active_sessions(conn: &mut Connection, now: &Now) {
    let all: BTreeMap<String, String> = ask(conn, &["HGETALL", "sessions:active"]);
    let sids = [each("sid"), each("kept")].into_iter().flatten();
    assert_eq!(all.keys().cloned().collect::<BTreeSet<_>>(), sids.collect());
    for (sid, value) in all {
        let session: Value = serde_json::from_str(&value).unwrap();
        assert!(now.covers_ms(session["last_activity"].as_u64().unwrap()), "{value}");
        let user = sid.replace("sid-", "user-").replace("kept-", "user-");
        let expected = json!({"last_activity": session["last_activity"], "sid": sid,
            "session_id": sid, "user": user, "ip": "10.0.0.7", "ua": "Ü/1.0"});
        assert_eq!(session, expected);
    }
}

/// Who is in a document, of document-sessions-guide.md.
fn documents(conn: &mut Connection) {
    for form in FORMS {
        let users = format!("sessions:doc:doc-{form}:users");
        let is_active = |conn: &mut Connection, user: &str| -> bool {
            ask(conn, &["SISMEMBER", &users, &format!("{user}-{form}")])
        };
        assert!(is_active(conn, "user") && !is_active(conn, "left"));
        assert_eq!(ask::<Vec<String>>(conn, &["SMEMBERS", &users]), [format!("user-{form}")]);
        assert_eq!(ask::<u64>(conn, &["GET", &format!("sessions:doc:doc-{form}:count")]), 1);
    }
}

/// `get_session` and `check_session_expiry` of session-storage.md.
fn session_data(conn: &mut Connection) {
    for form in FORMS {
        let key = format!("session:sid-{form}");
        let data: String = ask(conn, &["GET", &key]);
        assert_eq!(data, r#"{"cart":["item1","item2"],"theme":"dark"}"#);
        let ttl: i64 = ask(conn, &["TTL", &key]);
        assert!((1_700..=1_800).contains(&ttl), "{ttl}");
        let kept: i64 = ask(conn, &["TTL", &format!("session:kept-{form}")]);
        assert!((7_100..=7_200).contains(&kept), "{kept}");
        assert_eq!(ask::<i64>(conn, &["TTL", &format!("session:ended-{form}")]), -2, "terminated");
        assert_eq!(ask::<Option<String>>(conn, &["GET", &format!("session:ended-{form}")]), None);
    }
}
