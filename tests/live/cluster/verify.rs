//! The state of all shards is verified and rebuilt through any node.

use std::time::Duration;

use serde_json::Value;

use super::ground::{Ground, PARTITIONS, user_in};
use super::{apply, start};
use crate::query::ground::ask_at;

#[test]
fn every_shard_is_verified_and_put_right() {
    let ground = Ground::start(2, 0, &[]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let url = format!("redis+cluster://127.0.0.1:{}", ground.nodes[0].port());
    let _run = start("run", &url);
    apply(&ground, &all, "here");
    let ask = |words: &[&str]| {
        let words = [words, &["--partitions", "4", "--json"]].concat();
        let (code, out, error) = ask_at(&url, &words);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{error}"));
        (code, report["differences"].as_array().unwrap().len(), report)
    };
    let (code, count, report) = ask(&["verify"]);
    assert_eq!((code, count), (0, 0), "{report}");
    for partition in &all {
        let key = format!("{{p{partition}}}:presence:users");
        let node = ground.node_of(*partition);
        assert_eq!(ground.ask::<u64>(node, &["DEL", &key]), 1);
    }
    assert_eq!(ask(&["verify"]).0, 1);
    let (code, count, report) = ask(&["rebuild", "--yes"]);
    assert_eq!((code, count), (0, all.len()), "{report}");
    assert!(all.iter().all(|partition| ground.has(*partition, "here")));
    assert_eq!(ask(&["verify"]).0, 0);
    for node in 0..2 {
        let left: Vec<String> = ground.ask(node, &["KEYS", "*rollcall:shadow:*"]);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Keys end a moment later then, by the time that it took to move them.
#[test]
fn a_slot_that_moved_is_no_difference() {
    let ground = Ground::start(2, 0, &[]);
    let url = format!("redis+cluster://127.0.0.1:{}", ground.nodes[0].port());
    let run = start("run", &url);
    for n in 0..50 {
        ground.add(0, &format!("user {n}"));
    }
    apply(&ground, &[0], "last");
    let source = ground.node_of(0);
    let target = 1 - source;
    let [from, to]: [String; 2] =
        [source, target].map(|node| ground.ask(node, &["CLUSTER", "MYID"]));
    let slot = ground.ask::<u64>(source, &["CLUSTER", "KEYSLOT", "{p0}"]).to_string();
    ground.ask::<()>(target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
    ground.ask::<()>(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]);
    let port = ground.nodes[target].port().to_string();
    let keys: Vec<String> = ground.ask(source, &["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
    let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
    let words: Vec<&str> = migrate.into_iter().chain(keys.iter().map(String::as_str)).collect();
    // The target takes its time.
    ground.signal(target, "STOP");
    std::thread::scope(|scope| {
        scope.spawn(|| ground.ask::<()>(source, &words));
        std::thread::sleep(Duration::from_millis(150));
        ground.signal(target, "CONT");
    });
    for node in [target, source] {
        ground.ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &to]);
    }
    let key = format!("{{p0}}:user-activity/{}", user_in(0, "last"));
    let (end, seconds) = (["PEXPIRETIME", &key], ["GET", &key]);
    let right = ground.ask::<u64>(target, &seconds) * 1_000 + 310_000;
    let late = ground.ask::<u64>(target, &end) - right;
    assert!((50..1_000).contains(&late), "{late} ms");
    let (code, out, error) = ask_at(&url, &["verify", "--partitions", "4"]);
    assert_eq!(code, 0, "{out}{error}");
    drop(run);
}
