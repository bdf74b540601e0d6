//! The commands that read: state written by plain Redis commands according to the contract, and what the binary
//! shows, as a page for people and as JSON for programs.

pub mod ground;
mod lookup;
mod stream;
mod watch;

use redis::Commands as _;
use rollcall::key::Keys;
use serde_json::{Value, json};

use self::ground::{Ground, ODD, ask_at};

#[test]
fn an_empty_server_has_a_clear_answer_to_everything() {
    let ground = Ground::new();
    for (command, sentence, expected) in [
        ("online", "Nobody is online", json!({"count": 0, "users": []})),
        ("seen", "Nobody was seen", json!({"minutes": 5, "count": 0, "users": []})),
        (
            "presence",
            "No presence entries",
            json!({"active_ms": 300_000, "count": 0, "presence": []}),
        ),
        ("sessions", "No active sessions", json!({"count": 0, "sessions": []})),
        ("recent", "No recent tokens", json!({"count": 0, "tokens": []})),
        ("viewed", "Nothing has been viewed", json!({"items": []})),
        ("document", "Nobody is in any document", json!({"count": 0, "documents": []})),
        ("dead list", "No dead letters", json!({"count": 0, "letters": []})),
        ("dead list --reason poison", "No dead letters", json!({"count": 0})),
        ("status", "Nothing here yet. Start a worker", json!({"found": false})),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let page = ground.page(&words);
        assert!(page.contains(sentence), "{command}: {page}");
        ground.json_has(&words, expected);
    }
}

#[test]
fn what_is_not_found_exits_with_1_and_says_so_and_programs_get_their_document() {
    let ground = Ground::new();
    for (command, sentence, expected) in [
        (
            "user alice",
            "nothing is known of user alice",
            json!({"user": "alice", "last_activity_ms": null, "presence": []}),
        ),
        ("sessions s", "there is no such session", json!(null)),
        ("viewed t", "there is no such token", json!(null)),
        ("document d", "nobody is in this document", json!(null)),
        ("dead show 1-1", "there is no dead letter", json!([])),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let error = ground.error(&words, 1);
        assert!(error.starts_with(&format!("rollcall: {sentence}")), "{command}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        let (code, out, error) = ask_at(&ground.url(), &[&words[..], &["--json"]].concat());
        assert_eq!(code, 1, "{command}: {error}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        for (name, value) in expected.as_object().into_iter().flatten() {
            assert_eq!(&answer[name], value, "{command}: {answer}");
        }
        assert!(expected.is_object() || answer == expected, "{command}: {answer}");
    }
}

/// Every suggested command names the deployment in question, so what does not exist yet can be started with it.
#[test]
fn the_suggested_command_starts_the_deployment_that_was_asked_about() {
    let mut ground = Ground::new();
    let odd = ["--prefix", "it's:", "--partitions", "2", "--stream", "in"];
    let page = ground.page(&[&["status"][..], &odd].concat());
    let suggested = page.lines().last().unwrap().trim();
    let expected = format!(
        "rollcall run --redis-url {} --prefix 'it'\\''s:' --partitions 2 --stream in",
        ground.url()
    );
    assert_eq!(suggested, expected);
    let _: () = ground.conn.rpush("it's:{p0}:presence:users", 1).unwrap();
    let _: () = ground.conn.rpush("it's:{p1}:presence:users", 1).unwrap();
    let error = ground.error(&[&["presence"][..], &odd[..4]].concat(), 1);
    let command = error.trim_end().split_once("out of the way: ").unwrap().1;
    assert!(
        command.ends_with(
            "RENAMENX 'it'\\''s:{p0}:presence:users' 'foreign:it'\\''s:{p0}:presence:users'"
        ),
        "{command}"
    );
    crate::doctor::run_command(command);
    let error = ground.error(&[&["presence"][..], &odd[..4]].concat(), 1);
    assert!(
        error.contains("{p1}:presence:users holds a list"),
        "the first is out of the way: {error}"
    );
}

#[test]
fn online_is_who_has_a_presence_entry_now_each_user_once() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    for (user, ip, ago) in [
        ("bob", "::1", 5_000),
        ("alice", "", 10_000),
        ("alice", "10.0.0.7", 20_000),
        ("gone", "", 301_000),
    ] {
        ground.present(user, ip, now - ago);
    }
    // Being seen is something else.
    let _: () = ground.conn.sadd(format!("online-users/{}", now / 60_000), "carol").unwrap();
    ground.json_has(&["online"], json!({"count": 2, "users": ["alice", "bob"]}));
    ground.json_has(&["seen"], json!({"count": 1, "users": ["carol"]}));
    let page = ground.page(&["online", "--limit", "1"]);
    assert_eq!(page, "2 users online\nalice\n… and 1 more (--limit 0 shows all)\n");
}

#[test]
fn seen_is_the_union_of_the_last_minutes() {
    let mut ground = Ground::new();
    let minute = ground.now_ms / 60_000;
    for (ago, users) in [(0, &["alice", "bob"][..]), (3, &["carol", "bob"]), (7, &["dave"])] {
        let _: () = ground.conn.sadd(format!("online-users/{}", minute - ago), users).unwrap();
    }
    let expected = json!({"minutes": 5, "count": 3, "users": ["alice", "bob", "carol"]});
    ground.json_has(&["seen"], expected);
    ground.json_has(&["seen", "--minutes", "10"], json!({"count": 4}));
    let page = ground.page(&["seen", "--limit", "1"]);
    assert_eq!(page, "3 users seen in the last 5 min\nalice\n… and 2 more (--limit 0 shows all)\n");
    let _: () = ground
        .conn
        .hset_multiple("rollcall:meta", &[("format", "2"), ("online-window", "10m")])
        .unwrap();
    ground.json_has(&["seen"], json!({"minutes": 10, "count": 4}));
    ground.json_has(&["seen", "--limit", "1"], json!({"count": 4, "users": ["alice"]}));
}

#[test]
fn a_user_is_found_by_name_and_by_no_other() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    for (i, user) in (0..).zip(ODD) {
        let _: () = ground.conn.set(format!("user-activity/{user}"), now / 1000 - i).unwrap();
        ground.present(user, "10.0.0.1", now - i * 1000);
        ground.present(user, "10.0.0.2", now - 400_000);
    }
    for (i, user) in (0..).zip(ODD) {
        let entry = json!({"user": user, "ip": "10.0.0.1", "page": "/p", "ua": "u\u{1b}[1m", "last_seen_ms": now - i * 1000});
        let activity = (now / 1000 - i) * 1000;
        let expected = json!({"user": user, "last_activity_ms": activity, "presence": [entry]});
        ground.json_has(&["user", user], expected);
        assert!(ground.page(&["user", user]).contains("was last active 20"));
    }
    let page = ground.page(&["user", "a\nb\u{1b}[2J"]);
    assert!(page.starts_with("a\\nb\\u{1b}[2J was last active "), "{page}");
    assert!(page.contains("10.0.0.1") && page.contains("s ago"), "{page}");
}

#[test]
fn presence_is_the_newest_first_and_only_what_is_fresh() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    ground.present("alice", "", now - 10_000);
    ground.present("bob", "::1", now - 5_000);
    ground.present("gone", "::1", now - 301_000);
    // Another writer's value, and one that is invalid.
    let other = format!(r#"{{"user": "eve", "lastSeen": {}.25}}"#, now - 200_000);
    let _: () = ground.conn.hset("presence:users", "eve|", other).unwrap();
    let _: () = ground.conn.hset("presence:users", "broken|", "{").unwrap();
    let answer = ground.json(&["presence"]);
    assert_eq!(users(&answer["presence"]), ["bob", "alice", "eve"]);
    assert_eq!(answer["presence"][2]["last_seen_ms"], now - 200_000);
    ground.json_has(&["presence", "--active", "1m"], json!({"active_ms": 60_000, "count": 2}));
    let page = ground.page(&["presence", "--limit", "1"]);
    assert!(page.starts_with("3 presence entries in the last 5 min\nUSER  IP"), "{page}");
    assert!(
        page.contains("\nbob   ::1  20") && page.ends_with("2 more (--limit 0 shows all)\n"),
        "{page}"
    );
}

fn users(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["user"].as_str().unwrap()).collect()
}

#[test]
fn large_structures_are_walked_whole() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    let mut pipe = redis::pipe();
    for n in 0..5_000_u64 {
        let value =
            format!(r#"{{"lastSeen":{},"user":"u{n}","ip":"","ua":"","page":""}}"#, now - n);
        pipe.hset("presence:users", format!("u{n}|"), value).ignore();
        pipe.sadd(format!("online-users/{}", now / 60_000), format!("u{n:04}")).ignore();
        pipe.zadd("recent:", format!("t{n}"), (now - n) as f64 / 1000.0).ignore();
        pipe.hset("rollcall:docs:connections", format!("d{}|u{n}", n % 7), 1).ignore();
    }
    let _: () = pipe.query(&mut ground.conn).unwrap();
    let presence = ground.json(&["presence", "--limit", "3"]);
    assert_eq!(
        (presence["count"].as_u64(), users(&presence["presence"])),
        (Some(5_000), vec!["u0", "u1", "u2"])
    );
    ground
        .json_has(&["seen", "--limit", "2"], json!({"count": 5_000, "users": ["u0000", "u0001"]}));
    ground.json_has(&["online", "--limit", "2"], json!({"count": 5_000, "users": ["u0", "u1"]}));
    let recent = ground.json(&["recent", "--limit", "0"]);
    assert_eq!(recent["tokens"].as_array().unwrap().len(), 5_000);
    assert_eq!(recent["tokens"][4_999]["token"], "t4999");
    let fullest = json!({"count": 7, "documents": [{"doc": "d0", "users": 715}]});
    ground.json_has(&["document", "--limit", "1"], fullest);
}

#[test]
fn sessions_are_listed_and_one_is_shown_with_its_data() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    for (sid, user, ago) in
        [("s1", "alice", 60_000), ("s\n2", "bob", 1_000), ("s3", "alice", 1_801_000)]
    {
        let at = now - ago;
        let value = json!({"last_activity": at, "sid": sid, "session_id": sid, "user": user, "ip": "::1", "ua": ""});
        let _: () = ground.conn.hset("sessions:active", sid, value.to_string()).unwrap();
    }
    let data = r#"{"cart": ["a\\b"]}"#;
    let _: () = ground.conn.set_ex("session:s1", data, 1_740).unwrap();
    let answer = ground.json(&["sessions"]);
    assert_eq!(
        (answer["count"].as_u64(), users(&answer["sessions"])),
        (Some(2), vec!["bob", "alice"])
    );
    let mine = json!({"count": 1, "sessions": [{"sid": "s1", "user": "alice", "ip": "::1", "ua": "", "last_activity_ms": now - 60_000, "expires_ms": now + 1_740_000}]});
    ground.json_has(&["sessions", "--user", "alice"], mine);
    assert!(ground.page(&["sessions"]).contains("\ns\\n2     bob"));

    let one = ground.json(&["sessions", "s1"]);
    assert_eq!((&one["active"], &one["data"]), (&json!(true), &json!(data)));
    assert!((1..=1_740_000).contains(&one["data_ttl_ms"].as_u64().unwrap()));
    let page = ground.page(&["sessions", "s1"]);
    assert!(page.ends_with(&format!("{data}\n")) && page.contains("data kept      for "), "{page}");
    ground.json_has(&["sessions", "s3"], json!({"active": false, "data": null}));
    for (data, shown, json) in [
        (&b"gAAAA\x1b[2J"[..], "\ngAAAA\\u{1b}[2J\n", json!({"data": "gAAAA\u{1b}[2J"})),
        (b"\xff\0{", "in base64\n/wB7\n", json!({"data": null, "data_base64": "/wB7"})),
    ] {
        let _: () = ground.conn.set("session:s1", data).unwrap();
        let page = ground.page(&["sessions", "s1"]);
        assert!(page.ends_with(shown), "{page:?}");
        ground.json_has(&["sessions", "s1"], json);
    }
    assert!(ground.page(&["sessions", "s3"]).contains("; expired)"));
}

#[test]
fn tokens_are_shown_shortened_but_to_programs_whole() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    for (i, token) in (1..).zip(["0123456789abcdef", "t|{}\0", "fedcba9876543210"]) {
        let at = now - i * 1_000;
        let _: () = ground.conn.hset("login:", token, format!("user{i}")).unwrap();
        let _: () = ground.conn.zadd("recent:", token, at as f64 / 1000.0).unwrap();
        for item in 0..i {
            let score = (at - item) as f64 / 1000.0;
            let _: () =
                ground.conn.zadd(format!("viewed:{token}"), format!("item{item}"), score).unwrap();
            let _: () = ground.conn.zincr("viewed:", format!("item{item}"), 1).unwrap();
        }
    }
    let newest = json!({"token": "0123456789abcdef", "user": "user1", "last_seen_ms": now - 1_000});
    ground.json_has(&["recent", "--limit", "1"], json!({"count": 3, "tokens": [newest]}));
    let page = ground.page(&["recent"]);
    assert!(page.contains("\n012345…  user1") && !page.contains("0123456"), "{page}");
    assert!(ground.page(&["recent", "--full"]).contains("\nt|{}\\0 "));

    let answer = ground.json(&["viewed", "fedcba9876543210"]);
    assert_eq!((&answer["user"], &answer["count"]), (&json!("user3"), &json!(3)));
    assert_eq!(answer["items"][0], json!({"item": "item0", "viewed_ms": now - 3_000}));
    let page = ground.page(&["viewed", "fedcba9876543210", "--limit", "2"]);
    assert!(
        page.contains("item1") && !page.contains("item2") && !page.contains("fedcba9"),
        "{page}"
    );
    let ranking = json!({"items": [{"item": "item0", "views": 3}, {"item": "item1", "views": 2}]});
    ground.json_has(&["viewed", "--limit", "2"], ranking);
    assert!(ground.page(&["viewed"]).contains("   1      3  item0\n"));
}

#[test]
fn a_document_has_users_connections_and_thresholds() {
    let mut ground = Ground::new();
    let doc = "d|1\u{1b}";
    let _: () = ground.conn.sadd(format!("sessions:doc:{doc}:users"), &["alice", "b|ob"]).unwrap();
    let _: () = ground.conn.set(format!("sessions:doc:{doc}:count"), 2).unwrap();
    let pairs = [("d%7C1\u{1b}|alice", 2), ("d%7C1\u{1b}|b%7Cob", 1), ("other|alice", 1)];
    let _: () = ground.conn.hset_multiple("rollcall:docs:connections", &pairs).unwrap();
    let _: () = ground.conn.hset("rollcall:docs:levels", "2:1:d%7C1\u{1b}", 1).unwrap();
    let meta = [("format", "2"), ("thresholds", "2:1,10:5")];
    let _: () = ground.conn.hset_multiple("rollcall:meta", &meta).unwrap();
    let all =
        json!({"count": 2, "documents": [{"doc": doc, "users": 2}, {"doc": "other", "users": 1}]});
    ground.json_has(&["document"], all);
    let one = json!({
        "doc": doc,
        "count": 2,
        "users": [{"user": "alice", "connections": 2}, {"user": "b|ob", "connections": 1}],
        "thresholds": [{"up": 2, "down": 1, "reached": true}, {"up": 10, "down": 5, "reached": false}],
    });
    ground.json_has(&["document", doc], one);
    let page = ground.page(&["document", doc]);
    assert!(page.starts_with("2 users in d|1\\u{1b}\nthreshold 2:1 reached\n"), "{page}");
}

#[test]
fn four_partitions_answer_as_one() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    for index in 0..4 {
        let keys = Keys::new("t:", 4, index);
        let _: () = ground
            .conn
            .hset_multiple(keys.meta(), &[("format", "2"), ("partitions", "4")])
            .unwrap();
        let _: () =
            ground.conn.sadd(keys.online_minute(now / 60_000), format!("u{index}")).unwrap();
        let at = now - 1_000 * u64::from(index);
        let value = json!({"lastSeen": at, "user": format!("u{index}"), "ip": ""}).to_string();
        let _: () = ground.conn.hset(keys.presence(), format!("u{index}|"), value).unwrap();
        let _: () =
            ground.conn.zadd(keys.recent(), format!("t{index}"), at as f64 / 1000.0).unwrap();
        let _: () = ground.conn.zadd(keys.viewed(), format!("own{index}"), 10 + index).unwrap();
        // First in no partition, but first overall.
        let _: () = ground.conn.zadd(keys.viewed(), "everywhere", 9).unwrap();
        let _: () = ground.conn.hset(keys.docs_connections(), format!("d{index}|u"), 1).unwrap();
    }
    let with =
        |words: &[&'static str]| [words, &["--prefix", "t:", "--partitions", "4"][..]].concat();
    for command in ["online", "seen"] {
        let users = json!({"count": 4, "users": ["u0", "u1", "u2", "u3"]});
        ground.json_has(&with(&[command]), users);
    }
    assert_eq!(users(&ground.json(&with(&["presence", "--limit", "2"]))["presence"]), ["u0", "u1"]);
    let recent = ground.json(&with(&["recent", "--limit", "2"]));
    assert_eq!((&recent["count"], &recent["tokens"][1]["token"]), (&json!(4), &json!("t1")));
    let first = json!({"items": [{"item": "everywhere", "views": 36}]});
    ground.json_has(&with(&["viewed", "--limit", "1"]), first);
    ground.json_has(&with(&["viewed", "t3"]), json!({"last_seen_ms": now - 3_000}));
    ground.json_has(&with(&["document"]), json!({"count": 4}));
    assert_eq!(ground.json(&with(&["status"]))["partitions"].as_array().unwrap().len(), 4);
    for wrong in
        [&["online", "--prefix", "t:"][..], &["online", "--prefix", "t:", "--partitions", "8"]]
    {
        let error = ground.error(wrong, 1);
        assert!(error.contains("use --partitions 4"), "{error}");
    }
}

#[test]
fn schemas_are_listed_and_printed() {
    let ground = Ground::new();
    let names = ground.json(&["schema"]);
    for name in names.as_array().unwrap() {
        let name = name.as_str().unwrap();
        let text = ground.json(&["schema", name])["text"].as_str().unwrap().to_owned();
        assert_eq!(ground.page(&["schema", name]).trim_end(), text.trim_end());
        let is_schema =
            serde_json::from_str::<Value>(&text).is_ok_and(|schema| schema["$schema"].is_string());
        assert!(is_schema || ["asyncapi", "openapi"].contains(&name), "{name}");
    }
    assert!(ground.error(&["schema", "events/nothing"], 1).contains("`rollcall schema` lists"));
}

#[test]
fn trouble_is_one_line_with_the_address_and_without_the_password() {
    let mut ground = Ground::new();
    for command in ["online", "status", "recent", "dead list"] {
        let words: Vec<&str> = command.split(' ').collect();
        let (code, out, error) = ask_at("redis://alice:hunter2@127.0.0.1:1", &words);
        assert_eq!((code, out.as_str()), (1, ""), "{error}");
        let start = "redis://alice:***@127.0.0.1:1: connecting to 127.0.0.1:1 failed: ";
        assert!(error.contains(start), "{error}");
        assert!(error.lines().count() == 1 && !error.contains("hunter2"), "{error}");
    }
    let _: () = ground.conn.rpush("presence:users", 1).unwrap();
    let _: () = ground.conn.set("user-activity/list\n", 1).unwrap();
    let _: () = ground.conn.set("recent:", 1).unwrap();
    let _: () = ground.conn.set("rollcall:dead", 1).unwrap();
    for (command, named) in [
        ("presence", "presence:users holds a list, where Rollcall keeps a hash"),
        ("recent", "recent: holds a string, where Rollcall keeps a sorted set"),
        ("dead list", "rollcall:dead holds a string, where Rollcall keeps a stream"),
        ("status", "presence:users holds a list, where Rollcall keeps a hash"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let error = ground.error(&words, 1);
        assert!(error.contains(named), "{error}");
    }
    ground.error(&["seen", "--minutes", "0"], 64);
    ground.error(&["sessions", "s", "--user", "alice"], 64);
    ground.error(&["viewed", ""], 64);
    ground.error(&["dead", "show", "1"], 64);
}
