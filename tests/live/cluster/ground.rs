//! A Cluster of some masters, each with its replicas.

use std::process::Command;
use std::time::Duration;

use redis::{Connection, FromRedisValue};
use rollcall::key::partition_of;
use rollcall::private_server::{Options, PrivateServer};

use super::SOON;
use crate::harness::wait_until;
use crate::scene::try_command;
use crate::support::dump;

pub const PARTITIONS: u16 = 4;
const SLOTS: u16 = 16_384;

pub struct Ground {
    /// The masters first, then their replicas in the same order.
    pub nodes: Vec<PrivateServer>,
    masters: usize,
}

impl Ground {
    /// Masters that share the slots, with this many replicas each, and further arguments for all of them.
    pub fn start(masters: usize, replicas: usize, extra: &[&str]) -> Self {
        let args = [
            &["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"],
            &["--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no"][..],
            extra,
        ];
        let extra_args: Vec<String> = args.concat().into_iter().map(str::to_owned).collect();
        let options = Options { extra_args, ..Options::default() };
        let count = masters * (1 + replicas);
        let start = |_| {
            let options = options.clone();
            std::thread::spawn(move || PrivateServer::start(options).unwrap())
        };
        let starting: Vec<_> = (0..count).map(start).collect();
        let nodes = starting.into_iter().map(|started| started.join().unwrap()).collect();
        let ground = Self { nodes, masters };
        ground.join();
        ground
    }

    fn join(&self) {
        let share = SLOTS.div_ceil(self.masters as u16);
        for node in 0..self.nodes.len() {
            self.ask::<()>(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]);
            if node < self.masters {
                let first = node as u16 * share;
                let last = (first + share).min(SLOTS) - 1;
                let (first, last) = (first.to_string(), last.to_string());
                self.ask::<()>(node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
        }
        for node in &self.nodes[1..] {
            self.ask::<()>(0, &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()]);
        }
        self.wait_until_joined();
        for node in self.masters..self.nodes.len() {
            let master: String = self.ask(node % self.masters, &["CLUSTER", "MYID"]);
            self.ask::<()>(node, &["CLUSTER", "REPLICATE", &master]);
        }
        wait_until(SOON, "replicas are linked", || {
            (self.masters..self.nodes.len()).all(|node| self.is_linked(node))
        });
    }

    pub fn wait_until_joined(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        wait_until(SOON, "the nodes know each other", || {
            (0..self.nodes.len()).all(|node| {
                let info: String = self.ask(node, &["CLUSTER", "INFO"]);
                let is_whole = info.contains("cluster_slots_ok:16384\r");
                info.contains("cluster_state:ok") && is_whole && info.contains(&known)
            })
        });
    }

    /// A connection to a node, unless it is away.
    pub fn connection(&self, node: usize) -> Option<Connection> {
        open(&self.nodes[node].url())
    }

    /// Asks a node that must answer.
    pub fn ask<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> T {
        try_command(&mut dump::connect(&self.nodes[node].url()), words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Asks a node that may be down.
    fn try_ask<T: FromRedisValue>(&self, node: usize, words: &[&str]) -> Option<T> {
        try_command(&mut self.connection(node)?, words).ok()
    }

    /// The node with a partition.
    pub fn node_of(&self, partition: u16) -> usize {
        self.holder(partition).unwrap_or_else(|| panic!("nobody has partition {partition}"))
    }

    /// The same, if there is one.
    pub fn holder(&self, partition: u16) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.holds(*node, partition))
    }

    /// All that take themselves for it.
    pub fn holders(&self, partition: u16) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.holds(*node, partition)).collect()
    }

    fn holds(&self, node: usize, partition: u16) -> bool {
        self.try_ask::<u64>(node, &["EXISTS", &format!("{{p{partition}}}:")]).is_some()
    }

    pub fn replica_of(&self, master: usize) -> usize {
        (master + self.masters) % self.nodes.len()
    }

    /// What a node says of itself, unless it is away.
    pub fn info(&self, node: usize) -> Option<String> {
        self.try_ask(node, &["INFO"])
    }

    /// Whether it is there and takes the Cluster to be well.
    pub fn is_up(&self, node: usize) -> bool {
        self.try_ask::<String>(node, &["CLUSTER", "INFO"])
            .is_some_and(|info| info.contains("cluster_state:ok\r"))
    }

    pub fn is_master(&self, node: usize) -> bool {
        self.info(node).is_some_and(|info| info.contains("role:master"))
    }

    pub fn is_linked(&self, node: usize) -> bool {
        self.info(node).is_some_and(|info| info.contains("master_link_status:up"))
    }

    /// Sends a node a signal by its name, such as `STOP`.
    pub fn signal(&self, node: usize, name: &str) {
        let pid = self.nodes[node].pid().unwrap().to_string();
        let line = format!("kill -{name} {pid}");
        let status = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success());
    }

    /// Breaks all connections of clients.
    pub fn cut_clients(&self) {
        for node in 0..self.nodes.len() {
            for kind in ["normal", "pubsub"] {
                let _away = self.try_ask::<u64>(node, &["CLIENT", "KILL", "TYPE", kind]);
            }
        }
    }

    /// Adds a user with this prefix to a partition, wherever that is now.
    pub fn add(&self, partition: u16, name: &str) {
        let (key, user) = (format!("{{p{partition}}}:rollcall:events"), user_in(partition, name));
        let words = ["XADD", &key, "*", "type", "heartbeat", "user", &user];
        wait_until(SOON, "a node takes it", || {
            let node = self.holder(partition);
            node.is_some_and(|node| self.try_ask::<String>(node, &words).is_some())
        });
    }

    /// Whether that user is present there.
    pub fn has(&self, partition: u16, name: &str) -> bool {
        let key = format!("{{p{partition}}}:presence:users");
        let field = format!("{}|", user_in(partition, name));
        let node = self.holder(partition);
        node.and_then(|node| self.try_ask::<bool>(node, &["HEXISTS", &key, &field])) == Some(true)
    }
}

/// A connection that waits for nothing longer than half a second.
pub fn open(url: &str) -> Option<Connection> {
    let client = redis::Client::open(url).ok()?;
    let patience = Duration::from_millis(500);
    let conn = client.get_connection_with_timeout(patience).ok()?;
    conn.set_read_timeout(Some(patience)).ok()?;
    Some(conn)
}

/// A user of that partition.
pub fn user_in(partition: u16, name: &str) -> String {
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let users = (0..).map(|n| format!("{name}-{n}"));
    users.into_iter().find(|user| partition_of(user, PARTITIONS) == partition).unwrap()
}

/// The port of an address.
pub fn port_of(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}
