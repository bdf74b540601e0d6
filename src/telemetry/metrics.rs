//! Metrics: the inventory lists all of them; the raw macros are banned elsewhere.
//!
//! Counters and histograms are handles that loops get once and keep; gauges are put on a board that each scrape
//! reads.

#![allow(clippy::disallowed_macros, reason = "this is where they live")]

mod board;
mod inventory;
mod janitor;
mod live;
mod loss;
mod notifier;
mod process;
mod serve;
mod worker;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Histogram, counter, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use inventory::{INVENTORY, Kind, Label, Metric, Source, Unit, Values};
pub use janitor::{JanitorMetrics, Round};
pub use live::{Dropped, LeftOut, LiveMetrics};
pub use loss::{LossCause, entries_lost};
pub use notifier::NotifierMetrics;
pub use serve::{ConnectionKind, FORBIDDEN, Open, RATE_LIMITED, ROUTES, ServeMetrics, TROUBLES};
pub use worker::{Role, WorkerMetrics};

use inventory::{LOG_LINES_LOST, REDIS_ERRORS};

/// The threshold of the service-level objective, 1 s, is one of them.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 3600.0,
];
const COUNTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

const UPKEEP: Duration = Duration::from_secs(1);

/// Installs the recorder, and starts all counters and histograms at zero.
///
/// # Errors
/// If a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    INVENTORY.iter().filter(|metric| !process::is_own(metric)).for_each(start);
    Ok(handle)
}

/// A recorder with the inventory's buckets, not installed.
///
/// # Errors
/// Only if there were no buckets.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in INVENTORY.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let buckets = if metric.unit == Unit::Seconds { SECONDS } else { COUNTS };
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
    }
    Ok(builder.build_recorder())
}

/// Aggregates the samples of histograms endlessly; without this they would accumulate in memory, scraped or not.
pub async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        handle.run_upkeep();
    }
}

/// The page of all metrics, in the text format of Prometheus.
pub fn page(handle: &PrometheusHandle) -> String {
    handle.render() + &board::render(process::samples())
}

/// Describes a metric and starts each of its series at zero.
fn start(metric: &Metric) {
    let Metric { name, kind, help, .. } = *metric;
    match kind {
        // A series begins when its handle is created.
        Kind::Counter => {
            metrics::describe_counter!(name, help);
            let names = |label: &Label| label.names().unwrap_or_default();
            match metric.labels {
                [] => drop(own_counter(*metric)),
                [one, other] => {
                    for value in names(one) {
                        for second in names(other) {
                            let labels = [(one.name, value), (other.name, second)];
                            let _zero = counter!(name, &labels);
                        }
                    }
                }
                _ => drop(ByLabel::new(*metric)),
            }
        }
        Kind::Histogram => {
            metrics::describe_histogram!(name, help);
            let _empty = own_histogram(*metric);
        }
        // The board describes a gauge once it has a value.
        Kind::Gauge => {}
    }
}

fn own_counter(metric: Metric) -> Counter {
    counter!(metric.name)
}

fn own_histogram(metric: Metric) -> Histogram {
    histogram!(metric.name)
}

/// The counters of a metric that has one label, by the label's values.
#[derive(Clone)]
struct ByLabel(Vec<(&'static str, Counter)>);

impl ByLabel {
    fn new(metric: Metric) -> Self {
        let one = |label: &inventory::Label| {
            let values = label.names().unwrap_or_default().into_iter();
            let with = |value| (value, counter!(metric.name, label.name => value));
            values.map(with).collect::<Vec<_>>()
        };
        Self(metric.labels.iter().flat_map(one).collect())
    }

    fn add(&self, value: &str, count: u64) {
        let found = self.0.iter().find(|(known, _)| *known == value);
        debug_assert!(found.is_some(), "{value} does not stand in the inventory");
        if let Some((_, counter)) = found {
            counter.increment(count);
        }
    }
}

/// A step against the server failed.
pub fn redis_error(kind: &'static str) {
    counter!(REDIS_ERRORS.name, "kind" => kind).increment(1);
}

/// This many log lines were lost.
pub(super) fn log_lines_lost(count: u64) {
    counter!(LOG_LINES_LOST.name).increment(count);
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objective_is_a_bucket() {
        assert!(SECONDS.contains(&1.0));
        assert!(SECONDS.is_sorted() && COUNTS.is_sorted());
    }

    #[test]
    fn counters_have_two_labels_at_most_and_histograms_none() {
        let most = |metric: &Metric| match metric.kind {
            Kind::Counter => 2,
            Kind::Histogram => 0,
            Kind::Gauge => usize::MAX,
        };
        let odd: Vec<_> = INVENTORY.iter().filter(|m| m.labels.len() > most(m)).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }
}
