//! Gauges: the latest measurement by each source. A gauge that is no longer measured is removed, so a scrape never
//! shows a figure that only another process keeps up to date.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inventory::Metric;

/// One figure of a metric.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    metric: Metric,
    /// The values of the metric's labels, in their order.
    labels: Vec<String>,
    value: f64,
}

impl Sample {
    /// A figure; `labels` are the values of the metric's labels, in their order.
    pub(super) fn new(metric: Metric, labels: &[&dyn ToString], value: f64) -> Self {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        Self { metric, labels: labels.iter().map(|value| value.to_string()).collect(), value }
    }

    /// `name{label="value"} 1`. No value of the inventory needs escaping.
    fn write(&self, page: &mut String) {
        page.push_str(self.metric.name);
        for (i, (label, value)) in self.metric.labels.iter().zip(&self.labels).enumerate() {
            let before = if i == 0 { '{' } else { ',' };
            // Writing to a string cannot fail.
            let _written = write!(page, "{before}{}=\"{value}\"", label.name);
        }
        let end = if self.labels.is_empty() { "" } else { "}" };
        let _written = writeln!(page, "{end} {}", self.value);
    }
}

/// Gauges that are measured together, for each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// This worker's role in the partition.
    Role,
    /// How many times the partition was taken.
    Term,
    /// When sweeps last succeeded.
    Success,
    /// What the last round of sweeps left to do.
    Round,
    /// The results of a survey.
    Survey,
    /// What this process serves.
    Serve,
    /// The progress of the target with this index in the settings.
    Target(u16),
}

type Board = BTreeMap<(Topic, u16), Vec<Sample>>;

static BOARD: Mutex<Board> = Mutex::new(Board::new());

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces the measurements of a topic.
pub(super) fn put(topic: Topic, partition: u16, samples: Vec<Sample>) {
    board().insert((topic, partition), samples);
}

/// Removes the measurements of a topic.
pub(super) fn take_off(topic: Topic, partition: u16) {
    board().remove(&(topic, partition));
}

/// Everything on the board, and `more`, in the text format of Prometheus.
pub(super) fn render(more: Vec<Sample>) -> String {
    let mut by_metric: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    for sample in board().values().flatten().cloned().chain(more) {
        by_metric.entry(sample.metric.name).or_default().push(sample);
    }
    let mut page = String::new();
    for samples in by_metric.values() {
        let Metric { name, kind, help, .. } = samples[0].metric;
        let _written = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        samples.iter().for_each(|sample| sample.write(&mut page));
        page.push('\n');
    }
    page
}
