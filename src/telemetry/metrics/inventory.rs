//! The inventory: every metric with its kind, unit, meaning and labels. What is registered, what `/metrics` explains
//! and what `rollcall metrics` prints all come from this table.
//!
//! Each label has a closed set of values, given by the program or by the number of partitions, so the number of
//! series does not grow with users, tokens or documents.

use super::live::{Dropped, LeftOut};
use super::loss::LossCause;
use super::serve::{CLASSES, ConnectionKind, TROUBLES, route_names};
use crate::change::ChangeKind;
use crate::decode::Form;
use crate::error;
use crate::event::{Reason, TYPES};
use crate::op::{ERASED, STREAM, Sweep};
use crate::projection::{Projection, sweeps};
use crate::redis::scripts::owner::Cause;
use crate::redis::scripts::repairs::Repair;
use crate::state::status::STRUCTURES;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// The latest measurement.
    Gauge,
    /// Counts of measurements by size.
    Histogram,
}

impl Kind {
    /// Its name in an exposition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A fraction of a whole; 1 is all of it.
    Ratio,
    /// 1 if true, 0 if false.
    Truth,
}

impl Unit {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
            Self::Truth => "0 or 1",
        }
    }
}

/// Which processes have the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Workers.
    Worker,
    /// Janitors, each for itself.
    Janitor,
    /// The janitor that swept the partition last.
    Sweeping,
    /// The janitor that surveyed the partition's server last.
    Surveying,
    /// Processes that serve applications and browsers.
    Serve,
    /// The notifier that has the target.
    Notifier,
    /// Every process.
    Every,
}

impl Source {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Janitor => "janitor",
            Self::Sweeping => "janitor that swept",
            Self::Surveying => "janitor that surveyed",
            Self::Serve => "serve",
            Self::Notifier => "notifier",
            Self::Every => "every process",
        }
    }
}

/// A label and the values it can have.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Exactly these.
    Names(fn() -> Vec<&'static str>),
    /// As many as the text says.
    Bounded(&'static str),
}

impl Label {
    const fn new(name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        Self { name, values: Values::Names(values) }
    }

    const fn bounded(name: &'static str, words: &'static str) -> Self {
        Self { name, values: Values::Bounded(words) }
    }

    /// All values, if the program knows them.
    pub fn names(&self) -> Option<Vec<&'static str>> {
        match self.values {
            Values::Names(names) => Some(names()),
            Values::Bounded(_) => None,
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// Which processes have it.
    pub source: Source,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it means.
    pub help: &'static str,
}

const PARTITION: Label = Label::bounded("partition", "0 to the number of partitions - 1");
const TARGET: Label = Label::bounded("target", "the names of the targets in the settings");
const VERSION: Label = Label::bounded("version", "the version of the program");
const FORM: Label = Label::new("form", || Form::ALL.iter().map(|form| form.name()).collect());
const TYPE: Label = Label::new("type", || TYPES.to_vec());
const REASON: Label =
    Label::new("reason", || Reason::ALL.iter().map(|reason| reason.name()).collect());
const CAUSE: Label = Label::new("cause", || LossCause::ALL.map(LossCause::label).to_vec());
const PROJECTION: Label =
    Label::new("projection", || Projection::ALL.iter().map(|p| p.name()).collect());
const CHANGE: Label =
    Label::new("kind", || ChangeKind::ALL.iter().map(|kind| kind.name()).collect());
const ERROR: Label = Label::new("kind", || error::kinds().into_iter().collect());
const ROLE: Label = Label::new("role", || vec!["worker", "janitor", "notifier"]);
const STAGE: Label = Label::new("stage", || vec!["read", "apply", "sweep", "survey"]);
const SWEEP: Label = Label::new("sweep", || {
    let taking = sweeps().filter(Sweep::takes).chain([STREAM, ERASED]);
    taking.map(|sweep| sweep.name).collect()
});
const REPAIR: Label = Label::new("repair", || Repair::ALL.map(Repair::label).to_vec());
const STRUCTURE: Label = Label::new("structure", || STRUCTURES.iter().map(|s| s.name).collect());
const DROPPED: Label = Label::new("reason", Dropped::names);
const LEFT_OUT: Label = Label::new("reason", LeftOut::names);
const BLOCKER: Label = Label::new("by", || vec!["own_group", "other_group"]);
const ROUTE: Label = Label::new("route", route_names);
const CLASS: Label = Label::new("class", || CLASSES.to_vec());
const CONNECTION: Label =
    Label::new("kind", || ConnectionKind::ALL.map(|kind| kind.name()).to_vec());
const REFUSAL: Label = Label::new("reason", || {
    Reason::ALL.iter().map(|reason| reason.name()).chain(TROUBLES).collect()
});
const TAKEOVER: Label = Label::new("cause", || Cause::ALL.map(Cause::name).to_vec());

/// Declares a constant for each metric, and the list of all.
macro_rules! inventory {
    ($($name:ident = $text:literal, $kind:ident, $unit:ident, $source:ident, [$($label:ident),*], $help:literal;)*) => {
        $(pub(super) const $name: Metric = Metric {
            name: $text,
            kind: Kind::$kind,
            unit: Unit::$unit,
            source: Source::$source,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric there is.
        pub const INVENTORY: &[Metric] = &[$($name),*];
    };
}

inventory! {
    READ = "rollcall_entries_read_total", Counter, Count, Worker, [],
        "Entries read by this process; those read again after a failure count again";
    READ_BYTES = "rollcall_read_bytes_total", Counter, Bytes, Worker, [],
        "Bytes of the fields of the entries read by this process";
    DECODED = "rollcall_entries_decoded_total", Counter, Count, Worker, [FORM],
        "Entries with events, by the form they were written in; an entry that is tried again counts again";
    EVENTS_DECODED = "rollcall_events_decoded_total", Counter, Count, Worker, [TYPE],
        "Events found in entries, by type; those of an entry that is tried again count again";
    BLOCKED = "rollcall_events_blocked_total", Counter, Count, Worker, [],
        "Events refused because their user is blocked (rollcall erase --block)";
    FROM_FUTURE = "rollcall_events_from_future_total", Counter, Count, Worker, [],
        "Applied events whose time was beyond the allowed skew and was reduced to it: a producer's clock is ahead";
    UNKNOWN_MEMBERS = "rollcall_events_unknown_members_total", Counter, Count, Worker, [TYPE],
        "Members of applied events that no event type has, by the event's type: often a misspelt name; a line \
         at level debug names them";
    EVENTS_APPLIED = "rollcall_events_applied_total", Counter, Count, Worker, [TYPE],
        "Events applied, by type";
    REJECTED = "rollcall_events_rejected_total", Counter, Count, Worker, [REASON],
        "Entries, and elements of packed entries, that became dead letters, by reason";
    LETTERS_DROPPED = "rollcall_dead_letters_dropped_total", Counter, Count, Worker, [],
        "Dead letters dropped by their cap";
    FORWARDED = "rollcall_entries_forwarded_total", Counter, Count, Worker, [],
        "Entries that producers sent to a layout from before a repartition, and that this process forwarded";
    APPLIED = "rollcall_entries_applied_total", Counter, Count, Worker, [],
        "Entries that this process applied or wrote off";
    OWNED = "rollcall_partition_owned", Gauge, Truth, Worker, [PARTITION],
        "Whether this worker owns the partition";
    STANDBY = "rollcall_partition_standby", Gauge, Truth, Worker, [PARTITION],
        "Whether this worker stands by for the partition";
    TERM = "rollcall_partition_term", Gauge, Count, Worker, [PARTITION],
        "How many times the partition was taken, by any worker; only its owner shows it";
    TAKEOVERS = "rollcall_takeovers_total", Counter, Count, Worker, [TAKEOVER],
        "Times this worker took a partition: free (nobody had it), again (after a failure of its own), stall (the \
         owner made no progress), death (the owner's process was gone)";
    INTERFERENCES = "rollcall_group_interferences_total", Counter, Count, Worker, [],
        "Interferences of other programs with the consumer group that were repaired: entries read through it, its \
         position moved, the group destroyed";
    LOST = "rollcall_entries_lost_total", Counter, Count, Janitor, [CAUSE],
        "Entries that will never be applied, or whose effects are gone: deleted (from the stream before they were \
         applied), rewound (the server went back in time; a lower bound)";
    TRIED_ALONE = "rollcall_entries_tried_alone_total", Counter, Count, Worker, [],
        "Entries applied alone because a worker or the server may have died on them";
    OPERATIONS = "rollcall_operations_applied_total", Counter, Count, Worker, [PROJECTION],
        "Merge operations applied, by projection; a batch is folded to fewer than it has events";
    LATE = "rollcall_operations_late_total", Counter, Count, Worker, [],
        "Merge operations that had already expired when they were applied";
    BATCH = "rollcall_batch_entries", Histogram, Count, Worker, [],
        "Entries applied in one call";
    READ_TIME = "rollcall_read_duration_seconds", Histogram, Seconds, Worker, [],
        "Time of one read of new entries, including the wait for the first one";
    FOLD_TIME = "rollcall_fold_duration_seconds", Histogram, Seconds, Worker, [],
        "Time to decode and fold the entries of one call";
    APPLY_TIME = "rollcall_apply_duration_seconds", Histogram, Seconds, Worker, [],
        "Time of one apply call, including the round trip";
    AGE = "rollcall_event_age_seconds", Histogram, Seconds, Worker, [],
        "Age of entries when they have been applied: the time of this machine's clock minus that of the entry's id; 0 if \
         the id is ahead of this clock";
    CHANGES = "rollcall_changes_total", Counter, Count, Every, [CHANGE],
        "Transitions recorded by events and sweeps, by kind";
    CHANGES_DROPPED = "rollcall_changes_dropped_total", Counter, Count, Every, [],
        "Transitions dropped by their cap";
    CONNECTS = "rollcall_redis_connects_total", Counter, Count, Every, [ROLE],
        "Times a loop connected and began, by role; each beyond the first is a reconnect";
    REDIS_ERRORS = "rollcall_redis_errors_total", Counter, Count, Every, [ERROR],
        "Failed steps against the server, by kind";
    ROUND_TRIPS = "rollcall_redis_round_trips_total", Counter, Count, Every, [STAGE],
        "Round trips to the server in regular work, by stage";
    SWEPT = "rollcall_sweep_removed_total", Counter, Count, Janitor, [SWEEP],
        "Members that this janitor removed, by sweep";
    REPAIRS = "rollcall_repairs_total", Counter, Count, Janitor, [REPAIR],
        "Repairs of what another program, or a clock that went back, did: expiry (removed from a key that has none), \
         present (entries that were removed are reported as offline), user and count (of a document), joined (users left, \
         because half of the joined connections was removed), token, sequence, clock, turn";
    SWEEP_TIME = "rollcall_sweep_duration_seconds", Histogram, Seconds, Janitor, [],
        "Time of one sweep call, including the round trip";
    ROUND_TIME = "rollcall_sweep_round_duration_seconds", Histogram, Seconds, Janitor, [],
        "Time of one round of sweeps over all structures of a partition";
    SWEEP_SUCCESS = "rollcall_sweep_last_success_timestamp_seconds", Gauge, Seconds, Janitor, [PARTITION],
        "When this process last finished a round of sweeps; use the maximum over all janitors";
    SWEEP_BACKLOG = "rollcall_sweep_unfinished", Gauge, Truth, Sweeping, [PARTITION, SWEEP],
        "Whether the last round left something to remove because its time was up";
    TRIM_BLOCKED = "rollcall_trim_blocked", Gauge, Truth, Sweeping, [PARTITION, BLOCKER],
        "Whether entries older than keep cannot be trimmed because a group has not finished them";
    HORIZON = "rollcall_horizon_used_ratio", Gauge, Ratio, Sweeping, [PARTITION],
        "Age of the oldest unfinished entry as a fraction of the horizon: at 1, an ending may be forgotten too soon";
    UNDELIVERED = "rollcall_undelivered_entries", Gauge, Count, Surveying, [PARTITION],
        "Entries behind the cursor, as the server counts them; absent while it does not know";
    UNDELIVERED_TRUSTED = "rollcall_undelivered_trusted", Gauge, Truth, Surveying, [PARTITION],
        "Whether that count is certain; after deletions it can be wrong, so use the age";
    OLDEST_UNDELIVERED = "rollcall_oldest_undelivered_seconds", Gauge, Seconds, Surveying, [PARTITION],
        "Age of the oldest entry behind the cursor, by the server's clock; 0 if there is none, negative if its id is ahead";
    UNOWNED = "rollcall_partition_unowned", Gauge, Truth, Surveying, [PARTITION],
        "Whether no worker owns the partition, or its owner has shown no sign of life since the survey before";
    GROUP_MISSING = "rollcall_group_missing", Gauge, Truth, Surveying, [PARTITION],
        "Whether the stream or its consumer group does not exist";
    STREAM_ENTRIES = "rollcall_stream_entries", Gauge, Count, Surveying, [PARTITION],
        "Entries in the stream, including finished ones";
    CLOCK_AHEAD = "rollcall_stream_clock_ahead_seconds", Gauge, Seconds, Surveying, [PARTITION],
        "How far the newest entry's id is ahead of the server's clock; 0 if it is not";
    STRUCTURE_SIZE = "rollcall_structure_members", Gauge, Count, Surveying, [PARTITION, STRUCTURE],
        "Members of each structure";
    STRUCTURE_LIMIT = "rollcall_structure_limit_members", Gauge, Count, Surveying, [PARTITION, STRUCTURE],
        "Cap of each structure that has one";
    USED_MEMORY = "rollcall_redis_used_memory_bytes", Gauge, Bytes, Surveying, [PARTITION],
        "Memory that the partition's server uses";
    MAX_MEMORY = "rollcall_redis_maxmemory_bytes", Gauge, Bytes, Surveying, [PARTITION],
        "Memory that the partition's server may use; 0 if there is no limit";
    EVICTED = "rollcall_redis_evicted_keys", Gauge, Count, Surveying, [PARTITION],
        "Keys that the partition's server evicted since it started; any may have been the stream, the group or state";
    POLICY_FAULT = "rollcall_redis_eviction_policy_fault", Gauge, Truth, Surveying, [PARTITION],
        "Whether the server's maxmemory-policy is not noeviction";
    PRIMARY = "rollcall_redis_primary", Gauge, Truth, Surveying, [PARTITION],
        "Whether the partition's server is a primary";
    REPLICAS = "rollcall_redis_connected_replicas", Gauge, Count, Surveying, [PARTITION],
        "Replicas connected to the partition's server";
    LINK_UP = "rollcall_redis_replication_link_up", Gauge, Truth, Surveying, [PARTITION],
        "Whether a server that is a replica is connected to its primary; 1 on a primary";
    LISTENERS_DROPPED = "rollcall_listeners_dropped_total", Counter, Count, Serve, [DROPPED],
        "Listeners that this process dropped, by reason";
    FEED_CHANGES = "rollcall_feed_changes_total", Counter, Count, Serve, [],
        "Changes that the live feed read";
    FEED_DELAY = "rollcall_feed_delay_seconds", Histogram, Seconds, Serve, [],
        "Age of a change when it is available to listeners, by this process's clock against the server's";
    FEED_GAPS = "rollcall_feed_gaps_total", Counter, Count, Serve, [],
        "Times that changes were lost before the live feed read them, so that listeners got a new snapshot";
    SNAPSHOT_TIME = "rollcall_snapshot_duration_seconds", Histogram, Seconds, Serve, [],
        "Time to gather a snapshot of the state for listeners";
    SNAPSHOTS_FAILED = "rollcall_snapshots_failed_total", Counter, Count, Serve, [],
        "Snapshots that could not be gathered";
    ACTIVITY = "rollcall_activity_told_total", Counter, Count, Serve, [],
        "Activities sent to rooms";
    ACTIVITY_LEFT_OUT = "rollcall_activity_left_out_total", Counter, Count, Serve, [LEFT_OUT],
        "Activities not sent to rooms, by reason";
    REQUESTS = "rollcall_http_requests_total", Counter, Count, Serve, [ROUTE, CLASS],
        "Requests of applications and browsers that were answered, by route and class of the status";
    REQUEST_TIME = "rollcall_http_request_duration_seconds", Histogram, Seconds, Serve, [],
        "Time from a request's head to its answer's head; without the live feed, whose answers do not end";
    CONNECTIONS = "rollcall_http_connections", Gauge, Count, Serve, [CONNECTION],
        "Open connections of applications and browsers: all (http), and those of listeners (sse, socketio)";
    CONNECTIONS_REFUSED = "rollcall_http_connections_refused_total", Counter, Count, Serve, [],
        "Connections closed at once because too many were open, in total or from one address";
    TAKEN = "rollcall_intake_events_total", Counter, Count, Serve, [],
        "Events of applications and browsers that are on the stream";
    REFUSED = "rollcall_intake_refused_total", Counter, Count, Serve, [REFUSAL],
        "Events of applications and browsers that are not on the stream, or may not be, by reason";
    ADD_TIME = "rollcall_intake_add_duration_seconds", Histogram, Seconds, Serve, [],
        "Time to add one entry of packed events to the stream, including the round trip";
    BUFFERED = "rollcall_intake_buffered_events", Gauge, Count, Serve, [],
        "Events that wait to be added to the stream";
    BUFFER_USED = "rollcall_intake_buffer_used_ratio", Gauge, Ratio, Serve, [],
        "Fraction of the buffer for such events that is used, by events or bytes; at 1 more are refused";
    NOTIFIED = "rollcall_notifier_changes_total", Counter, Count, Notifier, [TARGET],
        "Changes that this process sent to a target, or that its filter left out";
    NOTIFIER_NOT_TAKEN = "rollcall_notifier_calls_failed_total", Counter, Count, Notifier, [TARGET],
        "Calls of a webhook that got no answer, or were not accepted; each is repeated";
    NOTIFIER_GAPS = "rollcall_notifier_gaps_total", Counter, Count, Notifier, [TARGET],
        "Times that changes were lost before they were sent to a target, which got a gap instead";
    NOTIFIER_LAG = "rollcall_notifier_lag_seconds", Gauge, Seconds, Notifier, [TARGET, PARTITION],
        "Age of the oldest change not yet sent to the target, by this process's clock against the server's; 0 if \
         there is none";
    LOG_LINES_LOST = "rollcall_log_lines_lost_total", Counter, Count, Every, [],
        "Log lines dropped because standard error was not read fast enough";
    BUILD = "rollcall_build_info", Gauge, Count, Every, [VERSION],
        "Always 1";
    RUNTIME_WORKERS = "rollcall_runtime_workers", Gauge, Count, Every, [],
        "Threads that the runtime runs tasks on";
    RUNTIME_TASKS = "rollcall_runtime_alive_tasks", Gauge, Count, Every, [],
        "Tasks of the runtime that have not ended";
    RUNTIME_QUEUE = "rollcall_runtime_queued_tasks", Gauge, Count, Every, [],
        "Tasks that wait in the runtime's global queue";
    CPU = "process_cpu_seconds_total", Counter, Seconds, Every, [],
        "Total user and system CPU time spent in seconds";
    RESIDENT = "process_resident_memory_bytes", Gauge, Bytes, Every, [],
        "Resident memory size in bytes";
    VIRTUAL = "process_virtual_memory_bytes", Gauge, Bytes, Every, [],
        "Virtual memory size in bytes";
    OPEN_FDS = "process_open_fds", Gauge, Count, Every, [],
        "Number of open file descriptors";
    MAX_FDS = "process_max_fds", Gauge, Count, Every, [],
        "Maximum number of open file descriptors";
    START_TIME = "process_start_time_seconds", Gauge, Seconds, Every, [],
        "Start time of the process since unix epoch in seconds";
}
