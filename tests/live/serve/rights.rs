//! The user of `deploy/acl/serve.acl` can do everything that `serve` does, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;

use super::client::Client;
use crate::acl::{Guarded, commands};
use crate::harness::wait_until;
use crate::scene::{SOON, try_command};
use crate::support::dump;

/// For following changes and activity; merging the rankings of several partitions is tried in `acl.rs`.
const ELSEWHERE: [&str; 3] = ["xread", "xrevrange", "zmscore"];

#[test]
fn serve_has_the_rights_it_needs_and_no_others() {
    let guarded = Guarded::start("");
    let mut worker = guarded.process("worker", &[]);
    let serve = guarded.process("serve", &["--listen", "127.0.0.1:0"]);
    let client = Client::new(&super::address(&serve));
    wait_until(SOON, "serve reaches Redis", || !client.is_away());
    let mut admin = guarded.admin();
    let a_while_ago = dump::server_now(&mut admin) - 90_000;
    let events = json!([
        { "type": "heartbeat", "user": "old", "time": a_while_ago },
        { "type": "login", "user": "ann", "token": "t", "sid": "s", "ip": "1" },
        { "type": "view", "user": "ann", "token": "t", "item": "i" },
        { "type": "heartbeat", "user": "ann", "doc": "d" },
        { "type": "session", "sid": "s2", "user": "ann", "ttl": 60, "data": {} },
    ]);
    let crowd = |n: u32| json!({ "type": "heartbeat", "user": "crowd", "ip": n.to_string() });
    for events in [events, (0..20).map(crowd).collect()] {
        let reply = client.post("/api/v1/events?wait=20s", &events.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(worker.terminate(), 0);
    // Another group has a pending entry.
    for words in [
        "XGROUP CREATE rollcall:events reports 0",
        "XREADGROUP GROUP reports c COUNT 1 STREAMS rollcall:events >",
    ] {
        let words: Vec<_> = words.split(' ').collect();
        try_command::<redis::Value>(&mut admin, &words).unwrap();
    }
    let _before = guarded.called();
    for path in [
        "online",
        "seen?minutes=5",
        "users/ann",
        "users/crowd",
        "presence",
        "sessions",
        "sessions?user=ann",
        "sessions/s",
        "tokens/t",
        "tokens/t/viewed",
        "recent",
        "most-viewed",
        "documents",
        "documents/d",
        "stats",
        "status",
    ] {
        let reply = client.get(&format!("/api/v1/{path}"));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    for path in [
        "/admin/presence/redis",
        "/admin/sessions/redis",
        "/admin/redis/stats",
        "/admin/redis/debug",
        "/online",
    ] {
        assert_eq!(client.get(path).status, 200, "{path}");
    }
    assert_eq!(
        client.post("/api/v1/events?wait=1ms", r#"{"type":"heartbeat","user":"a"}"#).status,
        202
    );
    assert_eq!(client.delete("/api/v1/sessions?user=ann").status, 202);
    redis::cmd("SET").arg("recent:").arg("no sorted set").exec(&mut admin).unwrap();
    assert_eq!(client.get("/api/v1/recent").status, 503);
    guarded.nothing_was_refused(&[serve.log()]);
    let mut called: BTreeSet<String> = ELSEWHERE.map(str::to_owned).into();
    wait_until(SOON, "the connections were looked after", || {
        called.extend(guarded.called());
        called.contains("time")
    });
    let idle: Vec<_> = commands("serve").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "serve is allowed what it never does: {idle:?}");
}
