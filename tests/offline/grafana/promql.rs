//! As much of PromQL as is needed to find the metrics and labels in an expression.

use crate::dashboards::selectors;
use rollcall::telemetry::metrics::{INVENTORY, Kind, Metric};

/// Labels that the scrape or the kind of a metric adds.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// A metric in an expression.
pub(super) struct Use<'a> {
    pub(super) metric: &'static Metric,
    /// The text before it.
    pub(super) before: &'a str,
    /// Label, operator and value of its matchers.
    pub(super) matchers: Vec<Matcher<'a>>,
}

/// The metrics in an expression; the error names one that does not exist.
pub(super) fn uses(expression: &str) -> Result<Vec<Use<'_>>, String> {
    selectors(expression).into_iter().map(|(before, named)| use_of(before, named)).collect()
}

fn use_of<'a>(before: &'a str, selector: &'a str) -> Result<Use<'a>, String> {
    let (name, inside) = selector.split_once('{').unwrap_or((selector, "}"));
    let metric = known(name).ok_or_else(|| format!("there is no metric {name}"))?;
    Ok(Use { metric, before, matchers: matchers(inside.trim_end_matches('}'))? })
}

/// A metric by its name, or by that of one of a histogram's series.
fn known(name: &str) -> Option<&'static Metric> {
    let named = |name: &str| INVENTORY.iter().find(|metric| metric.name == name);
    let series = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let histogram = |metric: &&Metric| metric.kind == Kind::Histogram;
    match series.and_then(named).filter(histogram) {
        None => named(name).filter(|metric| !histogram(metric)),
        found => found,
    }
}

type Matcher<'a> = (&'a str, &'a str, &'a str);

fn matchers(inside: &str) -> Result<Vec<Matcher<'_>>, String> {
    let read = |text| matcher(text).ok_or_else(|| format!("not understood: {text}"));
    inside.split(',').map(str::trim).filter(|text| !text.is_empty()).map(read).collect()
}

fn matcher(text: &str) -> Option<Matcher<'_>> {
    let (label, rest) = text.split_at(text.find(['=', '!'])?);
    let (operator, value) = rest.split_once('"')?;
    Some((label, operator, value.strip_suffix('"')?))
}

/// The labels that an expression groups by or joins on.
pub(super) fn grouped_by(expression: &str) -> Vec<&str> {
    let after = [" by (", " on ("].into_iter().flat_map(|word| expression.split(word).skip(1));
    let labels = after.flat_map(|rest| rest.split(')').next().unwrap_or_default().split(','));
    labels.map(str::trim).collect()
}

/// What is wrong with the metrics and labels in an expression.
pub(super) fn faults(expression: &str) -> Vec<String> {
    let uses = match uses(expression) {
        Ok(uses) => uses,
        Err(fault) => return vec![fault],
    };
    let mut faults = Vec::new();
    for Use { metric, before, matchers } in &uses {
        let over_time = ["rate(", "increase("].iter().any(|call| before.ends_with(call));
        if over_time == (metric.kind == Kind::Gauge) {
            faults.push(format!("{} is a {}", metric.name, metric.kind.name()));
        }
        faults.extend(
            matchers
                .iter()
                .filter_map(|(label, operator, value)| unmatched(metric, label, operator, value)),
        );
    }
    let has =
        |label: &&str| uses.iter().any(|one| one.metric.labels.iter().any(|l| l.name == *label));
    let odd =
        grouped_by(expression).into_iter().filter(|label| !ADDED.contains(label) && !has(label));
    faults.extend(odd.map(|label| format!("nothing here has the label {label}")));
    faults
}

/// Why no series of the metric can match.
fn unmatched(metric: &Metric, label: &str, operator: &str, value: &str) -> Option<String> {
    if ADDED.contains(&label) {
        return None;
    }
    let Some(own) = metric.labels.iter().find(|own| own.name == label) else {
        return Some(format!("{} has no label {label}", metric.name));
    };
    let exact =
        ["=", "!="].contains(&operator) || value.split('|').all(|v| !v.contains(['.', '$']));
    let mut values = value.split('|').filter(|_| exact);
    let odd = values.find(|value| own.names().is_some_and(|names| !names.contains(value)))?;
    Some(format!("{label} of {} is never {odd}", metric.name))
}

#[test]
fn what_does_not_exist_is_found() {
    for wrong in [
        "rollcall_nothing_total",
        "rate(rollcall_batch_entries[5m])",
        "rollcall_events_applied_total",
        "rate(rollcall_undelivered_entries[5m])",
        "rollcall_undelivered_entries{type=\"x\"}",
        "rate(rollcall_events_applied_total{type=\"hartbeat\"}[5m])",
        "rate(rollcall_events_rejected_total{reason!~\"poison|poisson\"}[5m])",
        "max by (kind) (rollcall_undelivered_entries)",
    ] {
        assert!(!faults(wrong).is_empty(), "{wrong}");
    }
    let right = "sum by (le) (rate(rollcall_batch_entries_bucket{job=~\"$job\"}[5m]))";
    assert_eq!(faults(right), [""; 0]);
    assert_eq!(grouped_by("max by (job, kind) (x) and on (le) y"), ["job", "kind", "le"]);
}
