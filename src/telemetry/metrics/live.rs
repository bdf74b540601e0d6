//! What the live feed counts and times.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::inventory::{
    ACTIVITY, ACTIVITY_LEFT_OUT, FEED_CHANGES, FEED_DELAY, FEED_GAPS, LISTENERS_DROPPED,
    SNAPSHOT_TIME, SNAPSHOTS_FAILED,
};
use super::{ByLabel, now, own_counter, own_histogram};
use crate::change::Change;

/// Why a listener was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It did not keep up.
    Slow,
    /// Its token expired or is no longer valid.
    Unauthorized,
    /// Its snapshot would take too much memory.
    TooLarge,
}

impl Dropped {
    const ALL: [Self; 3] = [Self::Slow, Self::Unauthorized, Self::TooLarge];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
        }
    }

    /// The values of the label.
    pub(super) fn names() -> Vec<&'static str> {
        Self::ALL.map(Self::name).to_vec()
    }
}

/// Why an activity was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// A newer one of the same subject was sent instead.
    Newer,
    /// The room had received as many as it may in that time.
    Rate,
    /// The stream was ahead of the reader.
    Behind,
}

impl LeftOut {
    const ALL: [Self; 3] = [Self::Newer, Self::Rate, Self::Behind];

    fn name(self) -> &'static str {
        match self {
            Self::Newer => "newer",
            Self::Rate => "rate",
            Self::Behind => "behind",
        }
    }

    /// The values of the label.
    pub(super) fn names() -> Vec<&'static str> {
        Self::ALL.map(Self::name).to_vec()
    }
}

/// The metrics of the live feed.
#[derive(Clone)]
pub struct LiveMetrics {
    changes: Counter,
    delay: Histogram,
    gaps: Counter,
    dropped: ByLabel,
    snapshot_time: Histogram,
    snapshots_failed: Counter,
    activity: Counter,
    left_out: ByLabel,
}

impl fmt::Debug for LiveMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveMetrics")
    }
}

impl LiveMetrics {
    /// The handles; the recorder must be installed.
    pub fn registered() -> Self {
        Self {
            changes: own_counter(FEED_CHANGES),
            delay: own_histogram(FEED_DELAY),
            gaps: own_counter(FEED_GAPS),
            dropped: ByLabel::new(LISTENERS_DROPPED),
            snapshot_time: own_histogram(SNAPSHOT_TIME),
            snapshots_failed: own_counter(SNAPSHOTS_FAILED),
            activity: own_counter(ACTIVITY),
            left_out: ByLabel::new(ACTIVITY_LEFT_OUT),
        }
    }

    /// A listener was dropped.
    pub fn dropped(&self, why: Dropped) {
        self.dropped.add(why.name(), 1);
    }

    /// Changes were read and are available to listeners.
    pub fn changes_came(&self, changes: &[Change]) {
        self.changes.increment(changes.len() as u64);
        let now_ms = now().as_millis() as u64;
        // Changes of one call are adjacent.
        for same in changes.chunk_by(|a, b| a.id.ms == b.id.ms) {
            let delay = Duration::from_millis(now_ms.saturating_sub(same[0].id.ms));
            self.delay.record_many(delay, same.len());
        }
    }

    /// Changes were lost.
    pub fn gap(&self) {
        self.gaps.increment(1);
    }

    /// A snapshot was gathered, or failed.
    pub fn snapshot_taken(&self, took: Duration, is_taken: bool) {
        if is_taken {
            self.snapshot_time.record(took);
        } else {
            self.snapshots_failed.increment(1);
        }
    }

    /// Activities were sent to a room.
    pub fn activity_told(&self, count: u64) {
        self.activity.increment(count);
    }

    /// Activities were left out.
    pub fn activity_left_out(&self, why: LeftOut, count: u64) {
        self.left_out.add(why.name(), count);
    }
}
