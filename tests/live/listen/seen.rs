//! Events as they come, for people who watch.

use serde_json::{Value, json};

use super::{Client, address};
use crate::harness::wait_until;
use crate::scene::SOON;
use crate::serve::Served;

fn watch(served: &Served, headers: &str) -> Client {
    Client::ask(address(&served.serve), "/api/v1/activity", headers).unwrap()
}

fn readers(served: &Served) -> usize {
    let clients: String = served.scene.command(&["CLIENT", "LIST"]);
    clients.lines().filter(|line| line.contains("cmd=xread ")).count()
}

#[test]
fn events_are_told_as_they_come_without_what_is_secret() {
    let served = Served::start(&[], &["--activity-interval", "100ms"]);
    let mut client = watch(&served, "");
    // The worker, the feed, and the reader of activity.
    wait_until(SOON, "the stream is read along", || readers(&served) == 3);
    let time = 1_790_000_000_000_u64;
    served.add(&json!([
        {"type": "heartbeat", "user": "ann", "ip": "::1", "page": "/p", "token": "tk", "time": time},
        {"type": "session", "sid": "s1", "user": "ann", "ua": "agent", "data": {"secret": 1}, "time": time},
        {"type": "document", "user": "ann", "doc": "d", "action": "join", "time": time},
        {"type": "view", "user": "ann", "token": "tk", "item": "lamp", "time": time},
    ]));
    let expected = [
        json!({"type": "heartbeat", "user": "ann", "ip": "::1", "page": "/p"}),
        json!({"type": "session", "user": "ann", "sid": "s1"}),
        json!({"type": "document", "user": "ann", "doc": "d", "action": "join"}),
        json!({"type": "view", "user": "ann", "item": "lamp"}),
    ];
    let mut heard: Vec<Value> = (0..expected.len()).map(|_| client.next().json()).collect();
    heard.sort_by_key(|event| event["index"].as_u64());
    for (index, (event, expected)) in heard.iter_mut().zip(expected).enumerate() {
        let members = event.as_object_mut().unwrap();
        assert!(members.remove("id").unwrap().as_str().unwrap().contains('-'));
        let place = ["partition", "index", "time"].map(|name| members.remove(name).unwrap());
        assert_eq!(place, [json!(0), json!(index), json!(time)]);
        assert_eq!(*event, expected);
    }
    drop(client);
    wait_until(SOON, "it is read no more", || readers(&served) == 2);
}

#[test]
fn more_events_than_anybody_can_read_are_counted() {
    let flags = ["--activity-interval", "500ms", "--activity-rate", "10"];
    let served = Served::start(&[], &flags);
    let mut client = watch(&served, "");
    wait_until(SOON, "the stream is read along", || readers(&served) == 3);
    let event = |n: u32| json!({"type": "heartbeat", "user": n.to_string()});
    served.add(&(0..100).map(event).collect());
    let (mut told, mut left_out) = (0, 0);
    while told + left_out < 100 {
        let event = client.next();
        match event.name.as_str() {
            "left_out" => left_out += event.json()["count"].as_u64().unwrap(),
            _ => told += 1,
        }
    }
    assert!((5..=10).contains(&told) && told + left_out == 100, "{told} and {left_out}");
}

#[test]
fn a_watcher_hears_as_long_as_its_token_counts_and_the_process_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let mut served = Served::start(&[], &["--read-token-file", file.to_str().unwrap()]);
    assert_eq!(served.client.get("/api/v1/activity").status, 401);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let (mut one, mut two) = (watch(&served, &bearer("one")), watch(&served, &bearer("two")));
    std::fs::write(&file, "two\n").unwrap();
    assert_eq!(one.end(), "the token is no longer valid");
    assert_eq!(served.serve.terminate(), 0, "{}", served.serve.log());
    assert_eq!(two.end(), "the server stops");
}
