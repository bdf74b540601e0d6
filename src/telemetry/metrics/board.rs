//! Gauges: what was measured last, by whom it concerns. What nobody measures any more is taken off, so that
//! a scrape never shows a figure that only another process keeps up.

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

/// What was measured together, and for which partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// What this worker is to the partition.
    Role,
    /// How often the partition was taken.
    Term,
    /// When sweeps last succeeded.
    Success,
    /// What the last round of sweeps left.
    Round,
    /// What the server was asked.
    Survey,
    /// What this process serves.
    Serve,
    /// How far the target of this place in the settings is.
    Target(u16),
}

type Board = BTreeMap<(Topic, u16), Vec<Sample>>;

static BOARD: Mutex<Board> = Mutex::new(Board::new());

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows these in place of what was measured last.
pub(super) fn put(topic: Topic, partition: u16, samples: Vec<Sample>) {
    board().insert((topic, partition), samples);
}

/// Shows nothing of it any more.
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
