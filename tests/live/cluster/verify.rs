//! The state of all shards is verified and rebuilt through any node.

use serde_json::Value;

use super::ground::{Ground, PARTITIONS};
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
