//! What a worker counts and times, as handles that it gets once and updates once per batch.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::board::{self, Sample, Topic};
use super::inventory::{
    AGE, APPLIED, APPLY_TIME, BATCH, BLOCKED, CHANGES, CHANGES_DROPPED, CONNECTS, DECODED,
    EVENTS_APPLIED, EVENTS_DECODED, FOLD_TIME, FORWARDED, FROM_FUTURE, INTERFERENCES, LATE,
    LETTERS_DROPPED, OPERATIONS, OWNED, READ, READ_BYTES, READ_TIME, REJECTED, ROUND_TRIPS,
    STANDBY, TAKEOVERS, TERM, TRIED_ALONE, UNKNOWN_MEMBERS,
};
use super::{ByLabel, now, own_counter, own_histogram};
use crate::decode::Form;
use crate::entry::{Entry, EntryId};
use crate::event::{Reason, TYPES};
use crate::fold::Counts;
use crate::op::Plan;
use crate::projection::Projection;
use crate::redis::scripts::apply::Applied;
use crate::redis::scripts::changes::Changes;
use crate::redis::scripts::owner::Cause;

/// A worker's role in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Others own it and stand by.
    Idle,
    /// It watches the owner.
    Standby,
    /// It owns the partition.
    Owner,
}

/// The metrics of a worker.
#[derive(Clone)]
pub struct WorkerMetrics {
    partition: u16,
    connects: ByLabel,
    takeovers: ByLabel,
    interferences: Counter,
    round_trips: ByLabel,
    read: Counter,
    read_bytes: Counter,
    read_time: Histogram,
    decoded: ByLabel,
    events_decoded: ByLabel,
    fold_time: Histogram,
    apply_time: Histogram,
    batch: Histogram,
    age: Histogram,
    applied: Counter,
    events_applied: ByLabel,
    blocked: Counter,
    from_future: Counter,
    unknown_members: ByLabel,
    operations: ByLabel,
    late: Counter,
    rejected: ByLabel,
    letters_dropped: Counter,
    forwarded: Counter,
    tried_alone: Counter,
    changes: ChangeCounters,
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerMetrics")
    }
}

impl WorkerMetrics {
    /// The handles; the recorder must be installed.
    pub fn registered(partition: u16) -> Self {
        Self {
            partition,
            connects: ByLabel::new(CONNECTS),
            takeovers: ByLabel::new(TAKEOVERS),
            interferences: own_counter(INTERFERENCES),
            round_trips: ByLabel::new(ROUND_TRIPS),
            read: own_counter(READ),
            read_bytes: own_counter(READ_BYTES),
            read_time: own_histogram(READ_TIME),
            decoded: ByLabel::new(DECODED),
            events_decoded: ByLabel::new(EVENTS_DECODED),
            fold_time: own_histogram(FOLD_TIME),
            apply_time: own_histogram(APPLY_TIME),
            batch: own_histogram(BATCH),
            age: own_histogram(AGE),
            applied: own_counter(APPLIED),
            events_applied: ByLabel::new(EVENTS_APPLIED),
            blocked: own_counter(BLOCKED),
            from_future: own_counter(FROM_FUTURE),
            unknown_members: ByLabel::new(UNKNOWN_MEMBERS),
            operations: ByLabel::new(OPERATIONS),
            late: own_counter(LATE),
            rejected: ByLabel::new(REJECTED),
            letters_dropped: own_counter(LETTERS_DROPPED),
            forwarded: own_counter(FORWARDED),
            tried_alone: own_counter(TRIED_ALONE),
            changes: ChangeCounters::new(),
        }
    }

    /// Entries of an earlier layout were forwarded.
    pub fn forwarded(&self, entries: u64) {
        self.forwarded.increment(entries);
    }

    /// The worker took the partition; `term` counts how often it was taken.
    pub fn taken_over(&self, cause: Cause, term: &str) {
        self.connects.add("worker", 1);
        self.takeovers.add(cause.name(), 1);
        let term = term.parse().unwrap_or(0.0);
        board::put(Topic::Term, self.partition, vec![Sample::new(TERM, &[&self.partition], term)]);
    }

    /// This worker's role in the partition now.
    pub fn role(&self, role: Role) {
        let truth = |is_so| f64::from(u8::from(is_so));
        let partition = self.partition;
        let samples = vec![
            Sample::new(OWNED, &[&partition], truth(role == Role::Owner)),
            Sample::new(STANDBY, &[&partition], truth(role == Role::Standby)),
        ];
        board::put(Topic::Role, partition, samples);
        if role != Role::Owner {
            board::take_off(Topic::Term, partition);
        }
    }

    /// Strangers interfered with the group.
    pub fn interfered(&self, count: u64) {
        self.interferences.increment(count);
    }

    /// A read took this long after the wait for the first entry.
    pub fn read_took(&self, took: Duration) {
        self.read_time.record(took);
    }

    /// Entries were read, by one call.
    pub fn read(&self, entries: &[Entry]) {
        self.round_trips.add("read", 1);
        self.read.increment(entries.len() as u64);
        self.read_bytes.increment(entries.iter().map(Entry::size).sum::<usize>() as u64);
    }

    /// Entries were decoded and folded.
    pub fn folded(&self, counts: &Counts, took: Duration) {
        let forms = Form::ALL.iter().zip(counts.forms);
        forms.for_each(|(form, count)| self.decoded.add(form.name(), count));
        let types = TYPES.iter().zip(counts.types);
        types.for_each(|(name, count)| self.events_decoded.add(name, count));
        self.fold_time.record(took);
    }

    /// Events took effect.
    pub fn events_applied(&self, counts: &Counts) {
        let types = TYPES.iter().zip(counts.types);
        types.for_each(|(name, count)| self.events_applied.add(name, count));
        self.blocked.increment(counts.blocked);
        self.from_future.increment(counts.from_future);
        let unknown = TYPES.iter().zip(counts.unknown_members);
        unknown.for_each(|(name, count)| self.unknown_members.add(name, count));
    }

    /// An apply call succeeded.
    pub fn applied(&self, plan: &Plan<'_>, entries: &[Entry], applied: &Applied, took: Duration) {
        self.round_trips.add("apply", 1);
        self.applied.increment(plan.entries);
        self.late.increment(applied.late);
        self.letters_dropped.increment(applied.letters_dropped);
        self.changes.add(&applied.changes);
        for projection in Projection::ALL {
            self.operations.add(projection.name(), projection.operations(plan));
        }
        if applied.letters > 0 {
            plan.letters.iter().for_each(|letter| self.rejected(letter.rejection.reason));
        }
        self.apply_time.record(took);
        self.batch.record(entries.len() as f64);
        let now_ms = now().as_millis() as u64;
        // Entries of the same millisecond are adjacent.
        for same in entries.chunk_by(|a, b| a.id.ms == b.id.ms) {
            let EntryId { ms, .. } = same[0].id;
            let age = Duration::from_millis(now_ms.saturating_sub(ms));
            self.age.record_many(age, same.len());
        }
    }

    /// Something became a dead letter.
    pub fn rejected(&self, reason: Reason) {
        self.rejected.add(reason.name(), 1);
    }

    /// An entry is applied alone.
    pub fn tried_alone(&self) {
        self.tried_alone.increment(1);
    }
}

/// Changes by kind, whatever made them.
#[derive(Clone)]
pub(super) struct ChangeCounters {
    recorded: ByLabel,
    dropped: Counter,
}

impl ChangeCounters {
    pub(super) fn new() -> Self {
        Self { recorded: ByLabel::new(CHANGES), dropped: own_counter(CHANGES_DROPPED) }
    }

    pub(super) fn add(&self, changes: &Changes) {
        changes.by_kind().for_each(|(kind, count)| self.recorded.add(kind, count));
        self.dropped.increment(changes.dropped);
    }
}
