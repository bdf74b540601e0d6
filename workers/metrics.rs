//! `metrics`: everything that `/metrics` can show, from the inventory.

use rollcall::telemetry::metrics::{INVENTORY, Metric, Values};
use serde::Serialize;

use crate::query::{Answer, Output, QueryError, show};
use crate::table::{Page, Table};

/// List every metric: name, kind, unit, labels with all their values, processes that have it, and meaning.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Metrics {
    #[command(flatten)]
    output: Output,
}

impl Metrics {
    /// Lists them.
    pub(crate) fn run(&self) -> Result<(), QueryError> {
        show(&Inventory(INVENTORY.iter().map(Row::from).collect()), &self.output)
    }
}

#[derive(Serialize)]
struct Inventory(Vec<Row>);

#[derive(Serialize)]
struct Row {
    name: &'static str,
    kind: &'static str,
    unit: &'static str,
    /// Which processes have it.
    source: &'static str,
    labels: Vec<Label>,
    help: &'static str,
}

#[derive(Serialize)]
struct Label {
    name: &'static str,
    /// All values; empty if only their number is known.
    values: Vec<&'static str>,
    /// What the values are, if the program does not know them.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounded_by: Option<&'static str>,
}

impl From<&Metric> for Row {
    fn from(metric: &Metric) -> Self {
        let Metric { name, kind, unit, source, labels, help } = *metric;
        let label = |label: &rollcall::telemetry::metrics::Label| Label {
            name: label.name,
            values: label.names().unwrap_or_default(),
            bounded_by: match label.values {
                Values::Names(_) => None,
                Values::Bounded(words) => Some(words),
            },
        };
        Self {
            name,
            kind: kind.name(),
            unit: unit.name(),
            source: source.name(),
            labels: labels.iter().map(label).collect(),
            help,
        }
    }
}

impl Answer for Inventory {
    fn show(&self, page: &mut Page) {
        let mut table = Table::new(&["NAME", "KIND", "UNIT", "FROM"]);
        for row in &self.0 {
            table.row([row.name, row.kind, row.unit, row.source]);
            table.note(row.help);
            for Label { name, values, bounded_by } in &row.labels {
                let values = bounded_by.map_or_else(|| values.join(" "), str::to_owned);
                table.note(&format!("{name}: {values}"));
            }
        }
        page.table(&table);
    }
}
