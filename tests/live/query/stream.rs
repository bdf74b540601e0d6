//! Commands about the stream: dead letters, and the group's progress.

use redis::Commands as _;
use serde_json::json;

use super::ground::Ground;

const HEADER: [&str; 6] = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];

impl Ground {
    /// Adds a dead letter according to the contract; returns its id.
    fn letter(&mut self, header: [&str; 6], pairs: &[(&[u8], &[u8])]) -> String {
        let mut add = redis::cmd("XADD");
        add.arg("rollcall:dead").arg("*");
        for (name, value) in HEADER.iter().zip(header) {
            add.arg(name).arg(value);
        }
        for (name, value) in pairs {
            add.arg(*name).arg(*value);
        }
        add.query(&mut self.conn).unwrap()
    }

    pub fn run(&mut self, words: &str) {
        let mut command = redis::Cmd::new();
        for word in words.split(' ') {
            command.arg(word);
        }
        command.exec(&mut self.conn).unwrap();
    }
}

#[test]
fn dead_letters_are_listed_newest_first_and_by_reason() {
    let mut ground = Ground::new();
    for n in 0..100 {
        let (entry, reason) =
            (format!("{n}-1"), if n % 50 == 0 { "poison" } else { "invalid_json" });
        ground.letter([&entry, reason, "why\n", "3", "", "rollcall:events"], &[]);
    }
    // Something else that somebody added there.
    ground.run("XADD rollcall:dead * a b");
    let answer = ground.json(&["dead", "list", "--limit", "2"]);
    assert_eq!(answer["count"], 101);
    let first = &answer["letters"][0];
    for (name, value) in
        [("entry_id", json!("99-1")), ("deliveries", json!(3)), ("index", json!(null))]
    {
        assert_eq!(first[name], value);
    }
    assert!(first["time_ms"].as_u64().unwrap() >= ground.now_ms);
    let poison = ground.json(&["dead", "list", "--reason", "poison"]);
    let ids: Vec<_> =
        poison["letters"].as_array().unwrap().iter().map(|l| l["entry_id"].clone()).collect();
    assert_eq!(ids, ["50-1", "0-1"]);
    let page = ground.page(&["dead", "list", "--limit", "1"]);
    assert!(
        page.contains(" invalid_json  99-1 ") && page.contains("\n    why\\n\n… and 100 more"),
        "{page}"
    );
    assert!(
        ground
            .page(&["dead", "list", "--reason", "wrong_type"])
            .contains("none with reason wrong_type")
    );
}

#[test]
fn a_dead_letter_is_shown_whole_with_its_own_bytes() {
    let mut ground = Ground::new();
    let stream = "rollcall:events";
    let pairs: [(&[u8], &[u8]); 4] =
        [(b"type", b"x\x1b[2J"), (b"user", b"a"), (b"user", b"\xff\0"), (b"\xfe", "é".as_bytes())];
    let id = ground.letter(["5-1", "unknown_type", "type is x", "1", "", stream], &pairs);
    for index in ["0", "7"] {
        ground.letter(["6-0", "missing_field", "user", "1", index, stream], &[(b"data", b"{}")]);
    }
    let fields = json!([
        {"name": "type", "value": "x\u{1b}[2J"},
        {"name": "user", "value": "a"},
        {"name": "user", "value": {"base64": "/wA="}},
        {"name": {"base64": "/g=="}, "value": "é"},
    ]);
    for wanted in [id.as_str(), "5-1"] {
        let answer = ground.json(&["dead", "show", wanted]);
        assert_eq!((&answer[0]["id"], &answer[0]["fields"]), (&json!(id), &fields));
        let page = ground.page(&["dead", "show", wanted]);
        assert!(
            page.contains("\n  user = \\xff\\0\n  \\xfe = é\n") && page.contains("x\\u{1b}[2J"),
            "{page}"
        );
    }
    let packed = ground.json(&["dead", "show", "6-0"]);
    assert_eq!((&packed[0]["index"], &packed[1]["index"]), (&json!(0), &json!(7)));
    // A producer may choose an id beyond today's.
    ground.letter(["9999999999999-0", "invalid_time", "time", "1", "", stream], &[]);
    let later = ground.json(&["dead", "show", "9999999999999-0"]);
    assert_eq!(later[0]["reason"], "invalid_time");
}

#[test]
fn status_knows_how_far_the_group_is() {
    let mut ground = Ground::new();
    for n in 1..=10 {
        ground.run(&format!("XADD rollcall:events {n}-0 type x"));
    }
    let page = ground.page(&["status"]);
    assert!(
        page.contains("stream   rollcall:events, 10 entries")
            && page.contains("no worker has started"),
        "{page}"
    );
    ground.json_has(
        &["status"],
        json!({"found": false, "group": "rollcall", "stream": "rollcall:events"}),
    );

    ground.run("XGROUP CREATE rollcall:events rollcall 0");
    ground.run("XGROUP SETID rollcall:events rollcall 4-0 ENTRIESREAD 4");
    ground.run("HSET rollcall:meta owner one term 7 cursor 4-0");
    ground.run("HSET rollcall:workers one 1 two 1");
    let now = ground.now_ms;
    let _: () = ground.conn.hset("rollcall:janitor", "last_run", now).unwrap();
    let total = &ground.json(&["status"])["total"];
    assert_eq!((&total["undelivered"], &total["undelivered_is_exact"]), (&json!(6), &json!(true)));
    let age = total["oldest_undelivered_age_s"].as_f64().unwrap();
    assert!((age - now as f64 / 1000.0).abs() < 60.0, "{age}: {total}");
    assert_eq!(
        (&total["entries"], &total["owned"], &total["workers"], &total["janitor_last_run_ms"]),
        (&json!(10), &json!(1), &json!(2), &json!(now))
    );
    let group = &ground.json(&["status"])["partitions"][0]["stream"]["group"];
    assert_eq!(
        (&group["owner"], &group["term"], &group["cursor"], &group["workers"]),
        (&json!("one"), &json!(7), &json!("4-0"), &json!(["one", "two"]))
    );
    let page = ground.page(&["status"]);
    assert!(page.contains("rollcall, 6 waiting (oldest "), "{page}");
    assert!(page.contains("\none        1  0\ntwo        0  -\n"), "{page}");
    ground.run("HDEL rollcall:meta owner");
    assert_eq!(ground.json(&["status"])["total"]["owned"], json!(0), "nobody owns it");

    // The position of a group that others moved does not count; the cursor does.
    ground.run("XGROUP SETID rollcall:events rollcall 9-0 ENTRIESREAD 9");
    let total = &ground.json(&["status"])["total"];
    assert!(total["oldest_undelivered_age_s"].is_number(), "{total}");
    assert_eq!(
        (&total["undelivered"], &total["undelivered_is_exact"]),
        (&json!(null), &json!(false))
    );
    ground.run("XGROUP SETID rollcall:events rollcall 4-0 ENTRIESREAD 4");

    // The count of entries ahead cannot be trusted once one of them was deleted.
    ground.run("XDEL rollcall:events 7-0");
    let total = &ground.json(&["status"])["total"];
    assert_eq!(total["undelivered_is_exact"], json!(false), "{total}");
    // But if all that is left comes after what was delivered, the count is the number of entries.
    ground.run("XTRIM rollcall:events MINID 6-0");
    let total = &ground.json(&["status"])["total"];
    assert_eq!((&total["undelivered"], &total["undelivered_is_exact"]), (&json!(4), &json!(true)));
}

#[test]
fn status_measures_the_state_against_its_caps_and_warns() {
    let mut ground = Ground::new();
    let meta = [("format", "2"), ("recent-cap", "4"), ("stream", "other"), ("group", "workers")];
    let _: () = ground.conn.hset_multiple("rollcall:meta", &meta).unwrap();
    ground.run("ZADD recent: 1 a 2 b 3 c");
    ground.run("XADD other 1-0 type x");
    ground.run("XGROUP CREATE other workers $");
    ground.run("CONFIG SET maxmemory-policy allkeys-lru");
    let answer = ground.json(&["status"]);
    assert_eq!(
        (&answer["found"], &answer["stream"], &answer["group"]),
        (&json!(true), &json!("other"), &json!("workers"))
    );
    assert!(
        answer["sizes"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "recent_tokens", "size": 3, "cap": 4}))
    );
    assert_eq!(answer["server"]["maxmemory_policy"], "allkeys-lru");
    assert_eq!(answer["total"]["undelivered"], 0);
    let page = ground.page(&["status"]);
    assert!(
        page.contains("WARNING: maxmemory-policy allkeys-lru") && page.contains("75 %"),
        "{page}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_trouble() {
    let mut ground = Ground::new();
    let minute = ground.now_ms / 60_000;
    let users: Vec<String> = (0..20_000).map(|n| format!("user{n}")).collect();
    let _: () = ground.conn.sadd(format!("online-users/{minute}"), users).unwrap();
    for words in [&["seen", "--limit", "0"][..], &["seen", "--json", "--limit", "0"], &["status"]] {
        assert_eq!(ground.closed(words), (Some(0), String::new()), "{words:?}");
    }
}
