//! The reference model: what the state must be, as a function of the *set* of entries.
//!
//! It keeps plain facts ("alice was present at t", "token k ended") and computes the whole state from all of them at
//! once, so neither order nor batches nor repetition can matter. The apply script and the sweeps are tested against
//! it, so it shares nothing with them: from the library it uses the decoder, the event types and the key names. It is
//! simple rather than fast.
//!
//! It assumes that every entry is finished when `state` is called, and returns the state *after a full sweep*. For
//! what depends on the schedule by its nature it returns the ideal (counts of the ranking and viewed items as if
//! nothing had ever been evicted, session data as if no touch came too late), and `open` lists what else is correct.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

mod changes;
mod diff;
mod documents;
mod facts;
mod open;
mod sessions;
mod settings;
mod state;
mod tokens;
mod users;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_limits;
#[cfg(test)]
mod tests_sessions;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rollcall::decode::decode;
use rollcall::entry::{Entry, EntryId, Oversize};
use rollcall::event::Limits;
use rollcall::key::Keys;

pub use changes::{Change, Exempt, check_changes, check_changes_but, check_transitions};
pub use diff::diff;
use facts::{Fact, What};
pub use open::Open;
pub use settings::{PROJECTIONS, Settings};
pub use state::{Bytes, State, Value, score_text};

/// A dead letter: the entry, the reason's name, the index of a packed element.
pub type Dead = (EntryId, String, Option<usize>);

/// Everything that was applied to one partition.
#[derive(Clone, Debug)]
pub struct Model {
    settings: Settings,
    partition: u16,
    applied: BTreeSet<EntryId>,
    facts: Vec<Fact>,
    dead: Vec<Dead>,
}

impl Model {
    /// A partition to which nothing was applied yet.
    pub fn new(settings: Settings, partition: u16) -> Self {
        assert_eq!(settings.partitions, settings.rules.partitions, "Settings::with_partitions");
        let (applied, facts, dead) = Default::default();
        Self { settings, partition, applied, facts, dead }
    }

    /// Applies an entry when the server's clock is at `now_ms` or later; an entry applied before has no effect.
    pub fn apply_entry(&mut self, entry: &Entry, now_ms: u64) {
        if !self.applied.insert(entry.id) {
            return;
        }
        let entry = as_read(entry, &self.settings.rules.limits);
        let decoded = decode(&entry, self.partition, &self.settings.rules);
        for event in &decoded.events {
            let facts = Fact::of_event(event, entry.id, now_ms).into_iter();
            self.facts.extend(facts.filter(|fact| fact.counts(&self.settings, now_ms)));
        }
        for rejected in &decoded.rejected {
            let index = rejected.element.map(|(index, _)| index);
            self.dead.push((entry.id, rejected.rejection.reason.name().to_owned(), index));
        }
    }

    /// Records that an entry was written off without being decoded.
    pub fn write_off(&mut self, entry: EntryId) {
        if self.applied.insert(entry) {
            self.dead.push((entry, "poison".to_owned(), None));
        }
    }

    /// The whole state after a full sweep at `now_ms`.
    pub fn state(&self, now_ms: u64) -> State {
        let fold = self.fold(now_ms);
        let mut state = State::new();
        users::online_minutes(&fold, &mut state);
        users::activity(&fold, &mut state);
        users::presence(&fold, &mut state);
        users::addresses(&fold, &mut state);
        tokens::ended(&fold, &mut state);
        tokens::tokens(&fold, &mut state);
        tokens::ranking(&fold, &mut state);
        sessions::ended(&fold, &mut state);
        sessions::sessions(&fold, &mut state);
        documents::connections(&fold, &mut state);
        documents::users(&fold, &mut state);
        documents::levels(&fold, &mut state);
        state
    }

    /// What is correct as well, where the state depends on the schedule.
    pub fn open(&self, now_ms: u64) -> Open {
        let fold = self.fold(now_ms);
        let mut open = Open::new();
        tokens::open_tokens(&fold, &mut open);
        tokens::open_ranking(&fold, &mut open);
        sessions::open(&fold, &mut open);
        documents::open_levels(&fold, &mut open);
        open
    }

    fn fold(&self, now: u64) -> Fold<'_> {
        let (settings, facts, keys) = (&self.settings, &self.facts, self.keys());
        let last_entry_ms = self.applied.last().map_or(0, |id| id.ms);
        Fold { settings, facts, keys, now, last_entry_ms }
    }

    /// The dead letters, in order.
    pub fn dead(&self) -> Vec<Dead> {
        let mut dead = self.dead.clone();
        dead.sort();
        dead
    }

    /// The names of the partition's keys.
    pub fn keys(&self) -> Keys {
        Keys::new(&self.settings.prefix, self.settings.partitions, self.partition)
    }
}

/// The input of a rule: all facts, and the instant.
struct Fold<'a> {
    settings: &'a Settings,
    facts: &'a [Fact],
    keys: Keys,
    now: u64,
    /// Milliseconds of the greatest id of an entry.
    last_entry_ms: u64,
}

impl<'a> Fold<'a> {
    /// The results of `of` for the facts that it accepts.
    fn each<T>(&self, of: impl Fn(&'a Fact, &'a What) -> Option<T>) -> impl Iterator<Item = T> {
        self.facts.iter().filter_map(move |fact| of(fact, &fact.what))
    }

    /// The greatest value for each key over all facts: the merge of every last-writer-wins structure.
    fn greatest<K: Ord, V: Ord>(
        &self,
        of: impl Fn(&'a Fact, &'a What) -> Option<(K, V)>,
    ) -> BTreeMap<K, V> {
        let mut winners = BTreeMap::new();
        for (key, value) in self.each(of) {
            match winners.get(&key) {
                Some(winner) if *winner >= value => {}
                _ => drop(winners.insert(key, value)),
            }
        }
        winners
    }

    /// Whether what expires at `expiry` is gone.
    fn is_gone(&self, expiry: u64) -> bool {
        expiry <= self.now
    }

    /// Whether the tombstone of an ending in an entry of `entry_ms` is kept.
    fn is_remembered(&self, entry_ms: u64) -> bool {
        entry_ms >= self.now.min(self.last_entry_ms).saturating_sub(self.settings.horizon_ms)
    }
}

/// An entry as a worker reads it: of one larger than any event can be, only the sizes.
fn as_read<'e>(entry: &'e Entry, limits: &Limits) -> Cow<'e, Entry> {
    let pairs = entry.fields().len();
    if pairs <= Limits::MOST_PAIRS && entry.size() <= limits.most_bytes() {
        return Cow::Borrowed(entry);
    }
    Cow::Owned(Entry::oversized(entry.id, Oversize { pairs, bytes: entry.size() as u64 }))
}

/// The last `cap` members by (score, member), in the order of a Redis sorted set.
fn newest<K: Ord>(scores: impl IntoIterator<Item = (K, u64)>, cap: usize) -> BTreeMap<K, u64> {
    let mut ranked: Vec<_> = scores.into_iter().map(|(member, score)| (score, member)).collect();
    ranked.sort();
    ranked.into_iter().rev().take(cap).map(|(score, member)| (member, score)).collect()
}
