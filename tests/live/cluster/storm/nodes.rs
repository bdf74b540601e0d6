//! The Cluster under a schedule: its shards, and how processes and producers come to them.

use std::time::Duration;

use redis::{Connection, RedisResult};

use super::SOON;
use crate::chaos::fleet::{BATCH, Site};
use crate::chaos::plan::Persistence;
use crate::chaos::proxy::{Mode, Proxy};
use crate::cluster::ground::{Ground, PARTITIONS, port_of};
use crate::harness::{Layout, wait_until};
use crate::process::Worker;

/// Shards, a master and a replica each.
pub const SHARDS: usize = 3;
/// The nodes in the URL: a master and a replica of another shard, at first.
pub const NAMED: [usize; 2] = [0, 4];
/// How long a node may be silent until others take its place.
pub const NODE_TIMEOUT: Duration = Duration::from_millis(1_500);
const FLAGS: [(&str, &str); 3] = [("partitions", "4"), ("thresholds", "3:1"), ("viewed-cap", "5")];
/// What lies between clients and nodes when nothing is wrong: so long that something is always on its way.
pub const SLOW: Mode = Mode::Delay(Duration::from_millis(8));
/// A master and its replica, how much it has sent, and how much of that came.
type Linked = ((usize, usize), Option<u64>, Option<u64>);

pub struct Shards {
    pub ground: Ground,
    /// In front of each node, for all but those who test: the nodes announce their ports.
    pub proxies: Vec<Proxy>,
    layout: Layout,
    /// Names two of the nodes.
    pub url: String,
    /// The shard of each partition.
    pub home: [usize; PARTITIONS as usize],
    /// Whether it was ever another one.
    pub has_moved: [bool; PARTITIONS as usize],
}

impl Site for Shards {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn connect(&self, partition: u16) -> RedisResult<Connection> {
        let node = self.ground.holder(partition);
        let conn = node.and_then(|node| self.ground.connection(node));
        conn.ok_or_else(|| redis::RedisError::from(std::io::Error::other("no node has it now")))
    }

    fn worker(&self, _url: Option<&str>, env: &[(&str, &str)]) -> Worker {
        let batch = BATCH.to_string();
        let args = ["--batch", &batch, "--takeover", "1s", "--listen", "127.0.0.1:0"];
        self.process("run", &args, env)
    }

    fn janitor(&self, env: &[(&str, &str)]) -> Worker {
        self.process("janitor", &[], env)
    }
}

impl Shards {
    pub fn start(persistence: Persistence) -> Self {
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        // The file is written before each answer. Nobody cuts the power, so that nothing need be forced to the disk.
        let appendonly = if persistence == Persistence::Nothing { "no" } else { "yes" };
        let extra = [
            ["--cluster-node-timeout", &timeout],
            ["--repl-diskless-sync-delay", "0"],
            ["--repl-ping-replica-period", "1"],
            ["--repl-timeout", "4"],
            ["--appendonly", appendonly],
            ["--appendfsync", "no"],
        ];
        let ground = Ground::start(SHARDS, 1, &extra.concat());
        let proxies: Vec<_> = ground.nodes.iter().map(|node| Proxy::start(node.port())).collect();
        let named = NAMED.map(|node| format!("127.0.0.1:{}", port_of(&proxies[node].url())));
        let url = format!("redis+cluster://{}", named.join(","));
        let layout = Layout::new(&url, &FLAGS);
        let home = std::array::from_fn(|partition| shard_of(ground.node_of(partition as u16)));
        let site = Self { ground, proxies, layout, url, home, has_moved: Default::default() };
        (0..site.ground.nodes.len()).for_each(|node| site.announce(node));
        wait_until(SOON, "the nodes know where clients find them", || {
            (0..site.ground.nodes.len()).all(|node| site.knows_proxies(node))
        });
        site.wait_until_whole();
        site.proxies.iter().for_each(|proxy| proxy.set(SLOW));
        site
    }

    /// Starts a node that was killed.
    pub fn start_again(&mut self, node: usize) {
        self.ground.nodes[node].restart().unwrap();
        self.announce(node);
    }

    fn announce(&self, node: usize) {
        let port = port_of(&self.proxies[node].url()).to_string();
        self.ground.ask::<()>(node, &["CONFIG", "SET", "cluster-announce-port", &port]);
    }

    fn knows_proxies(&self, node: usize) -> bool {
        let known: String = self.ground.ask(node, &["CLUSTER", "NODES"]);
        let mut ports = self.proxies.iter().map(|proxy| port_of(&proxy.url()));
        ports.all(|port| known.contains(&format!("127.0.0.1:{port}@")))
    }

    fn process(&self, role: &str, args: &[&str], env: &[(&str, &str)]) -> Worker {
        let flags: Vec<String> = FLAGS.iter().map(|(name, _)| format!("--{name}")).collect();
        let pairs = flags.iter().zip(FLAGS).flat_map(|(name, (_, value))| [name.as_str(), value]);
        let args: Vec<&str> =
            pairs.chain(["--janitor-interval", "200ms"]).chain(args.iter().copied()).collect();
        Worker::start_as(role, &self.url, &args, env)
    }

    /// Those of a shard's two nodes that take themselves for its master.
    pub fn masters_of(&self, shard: usize) -> Vec<usize> {
        pair(shard).into_iter().filter(|node| self.ground.is_master(*node)).collect()
    }

    /// The master and the replica of a shard, once there are one of each that work, all that one has until now is at
    /// the other, and both would come back with it.
    pub fn whole(&self, shard: usize) -> (usize, usize) {
        let [first, second] = pair(shard);
        let mut found = None;
        let mut sent = None;
        wait_until(SOON, "the shard is whole", || {
            let mut ways = [(first, second), (second, first)].into_iter();
            let before = found.take();
            found = ways.find_map(|(master, replica)| self.linked(master, replica));
            let Some((nodes, at, has)) = found else { return false };
            if before.is_none_or(|(same, ..)| same != nodes) {
                sent = at;
            }
            sent.is_some() && has >= sent
        });
        found.unwrap().0
    }

    /// A master with its replica, how much it has sent, and how much of that came.
    fn linked(&self, master: usize, replica: usize) -> Option<Linked> {
        let (info, of_replica) = (self.ground.info(master)?, self.ground.info(replica)?);
        let is_well = |node: usize, info: &str| {
            self.ground.is_up(node)
                && info.contains("aof_rewrite_in_progress:0\r")
                && info.contains("aof_rewrite_scheduled:0\r")
        };
        let are_linked = info.contains("role:master\r")
            && info.contains("connected_slaves:1\r")
            && of_replica.contains("master_link_status:up\r")
            && is_well(master, &info)
            && is_well(replica, &of_replica);
        let sent = number(&info, "master_repl_offset:");
        are_linked.then(|| ((master, replica), sent, number(&of_replica, "slave_repl_offset:")))
    }

    /// Waits until all shards are whole and all nodes agree on which they are.
    pub fn wait_until_whole(&self) {
        (0..SHARDS).for_each(|shard| {
            self.whole(shard);
        });
        self.ground.wait_until_joined();
        wait_until(SOON, "all nodes agree where the partitions are", || {
            (0..PARTITIONS).all(|partition| self.ground.holders(partition).len() == 1)
        });
    }

    pub fn wait_until_replica(&self, node: usize) {
        wait_until(SOON, "the old master is a replica", || {
            self.ground.info(node).is_some_and(|info| info.contains("role:slave\r"))
        });
    }

    /// Whether a node that forgets others keeps that to itself: from 7.2 on all forget them.
    pub fn may_part(&self) -> bool {
        self.ground.info(0).is_some_and(|info| info.contains("redis_version:7.0."))
    }

    /// A master knows no other node any more, and hears of no failover: it goes on as if it were alone.
    pub fn part(&self, master: usize) {
        for other in (0..self.ground.nodes.len()).filter(|other| *other != master) {
            let name: String = self.ground.ask(other, &["CLUSTER", "MYID"]);
            self.ground.ask::<()>(master, &["CLUSTER", "FORGET", &name]);
        }
    }

    /// It meets the others again.
    pub fn bring_together(&self, node: usize) {
        for other in (0..self.ground.nodes.len()).filter(|other| *other != node) {
            let port = self.ground.nodes[other].port().to_string();
            self.ground.ask::<()>(node, &["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
    }

    /// The partitions that a shard has.
    pub fn partitions_of(&self, shard: usize) -> Vec<u16> {
        (0..PARTITIONS).filter(|partition| self.home[usize::from(*partition)] == shard).collect()
    }
}

/// The two nodes of a shard.
pub fn pair(shard: usize) -> [usize; 2] {
    [shard, shard + SHARDS]
}

/// The shard of a node.
pub fn shard_of(node: usize) -> usize {
    node % SHARDS
}

fn number(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line?.trim().parse().ok()
}
