//! The source documents' endpoints, as their front ends use them.

use serde_json::json;

use super::Served;
use crate::harness::wait_until;
use crate::scene::SOON;

#[test]
fn the_source_document_s_front_end_finds_what_it_always_found() {
    let served = Served::start(&[], &[]);
    let browser = served.client.with("User-Agent", "Test/1");
    let success = json!({ "status": "success" });
    let reply =
        browser.post("/api/heartbeat", r#"{"user":"ann","page":"/cart","sid":"x","ip":"1.1.1.1"}"#);
    assert_eq!((reply.status, reply.json()), (200, success.clone()));
    let reply = browser.post("/api/session/update", r#"{"sid":"s-1","user":"ann"}"#);
    assert_eq!((reply.status, reply.json()), (200, success.clone()));
    let reply = browser.post("/api/session/update", r#"{"sid":"s-2","user":null}"#);
    assert_eq!((reply.status, reply.json()), (200, success));
    wait_until(SOON, "both sessions are there", || {
        browser.get("/admin/sessions/redis").json()["count"] == 2
    });
    let presence = browser.get("/admin/presence/redis").json();
    let seen = presence["items"][0]["lastSeen"].as_u64().unwrap();
    assert_eq!(
        presence["items"],
        json!([{ "user": "ann", "ip": "127.0.0.1", "ua": "Test/1", "page": "/cart", "lastSeen": seen }])
    );
    assert_eq!((&presence["status"], &presence["source"]), (&json!("success"), &json!("redis")));
    assert_eq!(presence["count"], 1);
    assert!(presence["timestamp"].as_u64().unwrap() >= seen);
    let sessions = browser.get("/admin/sessions/redis").json();
    let find = |sid: &str| {
        let items = sessions["items"].as_array().unwrap();
        items.iter().find(|item| item["sid"] == sid).unwrap().clone()
    };
    let one = find("s-1");
    let expected = json!({
        "sid": "s-1", "session_id": "s-1", "user": "ann", "ip": "127.0.0.1", "ua": "Test/1",
        "last_activity": one["last_activity"].as_u64().unwrap(),
    });
    assert_eq!(one, expected);
    assert_eq!(find("s-2")["user"], "unknown");
    assert_eq!(browser.get("/online").body, "Online: ann");
    assert_eq!(browser.get("/online").headers["content-type"], "text/plain; charset=utf-8");
}

#[test]
fn statistics_and_samples_are_those_of_the_source_document() {
    let served = Served::start(&[], &[]);
    let user = |n: u32| json!({ "type": "login", "user": format!("u{n}"), "token": "t", "sid": n.to_string() });
    served.add(&(0..5).map(user).collect());
    let stats = served.client.get("/admin/redis/stats").json();
    assert_eq!(stats["status"], "success");
    let stats = stats["stats"].as_object().unwrap();
    let mut names: Vec<&str> = stats.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "connected_clients",
        "db_size",
        "keyspace_hits",
        "keyspace_misses",
        "memory_used",
        "presence_keys",
        "sessions_keys",
        "total_commands_processed",
    ];
    assert_eq!(names, expected);
    assert!(stats["memory_used"].as_str().unwrap().ends_with('M'), "{stats:?}");
    assert_eq!((&stats["presence_keys"], &stats["sessions_keys"]), (&json!(5), &json!(5)));
    assert!(stats["db_size"].as_u64().unwrap() > 10);
    let debug = served.client.get("/admin/redis/debug").json()["debug"].clone();
    assert_eq!((&debug["presence_count"], &debug["sessions_count"]), (&json!(5), &json!(5)));
    assert_eq!(debug["presence_keys"].as_array().unwrap().len(), 5);
    let samples = debug["sample_presence"].as_object().unwrap();
    assert_eq!(samples.len(), 3);
    let (key, value) = samples.iter().next().unwrap();
    let value: serde_json::Value = serde_json::from_str(value.as_str().unwrap()).unwrap();
    assert_eq!(format!("{}|", value["user"].as_str().unwrap()), *key);
    assert_eq!(debug["sample_sessions"].as_object().unwrap().len(), 3);
}

#[test]
fn errors_are_those_of_the_source_document() {
    let served = Served::start(
        &[],
        &["--read-token-file", "/dev/null", "--write-token-file", &token_file()],
    );
    let client = served.client.bearer("secret");
    let error = |path: &str, body: &str| {
        let reply = client.post(path, body);
        let json = reply.json();
        assert_eq!(json["status"], "error", "{reply:?}");
        (reply.status, json["message"].as_str().unwrap().to_owned())
    };
    let required = (400, "User required".to_owned());
    for body in ["{}", r#"{"user":""}"#, r#"{"user":null,"page":"/"}"#] {
        assert_eq!(error("/api/heartbeat", body), required, "{body}");
    }
    assert_eq!(error("/api/session/update", r#"{"user":"a"}"#).1, "Session ID required");
    for body in [
        "",
        "{",
        "[]",
        "7",
        "null",
        r#"{"user":7}"#,
        r#"{"user":"a","page":{}}"#,
        "{\"user\":\"\u{1}\"} {}",
    ] {
        assert_eq!(error("/api/heartbeat", body).0, 400, "{body}");
    }
    let long = format!(r#"{{"user":"{}"}}"#, "a".repeat(257));
    assert_eq!(
        error("/api/heartbeat", &long),
        (400, "user has 257 bytes; the limit is 256".to_owned())
    );
    let reply = client.get("/api/heartbeat");
    assert_eq!((reply.status, &*reply.headers["allow"]), (405, "POST"));
    assert_eq!(reply.json()["status"], "error");
    for path in ["/admin/presence/redis", "/admin/redis/stats", "/admin/redis/debug"] {
        let reply = client.get(path);
        assert_eq!((reply.status, &reply.json()["status"]), (403, &json!("error")), "{path}");
    }
    let reply = served.client.post("/api/heartbeat", r#"{"user":"a"}"#);
    assert_eq!((reply.status, &reply.json()["status"]), (401, &json!("error")));
}

fn token_file() -> String {
    let path = std::env::temp_dir().join(format!("rollcall-test-token-{}", std::process::id()));
    std::fs::write(&path, "secret\n").unwrap();
    path.display().to_string()
}
