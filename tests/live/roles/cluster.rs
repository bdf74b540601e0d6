//! Redis Cluster: partitions on several nodes, workers that know one node and are redirected to the others.

use rollcall::key::partition_of;
use rollcall::private_server::{Options, PrivateServer};

use super::{Pages, SOON};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::support::dump;

const PARTITIONS: u16 = 4;
const SLOTS: u16 = 16_384;

/// Three nodes that share the slots.
pub struct Cluster {
    nodes: Vec<PrivateServer>,
    conns: Vec<redis::Connection>,
}

impl Cluster {
    pub fn start() -> Self {
        let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"];
        let extra_args: Vec<String> = args.map(str::to_owned).to_vec();
        let options = Options { extra_args, ..Options::default() };
        let nodes: Vec<_> =
            (0..3).map(|_| PrivateServer::start(options.clone()).unwrap()).collect();
        let conns = nodes.iter().map(|node| dump::connect(&node.url())).collect();
        let mut cluster = Self { nodes, conns };
        cluster.join();
        cluster
    }

    /// The address of one of the nodes.
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// No node serves this slot any more.
    pub fn lose_a_slot(&mut self) {
        for conn in &mut self.conns {
            cluster(conn, &["DELSLOTS", "0"]);
        }
    }

    fn join(&mut self) {
        let ports: Vec<u16> = self.nodes.iter().map(PrivateServer::port).collect();
        for (node, conn) in (0_u16..).zip(&mut self.conns) {
            let (first, last) =
                (node * SLOTS.div_ceil(3), ((node + 1) * SLOTS.div_ceil(3)).min(SLOTS) - 1);
            cluster(conn, &["SET-CONFIG-EPOCH", &(node + 1).to_string()]);
            cluster(conn, &["ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for port in &ports[1..] {
            cluster(&mut self.conns[0], &["MEET", "127.0.0.1", &port.to_string()]);
        }
        wait_until(SOON, "the nodes know each other", || {
            self.conns.iter_mut().all(|conn| {
                let info = cluster(conn, &["INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3\r")
            })
        });
    }

    /// The node with a partition.
    fn node_of(&mut self, partition: u16) -> usize {
        let key = format!("{{p{partition}}}:rollcall:events");
        let holds = |conn: &mut redis::Connection| {
            redis::cmd("EXISTS").arg(&key).query::<u64>(conn).is_ok()
        };
        self.conns.iter_mut().position(holds).unwrap()
    }

    /// Adds an event to the stream of the partition that `routing` belongs to.
    fn add(&mut self, routing: &str, fields: &[(&str, &str)]) {
        let partition = partition_of(routing, PARTITIONS);
        let node = self.node_of(partition);
        let mut add = redis::cmd("XADD");
        add.arg(format!("{{p{partition}}}:rollcall:events")).arg("*").arg(fields);
        add.exec(&mut self.conns[node]).unwrap();
    }

    /// Adds a round of events: a user, a session and a document each.
    fn add_round(&mut self, users: std::ops::Range<u32>) {
        for n in users {
            let (user, sid, doc) = (format!("user{n}"), format!("sid{n}"), format!("doc{n}"));
            self.add(&user, &[("type", "heartbeat"), ("user", &user), ("token", &user)]);
            self.add(&sid, &[("type", "session"), ("sid", &sid), ("user", &user), ("data", "{}")]);
            let joins = [("type", "document"), ("doc", &doc), ("user", &user), ("action", "join")];
            self.add(&doc, &joins);
        }
    }

    /// Members of a structure over all partitions, and how many partitions have any.
    fn total(&mut self, command: &str, name: &str) -> (u64, usize) {
        let mut counts = Vec::new();
        for partition in 0..PARTITIONS {
            let node = self.node_of(partition);
            let mut ask = redis::cmd(command);
            ask.arg(format!("{{p{partition}}}:{name}"));
            counts.push(ask.query::<u64>(&mut self.conns[node]).unwrap());
        }
        (counts.iter().sum(), counts.iter().filter(|count| **count > 0).count())
    }

    /// Moves a partition's slot with its keys to another node, while events arrive.
    fn move_partition(&mut self, partition: u16, to: usize, users: std::ops::Range<u32>) {
        let from = self.node_of(partition);
        let slot = cluster(&mut self.conns[0], &["KEYSLOT", &format!("{{p{partition}}}:")]);
        let [source, target] = [from, to].map(|node| cluster(&mut self.conns[node], &["MYID"]));
        cluster(&mut self.conns[to], &["SETSLOT", &slot, "IMPORTING", &source]);
        cluster(&mut self.conns[from], &["SETSLOT", &slot, "MIGRATING", &target]);
        self.add_round(users);
        let keys = |conn: &mut redis::Connection| -> Vec<String> {
            redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(&slot).arg(1000).query(conn).unwrap()
        };
        loop {
            let left = keys(&mut self.conns[from]);
            if left.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(5000);
            migrate.arg("KEYS").arg(left).exec(&mut self.conns[from]).unwrap();
        }
        for node in [to, from] {
            cluster(&mut self.conns[node], &["SETSLOT", &slot, "NODE", &target]);
        }
    }
}

fn cluster(conn: &mut redis::Connection, words: &[&str]) -> String {
    let mut command = redis::cmd("CLUSTER");
    let value: redis::Value = command.arg(words).query(conn).unwrap();
    rollcall::redis::reply::text(value).unwrap_or_default()
}

#[test]
fn partitions_on_several_nodes_are_found_from_one_of_them_and_followed_when_they_move() {
    let mut cluster = Cluster::start();
    let homes: Vec<usize> = (0..PARTITIONS).map(|partition| cluster.node_of(partition)).collect();
    assert!(homes.iter().any(|node| *node != homes[0]), "the test needs partitions on two nodes");
    cluster.add_round(0..20);
    let args = ["--partitions", "4", "--http", "127.0.0.1:0"];
    let url = cluster.nodes[0].url();
    let mut process = Worker::start_as("run", &url, &args, &[]);
    let structures = [
        ("HLEN", "presence:users"),
        ("ZCARD", "recent:"),
        ("HLEN", "sessions:active"),
        ("HLEN", "rollcall:sessions:data"),
        ("ZCARD", "rollcall:docs:joined"),
    ];
    let wait_for = |cluster: &mut Cluster, count: u64| {
        wait_until(SOON, "all of it is applied", || {
            structures.iter().all(|(command, name)| cluster.total(command, name).0 == count)
        });
    };
    wait_for(&mut cluster, 20);
    for (command, name) in structures {
        assert_eq!(cluster.total(command, name).1, 4, "{name} is in every partition");
    }
    let pages = Pages::of(&process);
    wait_until(SOON, "ready", || pages.get("/readyz").0 == 200);
    assert!(!process.log().contains("WARN"), "redirects are no trouble: {}", process.log());
    // Every partition moves to the next node while events arrive.
    for partition in 0..PARTITIONS {
        let first = 20 + u32::from(partition) * 5;
        let to = (homes[usize::from(partition)] + 1) % 3;
        cluster.move_partition(partition, to, first..first + 5);
    }
    wait_for(&mut cluster, 40);
    wait_until(SOON, "ready", || pages.get("/readyz").0 == 200);
    assert_eq!(cluster.total("XLEN", "rollcall:dead").0, 0);
    assert_eq!(process.terminate(), 0, "{}", process.log());
}

#[test]
fn one_partition_on_a_cluster_needs_a_hash_tag_as_its_prefix() {
    let mut cluster = Cluster::start();
    let url = cluster.nodes[0].url();
    let mut process = Worker::start_as("run", &url, &["--prefix", "{acme}:"], &[]);
    let key = "{acme}:rollcall:meta";
    let holds =
        |conn: &mut redis::Connection| redis::cmd("EXISTS").arg(key).query::<u64>(conn) == Ok(1);
    wait_until(SOON, "it joins", || cluster.conns.iter_mut().any(holds));
    let node = cluster.conns.iter_mut().position(holds).unwrap();
    let add = ["{acme}:rollcall:events", "*", "type", "heartbeat", "user", "alice"];
    redis::cmd("XADD").arg(&add).exec(&mut cluster.conns[node]).unwrap();
    wait_until(SOON, "it works", || {
        let mut size = redis::cmd("HLEN");
        size.arg("{acme}:presence:users").query::<u64>(&mut cluster.conns[node]) == Ok(1)
    });
    assert_eq!(process.terminate(), 0);
}

/// A query gets the same explanation as a worker, not a redirect of some key.
#[test]
fn a_query_without_a_hash_tag_explains_itself_as_a_worker_does() {
    let cluster = Cluster::start();
    let mut worker = Worker::start(&cluster.url(), &[], &[]);
    assert_eq!(worker.exit_code(SOON), 1);
    let why = "on a Redis Cluster the keys of a partition must share a slot";
    let remedy = "give --prefix a hash tag, such as '{acme}:', or use --partitions 2 or more";
    assert!(worker.log().contains(why) && worker.log().contains(remedy), "{}", worker.log());
    for node in &cluster.nodes {
        for command in [&["online"][..], &["seen"], &["sessions"], &["status"], &["dead", "list"]] {
            let (code, _, error) = ask_at(&node.url(), command);
            assert_eq!(code, 1, "{command:?}: {error}");
            assert!(error.contains(why) && error.contains(remedy), "{command:?}: {error}");
        }
        let (code, _, error) = ask_at(&node.url(), &["online", "--prefix", "{acme}:"]);
        assert_eq!(code, 0, "{error}");
    }
}

#[test]
fn a_node_that_is_gone_is_named_by_its_own_address() {
    let mut cluster = Cluster::start();
    let gone = cluster.node_of(0);
    let other = cluster.nodes[(gone + 1) % 3].url();
    let port = cluster.nodes[gone].port();
    cluster.nodes[gone].kill();
    let (code, _, error) = ask_at(&other, &["online", "--partitions", &PARTITIONS.to_string()]);
    let refused = format!("connecting to 127.0.0.1:{port} failed: ");
    assert!(code == 1 && error.contains(&refused), "{error}");
}
