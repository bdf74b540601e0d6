//! Which workers are alive, as one of them sees it, and which of them should have a partition. Pure: instants come
//! from the caller.
//!
//! A worker's report is different each time. A worker whose report has not changed for a while, by this process's own
//! clock, is dead; clocks of other machines do not matter. Each partition ranks the live workers by a hash of both,
//! so all workers agree on the order without communicating, and a newcomer moves only the partitions that it gets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is known of one worker.
#[derive(Clone, Debug)]
struct Peer {
    says: String,
    /// When its report last changed.
    since: Instant,
}

/// The workers that report to a partition.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    own: String,
    host: String,
    /// How often this worker has reported.
    spoken: u64,
    partition: u16,
    silence: Duration,
    known: BTreeMap<String, Peer>,
}

impl Peers {
    /// As seen by worker `own` on `host`. A worker whose report does not change for `silence` is dead.
    pub(super) fn new(own: &str, host: &str, partition: u16, silence: Duration) -> Self {
        let (own, host) = (own.to_owned(), host.to_owned());
        Self { own, host, spoken: 0, partition, silence, known: BTreeMap::new() }
    }

    /// This worker's report: different each time, with its host.
    pub(super) fn words(&mut self) -> String {
        self.spoken += 1;
        format!("{} {}", self.spoken, self.host)
    }

    /// Takes the current reports of all workers. Returns those that are dead, with their last report.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        words: Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        let mut known = BTreeMap::new();
        for (name, says) in words {
            let before = self.known.remove(&name);
            let since = before.filter(|peer| peer.says == says).map_or(now, |peer| peer.since);
            known.insert(name, Peer { says, since });
        }
        self.known = known;
        let is_dead = |(name, peer): &(&String, &Peer)| {
            **name != self.own && now.duration_since(peer.since) >= self.silence
        };
        let dead: Vec<_> = self.known.iter().filter(is_dead).collect();
        let dead: Vec<_> =
            dead.into_iter().map(|(name, peer)| (name.clone(), peer.says.clone())).collect();
        dead.iter().for_each(|(name, _)| self.forget(name));
        dead
    }

    /// Removes a worker that is dead.
    pub(super) fn forget(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Whether another worker is alive.
    pub(super) fn has_others(&self) -> bool {
        self.known.keys().any(|name| *name != self.own)
    }

    /// The live workers in the order in which they should have the partition: the first owns it. Of those that stand
    /// by, one on another host than the first comes first.
    fn ranked(&self) -> Vec<&str> {
        let own = [self.own.as_str()];
        let mut names: Vec<&str> = self
            .known
            .keys()
            .map(String::as_str)
            .filter(|name| *name != self.own)
            .chain(own)
            .collect();
        names.sort_by_key(|name| std::cmp::Reverse(weight(name, self.partition)));
        let host = |name: &str| self.known.get(name).and_then(|peer| host_of(&peer.says));
        if let Some((first, others)) = names.split_first_mut() {
            let elsewhere = others.iter().position(|name| host(name) != host(first));
            if let Some(place) = elsewhere {
                others[..=place].rotate_right(1);
            }
        }
        names
    }

    /// This worker's place among those that do not own the partition, from 0; the first ones stand by.
    pub(super) fn place_behind(&self, owner: &str) -> usize {
        let mut others = self.ranked().into_iter().filter(|name| *name != owner);
        others.position(|name| name == self.own).unwrap_or(0)
    }

    /// Whether a worker should own the partition.
    pub(super) fn is_first(&self, name: &str) -> bool {
        self.ranked().first().is_some_and(|first| *first == name)
    }
}

fn host_of(words: &str) -> Option<&str> {
    words.split_once(' ').map(|(_, host)| host)
}

/// The strength of a worker's claim to a partition: FNV-1a of both, mixed so that all bits count.
fn weight(name: &str, partition: u16) -> u64 {
    let bytes = name.bytes().chain(partition.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SILENCE: Duration = Duration::from_secs(25);

    fn hear(peers: &mut Peers, now: Instant, words: &[(&str, &str)]) -> Vec<String> {
        let words = words.iter().map(|(name, says)| ((*name).to_owned(), (*says).to_owned()));
        peers.hear(now, words.collect()).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn who_says_nothing_new_is_dead_and_comes_back_when_it_speaks() {
        let start = Instant::now();
        let mut peers = Peers::new("a", "h", 0, SILENCE);
        assert!(!peers.has_others());
        assert!(hear(&mut peers, start, &[("a", "1 h"), ("b", "1 h"), ("c", "1 h")]).is_empty());
        let later = start + SILENCE;
        assert_eq!(hear(&mut peers, later, &[("a", "1 h"), ("b", "2 h"), ("c", "1 h")]), ["c"]);
        assert!(peers.has_others());
        let words = [("a", "2 h"), ("b", "2 h"), ("c", "2 h")];
        assert!(hear(&mut peers, later + SILENCE / 2, &words).is_empty());
        assert_eq!(hear(&mut peers, later + SILENCE, &words), ["b"]);
        peers.forget("c");
        assert!(!peers.has_others() && peers.is_first("a"));
    }

    #[test]
    fn a_worker_never_says_the_same_twice() {
        let mut peers = Peers::new("a", "h", 0, SILENCE);
        assert_eq!([peers.words(), peers.words()], ["1 h", "2 h"]);
    }

    #[test]
    fn a_standby_is_on_another_host_where_there_is_one() {
        let now = Instant::now();
        for partition in 0..50 {
            let mut peers = Peers::new("a", "h", partition, SILENCE);
            let words = [("a", "1 h"), ("b", "1 h"), ("c", "1 h"), ("d", "1 i")];
            hear(&mut peers, now, &words);
            let ranked = peers.ranked();
            assert_eq!(ranked.len(), 4);
            assert!(ranked[..2].contains(&"d"), "{ranked:?}");
        }
    }

    proptest! {
        #[test]
        fn all_agree_and_a_newcomer_takes_only_what_is_its_own(
            names in proptest::collection::btree_set("[a-z]{1,6}", 2..8),
            partition in 0_u16..1024,
        ) {
            let now = Instant::now();
            let names: Vec<String> = names.into_iter().collect();
            let first = |names: &[String]| {
                let mut seen = names.iter().map(|own| {
                    let mut peers = Peers::new(own, "h", partition, SILENCE);
                    peers.hear(now, names.iter().map(|name| (name.clone(), "1 h".to_owned())).collect());
                    peers.ranked()[0].to_owned()
                });
                let first = seen.next().unwrap();
                assert!(seen.all(|other| other == first));
                first
            };
            let (newcomer, before) = names.split_last().unwrap();
            let (then, now) = (first(before), first(&names));
            prop_assert!(now == then || now == *newcomer);
        }
    }

    #[test]
    fn partitions_are_spread_over_the_workers() {
        let names: Vec<String> = (0..16).map(|n| format!("host-{n}-{:08x}", n * 7_919)).collect();
        let mut owned = BTreeMap::<&str, u32>::new();
        for partition in 0..256 {
            let first = names.iter().max_by_key(|name| weight(name, partition)).unwrap();
            *owned.entry(first).or_default() += 1;
        }
        assert_eq!(owned.len(), 16);
        assert!(owned.values().all(|count| (4..=40).contains(count)), "{owned:?}");
    }
}
