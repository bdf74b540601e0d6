//! A master that dies or hands over, and the fleet that follows it through its sentinels.

mod fence;
pub mod sentinels;
mod servers;
mod slots;

use std::time::Duration;

use rollcall::private_server::{Options, PrivateServer};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::{Scene, Traffic, try_command};
use crate::support::dump;
use sentinels::{MASTER, Sentinels};

/// How long a failover may take until everyone has found the new master.
const SOON: Duration = Duration::from_secs(40);
const FLAGS: [(&str, &str); 2] = [("thresholds", "3:1"), ("viewed-cap", "5")];

/// A master, a replica, their sentinels, and the processes that follow them.
struct Fleet {
    scene: Scene,
    replica: PrivateServer,
    sentinels: Sentinels,
    workers: Vec<Worker>,
    janitors: Vec<Worker>,
}

impl Fleet {
    fn start() -> Self {
        let scene = Scene::start(&FLAGS);
        let master = scene.deployment.server.port();
        let replica = replica_of(master);
        let sentinels = Sentinels::start(master, 1);
        let url = sentinels.url();
        let args = ["--thresholds", "3:1", "--viewed-cap", "5", "--http", "127.0.0.1:0"];
        let start =
            |role, more: &[&str]| Worker::start_as(role, &url, &[&args, more].concat(), &[]);
        let workers = (0..3).map(|_| start("worker", &["--batch", "7", "--takeover", "1s"]));
        let janitors = (0..2).map(|_| start("janitor", &["--janitor-interval", "100ms"]));
        let (workers, janitors) = (workers.collect(), janitors.collect());
        Self { scene, replica, sentinels, workers, janitors }
    }

    fn on_replica<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        try_command(&mut dump::connect(&self.replica.url()), words).unwrap()
    }

    fn add_and_finish(&self, seed: u64, count: u64) {
        self.scene.add_random_later(seed, count);
        self.scene.wait_finished(SOON, "the fleet works");
    }

    fn wait_for_replica(&self) {
        let position = |info: &str, name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        let sent: String = self.scene.command(&["INFO", "replication"]);
        let sent = position(&sent, "master_repl_offset:");
        wait_until(SOON, "the replica has all", || {
            let info: String = self.on_replica(&["INFO", "replication"]);
            info.contains("master_link_status:up") && position(&info, "slave_repl_offset:") >= sent
        });
    }

    /// Waits until the replica is the master, and swaps the two.
    fn change_over(&mut self) -> PrivateServer {
        self.sentinels.wait_for_master(self.replica.port(), SOON);
        wait_until(SOON, "it takes writes", || {
            self.on_replica::<String>(&["INFO", "replication"]).contains("role:master")
        });
        let port = self.replica.port();
        let replica = std::mem::replace(&mut self.replica, other());
        let old = self.scene.deployment.move_to(replica);
        assert_eq!(self.scene.deployment.server.port(), port);
        old
    }

    /// New entries are applied on the new master, and the state is what its stream says.
    fn verify(&self, what: &str) {
        let traffic = Traffic::start(&self.scene, 31, 250);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!traffic.stop().is_empty(), "{what}: the new master takes entries");
        self.scene.wait_finished(SOON, what);
        self.scene.verify(what);
        let logs: String = self.workers.iter().map(Worker::log).collect();
        assert!(!logs.contains("panicked"), "{logs}");
    }

    fn lost(&self, cause: &str) -> u64 {
        let series = format!("rollcall_entries_lost_total{{cause=\"{cause}\"}}");
        let of = |janitor| Pages::of(janitor).metric(&series).unwrap() as u64;
        self.janitors.iter().map(of).sum()
    }
}

fn replica_of(port: u16) -> PrivateServer {
    let extra_args = ["--replicaof", "127.0.0.1", &port.to_string()].map(str::to_owned).to_vec();
    PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap()
}

/// A server that stands for one that is gone.
fn other() -> PrivateServer {
    PrivateServer::start(Options::default()).unwrap()
}

#[test]
fn a_killed_master_is_followed_by_its_replica() {
    let mut fleet = Fleet::start();
    fleet.add_and_finish(1, 50);
    fleet.wait_for_replica();
    let traffic = Traffic::start(&fleet.scene, 2, 250);
    std::thread::sleep(Duration::from_millis(700));
    fleet.scene.deployment.server.kill();
    assert!(!traffic.stop().is_empty());
    fleet.change_over();
    fleet.verify("the master was killed");
    assert_eq!(fleet.lost("deleted"), 0, "nothing but what was not replicated");
}

/// `SENTINEL FAILOVER`: the old master becomes a replica while it is still well.
#[test]
fn a_master_that_hands_over_loses_nothing_to_its_clients() {
    let mut fleet = Fleet::start();
    fleet.add_and_finish(3, 50);
    fleet.wait_for_replica();
    fleet.sentinels.ask::<redis::Value>(1, &["SENTINEL", "FAILOVER", MASTER]);
    let old = fleet.change_over();
    fleet.verify("SENTINEL FAILOVER");
    wait_until(SOON, "the old master is a replica", || {
        // The sentinels cut all connections when they demote it.
        let mut conn = dump::connect(&old.url());
        let info: String = try_command(&mut conn, &["INFO", "replication"]).unwrap_or_default();
        info.contains("role:slave")
    });
    assert_eq!(["deleted", "rewound"].map(|cause| fleet.lost(cause)), [0, 0]);
}

/// By hand, without breaking a single connection: clients that are still connected to the old master learn it when
/// they write.
#[test]
fn a_master_that_is_demoted_by_hand_is_left() {
    let mut fleet = Fleet::start();
    fleet.add_and_finish(4, 50);
    fleet.wait_for_replica();
    let (old, new) = (fleet.scene.deployment.server.port(), fleet.replica.port());
    fleet.sentinels.ask_all(&["SENTINEL", "REMOVE", MASTER]);
    fleet.on_replica::<()>(&["REPLICAOF", "NO", "ONE"]);
    fleet.scene.command::<()>(&["REPLICAOF", "127.0.0.1", &new.to_string()]);
    let told = "the sentinel knows no master of that name";
    wait_until(SOON, "they say what is missing", || {
        fleet.workers.iter().all(|worker| worker.log().contains(told))
    });
    let log = fleet.workers[0].log();
    assert!(log.contains("redis-url: no sentinel leads to a master mymaster: "), "{log}");
    // A sentinel that names the old one is behind: it is a replica now.
    fleet.sentinels.monitor(0, old);
    fleet.sentinels.monitor(1, new);
    fleet.sentinels.monitor(2, new);
    let replica = std::mem::replace(&mut fleet.replica, other());
    let _old = fleet.scene.deployment.move_to(replica);
    fleet.verify("REPLICAOF");
}

/// Replication is asynchronous: what the replica never received is gone with all its effects, and is reported.
#[test]
fn what_was_not_replicated_is_gone_with_all_its_effects() {
    let mut fleet = Fleet::start();
    // The first janitor that looks reports what it has seen itself; the one that saw everything is kept here.
    fleet.janitors.truncate(1);
    fleet.add_and_finish(5, 80);
    fleet.wait_for_replica();
    // From now on the replica receives nothing more.
    fleet.on_replica::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let kept: u64 = fleet.on_replica(&["XLEN", "rollcall:events"]);
    fleet.add_and_finish(6, 70);
    let seen = || fleet.scene.command::<u64>(&["HGET", "rollcall:janitor", "added"]);
    wait_until(SOON, "a janitor has seen them", || seen() == kept + 70);
    fleet.scene.deployment.server.kill();
    fleet.change_over();
    assert_eq!(fleet.scene.command::<u64>(&["XLEN", "rollcall:events"]), kept);
    fleet.verify("replication was cut");
    wait_until(SOON, "the loss is told", || fleet.lost("rewound") > 0);
    assert_eq!(["deleted", "rewound"].map(|cause| fleet.lost(cause)), [0, 70]);
}
