//! What was answered with success is on the stream, whatever happens to Redis; what was not is reported.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rollcall::private_server::Options;
use serde_json::Value;

use super::Served;
use super::client::Client;
use crate::harness::{read_stream, wait_until};
use crate::scene::{SOON, metric};

/// The users of all events on the stream.
fn users(served: &Served) -> Vec<String> {
    let entries = read_stream(&mut served.scene.connection(), "rollcall:events");
    let events = entries.iter().flat_map(|entry| {
        serde_json::from_slice::<Vec<Value>>(entry.get(b"data").unwrap()).unwrap()
    });
    events.map(|event| event["user"].as_str().unwrap().to_owned()).collect()
}

fn always() -> Options {
    let extra_args = ["--appendfsync", "always"].map(str::to_owned).to_vec();
    Options { appendonly: true, extra_args, ..Options::default() }
}

#[test]
fn what_was_answered_with_success_survives_redis_being_killed_and_is_there_once() {
    let mut served = Served::without_worker(always(), &["--buffer", "10000,8MiB,20s"]);
    let (_other, other) = served.another(&["--buffer", "10000,8MiB,20s"]);
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let traffic = |client: Client, name: usize| {
        let (stop, sent) = (&stop, &sent);
        move || {
            let (mut taken, mut doubtful) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let user = format!("{name}-{}", sent.fetch_add(1, Ordering::Relaxed));
                let reply = client.post("/api/heartbeat", &format!(r#"{{"user":"{user}"}}"#));
                match reply.status {
                    200 => taken.push(user),
                    503 => {
                        doubtful.push((user, reply.json()["message"].as_str().unwrap().to_owned()))
                    }
                    status => panic!("{status}: {reply:?}"),
                }
            }
            (taken, doubtful)
        }
    };
    let (mut taken, mut doubtful) = (BTreeSet::new(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|name| {
                let client = if name % 2 == 0 { served.client.clone() } else { other.clone() };
                scope.spawn(traffic(client, name))
            })
            .collect();
        for _ in 0..5 {
            let before = sent.load(Ordering::Relaxed);
            wait_until(SOON, "events go", || sent.load(Ordering::Relaxed) > before + 100);
            served.scene.deployment.server.kill();
            std::thread::sleep(Duration::from_millis(300));
            served.scene.deployment.server.restart().unwrap();
        }
        let before = sent.load(Ordering::Relaxed);
        wait_until(SOON, "events go again", || sent.load(Ordering::Relaxed) > before + 100);
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let (own, unknown) = thread.join().unwrap();
            taken.extend(own);
            doubtful.extend(unknown);
        }
    });
    let found = users(&served);
    let once: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(once.len(), found.len(), "none was sent twice");
    let lost: Vec<_> = taken.difference(&once).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", taken.len());
    // Only what was in flight when the server died can be in doubt: one entry each time, for each process.
    let told: BTreeSet<_> = doubtful.iter().map(|(_, message)| message.as_str()).collect();
    assert!(
        told.iter().all(|message| message.contains("may or may not be on the stream")),
        "{told:?}"
    );
    assert!(doubtful.len() <= 5 * 8 && taken.len() > 500, "{} in doubt", doubtful.len());
}

#[test]
fn events_wait_for_redis_within_their_bounds_and_are_told_beyond_them() {
    let flags = ["--buffer", "3,1MiB,3s", "--http", "127.0.0.1:0"];
    let mut served = Served::without_worker(always(), &flags);
    served.scene.deployment.server.kill();
    let client = served.client.clone();
    let heartbeat = |user: &str| client.post("/api/heartbeat", &format!(r#"{{"user":"{user}"}}"#));
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            ["a", "b", "c"].map(|user| scope.spawn(move || heartbeat(user))).into();
        wait_until(SOON, "three wait", || {
            metric(&served.serve, "rollcall_intake_buffered_events") == 3.0
        });
        let asked = Instant::now();
        let reply = heartbeat("d");
        assert_eq!((reply.status, &*reply.headers["retry-after"]), (503, "1"), "{reply:?}");
        assert!(reply.json()["message"].as_str().unwrap().contains("too many events are waiting"));
        assert!(asked.elapsed() < Duration::from_secs(1), "at once: {:?}", asked.elapsed());
        served.scene.deployment.server.restart().unwrap();
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap().status == 200));
    });
    let found: BTreeSet<String> = users(&served).into_iter().collect();
    assert_eq!(found, ["a", "b", "c"].map(str::to_owned).into());
    served.scene.deployment.server.kill();
    let unready = || crate::scene::page(&served.serve, "/readyz").0 == 503;
    wait_until(SOON, "it was noticed", unready);
    // A connection that answered just now is trusted, and what is sent over it is in doubt.
    std::thread::sleep(Duration::from_millis(50));
    let asked = Instant::now();
    let reply = served.client.post("/api/v1/events", r#"{"type":"heartbeat","user":"e"}"#);
    assert_eq!(
        (reply.status, reply.json()["reason"].as_str()),
        (503, Some("redis_away")),
        "{reply:?}"
    );
    let waited = asked.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(10), "{waited:?}");
    let state = served.client.get("/api/v1/online");
    assert_eq!((state.status, state.problem().as_str()), (503, "unavailable"), "{state:?}");
    assert!(state.headers.contains_key("retry-after"), "{state:?}");
    let (status, why) = crate::scene::page(&served.serve, "/readyz");
    assert!(status == 503 && why.contains("serve: "), "{status} {why}");
    served.scene.deployment.server.restart().unwrap();
    wait_until(SOON, "it is ready again", || crate::scene::page(&served.serve, "/readyz").0 == 200);
    assert_eq!(served.client.get("/api/v1/online").status, 200);
}

#[test]
fn a_server_that_refuses_for_a_while_costs_no_event() {
    let served = Served::without_worker(Options::default(), &["--buffer", "1000,1MiB,20s"]);
    for (refuse, allow) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (
            ["CONFIG", "SET", "min-replicas-to-write", "1"],
            ["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
    ] {
        served.scene.command::<String>(&refuse);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| served.client.post("/api/heartbeat", r#"{"user":"a"}"#));
            wait_until(SOON, "it was refused", || {
                let stats: String = served.scene.command(&["INFO", "errorstats"]);
                stats.contains("errorstat_OOM") || stats.contains("errorstat_NOREPLICAS")
            });
            served.scene.command::<String>(&["CONFIG", "RESETSTAT"]);
            served.scene.command::<String>(&allow);
            assert_eq!(waiting.join().unwrap().status, 200);
        });
    }
    assert_eq!(users(&served), ["a", "a"]);
    served.scene.command::<i64>(&["DEL", "rollcall:events"]);
    served.scene.command::<String>(&["SET", "rollcall:events", "not a stream"]);
    let reply = served.client.post("/api/v1/events", r#"{"type":"heartbeat","user":"b"}"#);
    assert_eq!(
        (reply.status, reply.json()["reason"].as_str()),
        (503, Some("redis_refuses")),
        "{reply:?}"
    );
    wait_until(SOON, "it says why", || served.serve.log().contains("WRONGTYPE"));
}

#[test]
fn a_server_that_falls_silent_leaves_events_in_doubt_and_not_forgotten() {
    let served = Served::without_worker(Options::default(), &[]);
    let warm = served.client.post("/api/heartbeat", r#"{"user":"a"}"#);
    assert_eq!(warm.status, 200);
    let pid = served.scene.deployment.server.pid().unwrap().to_string();
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &pid]).status();
        assert!(sent.unwrap().success());
    };
    // Immediately before, since a connection that was silent for longer is tested first.
    served.client.post("/api/heartbeat", r#"{"user":"b"}"#);
    signal("-STOP");
    let reply = served.client.post("/api/heartbeat", r#"{"user":"c"}"#);
    signal("-CONT");
    assert_eq!(reply.status, 503, "{reply:?}");
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    let is_there = users(&served).contains(&"c".to_owned());
    assert!(message.contains("may or may not be on the stream") || !is_there, "{message}");
    wait_until(SOON, "it goes on", || {
        served.client.post("/api/heartbeat", r#"{"user":"d"}"#).status == 200
    });
}
