//! Queries are answered by the shards that are up: queries, status, doctor, load, and everything that `serve` serves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::ground::{Ground, PARTITIONS, user_in};
use super::{SOON, apply, start};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::serve::address;
use crate::serve::client::Client;

/// The lines of the changes as server-sent events.
struct Live(Receiver<String>);

impl Live {
    fn of(address: &str) -> Self {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
        write!(stream, "GET /api/v1/changes HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            lines.into_iter().all(|line| sender.send(line).is_ok())
        });
        Self(lines)
    }

    /// Repeats this until a line contains the text.
    fn wait_for(&self, text: &str, mut again: impl FnMut()) {
        wait_until(SOON, text, || {
            again();
            std::thread::sleep(Duration::from_millis(200));
            self.0.try_iter().any(|line| line.contains(text))
        });
    }
}

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
    let live = Live::of(&address(&late));
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
    // A listener that came meanwhile receives the other shards' changes, and a gap once the shard is back.
    let mut newcomers = 0;
    live.wait_for("newcomer", || {
        newcomers += 1;
        ground.add(kept, &format!("newcomer-{newcomers}"));
    });
    let ask = |words: &[&str]| ask_at(&url, &[words, &["--partitions", "4"]].concat());
    assert_eq!(ask(&["user", &kept_user]).0, 0);
    let (code, _, error) = ask(&["user", &lost_user]);
    assert!(code == 1 && error.contains("no node leads to slot"), "{error}");
    let (code, out, error) = ask(&["status"]);
    assert!(code == 0 && out.contains("away"), "{out}{error}");
    let (code, out, _) = ask(&["doctor"]);
    assert!(code == 1 && out.contains("this partition is not served"), "{out}");
    ground.nodes[victim].restart().unwrap();
    ground.wait_until_joined();
    apply(&ground, &all, "back");
    live.wait_for("event: gap", || ());
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
