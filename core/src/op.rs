//! The merge operations: what a folded batch asks the apply script to do, and how two of a kind combine.
//!
//! Each combination is commutative, associative and idempotent, so a batch may be split anywhere and delivered again
//! in any order. The script merges in the same way into the server's state.

use foldhash::fast::RandomState;

use crate::entry::EntryId;
use crate::event::{Bytes, Rejection, Text};
use crate::time::EventTime;

/// A map of a plan, in the order in which its keys were added. Outsiders choose the keys, so each map has a random
/// seed, and no more keys than its batch has events.
pub type Map<K, V> = indexmap::IndexMap<K, V, RandomState>;

/// A set of a plan, with the same properties.
pub type Set<T> = indexmap::IndexSet<T, RandomState>;

/// A final ending: the newest entry that ends it, and the latest time that one gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Milliseconds of the greatest entry id that ends it.
    pub entry_ms: u64,
    /// The latest event time of an ending, for the change record.
    pub time: EventTime,
}

impl Ending {
    /// Combines an ending with the one in the slot.
    pub fn merge(slot: &mut Option<Self>, other: Self) {
        let before = slot.unwrap_or(other);
        *slot = Some(Self {
            entry_ms: before.entry_ms.max(other.entry_ms),
            time: before.time.max(other.time),
        });
    }
}

/// The latest of several writes; at the same time, the one with the greater bytes.
pub type Latest<T> = Option<(EventTime, T)>;

/// Keeps the later of the two.
pub fn keep_latest<T: Ord>(slot: &mut Latest<T>, time: EventTime, value: T) {
    let write = Some((time, value));
    if *slot < write {
        *slot = write;
    }
}

/// What a batch says about a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenMerge<'a> {
    /// Its latest use, and by whom.
    pub used: Latest<Text<'a>>,
    /// The latest view of each item.
    pub items: Map<Text<'a>, EventTime>,
    /// Its end.
    pub ended: Option<Ending>,
}

/// What a batch says about a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionMerge<'a> {
    /// The latest activity: a value that begins with its version.
    pub touched: Latest<String>,
    /// The latest data.
    pub data: Latest<Bytes<'a>>,
    /// The latest lifetime of its own, in seconds.
    pub ttl: Latest<u32>,
    /// Its end.
    pub ended: Option<Ending>,
}

/// A user at an address: what a presence entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// The user.
    pub user: Text<'a>,
    /// The address; may be empty.
    pub ip: Text<'a>,
}

/// What a logout ends: one presence entry of a user, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Departure<'a> {
    /// The user.
    pub user: Text<'a>,
    /// The address; `None` for all.
    pub ip: Option<Text<'a>>,
}

/// A user's connection to a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection<'a> {
    /// The document.
    pub doc: Text<'a>,
    /// The user.
    pub user: Text<'a>,
    /// The connection; may be empty.
    pub id: Text<'a>,
}

/// What a connection did last; at the same time a leave beats a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinOrLeave {
    /// When.
    pub time: EventTime,
    /// Whether it left.
    pub left: bool,
}

/// A dead letter to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter<'a> {
    /// The entry.
    pub id: EntryId,
    /// Why.
    pub rejection: Rejection,
    /// Position of the element in a packed entry.
    pub index: Option<usize>,
    /// The original pairs; for an element, `data` holds its bytes alone. Empty for an entry too large to keep.
    pub fields: Vec<(&'a [u8], &'a [u8])>,
}

/// All that one apply call merges, counts and writes off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Users seen, by epoch minute.
    pub minutes: Map<u64, Set<Text<'a>>>,
    /// Each user's latest activity, in seconds.
    pub activity: Map<Text<'a>, u64>,
    /// The latest value of presence entries, which begins with its version.
    pub presence: Map<Place<'a>, Latest<String>>,
    /// The latest ending of presence entries, of a single one or of all of a user's.
    pub departed: Map<Departure<'a>, EventTime>,
    /// Tokens.
    pub tokens: Map<Text<'a>, TokenMerge<'a>>,
    /// Sessions.
    pub sessions: Map<Text<'a>, SessionMerge<'a>>,
    /// Connections to documents.
    pub connections: Map<Connection<'a>, JoinOrLeave>,
    /// The number of views of each item.
    pub views: Map<Text<'a>, u64>,
    /// What could not be applied.
    pub letters: Vec<Letter<'a>>,
    /// How many entries it is made of.
    pub entries: u64,
    /// The last of them: the new cursor.
    pub last: Option<EntryId>,
}

impl<'a> Plan<'a> {
    /// An empty plan with room for this many heartbeats, the most frequent kind of event.
    pub fn with_capacity(events: usize) -> Self {
        Self {
            activity: Map::with_capacity_and_hasher(events, RandomState::default()),
            presence: Map::with_capacity_and_hasher(events, RandomState::default()),
            ..Self::default()
        }
    }

    /// Whether a presence entry of that time is newer than what ends it in this plan. At the same time an ending
    /// wins.
    pub fn is_present(&self, place: &Place<'a>, time: EventTime) -> bool {
        let ended = |ip| self.departed.get(&Departure { user: place.user.clone(), ip });
        self.departed.is_empty()
            || [Some(place.ip.clone()), None].into_iter().filter_map(ended).all(|end| time > *end)
    }
}

/// A structure that the janitor sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Its name in the script, and the label of its metrics.
    pub name: &'static str,
    /// How it is swept.
    pub kind: SweepKind,
}

impl Sweep {
    /// Whether the sweep removes anything.
    pub fn takes(&self) -> bool {
        self.kind != SweepKind::Patrol
    }
}

/// The applied part of the stream.
pub const STREAM: Sweep = Sweep { name: "stream", kind: SweepKind::Drain };

/// Records of erased changes and blocked users, once nobody can need them.
pub const ERASED: Sweep = Sweep { name: "erased", kind: SweepKind::Drain };

/// How a sweep finds what to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepKind {
    /// It walks a whole hash, a part at a time.
    Walk,
    /// It walks a whole hash slowly and removes nothing: it restores what others removed of what follows from the
    /// hash.
    Patrol,
    /// It removes from the low end of a sorted set or of the stream until nothing is due.
    Drain,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use proptest::prelude::*;

    /// Any order, any grouping, any repetition.
    fn check<T: Clone + PartialEq + Debug>(
        merge: impl Fn(T, T) -> T,
        [a, b, c]: [T; 3],
    ) -> Result<(), TestCaseError> {
        let both = |x: &T, y: &T| merge(x.clone(), y.clone());
        prop_assert_eq!(both(&a, &b), both(&b, &a));
        prop_assert_eq!(both(&both(&a, &b), &c), both(&a, &both(&b, &c)));
        prop_assert_eq!(both(&a, &a), a);
        Ok(())
    }

    fn time() -> impl Strategy<Value = EventTime> {
        (0..3_u64).prop_map(|ms| EventTime::from_millis(EventTime::MIN.millis() + ms))
    }

    fn ending() -> impl Strategy<Value = Option<Ending>> {
        let ending = (0..3_u64, time()).prop_map(|(entry_ms, time)| Ending { entry_ms, time });
        proptest::option::of(ending)
    }

    proptest! {
        #[test]
        fn endings_merge_as_a_set(endings in [ending(), ending(), ending()]) {
            let merge = |mut a, b: Option<Ending>| {
                if let Some(b) = b { Ending::merge(&mut a, b); }
                a
            };
            check(merge, endings)?;
        }

        #[test]
        fn the_latest_writes_merge_as_a_set(
            writes in proptest::array::uniform3(proptest::option::of((time(), "[ab]{0,2}"))),
        ) {
            let merge = |mut a, b: Latest<String>| {
                if let Some((time, value)) = b { keep_latest(&mut a, time, value); }
                a
            };
            check(merge, writes)?;
        }
    }
}
