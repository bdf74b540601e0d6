//! What a janitor counts and times, and what it publishes about its partition while it has the turn.

use std::fmt;
use std::time::Duration;

use metrics::Histogram;

use super::board::{self, Sample, Topic};
use super::inventory::{
    CLOCK_AHEAD, CONNECTS, EVICTED, GROUP_MISSING, HORIZON, LINK_UP, MAX_MEMORY,
    OLDEST_UNDELIVERED, POLICY_FAULT, PRIMARY, REPAIRS, REPLICAS, ROUND_TIME, ROUND_TRIPS,
    STREAM_ENTRIES, STRUCTURE_LIMIT, STRUCTURE_SIZE, SWEEP_BACKLOG, SWEEP_SUCCESS, SWEEP_TIME,
    SWEPT, TRIM_BLOCKED, UNDELIVERED, UNDELIVERED_TRUSTED, UNOWNED, USED_MEMORY,
};
use super::worker::ChangeCounters;
use super::{ByLabel, now, own_histogram};
use crate::redis::scripts::repairs::Repair;
use crate::redis::scripts::sweep::Swept;
use crate::state::status::survey::Survey;
use crate::state::status::{Backlog, Server, Size};

/// The result of a round of sweeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// Each structure, and whether there is more to remove from it.
    pub unfinished: Vec<(&'static str, bool)>,
    /// Whether the deployment's own group keeps the stream from being trimmed.
    pub blocked_by_own: bool,
    /// Whether another group does.
    pub blocked_by_other: bool,
    /// The age of the oldest unfinished entry as a fraction of the horizon.
    pub horizon_used: f64,
}

/// The metrics of one partition's janitor.
#[derive(Clone)]
pub struct JanitorMetrics {
    partition: u16,
    connects: ByLabel,
    round_trips: ByLabel,
    swept: ByLabel,
    repairs: ByLabel,
    sweep_time: Histogram,
    round_time: Histogram,
    changes: ChangeCounters,
}

impl fmt::Debug for JanitorMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JanitorMetrics").field("partition", &self.partition).finish()
    }
}

impl JanitorMetrics {
    /// The handles; the recorder must be installed.
    pub fn new(partition: u16) -> Self {
        Self {
            partition,
            connects: ByLabel::new(CONNECTS),
            round_trips: ByLabel::new(ROUND_TRIPS),
            swept: ByLabel::new(SWEPT),
            repairs: ByLabel::new(REPAIRS),
            sweep_time: own_histogram(SWEEP_TIME),
            round_time: own_histogram(ROUND_TIME),
            changes: ChangeCounters::new(),
        }
    }

    /// The loop has connected and begins.
    pub fn connected(&self) {
        self.connects.add("janitor", 1);
    }

    /// A sweep call succeeded.
    pub fn swept(&self, structure: &'static str, swept: &Swept, took: Duration) {
        self.round_trips.add("sweep", 1);
        if swept.removed > 0 {
            self.swept.add(structure, swept.removed);
        }
        self.changes.add(&swept.changes);
        self.sweep_time.record(took);
    }

    /// Something was repaired.
    pub fn repaired(&self, repair: Repair, count: u64) {
        self.repairs.add(repair.label(), count);
    }

    /// A round succeeded.
    pub fn round_ended(&self, round: &Round, took: Duration) {
        let partition = self.partition;
        self.round_time.record(took);
        let success = Sample::new(SWEEP_SUCCESS, &[&partition], now().as_secs_f64());
        board::put(Topic::Success, partition, vec![success]);
        let truth = |is_so: bool| f64::from(u8::from(is_so));
        let mut samples = vec![
            Sample::new(TRIM_BLOCKED, &[&partition, &"own_group"], truth(round.blocked_by_own)),
            Sample::new(TRIM_BLOCKED, &[&partition, &"other_group"], truth(round.blocked_by_other)),
            Sample::new(HORIZON, &[&partition], round.horizon_used),
        ];
        samples.extend(round.unfinished.iter().map(|(structure, more)| {
            Sample::new(SWEEP_BACKLOG, &[&partition, structure], truth(*more))
        }));
        board::put(Topic::Round, partition, samples);
    }

    /// The server was surveyed.
    pub fn surveyed(&self, survey: &Survey, is_unowned: bool) {
        // The time, the queries and, if there is a group, the first entry after it.
        self.round_trips.add("survey", 2 + u64::from(survey.group.is_some()));
        board::put(Topic::Survey, self.partition, samples(self.partition, survey, is_unowned));
    }

    /// Another janitor swept last, or nobody can.
    pub fn did_not_sweep(&self) {
        board::take_off(Topic::Round, self.partition);
    }

    /// Another janitor surveyed last, or nobody can.
    pub fn did_not_survey(&self) {
        board::take_off(Topic::Survey, self.partition);
    }
}

fn samples(partition: u16, survey: &Survey, is_unowned: bool) -> Vec<Sample> {
    let one = |metric, value: f64| Sample::new(metric, &[&partition], value);
    let truth = |metric, is_so: bool| one(metric, f64::from(u8::from(is_so)));
    let mut samples = vec![
        truth(GROUP_MISSING, survey.group.is_none()),
        one(STREAM_ENTRIES, survey.entries as f64),
        one(CLOCK_AHEAD, survey.clock_ahead_s),
        truth(UNOWNED, is_unowned),
    ];
    if let Some(group) = &survey.group {
        let Backlog { undelivered, .. } = *group;
        samples.extend(undelivered.map(|count| one(UNDELIVERED, count as f64)));
        samples.push(truth(UNDELIVERED_TRUSTED, group.undelivered_is_exact));
        samples.push(one(OLDEST_UNDELIVERED, group.oldest_undelivered_age_s.unwrap_or(0.0)));
    }
    for Size { name, size, cap } in &survey.sizes {
        samples.push(Sample::new(STRUCTURE_SIZE, &[&partition, name], *size as f64));
        let limit = |cap: u64| Sample::new(STRUCTURE_LIMIT, &[&partition, name], cap as f64);
        samples.extend(cap.map(limit));
    }
    if let Some(server) = &survey.server {
        let Server { used_memory_bytes, maxmemory_bytes, evicted_keys, replicas, .. } = server;
        samples.extend([
            one(USED_MEMORY, *used_memory_bytes as f64),
            one(MAX_MEMORY, *maxmemory_bytes as f64),
            one(EVICTED, *evicted_keys as f64),
            truth(POLICY_FAULT, server.maxmemory_policy != "noeviction"),
            truth(PRIMARY, server.role == "master"),
            one(REPLICAS, *replicas as f64),
            truth(LINK_UP, server.replication_link_up),
        ]);
    }
    samples
}
