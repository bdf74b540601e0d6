//! A producer that finds the partitions wherever they are, and asks how far replicas have what it added.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::Connection;
use rollcall::entry::{EntryId, Field};

use super::nodes::Shards;
use super::now;
use crate::chaos::fleet::Site as _;
use crate::cluster::ground::{PARTITIONS, open};
use crate::scene::{Added, Sink, try_add, try_command};

/// For how long a node is left alone that failed.
const LEFT_ALONE: Duration = Duration::from_millis(500);
/// How long a replica has to acknowledge, in milliseconds.
const WAIT_MS: &str = "200";
/// How long ago an entry may have been added at most that is confirmed.
const MOST_MS: u64 = 1_000;

/// One node, as the producer knows it.
struct Node {
    url: String,
    connection: Option<Connection>,
    not_before: Instant,
    /// What was added by this connection since its replica was asked last.
    unconfirmed: Vec<Added>,
}

struct Producer {
    streams: Vec<String>,
    nodes: Vec<Node>,
    /// Where each partition was last.
    last: Vec<usize>,
    safe: Arc<Mutex<Vec<Added>>>,
}

/// What adds entries, and notes in `safe` those that a replica has as well.
pub fn sink(site: &Shards, safe: Arc<Mutex<Vec<Added>>>) -> Sink {
    let node =
        |url| Node { url, connection: None, not_before: Instant::now(), unconfirmed: Vec::new() };
    let streams = (0..PARTITIONS).map(|partition| site.layout().stream(partition));
    let mut producer = Producer {
        streams: streams.collect(),
        nodes: site.ground.nodes.iter().map(|server| node(server.url())).collect(),
        last: vec![0; usize::from(PARTITIONS)],
        safe,
    };
    Box::new(move |partition, fields| producer.add(partition, fields))
}

impl Producer {
    fn add(&mut self, partition: u16, fields: &[Field]) -> Option<EntryId> {
        let which = usize::from(partition);
        let count = self.nodes.len();
        // More than one may take it.
        let first = if fastrand::u8(..8) > 0 { self.last[which] } else { fastrand::usize(..count) };
        for turn in 0..count {
            let at = (first + turn) % count;
            let node = &mut self.nodes[at];
            let Some(conn) = node.connection() else { continue };
            match try_add(conn, &self.streams[which], fields) {
                Ok(id) => {
                    self.last[which] = at;
                    node.unconfirmed.push((partition, id));
                    if fastrand::u8(..4) == 0 {
                        self.safe.lock().unwrap().extend(node.confirmed());
                    }
                    return Some(id);
                }
                // It may be elsewhere, and what was here has another history then.
                Err(error) if error.code().is_some() => node.unconfirmed.clear(),
                // Nobody knows whether it was taken: it must not be added twice.
                Err(_) => {
                    node.fail();
                    return None;
                }
            }
        }
        None
    }
}

impl Node {
    fn connection(&mut self) -> Option<&mut Connection> {
        if self.connection.is_none() && self.not_before <= Instant::now() {
            self.fail();
            self.connection = open(&self.url);
        }
        self.connection.as_mut()
    }

    fn fail(&mut self) {
        self.connection = None;
        self.unconfirmed.clear();
        self.not_before = Instant::now() + LEFT_ALONE;
    }

    /// What was added until now, if a replica has all of it.
    fn confirmed(&mut self) -> Vec<Added> {
        let copies =
            self.connection.as_mut().map(|conn| try_command(conn, &["WAIT", "1", WAIT_MS]));
        if copies.and_then(Result::ok).unwrap_or(0_u64) == 0 {
            return Vec::new();
        }
        // Longer ago the node may have been another's replica in between.
        let recent = |(_, id): &Added| id.ms + MOST_MS > now();
        std::mem::take(&mut self.unconfirmed).into_iter().filter(recent).collect()
    }
}
