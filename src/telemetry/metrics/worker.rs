//! What a worker counts and times: handles it gets once, touched once a batch.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::inventory::{
    ACKNOWLEDGED, AGE, APPLY_TIME, BATCH, CHANGES, CHANGES_DROPPED, CONNECTS, DECODED,
    EVENTS_APPLIED, EVENTS_DECODED, FOLD_TIME, FROM_FUTURE, LATE, LETTERS_DROPPED, OPERATIONS,
    READ, READ_BYTES, READ_TIME, REJECTED, ROUND_TRIPS, TRIED_ALONE, UNKNOWN_MEMBERS,
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

/// How entries came to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Never delivered before.
    New,
    /// Delivered to this consumer before.
    Pending,
    /// Taken over from another consumer.
    Claimed,
}

impl Delivery {
    fn source(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Claimed => "claimed",
        }
    }

    fn stage(self) -> &'static str {
        match self {
            Self::New | Self::Pending => "read",
            Self::Claimed => "claim",
        }
    }
}

/// The metrics of a worker.
#[derive(Clone)]
pub struct WorkerMetrics {
    connects: ByLabel,
    round_trips: ByLabel,
    read: ByLabel,
    read_bytes: Counter,
    read_time: Histogram,
    decoded: ByLabel,
    events_decoded: ByLabel,
    fold_time: Histogram,
    apply_time: Histogram,
    batch: Histogram,
    age: Histogram,
    acknowledged: Counter,
    events_applied: ByLabel,
    from_future: Counter,
    unknown_members: ByLabel,
    operations: ByLabel,
    late: Counter,
    rejected: ByLabel,
    letters_dropped: Counter,
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
    pub fn registered() -> Self {
        Self {
            connects: ByLabel::new(CONNECTS),
            round_trips: ByLabel::new(ROUND_TRIPS),
            read: ByLabel::new(READ),
            read_bytes: own_counter(READ_BYTES),
            read_time: own_histogram(READ_TIME),
            decoded: ByLabel::new(DECODED),
            events_decoded: ByLabel::new(EVENTS_DECODED),
            fold_time: own_histogram(FOLD_TIME),
            apply_time: own_histogram(APPLY_TIME),
            batch: own_histogram(BATCH),
            age: own_histogram(AGE),
            acknowledged: own_counter(ACKNOWLEDGED),
            events_applied: ByLabel::new(EVENTS_APPLIED),
            from_future: own_counter(FROM_FUTURE),
            unknown_members: ByLabel::new(UNKNOWN_MEMBERS),
            operations: ByLabel::new(OPERATIONS),
            late: own_counter(LATE),
            rejected: ByLabel::new(REJECTED),
            letters_dropped: own_counter(LETTERS_DROPPED),
            tried_alone: own_counter(TRIED_ALONE),
            changes: ChangeCounters::new(),
        }
    }

    /// The loop connected and begins.
    pub fn connected(&self) {
        self.connects.add("worker", 1);
    }

    /// A read of new entries ended, after waiting for the first.
    pub fn read_took(&self, took: Duration) {
        self.read_time.record(took);
    }

    /// Entries were delivered, by one call.
    pub fn delivered(&self, delivery: Delivery, entries: &[Entry]) {
        self.round_trips.add(delivery.stage(), 1);
        self.read.add(delivery.source(), entries.len() as u64);
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
        self.from_future.increment(counts.from_future);
        let unknown = TYPES.iter().zip(counts.unknown_members);
        unknown.for_each(|(name, count)| self.unknown_members.add(name, count));
    }

    /// An apply call ended well.
    pub fn applied(&self, plan: &Plan<'_>, entries: &[Entry], applied: &Applied, took: Duration) {
        self.round_trips.add("apply", 1);
        self.acknowledged.increment(applied.acknowledged);
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
        // Entries of the same millisecond stand together.
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

    /// An entry is applied by itself.
    pub fn tried_alone(&self) {
        self.tried_alone.increment(1);
    }
}

/// Changes by kind, whoever made them.
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
