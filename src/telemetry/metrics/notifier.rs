//! What a notifier counts for one target, and its lag while it has the target.

use std::fmt;
use std::time::Duration;

use metrics::{Counter, counter};

use super::board::{self, Sample, Topic};
use super::inventory::{CONNECTS, NOTIFIED, NOTIFIER_GAPS, NOTIFIER_LAG, NOTIFIER_NOT_TAKEN};
use super::{ByLabel, now};

/// The metrics of one target of one partition.
#[derive(Clone)]
pub struct NotifierMetrics {
    target: String,
    topic: Topic,
    partition: u16,
    connects: ByLabel,
    changes: Counter,
    gaps: Counter,
    not_taken: Counter,
}

impl fmt::Debug for NotifierMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifierMetrics").field("target", &self.target).finish()
    }
}

impl NotifierMetrics {
    /// The handles for the target that is the `index`-th in the settings; the recorder must be installed.
    pub fn new(target: &str, index: u16, partition: u16) -> Self {
        let of = |name: &'static str| counter!(name, "target" => target.to_owned());
        Self {
            target: target.to_owned(),
            topic: Topic::Target(index),
            partition,
            connects: ByLabel::new(CONNECTS),
            changes: of(NOTIFIED.name),
            gaps: of(NOTIFIER_GAPS.name),
            not_taken: of(NOTIFIER_NOT_TAKEN.name),
        }
    }

    /// The loop has connected and begins.
    pub fn connected(&self) {
        self.connects.add("notifier", 1);
    }

    /// This many changes were sent to the target.
    pub fn told(&self, changes: u64) {
        self.changes.increment(changes);
    }

    /// A call was not accepted.
    pub fn not_taken(&self) {
        self.not_taken.increment(1);
    }

    /// Changes were lost.
    pub fn gap(&self) {
        self.gaps.increment(1);
    }

    /// The time (ms) of the oldest change that was not sent to the target yet; `None` if all were.
    pub fn waits_since(&self, since_ms: Option<u64>) {
        let age = since_ms.map(|ms| now().saturating_sub(Duration::from_millis(ms)));
        let lag = age.unwrap_or_default().as_secs_f64();
        let sample = Sample::new(NOTIFIER_LAG, &[&self.target, &self.partition], lag);
        board::put(self.topic, self.partition, vec![sample]);
    }

    /// Another notifier has the target, or nobody can be reached.
    pub fn does_not_tell(&self) {
        board::take_off(self.topic, self.partition);
    }
}
