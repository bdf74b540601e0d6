//! What a process remembers of a Cluster while it runs: which node has which slots, and where nodes have been. All
//! connections of the process share it, so each profits from what another learned.
//!
//! It is only a hint: every connection asks the node itself and believes its answer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::ConnectionAddr;

/// For how long a node that could not be reached is tried after the others.
const AVOIDED: Duration = Duration::from_secs(10);
/// How long a view is used before it is asked for again.
const FRESH: Duration = Duration::from_secs(30);
/// The minimum time between two requests for a view.
const APART: Duration = Duration::from_secs(1);
/// How many former nodes are remembered.
const FORMER: usize = 32;

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Place {
    /// The place of an address; `None` for a Unix socket.
    pub fn of(addr: &ConnectionAddr) -> Option<Self> {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Nodes that hold the same slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// First and last slot of each range.
    pub slots: Vec<(u16, u16)>,
    /// Where its nodes are, the master first. A node with a name and an address is listed under both.
    pub nodes: Vec<Place>,
}

impl Shard {
    fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// The shared memory; clones share it.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    /// Whether this is a Cluster, once known.
    is_cluster: Option<bool>,
    shards: Vec<Shard>,
    /// Nodes of earlier views, the newest last.
    former: Vec<Place>,
    asked: Option<Instant>,
    /// Whether the view has been found wrong.
    is_doubted: bool,
    /// Whether this user may not ask for a view.
    is_refused: bool,
    failed: HashMap<Place, Instant>,
}

impl Known {
    /// Whether this is a Cluster; `None` before anybody has asked.
    pub fn is_cluster(&self) -> Option<bool> {
        self.memory().is_cluster
    }

    /// Records whether it is a Cluster.
    pub fn set_cluster(&self, is_cluster: bool) {
        self.memory().is_cluster = Some(is_cluster);
    }

    /// Whether a view should be asked for now, by this caller.
    pub fn is_due(&self) -> bool {
        let mut memory = self.memory();
        if memory.is_cluster != Some(true) || memory.is_refused {
            return false;
        }
        let is_doubted = memory.is_doubted || memory.shards.is_empty();
        let wait = if is_doubted { APART } else { FRESH };
        let is_due = memory.asked.is_none_or(|asked| asked.elapsed() >= wait);
        if is_due {
            memory.asked = Some(Instant::now());
        }
        is_due
    }

    /// Records that this user may not ask for a view; redirects are followed instead.
    pub fn set_refused(&self) {
        self.memory().is_refused = true;
    }

    /// Replaces the view. A view without any node is ignored.
    pub fn learn(&self, shards: Vec<Shard>) {
        if shards.iter().all(|shard| shard.nodes.is_empty()) {
            return;
        }
        let mut memory = self.memory();
        let before = std::mem::replace(&mut memory.shards, shards);
        let now: HashSet<Place> =
            memory.shards.iter().flat_map(|shard| shard.nodes.iter().cloned()).collect();
        memory.former.extend(before.into_iter().flat_map(|shard| shard.nodes));
        let mut seen = now;
        let mut former: Vec<Place> = std::mem::take(&mut memory.former);
        former.reverse();
        former.retain(|place| seen.insert(place.clone()));
        former.truncate(FORMER);
        former.reverse();
        (memory.former, memory.is_doubted) = (former, false);
    }

    /// Marks the view as doubtful: a node redirected elsewhere, or could not be reached.
    pub fn doubt(&self) {
        self.memory().is_doubted = true;
    }

    /// Which node has a slot, as far as is known.
    pub fn master_of(&self, slot: u16) -> Option<Place> {
        let memory = self.memory();
        memory.shards.iter().find(|shard| shard.has(slot))?.nodes.first().cloned()
    }

    /// Records that the node could not be reached.
    pub fn failed(&self, place: Place) {
        let mut memory = self.memory();
        memory.failed.retain(|_, since| since.elapsed() < AVOIDED);
        memory.failed.insert(place, Instant::now());
        memory.is_doubted = true;
    }

    /// Records that the node was reached.
    pub fn reached(&self, place: &Place) {
        self.memory().failed.remove(place);
    }

    /// Whom to ask for a slot, in this order: the slot's own shard, the other masters, the `named` nodes, the other
    /// replicas, and former places of nodes. Nodes that recently could not be reached come last.
    pub fn candidates(&self, slot: u16, named: &[Place]) -> Vec<Place> {
        let memory = self.memory();
        let (own, others): (Vec<&Shard>, Vec<&Shard>) =
            memory.shards.iter().partition(|shard| shard.has(slot));
        let masters = others.iter().filter_map(|shard| shard.nodes.first());
        let replicas = others.iter().flat_map(|shard| shard.nodes.iter().skip(1));
        let own = own.iter().flat_map(|shard| shard.nodes.iter());
        let former = memory.former.iter().rev();
        let all = own.chain(masters).chain(named).chain(replicas).chain(former);
        let mut seen = HashSet::new();
        let mut places: Vec<Place> = all.filter(|place| seen.insert(*place)).cloned().collect();
        let is_avoided =
            |place: &Place| memory.failed.get(place).is_some_and(|since| since.elapsed() < AVOIDED);
        places.sort_by_key(is_avoided);
        places
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.memory().shards).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Place {
        Place { host: "h".to_owned(), port }
    }

    fn shard(first: u16, last: u16, ports: &[u16]) -> Shard {
        Shard { slots: vec![(first, last)], nodes: ports.iter().copied().map(place).collect() }
    }

    fn ports(known: &Known, slot: u16) -> Vec<u16> {
        known.candidates(slot, &[place(1), place(20)]).iter().map(|place| place.port).collect()
    }

    #[test]
    fn a_slot_is_looked_for_at_its_shard_first_and_at_nodes_that_are_away_last() {
        let known = Known::default();
        assert_eq!(ports(&known, 7), [1, 20]);
        known.learn(vec![shard(0, 99, &[10, 11]), shard(100, 199, &[20, 21])]);
        assert_eq!(ports(&known, 7), [10, 11, 20, 1, 21]);
        assert_eq!(ports(&known, 150), [20, 21, 10, 1, 11]);
        assert_eq!(known.master_of(150), Some(place(20)));
        known.failed(place(20));
        assert_eq!(ports(&known, 150), [21, 10, 1, 11, 20]);
        known.reached(&place(20));
        assert_eq!(ports(&known, 150), [20, 21, 10, 1, 11]);
    }

    #[test]
    fn where_nodes_have_been_is_remembered_for_a_while() {
        let known = Known::default();
        known.learn(vec![shard(0, 99, &[10])]);
        known.learn(vec![shard(0, 99, &[12])]);
        known.learn(Vec::new());
        assert_eq!(ports(&known, 7), [12, 1, 20, 10]);
        for port in 100..200 {
            known.learn(vec![shard(0, 99, &[port])]);
        }
        assert_eq!(ports(&known, 7).len(), 3 + FORMER);
        assert_eq!(ports(&known, 7)[3], 198);
    }

    #[test]
    fn a_view_is_asked_for_by_one_at_a_time_and_only_of_a_cluster() {
        let known = Known::default();
        assert!(!known.is_due());
        known.set_cluster(true);
        assert!(known.is_due() && !known.is_due());
    }
}
