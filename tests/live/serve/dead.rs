//! Dead letters over HTTP: rights, pages that contain each once, and retries.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Served;
use crate::scene::SOON;

/// Adds entries that are not events, to each partition.
fn mistakes(served: &Served, count: usize) -> u64 {
    let mut conn = served.scene.connection();
    let streams = served.scene.streams();
    for stream in &streams {
        let mut pipe = redis::pipe();
        for n in 0..count {
            let kind = if n % 2 == 0 { "logn" } else { "x" };
            let fields = ["*", "type", kind, "user", &format!("u{n}")];
            pipe.cmd("XADD").arg(stream).arg(&fields);
        }
        pipe.exec(&mut conn).unwrap();
    }
    served.scene.wait_finished(SOON, "they become dead letters");
    (count * streams.len()) as u64
}

fn post(served: &Served, path: &str, body: &Value) -> Value {
    let reply = served.client.post(path, &body.to_string());
    assert_eq!(reply.status, 200, "{body}: {reply:?}");
    reply.json()
}

#[test]
fn dead_letters_are_paged_tried_again_and_dropped() {
    for partitions in ["1", "3"] {
        let served = Served::start(&[("partitions", partitions)], &[]);
        let all = mistakes(&served, 40);
        for (query, expected) in
            [("", all), ("&type=logn", all / 2), ("&since=1h", all), ("&until=1h", 0)]
        {
            let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
            loop {
                let page = format!("/api/v1/dead?limit=7&cursor={cursor}{query}");
                let page = served.client.get(&page).json();
                assert_eq!(page["count"], all);
                let items = page["items"].as_array().unwrap();
                ids.extend(
                    items.iter().map(|one| (one["stream"].to_string(), one["id"].to_string())),
                );
                match page["cursor"].as_str() {
                    Some(next) => next.clone_into(&mut cursor),
                    None => break,
                }
            }
            assert_eq!(ids.len() as u64, expected, "{query}");
        }
        let first = served.client.get("/api/v1/dead?limit=1").json()["items"][0].clone();
        let (own, entry) = (first["id"].as_str().unwrap(), first["entry_id"].as_str().unwrap());
        for id in [own, entry] {
            let shown = served.client.get(&format!("/api/v1/dead/{id}")).json();
            assert_eq!(shown["items"][0]["fields"][0], json!({"name": "type", "value": "x"}));
        }
        let dry = json!({"type": "logn", "set": {"type": "heartbeat"}, "dry_run": true});
        let answer = post(&served, "/api/v1/dead/retry", &dry);
        assert_eq!((&answer["matched"], &answer["retried"]), (&json!(all / 2), &json!(0)));
        // Letters that fail again are not met again by the following requests.
        let mut retried = 0;
        let mut order = json!({"all": true, "limit": 10});
        loop {
            let answer = post(&served, "/api/v1/dead/retry", &order);
            retried += answer["retried"].as_u64().unwrap();
            served.scene.wait_finished(SOON, "they fail again");
            match answer["cursor"].as_str() {
                Some(_) => order["cursor"] = answer["cursor"].clone(),
                None => break,
            }
        }
        assert_eq!(retried, all);
        let again = served.client.get("/api/v1/dead?limit=1").json();
        assert_eq!(again["count"], all);
        assert!(again["items"][0]["retry_of"].is_string(), "{again}");
        let id = again["items"][0]["id"].clone();
        assert_eq!(post(&served, "/api/v1/dead/drop", &json!({"ids": [id]}))["dropped"], 1);
        let gone = post(&served, "/api/v1/dead/drop", &json!({"reason": "unknown_type"}));
        assert_eq!((&gone["dropped"], &gone["cursor"]), (&json!(all - 1), &Value::Null));
    }
}

#[test]
fn who_may_only_read_changes_nothing_and_a_slip_is_no_order() {
    let files = tempfile::tempdir().unwrap();
    let (read, write) = (files.path().join("read"), files.path().join("write"));
    std::fs::write(&read, "reader\n").unwrap();
    std::fs::write(&write, "writer\n").unwrap();
    let (read, write) = (read.display().to_string(), write.display().to_string());
    let served = Served::start(&[], &["--read-token-file", &read, "--write-token-file", &write]);
    mistakes(&served, 2);
    let (reader, writer) = (served.client.bearer("reader"), served.client.bearer("writer"));
    for path in ["/api/v1/dead/retry", "/api/v1/dead/drop"] {
        assert_eq!(reader.post(path, r#"{"all":true}"#).status, 403);
        assert_eq!(served.client.post(path, r#"{"all":true}"#).status, 401);
        for slip in [
            "{}",
            "[]",
            r#"{"all":false}"#,
            r#"{"all":true,"reason":"x"}"#,
            r#"{"resaon":"x"}"#,
            r#"{"all":true,"dryrun":true}"#,
            r#"{"ids":["7"]}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"all":true,"limit":0}"#,
            r#"{"all":true,"cursor":"w0.0.0"}"#,
        ] {
            let reply = writer.post(path, slip);
            assert_eq!((reply.status, reply.problem().as_str()), (400, "bad-request"), "{slip}");
        }
    }
    for path in ["/api/v1/dead", "/api/v1/dead/7-0"] {
        assert_eq!(writer.get(path).status, 403);
    }
    for slip in
        ["/api/v1/dead?limit=0", "/api/v1/dead?cursor=x", "/api/v1/dead/7", "/api/v1/dead?since=x"]
    {
        assert_eq!(reader.get(slip).status, 400, "{slip}");
    }
    assert_eq!(reader.get("/api/v1/dead/7-0").problem(), "not-found");
    assert_eq!(reader.get("/api/v1/dead").json()["count"], 2);
    let done = writer.post("/api/v1/dead/drop", r#"{"all":true}"#).json();
    assert_eq!(done["dropped"], 2);
}
