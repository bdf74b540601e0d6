//! Whoever asks is answered by the shards that are there: queries, status, doctor, load, and what `serve` serves.

use serde_json::{Value, json};

use super::ground::{Ground, PARTITIONS, user_in};
use super::{SOON, apply, start};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::serve::address;
use crate::serve::client::Client;

#[test]
fn what_lies_on_other_shards_is_asked_and_added_while_one_is_down() {
    let mut ground = Ground::start(3, 0, &[]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let victim = ground.node_of(0);
    let kept = *all.iter().find(|partition| ground.node_of(**partition) != victim).unwrap();
    let kept_node = ground.node_of(kept);
    let url = format!(
        "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
        ground.nodes[victim].port(),
        ground.nodes[kept_node].port()
    );
    let mut worker = start("run", &url);
    apply(&ground, &all, "first");
    let [lost_user, kept_user] = [0, kept].map(|partition| user_in(partition, "first"));
    let serve = |url: &str| {
        let args = ["--partitions", "4", "--listen", "127.0.0.1:0"];
        let serve = Worker::start_as("serve", url, &args, &[]);
        let client = Client::new(&address(&serve));
        (serve, client)
    };
    let status = |client: &Client, user: &str| client.get(&format!("/api/v1/users/{user}")).status;
    let (mut early, client) = serve(&url);
    wait_until(SOON, "it serves", || status(&client, &lost_user) == 200);
    ground.nodes[victim].kill();
    let (mut late, other) = serve(&url);
    for client in [&client, &other] {
        wait_until(SOON, "the other shard is served", || status(client, &kept_user) == 200);
        wait_until(SOON, "what is away is told", || status(client, &lost_user) == 503);
        let added = client.post(
            "/api/v1/events?wait=10s",
            &json!({ "type": "heartbeat", "user": kept_user, "page": "/while-down" }).to_string(),
        );
        assert_eq!((added.status, status(client, &kept_user)), (200, 200), "{added:?}");
        assert_eq!(client.get("/api/v1/online").status, 503, "not all of it can be told");
        wait_until(SOON, "the status tells which partitions are away", || {
            let body = client.get("/api/v1/status").body;
            let body: Value = serde_json::from_str(&body).unwrap();
            let is_away =
                |partition: u16| body["partitions"][usize::from(partition)]["away"].is_string();
            is_away(0) && !is_away(kept)
        });
    }
    let ask = |words: &[&str]| ask_at(&url, &[words, &["--partitions", "4"]].concat());
    assert_eq!(ask(&["user", &kept_user]).0, 0);
    let (code, _, error) = ask(&["user", &lost_user]);
    assert!(code == 1 && error.contains("no node leads to slot"), "{error}");
    let (code, out, error) = ask(&["status"]);
    assert!(code == 0 && out.contains("away"), "{out}{error}");
    let (code, out, _) = ask(&["doctor"]);
    assert!(code == 1 && out.contains("this partition stands still"), "{out}");
    ground.nodes[victim].restart().unwrap();
    ground.wait_until_joined();
    apply(&ground, &all, "back");
    for client in [&client, &other] {
        wait_until(SOON, "all is served", || status(client, &user_in(0, "back")) == 200);
        assert_eq!(client.get("/api/v1/online").status, 200);
    }
    for process in [&mut early, &mut late, &mut worker] {
        let log = process.log();
        assert_eq!(process.terminate(), 0, "{log}");
        assert!(log.lines().count() < 100, "{log}");
    }
    let (code, _, error) = ask(&["load", "--count", "500", "--rate", "0"]);
    assert_eq!(code, 0, "{error}");
}
