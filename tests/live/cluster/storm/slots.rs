//! The slots of partitions that move from node to node, some keys at a time.

use std::time::Duration;

use super::nodes::{SHARDS, Shards, pair, shard_of};
use crate::chaos::fleet::Site as _;
use crate::chaos::plan::Strike;

/// A partition's slot on its way.
pub struct Move {
    partition: u16,
    slot: String,
    source: usize,
    target: usize,
    /// The target's own name.
    name: String,
}

impl Shards {
    /// Announces that a partition moves to another master.
    pub fn begin_move(&self, partition: u16, strike: &Strike) -> Move {
        let source = self.home[usize::from(partition)];
        let target = (source + 1 + (strike.dice / 64) as usize % (SHARDS - 1)) % SHARDS;
        self.begin_move_to(partition, target)
    }

    fn begin_move_to(&self, partition: u16, shard: usize) -> Move {
        let from = self.home[usize::from(partition)];
        let [(source, _), (target, _)] = [from, shard].map(|shard| self.whole(shard));
        let key = self.layout().keys(partition).meta();
        let slot = self.ground.ask::<u64>(source, &["CLUSTER", "KEYSLOT", &key]).to_string();
        let name_of = |node| self.ground.ask::<String>(node, &["CLUSTER", "MYID"]);
        let (from, name) = (name_of(source), name_of(target));
        self.ground.ask::<()>(target, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]);
        self.ground.ask::<()>(source, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &name]);
        Move { partition, slot, source, target, name }
    }

    /// Moves so many of the keys that are left, some at a time; returns how many there were.
    pub fn move_keys(&self, on_the_way: &Move, most: usize, strike: &Strike) -> u64 {
        let port = self.ground.nodes[on_the_way.target].port().to_string();
        let at_once = strike.between(1, 40) as usize;
        let mut moved = 0;
        while moved < most {
            let count = at_once.min(most - moved).to_string();
            let words = ["CLUSTER", "GETKEYSINSLOT", &on_the_way.slot, &count];
            let keys: Vec<String> = self.ground.ask(on_the_way.source, &words);
            if keys.is_empty() {
                break;
            }
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let words = migrate.into_iter().chain(keys.iter().map(String::as_str));
            self.ground.ask::<()>(on_the_way.source, &words.collect::<Vec<_>>());
            moved += keys.len();
            std::thread::sleep(Duration::from_millis(5));
        }
        moved as u64
    }

    /// The slot is at its target now; returns once the replicas of both nodes have it from them.
    pub fn end_move(&mut self, on_the_way: Move) {
        let Move { partition, slot, source, target, name } = on_the_way;
        let others = (0..SHARDS).flat_map(pair).filter(|node| self.ground.is_master(*node));
        let rest: Vec<usize> = others.filter(|node| ![source, target].contains(node)).collect();
        for node in [target, source].into_iter().chain(rest) {
            self.ground.ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &name]);
        }
        self.home[usize::from(partition)] = shard_of(target);
        self.has_moved[usize::from(partition)] = true;
        for node in [source, target] {
            self.whole(shard_of(node));
        }
    }

    /// The slot stays, with all its keys.
    pub fn give_move_up(&self, on_the_way: &Move) {
        for node in [on_the_way.source, on_the_way.target] {
            self.ground.ask::<()>(node, &["CLUSTER", "SETSLOT", &on_the_way.slot, "STABLE"]);
        }
    }

    /// Moves a partition as a whole; returns how many keys that were.
    pub fn move_partition(&mut self, partition: u16, strike: &Strike) -> u64 {
        let on_the_way = self.begin_move(partition, strike);
        let moved = self.move_keys(&on_the_way, usize::MAX, strike);
        self.end_move(on_the_way);
        moved
    }

    /// Moves a partition back to where a move began.
    pub fn move_back(&mut self, partition: u16, shard: usize, strike: &Strike) -> u64 {
        let on_the_way = self.begin_move_to(partition, shard);
        let moved = self.move_keys(&on_the_way, usize::MAX, strike);
        self.end_move(on_the_way);
        moved
    }
}
