//! A slot that moves to another node of a Cluster, key by key, under traffic. While its keys are on both nodes the
//! server refuses the calls, before they begin or during them. No entry is to blame for that, and none counts twice.

use std::time::Duration;

use redis::Connection;
use rollcall::private_server::{Options, PrivateServer};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::try_command;
use crate::support::dump;

const SOON: Duration = Duration::from_secs(40);
const EVENTS: &str = "{m}:rollcall:events";
const ITEM: &str = "books";

/// Two nodes; the first has all slots.
struct Pair {
    nodes: [PrivateServer; 2],
    conns: [Connection; 2],
}

impl Pair {
    fn start() -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"];
        let options =
            Options { extra_args: args.map(str::to_owned).to_vec(), ..Options::default() };
        let nodes = [0, 1].map(|_| PrivateServer::start(options.clone()).unwrap());
        let conns = [0, 1].map(|n: usize| dump::connect(&nodes[n].url()));
        let mut pair = Self { nodes, conns };
        for (n, epoch) in [(0, "1"), (1, "2")] {
            pair.ask::<()>(n, &["CLUSTER", "SET-CONFIG-EPOCH", epoch]);
        }
        pair.ask::<()>(0, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        let port = pair.nodes[1].port().to_string();
        pair.ask::<()>(0, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        wait_until(SOON, "the nodes know each other", || {
            [0, 1].into_iter().all(|n| {
                let info: String = pair.ask(n, &["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2\r")
            })
        });
        pair
    }

    fn ask<T: redis::FromRedisValue>(&mut self, node: usize, words: &[&str]) -> T {
        try_command(&mut self.conns[node], words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Adds views by new users, with new tokens, wherever the stream is; none while it is between the nodes.
    fn add(&mut self, node: usize, users: std::ops::Range<u32>) {
        for n in users {
            let (user, token) = (format!("user{n}"), format!("token{n}"));
            let view = ["type", "view", "user", &user, "token", &token, "item", ITEM, "doc", "d"];
            self.ask::<String>(node, &[&["XADD", EVENTS, "*"][..], &view].concat());
        }
    }

    /// Moves a key to the second node.
    fn migrate(&mut self, key: &str) {
        let port = self.nodes[1].port().to_string();
        self.ask::<()>(0, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    }

    fn views(&mut self, node: usize) -> u64 {
        self.ask::<Option<u64>>(node, &["ZSCORE", "{m}:viewed:", ITEM]).unwrap_or(0)
    }
}

#[test]
fn entries_of_a_slot_that_moves_are_no_poison_and_count_once() {
    let mut pair = Pair::start();
    let args = ["--prefix", "{m}:", "--takeover", "1s", "--batch", "20"];
    let url = pair.nodes[0].url();
    let mut workers: Vec<_> = (0..2).map(|_| Worker::start(&url, &args, &[])).collect();
    pair.add(0, 0..100);
    wait_until(SOON, "it works", || pair.views(0) == 100);
    let slot: u64 = pair.ask(0, &["CLUSTER", "KEYSLOT", "{m}:"]);
    let slot = slot.to_string();
    let [source, target]: [String; 2] = [0, 1].map(|n| pair.ask(n, &["CLUSTER", "MYID"]));
    pair.ask::<()>(1, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
    pair.ask::<()>(0, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
    // A new user's keys do not exist yet: the source does not have them, and must not create them.
    pair.add(0, 100..200);
    let is_refused = |worker: &Worker| {
        ["TryAgain", "non local key"].iter().any(|why| worker.log().contains(why))
    };
    wait_until(SOON, "calls are refused", || workers.iter().any(is_refused));
    // Keys of single users move first, then the shared ones, and finally the stream and the settings.
    loop {
        let keys: Vec<String> = pair.ask(0, &["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
        let is_of_one = |key: &&String| !key.contains("rollcall:");
        let next: Vec<_> = keys.iter().filter(is_of_one).take(40).cloned().collect();
        let all_left = if next.is_empty() { keys } else { next };
        if all_left.is_empty() {
            break;
        }
        all_left.iter().for_each(|key| pair.migrate(key));
        std::thread::sleep(Duration::from_millis(100));
    }
    for node in [1, 0] {
        pair.ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
    }
    pair.add(1, 200..300);
    wait_until(SOON, "all is applied", || pair.views(1) >= 300);
    for worker in &mut workers {
        assert_eq!(worker.terminate(), 0, "{}", worker.log());
    }
    assert_eq!(pair.views(1), 300, "each view once");
    assert_eq!(pair.ask::<u64>(1, &["XLEN", "{m}:rollcall:dead"]), 0, "nobody is to blame");
    assert_eq!(pair.ask::<u64>(1, &["ZCARD", "{m}:recent:"]), 300);
}
