//! Events in the API: what is accepted, what is refused and why, and when they have had their effect.

use redis::Value as RedisValue;
use serde_json::{Value, json};

use super::Served;
use crate::harness::read_stream;
use rollcall::private_server::Options;

#[test]
fn one_event_many_or_lines_are_taken_and_bad_elements_refused_by_place() {
    let served = Served::start(&[], &[]);
    let heartbeat = |user: &str| json!({ "type": "heartbeat", "user": user }).to_string();
    let reply = served.client.post("/api/v1/events", &heartbeat("one"));
    assert_eq!((reply.status, &reply.json()["errors"]), (202, &json!([])));
    let id = reply.json()["ids"][0].as_str().unwrap().to_owned();
    let found: RedisValue = served.scene.command(&["XRANGE", "rollcall:events", &id, &id]);
    assert_ne!(found, RedisValue::Array(Vec::new()));
    let array =
        format!(r#"[{},{{"type":"view","user":"a"}},7,{}]"#, heartbeat("two"), heartbeat("three"));
    let reply = served.client.post("/api/v1/events?wait=20s", &array);
    let errors = reply.json()["errors"].clone();
    assert_eq!((reply.status, &reply.json()["applied"]), (200, &json!(true)));
    assert_eq!((&errors[0]["index"], &errors[0]["reason"]), (&json!(1), &json!("missing_field")));
    assert_eq!((&errors[1]["index"], &errors[1]["reason"]), (&json!(2), &json!("invalid_json")));
    let lines = format!("{}\n{{\n\n{}\n", heartbeat("four"), heartbeat("five"));
    let lined = served.client.with("Content-Type", "application/x-ndjson");
    let reply = lined.request("POST", "/api/v1/events?wait=20s", &lines);
    assert_eq!(reply.json()["errors"][0]["index"], 1, "{reply:?}");
    for user in ["one", "two", "three", "four", "five"] {
        let known = served.client.get(&format!("/api/v1/users/{user}")).json();
        assert_eq!(known["online"], true, "{user}");
    }
    assert!(served.scene.letters().is_empty(), "what was taken can be applied");
}

#[test]
fn events_of_one_request_go_in_one_entry_and_keep_their_order() {
    let served = Served::start(&[], &["--linger", "200ms"]);
    let events: Value =
        (0..100).map(|n| json!({ "type": "heartbeat", "user": format!("u{n}") })).collect();
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| served.add(&events));
        }
    });
    let entries = read_stream(&mut served.scene.connection(), "rollcall:events");
    let packed: usize = entries
        .iter()
        .map(|entry| {
            let events: Vec<Value> = serde_json::from_slice(entry.get(b"data").unwrap()).unwrap();
            for request in events.chunks(100) {
                let users: Vec<_> =
                    request.iter().map(|event| event["user"].as_str().unwrap()).collect();
                assert_eq!(users, (0..100).map(|n| format!("u{n}")).collect::<Vec<_>>());
            }
            events.len()
        })
        .sum();
    assert_eq!(packed, 500);
    assert!(entries.len() <= 5, "{} entries", entries.len());
}

#[test]
fn an_answer_names_the_entry_of_every_partition() {
    let served = Served::start(&[("partitions", "2")], &[]);
    // From now on both streams assign the same ids.
    let begun = "1990000000000-0";
    for stream in served.scene.streams() {
        served.scene.command::<String>(&["XADD", &stream, begun, "type", "heartbeat", "user", "x"]);
    }
    let users = (0..10).map(|n| json!({ "type": "heartbeat", "user": format!("u{n}") }));
    let body = Value::from_iter(users).to_string();
    let reply = served.client.post("/api/v1/events", &body).json();
    assert_eq!(reply["ids"], json!(["0:1990000000000-1", "1:1990000000000-1"]));
}

#[test]
fn what_a_request_means_does_not_depend_on_the_number_of_partitions() {
    let state = |partitions: &str| {
        let served = Served::start(&[("partitions", partitions)], &[]);
        served.add(&json!({
            "type": "heartbeat", "user": "ann", "ip": "1", "token": "t", "sid": "s1", "doc": "d1",
            "connection": "c",
        }));
        served.add(&json!({ "type": "login", "user": "bob", "ip": "2", "token": "t2", "sid": "s2", "ua": "x" }));
        served
            .add(&json!({ "type": "login", "user": "cid", "ip": "3", "token": "t3", "sid": "s3" }));
        served.add(
            &json!({ "type": "logout", "user": "cid", "ip": "3", "token": "t3", "sid": "s3" }),
        );
        let strip = |mut value: Value| {
            for item in value["items"].as_array_mut().unwrap() {
                let item = item.as_object_mut().unwrap();
                item.retain(|name, _| !name.ends_with("_ms") && name != "addresses");
            }
            let mut items: Vec<String> =
                value["items"].as_array().unwrap().iter().map(Value::to_string).collect();
            items.sort();
            items
        };
        ["online", "presence", "sessions", "recent", "documents", "documents/d1"]
            .map(|list| strip(served.client.get(&format!("/api/v1/{list}")).json()))
    };
    let one = state("1");
    assert_eq!(one[2].len(), 2, "{one:?}");
    assert_eq!(state("4"), one);
    assert_eq!(state("16"), one);
}

#[test]
fn bad_input_is_refused_with_its_reason() {
    let served = Served::start(&[], &[]);
    let good = r#"{"type":"heartbeat","user":"a"}"#;
    let many = format!("[{}]", vec![good; 1_001].join(","));
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let large = format!(r#"{{"type":"heartbeat","user":"a","page":"{}"}}"#, "x".repeat(1 << 20));
    let long = format!(r#"{{"type":"heartbeat","user":"{}"}}"#, "é".repeat(129));
    let cases: [(&str, u16, &str); 16] = [
        ("", 422, "no-event"),
        ("not json", 422, "no-event"),
        ("[", 400, "bad-request"),
        ("[]", 422, "no-event"),
        ("{}", 422, "no-event"),
        ("7", 422, "no-event"),
        ("null", 422, "no-event"),
        (r#"{"type":"nothing"}"#, 422, "no-event"),
        (r#"{"type":"heartbeat"}"#, 422, "no-event"),
        (r#"{"type":"heartbeat","user":7}"#, 422, "no-event"),
        (r#"{"type":"heartbeat","user":"a","time":"yesterday"}"#, 422, "no-event"),
        (r#"{"type":"session","sid":"s","action":"dance"}"#, 422, "no-event"),
        (&long, 422, "no-event"),
        (&many, 400, "bad-request"),
        (&deep, 400, "bad-request"),
        (&large, 413, "too-large"),
    ];
    for (body, status, kind) in cases {
        let reply = served.client.post("/api/v1/events", body);
        let shown = &body[..body.len().min(60)];
        assert_eq!((reply.status, reply.problem().as_str()), (status, kind), "{shown}: {reply:?}");
    }
    let reply = served.client.post("/api/v1/events", r#"[{"type":"nothing"},{"type":"view"}]"#);
    let errors = reply.json()["errors"].clone();
    assert_eq!((&errors[0]["reason"], &errors[1]["index"]), (&json!("unknown_type"), &json!(1)));
    let msgpack = served.client.with("Content-Type", "application/msgpack");
    assert_eq!(msgpack.request("POST", "/api/v1/events", good).status, 415);
    for wait in ["1", "soon", "-1s", "31s"] {
        let reply = served.client.post(&format!("/api/v1/events?wait={wait}"), good);
        assert_eq!((reply.status, reply.problem().as_str()), (400, "bad-request"), "{wait}");
    }
    for (method, path) in
        [("GET", "/api/v1/events"), ("PUT", "/api/v1/events"), ("POST", "/api/v1/online")]
    {
        let reply = served.client.request(method, path, "");
        assert_eq!((reply.status, reply.problem().as_str()), (405, "method-not-allowed"), "{path}");
        assert!(reply.headers.contains_key("allow"), "{reply:?}");
    }
    assert_eq!(served.client.get("/api/v2").problem(), "not-found");
    assert_eq!(served.client.post("/api/v1/events", good).status, 202, "nobody else is hurt");
}

#[test]
fn who_waits_for_an_effect_is_told_if_there_is_none_yet() {
    let served = Served::without_worker(Options::default(), &[]);
    let event = r#"{"type":"heartbeat","user":"a"}"#;
    let reply = served.client.post("/api/v1/events?wait=300ms", event);
    assert_eq!((reply.status, &reply.json()["applied"]), (202, &json!(false)), "{reply:?}");
    let worker = served.scene.worker(&[]);
    let reply = served.client.post("/api/v1/events?wait=20s", event);
    assert_eq!((reply.status, &reply.json()["applied"]), (200, &json!(true)), "{reply:?}");
    served.scene.drain(worker);
}

#[test]
fn a_caller_s_trace_goes_with_its_events() {
    let served = Served::start(&[], &[]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = served.client.with("traceparent", parent).with("tracestate", "a=\"1\"");
    assert_eq!(traced.post("/api/heartbeat", r#"{"user":"a"}"#).status, 200);
    let hostile = served.client.with("traceparent", "\",\"user\":\"eve");
    assert_eq!(hostile.post("/api/heartbeat", r#"{"user":"b"}"#).status, 200);
    let entries = read_stream(&mut served.scene.connection(), "rollcall:events");
    let event = |n: usize| -> Value {
        let mut events: Vec<Value> =
            serde_json::from_slice(entries[n].get(b"data").unwrap()).unwrap();
        events.pop().unwrap()
    };
    assert_eq!(
        (&event(0)["traceparent"], &event(0)["tracestate"]),
        (&json!(parent), &json!("a=\"1\""))
    );
    assert_eq!((&event(1)["user"], event(1).get("traceparent")), (&json!("b"), None));
}
