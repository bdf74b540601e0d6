//! The inventory of metrics: every name, kind and label in one place; the raw macros are banned elsewhere.
//!
//! Labels come from closed sets, so the number of series does not grow with users, tokens or documents.

#![allow(clippy::disallowed_macros, reason = "this is where they live")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error;
use crate::event::{Reason, TYPES};
use crate::op::{CONSUMERS, STREAM};
use crate::projection::sweeps;
use crate::redis::apply::Applied;

/// What kind of metric, for the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
}

/// Declares constants for the names, and the inventory.
macro_rules! inventory {
    ($($name:ident = $text:literal, $kind:ident, $unit:ident, $help:literal;)*) => {
        $(const $name: &str = $text;)*
        const INVENTORY: &[Metric] =
            &[$(Metric { name: $text, kind: Kind::$kind, unit: Unit::$unit, help: $help },)*];
    };
}

inventory! {
    READ = "rollcall_entries_read_total", Counter, Count,
        "Entries delivered to this process, by source: new, pending (its own again), claimed (from others)";
    ACKNOWLEDGED = "rollcall_entries_acknowledged_total", Counter, Count,
        "Entries that this process applied or wrote off, and acknowledged";
    LOST = "rollcall_entries_lost_total", Counter, Count,
        "Entries that will never be applied, or whose effects are gone, by cause: deleted (from the stream before they \
         were applied), dropped (from what was pending), rewound (the server went back in time; at least so many)";
    EVENTS = "rollcall_events_applied_total", Counter, Count, "Events applied, by type";
    REJECTED = "rollcall_events_rejected_total", Counter, Count,
        "Entries and elements of packed entries that became dead letters, by reason";
    LETTERS_DROPPED = "rollcall_dead_letters_dropped_total", Counter, Count, "Dead letters dropped by their cap";
    LATE = "rollcall_operations_late_total", Counter, Count,
        "Merge operations that had already expired when they were applied";
    CHANGES = "rollcall_changes_total", Counter, Count, "Transitions recorded by events and sweeps";
    CHANGES_DROPPED = "rollcall_changes_dropped_total", Counter, Count, "Transitions dropped by their cap";
    TRIED_ALONE = "rollcall_entries_tried_alone_total", Counter, Count,
        "Entries applied by themselves, because they were delivered too often or their batch failed";
    BATCH = "rollcall_batch_entries", Histogram, Count, "Entries applied in one call";
    APPLY = "rollcall_apply_duration_seconds", Histogram, Seconds, "Time of one apply call, round trip included";
    AGE = "rollcall_event_age_seconds", Histogram, Seconds, "Age of entries when they had been applied";
    PENDING = "rollcall_pending_entries", Gauge, Count, "Entries delivered but not acknowledged, by partition";
    UNDELIVERED = "rollcall_undelivered_entries", Gauge, Count,
        "Entries not yet delivered, by partition (the server's lag; absent while it does not know)";
    UNFINISHED_AGE = "rollcall_oldest_unfinished_seconds", Gauge, Seconds,
        "Age of the oldest entry that is not acknowledged, by partition";
    SWEPT = "rollcall_sweep_removed_total", Counter, Count, "What the janitor took away, by structure";
    SWEEP = "rollcall_sweep_duration_seconds", Histogram, Seconds, "Time of one sweep call, round trip included";
    SWEEP_SUCCESS = "rollcall_sweep_last_success_timestamp_seconds", Gauge, Seconds,
        "When this process last finished a round of sweeps";
    TRIM_BLOCKED = "rollcall_trim_blocked", Gauge, Count,
        "1 while a group that has not finished old entries keeps the stream from being trimmed, by partition";
    REDIS_ERRORS = "rollcall_redis_errors_total", Counter, Count, "Failed steps against the server, by kind";
    CONNECTS = "rollcall_sessions_opened_total", Counter, Count,
        "Times a loop connected and started from what was pending";
}

/// Where read entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Never delivered before.
    New,
    /// Delivered to this consumer before.
    Pending,
    /// Taken over from another consumer.
    Claimed,
}

impl Source {
    fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Claimed => "claimed",
        }
    }
}

/// How entries were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossCause {
    /// Trimmed or deleted from the stream.
    Deleted,
    /// Taken from what is pending, or passed over, while they are in the stream.
    Dropped,
    /// The server went back in time.
    Rewound,
}

impl LossCause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deleted, Self::Dropped, Self::Rewound];

    /// The value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Dropped => "dropped",
            Self::Rewound => "rewound",
        }
    }

    /// What happened, for people.
    pub fn story(self) -> &'static str {
        match self {
            Self::Deleted => "trimmed or deleted from the stream before they were applied",
            Self::Dropped => "pending no more, or passed over, though nobody applied them",
            Self::Rewound => "the server came back, or was replaced, without the last it had",
        }
    }
}

const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 3600.0,
];
const ENTRIES: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

const UPKEEP: Duration = Duration::from_secs(1);

/// Installs the recorder and starts all counters at zero.
///
/// # Errors
/// If a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), ENTRIES)?
        .install_recorder()?;
    describe();
    start_at_zero();
    Ok(handle)
}

/// Folds the samples of histograms for ever: until then each keeps its memory, scraped or not.
pub async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

fn describe() {
    for metric in INVENTORY {
        let Metric { name, kind, unit, help } = *metric;
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}

fn start_at_zero() {
    for name in
        [ACKNOWLEDGED, LETTERS_DROPPED, LATE, CHANGES, CHANGES_DROPPED, TRIED_ALONE, CONNECTS]
    {
        counter!(name).absolute(0);
    }
    for source in [Source::New, Source::Pending, Source::Claimed] {
        entries_read(source, 0);
    }
    for cause in LossCause::ALL {
        entries_lost(cause, 0);
    }
    for event_type in TYPES {
        events_applied(event_type, 0);
    }
    for reason in Reason::ALL {
        rejected(*reason, 0);
    }
    for sweep in sweeps().chain([STREAM, CONSUMERS]) {
        swept(sweep.name, 0);
    }
    for kind in error::kinds() {
        counter!(REDIS_ERRORS, "kind" => kind).absolute(0);
    }
}

/// Entries were delivered.
pub fn entries_read(source: Source, count: usize) {
    counter!(READ, "source" => source.label()).increment(count as u64);
}

/// Entries were lost.
pub fn entries_lost(cause: LossCause, count: u64) {
    counter!(LOST, "cause" => cause.label()).increment(count);
}

/// Events of one type took effect.
pub fn events_applied(event_type: &'static str, count: u64) {
    counter!(EVENTS, "type" => event_type).increment(count);
}

/// Something became a dead letter.
pub fn rejected(reason: Reason, count: u64) {
    counter!(REJECTED, "reason" => reason.name()).increment(count);
}

/// An entry is applied by itself.
pub fn tried_alone() {
    counter!(TRIED_ALONE).increment(1);
}

/// An apply call ended well. `added_ms` are the times its entries were added.
pub fn applied(applied: &Applied, took: Duration, added_ms: impl ExactSizeIterator<Item = u64>) {
    counter!(ACKNOWLEDGED).increment(applied.acknowledged);
    counter!(LATE).increment(applied.late);
    counter!(LETTERS_DROPPED).increment(applied.letters_dropped);
    changes(applied.changes, applied.changes_dropped);
    histogram!(APPLY).record(took);
    histogram!(BATCH).record(added_ms.len() as f64);
    let (age, now_ms) = (histogram!(AGE), now().as_millis() as u64);
    for ms in added_ms {
        age.record(now_ms.saturating_sub(ms) as f64 / 1000.0);
    }
}

/// Transitions were recorded, old ones dropped.
pub fn changes(recorded: u64, dropped: u64) {
    counter!(CHANGES).increment(recorded);
    counter!(CHANGES_DROPPED).increment(dropped);
}

/// How far the group is behind.
pub fn backlog(partition: u16, pending: Option<i64>, undelivered: Option<i64>) {
    let partition = partition.to_string();
    if let Some(pending) = pending {
        gauge!(PENDING, "partition" => partition.clone()).set(pending as f64);
    }
    if let Some(undelivered) = undelivered {
        gauge!(UNDELIVERED, "partition" => partition).set(undelivered as f64);
    }
}

/// How old the oldest unfinished entry is, and whether a group blocks trimming.
pub fn stream_position(partition: u16, unfinished_age_ms: u64, blocked: bool) {
    let partition = partition.to_string();
    gauge!(UNFINISHED_AGE, "partition" => partition.clone()).set(unfinished_age_ms as f64 / 1000.0);
    gauge!(TRIM_BLOCKED, "partition" => partition).set(if blocked { 1.0 } else { 0.0 });
}

/// A sweep took members away.
pub fn swept(structure: &'static str, removed: u64) {
    counter!(SWEPT, "structure" => structure).increment(removed);
}

/// A sweep call ended.
pub fn sweep_took(took: Duration) {
    histogram!(SWEEP).record(took);
}

/// A round of sweeps ended well.
pub fn sweep_succeeded() {
    gauge!(SWEEP_SUCCESS).set(now().as_secs_f64());
}

/// A step against the server failed.
pub fn redis_error(kind: &'static str) {
    counter!(REDIS_ERRORS, "kind" => kind).increment(1);
}

/// A loop connected and starts anew.
pub fn session_opened() {
    counter!(CONNECTS).increment(1);
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
