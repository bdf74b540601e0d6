//! The state in the API: everything that exists, page by page, with any number of partitions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Served;
use crate::harness::wait_until;
use crate::scene::SOON;

/// All pages of a list, joined; no page exceeds the limit.
fn all(served: &Served, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    let separator = if path.contains('?') { '&' } else { '?' };
    for _ in 0..10_000 {
        let reply = served.client.get(&format!("{path}{separator}limit={limit}&cursor={cursor}"));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let page = reply.json();
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit, "{path}: {} of {limit}", found.len());
        items.extend(found.iter().cloned());
        match page["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return items,
        }
    }
    panic!("{path} does not end");
}

/// The values of one member, each of which may appear once.
fn once(items: &[Value], member: &str) -> BTreeSet<String> {
    let texts = items.iter().map(|item| item[member].as_str().unwrap().to_owned());
    let set: BTreeSet<_> = texts.collect();
    assert_eq!(set.len(), items.len(), "each once");
    set
}

fn names(prefix: &str, count: usize) -> BTreeSet<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// More users than a small hash keeps in one piece, some at several addresses, each with a session and a document.
fn crowd(served: &Served, users: usize) {
    let mut events = Vec::new();
    for n in 0..users {
        let (user, doc) = (format!("u{n}"), format!("d{}", n % 7));
        events.push(json!({ "type": "login", "user": user, "token": format!("t{n}"), "sid": format!("s{n}"), "ip": "10.0.0.1" }));
        events.push(json!({ "type": "view", "user": user, "token": format!("t{n}"), "item": format!("i{}", n % 50) }));
        events.push(json!({ "type": "heartbeat", "user": user, "ip": format!("10.0.1.{}", n % 3), "page": "/p", "doc": doc }));
    }
    for part in events.chunks(999) {
        served.add(&part.into());
    }
}

#[test]
fn pages_hold_everything_once_whatever_their_length() {
    for (partitions, users) in [("1", 700), ("4", 700), ("1", 40), ("3", 12)] {
        let served = Served::start(&[("partitions", partitions), ("max-skew", "1h")], &[]);
        crowd(&served, users);
        for limit in [1_000, 333, 10, 7] {
            let list = |path: &str| all(&served, path, limit);
            let what = format!("{partitions} partitions, {users} users, pages of {limit}");
            assert_eq!(once(&list("/api/v1/online"), "user"), names("u", users), "{what}");
            assert_eq!(once(&list("/api/v1/seen"), "user"), names("u", users), "{what}");
            assert_eq!(once(&list("/api/v1/sessions"), "sid"), names("s", users), "{what}");
            let presence = list("/api/v1/presence");
            let places: BTreeSet<_> =
                presence.iter().map(|p| (p["user"].to_string(), p["ip"].to_string())).collect();
            assert_eq!((places.len(), presence.len()), (2 * users, 2 * users), "{what}");
            let recent = list("/api/v1/recent");
            assert_eq!(once(&recent, "token"), names("t", users), "{what}");
            let times = recent.iter().map(|token| token["last_seen_ms"].as_u64().unwrap());
            assert!(times.rev().is_sorted(), "{what}");
            let items = list("/api/v1/most-viewed");
            assert_eq!(once(&items, "item"), names("i", users.min(50)), "{what}");
            let views = items.iter().map(|item| item["views"].as_u64().unwrap());
            assert!(views.clone().rev().is_sorted(), "{what}");
            assert_eq!(views.sum::<u64>(), users as u64, "{what}");
            let documents: BTreeMap<String, u64> = list("/api/v1/documents")
                .iter()
                .map(|d| (d["doc"].as_str().unwrap().to_owned(), d["users"].as_u64().unwrap()))
                .collect();
            assert_eq!(documents.len(), users.min(7), "{what}");
            assert_eq!(documents.values().sum::<u64>(), users as u64, "{what}");
            let members = once(&list("/api/v1/documents/d3"), "user");
            assert_eq!(members, (3..users).step_by(7).map(|n| format!("u{n}")).collect(), "{what}");
        }
        let mine = all(&served, "/api/v1/sessions?user=u5", 100);
        assert_eq!(once(&mine, "sid"), BTreeSet::from(["s5".to_owned()]));
        let counts = |path: &str| served.client.get(path).json()["count"].as_u64().unwrap();
        assert_eq!(counts("/api/v1/online"), users as u64);
        assert_eq!(counts("/api/v1/presence"), 2 * users as u64);
        assert_eq!(counts("/api/v1/sessions"), users as u64);
        assert_eq!(counts("/api/v1/recent"), users as u64);
    }
}

/// They were seen two minutes ago, and again between the first page and the second.
#[test]
fn who_is_seen_again_while_the_list_is_read_is_in_it() {
    let served = Served::start(&[("partitions", "2")], &[]);
    let seen = |ago_ms: u64| {
        let time = served.scene.now() - ago_ms;
        let event = |n| json!({ "type": "heartbeat", "user": format!("u{n}"), "time": time });
        served.add(&(0..300).map(event).collect());
    };
    seen(120_000);
    let mut found = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let page = served.client.get(&format!("/api/v1/seen?limit=100&cursor={cursor}")).json();
        let users = page["items"].as_array().unwrap().iter();
        found.extend(users.map(|item| item["user"].as_str().unwrap().to_owned()));
        if cursor.is_empty() {
            seen(0);
        }
        match page["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(found, names("u", 300));
}

#[test]
fn one_user_session_token_or_document_is_told_whole() {
    let served = Served::start(&[("thresholds", "2:1")], &[]);
    served.add(&json!([
        { "type": "login", "user": "a/b|c", "token": "t", "sid": "s", "ip": "10.0.0.1", "ua": "x" },
        { "type": "heartbeat", "user": "a/b|c", "ip": "10.0.0.2", "page": "/p", "doc": "d é" },
        { "type": "session", "sid": "s", "user": "a/b|c", "data": { "cart": [1] } },
        { "type": "view", "user": "a/b|c", "token": "t", "item": "i" },
        { "type": "document", "doc": "d é", "user": "b", "action": "join" },
    ]));
    let get = |path: &str| served.client.get(path).json();
    let user = get("/api/v1/users/a%2Fb%7Cc");
    assert_eq!((&user["user"], &user["online"]), (&json!("a/b|c"), &json!(true)));
    let ips: BTreeSet<_> =
        user["addresses"].as_array().unwrap().iter().map(|a| a["ip"].to_string()).collect();
    assert_eq!(ips, BTreeSet::from(["\"10.0.0.1\"".to_owned(), "\"10.0.0.2\"".to_owned()]));
    let nobody = json!({ "user": "x", "online": false, "last_seen_ms": null, "addresses": [] });
    assert_eq!(get("/api/v1/users/x"), nobody);
    let asked = r#"{"users":["a/b|c","x","a/b|c","x"]}"#;
    let list = served.client.post("/api/v1/users/query", asked).json();
    assert_eq!(list["users"], json!([user, nobody, user, nobody]), "named twice, told twice");
    assert_eq!(get("/api/v1/users/query")["user"], "query");
    let asked = r#"{"users":["x","a/b|c"],"changes":3}"#;
    let last = served.client.post("/api/v1/users/query", asked).json();
    let changes = last["changes"].as_array().unwrap();
    assert_eq!((changes.len(), &last["changes_since_ms"]), (3, &Value::Null));
    assert!(changes.iter().all(|change| change["user"] == "a/b|c"), "{changes:?}");
    assert!(changes.is_sorted_by_key(|change| std::cmp::Reverse(change["seq"].as_u64())));
    let session = get("/api/v1/sessions/s");
    assert_eq!((&session["active"], &session["data"]), (&json!(true), &json!(r#"{"cart":[1]}"#)));
    assert_eq!((&session["user"], &session["sid"]), (&json!("a/b|c"), &json!("s")));
    let token = get("/api/v1/tokens/t");
    assert_eq!((&token["user"], &token["viewed"]), (&json!("a/b|c"), &json!(1)));
    assert_eq!(get("/api/v1/tokens/t/viewed")["items"][0]["item"], "i");
    let document = get("/api/v1/documents/d%20%C3%A9");
    assert_eq!(
        (&document["count"], &document["thresholds"]),
        (&json!(2), &json!([{ "up": 2, "down": 1, "reached": true }]))
    );
    assert_eq!(get("/api/v1/documents/nowhere")["count"], 0);
    for path in ["/api/v1/sessions/x", "/api/v1/tokens/x"] {
        let reply = served.client.get(path);
        assert_eq!((reply.status, reply.problem().as_str()), (404, "not-found"));
    }
    assert_eq!(get("/api/v1/stats")["online"], 1);
    wait_until(SOON, "the worker's settings are found", || get("/api/v1/status")["found"] == true);
    let status = get("/api/v1/status");
    assert_eq!(status["stream"], "rollcall:events");
    assert_eq!(status["partitions"].as_array().unwrap().len(), 1);
}

#[test]
fn sessions_end_by_events_on_the_stream() {
    let served = Served::start(&[("partitions", "4")], &[]);
    let session = |n: usize| json!({ "type": "session", "sid": format!("s{n}"), "user": if n < 5 { "ann" } else { "bob" } });
    served.add(&(0..8).map(session).collect());
    let reply = served.client.delete("/api/v1/sessions/s7?wait=20s");
    assert_eq!((reply.status, &reply.json()["applied"]), (200, &json!(true)), "{reply:?}");
    assert_eq!(served.client.get("/api/v1/sessions/s7").status, 404);
    let reply = served.client.delete("/api/v1/sessions?user=ann&wait=20s");
    assert_eq!((reply.status, &reply.json()["applied"]), (200, &json!(true)), "{reply:?}");
    let left = once(&all(&served, "/api/v1/sessions", 100), "sid");
    assert_eq!(left, BTreeSet::from(["s5".to_owned(), "s6".to_owned()]));
    let reply = served.client.delete("/api/v1/sessions?user=nobody");
    assert_eq!((reply.status, reply.json()), (202, json!({ "ids": [], "errors": [] })));
    for path in ["/api/v1/sessions", "/api/v1/sessions?user="] {
        assert_eq!(served.client.delete(path).status, 400, "{path}");
    }
    let reply = served.client.delete(&format!("/api/v1/sessions/{}", "s".repeat(257)));
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[test]
fn parameters_that_cannot_be_are_told() {
    let served = Served::start(&[], &[]);
    for path in [
        "/api/v1/online?limit=0",
        "/api/v1/online?limit=1001",
        "/api/v1/online?limit=-1",
        "/api/v1/online?limit=many",
        "/api/v1/presence?cursor=x",
        "/api/v1/presence?cursor=o1.1",
        "/api/v1/recent?cursor=w1.0.0.0",
        "/api/v1/presence?cursor=w2.0.0.0",
        "/api/v1/seen?minutes=0",
        "/api/v1/seen?minutes=1441",
        "/api/v1/users/%ff",
        "/api/v1/online?limit=1&limit=2",
    ] {
        let reply = served.client.get(path);
        assert_eq!((reply.status, reply.problem().as_str()), (400, "bad-request"), "{path}");
    }
    let far = served.client.get("/api/v1/presence?cursor=w1.ffff.ffff.ffffffffffffffff").json();
    assert_eq!((&far["items"], &far["cursor"]), (&json!([]), &Value::Null));
    let most: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    for body in [
        json!({ "users": most }).to_string(),
        "{}".into(),
        "[".into(),
        r#"{"users":[7]}"#.into(),
        r#"{"users":[],"changes":0}"#.into(),
    ] {
        assert_eq!(served.client.post("/api/v1/users/query", &body).status, 400);
    }
}
