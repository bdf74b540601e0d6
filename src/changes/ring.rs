//! The newest changes of all partitions in the order in which this process read them, in batches that all listeners
//! share. Memory is bounded: a listener that falls behind the oldest batch must be served from the stream.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::Filter;
use super::frame::{write_change, write_id};
use super::position::{Point, Position};
use crate::change::Change;
use crate::entry::EntryId;

/// Changes that are kept.
const MOST_CHANGES: usize = 20_000;
/// Bytes of text that are kept.
const MOST_BYTES: usize = 16 << 20;

/// Changes that were read together.
pub struct Batch {
    /// The changes in order.
    pub changes: Vec<Change>,
    /// Their events, one after the other.
    text: Bytes,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// The position after them, as an event without data.
    id: Bytes,
}

impl Batch {
    /// The events of all its changes.
    pub fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// The events that pass, in as few pieces as possible.
    pub fn passing(&self, filter: &Filter) -> Bytes {
        if filter.is_open() {
            return self.text();
        }
        let mut passing = self.events().filter(|(change, _)| filter.passes(change));
        let Some((_, first)) = passing.next() else { return Bytes::new() };
        let mut all = vec![first];
        all.extend(passing.map(|(_, event)| event));
        match &all[..] {
            [one] => one.clone(),
            all => all.concat().into(),
        }
    }

    /// Whether it reports erased changes; a reader that keeps a copy of the state then reads the state again.
    pub fn has_erased(&self) -> bool {
        self.changes.iter().any(Change::is_erased)
    }

    /// The position after it, as an event without data, which only moves a listener's position.
    pub fn id(&self) -> Bytes {
        self.id.clone()
    }

    fn events(&self) -> impl Iterator<Item = (&Change, Bytes)> {
        let mut start = 0;
        self.changes.iter().zip(&self.ends).map(move |(change, end)| {
            (change, self.text.slice(std::mem::replace(&mut start, *end)..*end))
        })
    }
}

/// What follows a place in the ring.
pub(super) enum After {
    /// The next batch.
    Batch(Arc<Batch>),
    /// Nothing yet.
    Nothing,
    /// The batch is no longer kept.
    TooFar,
}

/// Where a position is in the ring. Numbers are those of the first batch with anything after the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Within what is kept.
    At(u64),
    /// In some partition, more was read elsewhere than here.
    Ahead(u64),
    /// The ring lacks changes between the position and the oldest that is kept.
    Behind,
    /// The position is of another history, or this ring is.
    Other,
}

/// The newest changes.
pub(super) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    /// The number of the next batch.
    next: u64,
    /// The position before the oldest batch, and after the newest.
    start: Position,
    end: Position,
    /// The kept changes of each partition: entry id, and number of the batch.
    kept: Vec<VecDeque<(EntryId, u64)>>,
    changes: usize,
    bytes: usize,
}

impl Ring {
    /// An empty ring at a position; `next` is the number of its first batch.
    pub(super) fn new(position: Position, next: u64) -> Self {
        Self {
            batches: VecDeque::new(),
            next,
            kept: vec![VecDeque::new(); position.0.len()],
            start: position.clone(),
            end: position,
            changes: 0,
            bytes: 0,
        }
    }

    /// The number of the next batch.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The position after the newest batch.
    pub(super) fn end(&self) -> &Position {
        &self.end
    }

    /// The position after the newest batch, as an event without data.
    pub(super) fn end_id(&self) -> Bytes {
        let mut id = Vec::new();
        write_id(&mut id, &self.end);
        id.into()
    }

    /// Adds changes; those of one partition must follow each other without a gap.
    pub(super) fn push(&mut self, changes: Vec<Change>) -> Arc<Batch> {
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(changes.len()));
        for change in &changes {
            self.end.advance(change);
            write_change(&mut text, change, &self.end);
            ends.push(text.len());
            if let Some(kept) = self.kept.get_mut(usize::from(change.partition)) {
                kept.push_back((known_id(change), self.next));
            }
        }
        let id = self.end_id();
        let batch = Arc::new(Batch { changes, text: text.into(), ends, id });
        self.changes += batch.changes.len();
        self.bytes += batch.text.len();
        self.batches.push_back(Arc::clone(&batch));
        self.next += 1;
        while self.batches.len() > 1 && (self.changes > MOST_CHANGES || self.bytes > MOST_BYTES) {
            self.drop_oldest();
        }
        batch
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.batches.pop_front() else { return };
        self.changes -= oldest.changes.len();
        self.bytes -= oldest.text.len();
        for change in &oldest.changes {
            self.start.advance(change);
            if let Some(kept) = self.kept.get_mut(usize::from(change.partition)) {
                kept.pop_front();
            }
        }
    }

    fn first(&self) -> u64 {
        self.next - self.batches.len() as u64
    }

    /// The batch with that number.
    pub(super) fn after(&self, number: u64) -> After {
        match number.checked_sub(self.first()) {
            None => After::TooFar,
            Some(place) => {
                let batch = usize::try_from(place).ok().and_then(|place| self.batches.get(place));
                batch.map_or(After::Nothing, |batch| After::Batch(Arc::clone(batch)))
            }
        }
    }

    /// Where a position is that may come from another process, or from an earlier history of the server.
    pub(super) fn find(&self, position: &Position) -> Found {
        if position.0.len() != self.start.0.len() {
            return Found::Other;
        }
        let (mut next, mut is_behind, mut is_ahead) = (self.next, false, false);
        for ((point, start), kept) in position.0.iter().zip(&self.start.0).zip(&self.kept) {
            let Some(has) = point.seq.checked_sub(start.seq) else {
                is_behind = true;
                continue;
            };
            let known = match has {
                0 => Some(start.id),
                _ => index(has - 1).and_then(|last| kept.get(last)).map(|(id, _)| *id),
            };
            match known {
                Some(id) if !is_same(id, point.id) => return Found::Other,
                Some(_) => {}
                None => is_ahead = true,
            }
            if let Some((_, number)) = index(has).and_then(|has| kept.get(has)) {
                next = next.min(*number);
            }
        }
        match (is_behind, is_ahead) {
            (true, _) => Found::Behind,
            (false, true) => Found::Ahead(next),
            (false, false) => Found::At(next),
        }
    }
}

/// The id that identifies a change; unknown for one that was erased.
fn known_id(change: &Change) -> EntryId {
    if change.is_erased() { Point::START.id } else { change.id }
}

/// Whether two ids of changes with the same number may belong to the same change. The id of a change that the server
/// no longer had is unknown.
fn is_same(a: EntryId, b: EntryId) -> bool {
    a == b || a == Point::START.id || b == Point::START.id
}

fn index(n: u64) -> Option<usize> {
    usize::try_from(n).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use proptest::prelude::*;

    fn change(partition: u16, seq: u64) -> Change {
        let id = EntryId { ms: seq * 10, seq: u64::from(partition) };
        let seq = seq.to_string();
        let fields = [("seq", seq.as_str()), ("kind", "online"), ("time", "1"), ("user", &seq)];
        Change::read(&Entry::new(id, fields), partition).unwrap()
    }

    fn at(seqs: [u64; 2]) -> Position {
        let point = |(partition, seq): (u64, u64)| match seq {
            0 => Point::START,
            seq => Point { seq, id: EntryId { ms: seq * 10, seq: partition } },
        };
        Position((0..).zip(seqs).map(point).collect())
    }

    proptest! {
        /// Whoever joins anywhere within and skips what it has gets every later change once, in order.
        #[test]
        fn a_position_within_the_ring_is_found_and_gets_the_rest(
            order in proptest::collection::vec((0..2_u16, 1..4_usize), 1..40),
            has in (0..40_u64, 0..40_u64),
            dropped in 0..20_usize,
        ) {
            let mut ring = Ring::new(at([0, 0]), 7);
            let mut seqs = [0, 0];
            for (partition, count) in order {
                let batch = (0..count).map(|_| {
                    seqs[usize::from(partition)] += 1;
                    change(partition, seqs[usize::from(partition)])
                });
                ring.push(batch.collect());
            }
            for _ in 0..dropped.min(ring.batches.len() - 1) {
                ring.drop_oldest();
            }
            let position = at([has.0, has.1]);
            let is_within = [has.0, has.1].iter().zip(&ring.start.0).all(|(n, start)| *n >= start.seq)
                && [has.0, has.1].iter().zip(&seqs).all(|(n, end)| n <= end);
            let is_behind = [has.0, has.1].iter().zip(&ring.start.0).any(|(n, start)| *n < start.seq);
            let mut number = match ring.find(&position) {
                Found::At(number) => number,
                Found::Behind => {
                    prop_assert!(is_behind);
                    return Ok(());
                }
                Found::Ahead(_) => {
                    prop_assert!(!is_within && !is_behind);
                    return Ok(());
                }
                Found::Other => return Err(TestCaseError::fail("of the same history")),
            };
            prop_assert!(is_within);
            let mut own = position;
            while let After::Batch(batch) = ring.after(number) {
                for change in &batch.changes {
                    let point = own.0[usize::from(change.partition)];
                    if change.seq > point.seq {
                        prop_assert_eq!(change.seq, point.seq + 1);
                        own.advance(change);
                    }
                }
                number += 1;
            }
            prop_assert_eq!(&own, ring.end());
        }
    }

    #[test]
    fn other_histories_and_other_partitions_are_not_found() {
        let mut ring = Ring::new(at([0, 0]), 0);
        ring.push((1..=3).map(|seq| change(0, seq)).collect());
        assert_eq!(ring.find(&at([2, 0])), Found::At(0));
        let mut other = at([2, 0]);
        other.0[0].id.ms += 1;
        assert_eq!(ring.find(&other), Found::Other);
        other.0[0].id = Point::START.id;
        assert_eq!(ring.find(&other), Found::At(0), "its change was trimmed when it was read");
        assert_eq!(ring.find(&at([4, 0])), Found::Ahead(1));
        assert_eq!(ring.find(&at([2, 1])), Found::Ahead(0));
        assert_eq!(ring.find(&Position(vec![Point::START])), Found::Other);
    }

    #[test]
    fn the_ring_is_bounded_and_who_is_behind_it_is_told_so() {
        let mut ring = Ring::new(at([0, 0]), 0);
        for seq in 1..=MOST_CHANGES as u64 + 10 {
            ring.push(vec![change(0, seq)]);
        }
        assert!(matches!(ring.after(9), After::TooFar));
        assert!(matches!(ring.after(10), After::Batch(batch) if batch.changes[0].seq == 11));
        assert!(matches!(ring.after(ring.next()), After::Nothing));
        assert_eq!(ring.find(&at([9, 0])), Found::Behind);
        assert_eq!(ring.kept[0].len(), MOST_CHANGES);
    }

    #[test]
    fn a_batch_is_written_once_and_cut_by_filters() {
        let mut ring = Ring::new(at([0, 0]), 0);
        let batch = ring.push(vec![change(0, 1), change(1, 1), change(0, 2)]);
        let text = String::from_utf8(batch.text().to_vec()).unwrap();
        let expected = "data: {\"kind\":\"online\",\"partition\":0,\"seq\":1,\"time\":1,\"user\":\"1\"}\nid: 1.a~0.0\n\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("\nid: 2.k~1.a.1\n\n"), "{text}");
        let mut filter = Filter { users: ["2".to_owned()].into(), ..Filter::default() };
        assert_eq!(batch.passing(&filter), text[text.rfind("data: ").unwrap()..]);
        filter.users.insert("1".to_owned());
        assert_eq!(batch.passing(&filter), text);
        filter.users = ["3".to_owned()].into();
        assert!(batch.passing(&filter).is_empty());
        assert_eq!(batch.id(), "id: 2.k~1.a.1\n\n");
    }
}
