//! A user whose sessions and documents are on other shards is erased on all of them, or the command says that it is
//! not done.

use super::ground::{Ground, PARTITIONS};
use super::{SOON, start};
use crate::erase::{forms, places};
use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::support::dump;
use rollcall::key::partition_of;

#[test]
fn a_user_is_erased_on_every_shard() {
    let mut ground = Ground::start(3, 0, &[]);
    let url = format!("redis+cluster://127.0.0.1:{}", ground.nodes[0].port());
    let worker = start("run", &url);
    let add = |name: &str, words: &[&str]| {
        let partition = partition_of(name, PARTITIONS);
        let key = format!("{{p{partition}}}:rollcall:events");
        let node = ground.node_of(partition);
        ground.ask::<String>(node, &[&["XADD", &key, "*"], words].concat());
    };
    for n in 0..8 {
        let (doc, sid) = (format!("d{n}"), format!("s{n}"));
        for user in ["vic", "bob"] {
            let join = ["type", "document", "action", "join", "doc", &doc, "user", user];
            add(&doc, &join);
        }
        add(&sid, &["type", "session", "sid", &sid, "user", "vic", "data", "{}"]);
        add("vic", &["type", "login", "user", "vic", "token", &format!("t{n}")]);
    }
    let count = |doc: &str| {
        let partition = partition_of(doc, PARTITIONS);
        let key = format!("{{p{partition}}}:sessions:doc:{doc}:count");
        ground.ask::<Option<String>>(ground.node_of(partition), &["GET", &key])
    };
    wait_until(SOON, "applied", || (0..8).all(|n| count(&format!("d{n}")).as_deref() == Some("2")));
    let words = ["erase", "vic", "--yes", "--json", "--partitions", "4"];
    let (code, out, error) = ask_at(&url, &words);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let receipt: serde_json::Value = serde_json::from_str(&out).unwrap();
    let counts =
        ["documents", "sessions", "session_data", "tokens"].map(|what| receipt[what].as_u64());
    assert_eq!(counts, [Some(8); 4], "{receipt}");
    for node in &ground.nodes {
        assert_eq!(places(&mut dump::connect(&node.url()), &forms("vic")), [""; 0]);
    }
    wait_until(SOON, "others are there", || {
        (0..8).all(|n| count(&format!("d{n}")).as_deref() == Some("1"))
    });
    // If a shard is down, the command does not claim that all is done.
    let partition = partition_of("vic", PARTITIONS);
    let node = ground.node_of(partition);
    ground.nodes[node].kill();
    let other =
        ground.nodes.iter().position(|one| one.port() != ground.nodes[node].port()).unwrap();
    let url = format!("redis+cluster://127.0.0.1:{}", ground.nodes[other].port());
    let (code, out, error) = ask_at(&url, &words);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    drop(worker);
}
