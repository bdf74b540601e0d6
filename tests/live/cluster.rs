//! Fleets on a real Redis Cluster: nodes that die, come back elsewhere, hand over and announce themselves in every
//! way.

mod erasing;
mod ground;
mod redirects;
mod serving;
mod storm;
mod verify;

use std::time::{Duration, Instant};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::roles::{NOWHERE, Pages};
use ground::{Ground, PARTITIONS, port_of, user_in};

const SOON: Duration = Duration::from_secs(30);
const ARGS: [&str; 6] = ["--partitions", "4", "--takeover", "1s", "--janitor-interval", "200ms"];

fn start(role: &str, url: &str) -> Worker {
    let args = [&ARGS[..], &["--http", "127.0.0.1:0"]].concat();
    Worker::start_as(role, url, &args, &[])
}

/// Adds a user to each of these partitions and waits until all are applied.
fn apply(ground: &Ground, partitions: &[u16], round: &str) {
    for partition in partitions {
        ground.add(*partition, round);
    }
    wait_until(SOON, round, || partitions.iter().all(|partition| ground.has(*partition, round)));
}

/// The URL names a node that does not run and one that soon will not; the other process has a plain URL of the
/// latter.
#[test]
fn named_nodes_may_be_dead_at_start_or_die_later_and_other_shards_go_on() {
    let mut ground = Ground::start(3, 0, &[]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let victim = ground.node_of(0);
    let (lost, kept): (Vec<u16>, Vec<u16>) =
        all.iter().partition(|partition| ground.node_of(**partition) == victim);
    assert!(!kept.is_empty(), "the test needs partitions on two nodes");
    let named = ground.nodes[victim].port();
    let nobody = port_of(NOWHERE);
    for url in [
        format!("redis+cluster://127.0.0.1:{nobody},127.0.0.1:{named}"),
        format!("redis://127.0.0.1:{named}"),
    ] {
        let mut process = start("run", &url);
        apply(&ground, &all, &format!("{url} works"));
        let pages = Pages::of(&process);
        ground.nodes[victim].kill();
        apply(&ground, &kept, &format!("{url}: other shards go on"));
        // Their connections break as well; the nodes are remembered.
        ground.cut_clients();
        apply(&ground, &kept, &format!("{url}: others are found again"));
        wait_until(SOON, "it says what is missing", || {
            let (status, body) = pages.get("/readyz");
            let refused = format!("connecting to 127.0.0.1:{named} failed: ");
            status == 503 && body.contains("no node leads to slot") && body.contains(&refused)
        });
        let lines = process.log().lines().count();
        ground.nodes[victim].restart().unwrap();
        ground.wait_until_joined();
        apply(&ground, &all, &format!("{url}: it is back"));
        assert!(lost.iter().all(|partition| ground.has(*partition, &format!("{url}: it is back"))));
        assert!(lines < 80, "{lines} lines:\n{}", process.log());
        assert_eq!(process.terminate(), 0, "{}", process.log());
    }
}

/// It accepts connections and does not answer, as behind a network partition; it is the first named node.
#[test]
fn a_node_that_hangs_holds_no_other_shard_up() {
    let ground = Ground::start(3, 0, &[]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let victim = ground.node_of(0);
    let kept: Vec<u16> =
        all.iter().copied().filter(|partition| ground.node_of(*partition) != victim).collect();
    let kept_node = ground.node_of(kept[0]);
    let [first, second] = [victim, kept_node].map(|node| ground.nodes[node].port());
    let url = format!("redis+cluster://127.0.0.1:{first},127.0.0.1:{second}");
    ground.signal(victim, "STOP");
    let begun = Instant::now();
    let mut process = start("run", &url);
    apply(&ground, &kept, "beside one that hangs");
    let user = user_in(kept[0], "beside one that hangs");
    let (code, _, error) = ask_at(&url, &["user", &user, "--partitions", "4"]);
    assert_eq!(code, 0, "{error}");
    let took = begun.elapsed();
    ground.signal(victim, "CONT");
    assert!(took < Duration::from_secs(20), "{took:?}");
    apply(&ground, &all, "after it");
    assert_eq!(process.terminate(), 0, "{}", process.log());
}

#[test]
fn failover_by_hand_and_by_death_is_followed() {
    let mut ground = Ground::start(3, 1, &["--cluster-node-timeout", "700"]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let first = ground.nodes[0].port();
    let mut process = start("run", &format!("redis+cluster://127.0.0.1:{first}"));
    apply(&ground, &all, "it works");
    let old = ground.node_of(0);
    let replica = ground.replica_of(old);
    ground.ask::<()>(replica, &["CLUSTER", "FAILOVER"]);
    wait_until(SOON, "the replica is the master", || ground.is_master(replica));
    apply(&ground, &all, "after CLUSTER FAILOVER");
    wait_until(SOON, "the old master has caught up", || ground.is_linked(old));
    ground.nodes[replica].kill();
    wait_until(SOON, "the old master is the master again", || ground.is_master(old));
    apply(&ground, &all, "after a death");
    // Nothing that was applied before is lost with a replica that had everything.
    wait_until(SOON, "what came before is there", || ground.has(0, "after CLUSTER FAILOVER"));
    let log = process.log();
    assert_eq!(process.terminate(), 0, "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
