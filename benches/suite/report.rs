//! The report: tables of figures with their spread, as Markdown for people and as JSON for programs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::conditions::Conditions;

/// All measurements, and their conditions.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) sections: Vec<Section>,
}

/// The results of one section.
#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) took_s: f64,
    pub(crate) tables: Vec<Table>,
}

/// A table whose rows can be compared with each other.
#[derive(Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// How it was measured, if the columns do not show it.
    pub(crate) note: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
}

impl Row {
    /// A row of this many columns that says why it is empty.
    pub(crate) fn not_run(name: &str, why: &str, columns: usize) -> Self {
        let mut cells = vec![Cell::from(format!("not run: {why}").as_str())];
        cells.resize_with(columns, || "".into());
        Self { name: name.to_owned(), cells }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// A figure of several rounds.
    Spread(Spread),
    /// A figure measured once.
    Number(f64),
    Text(String),
}

/// The median of several rounds, and their spread.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values.first().unwrap(), values.last().unwrap());
        let middle = [values[(values.len() - 1) / 2], values[values.len() / 2]];
        Self { median: f64::midpoint(middle[0], middle[1]), min: *first, max: *last }
    }

    pub(crate) fn median(self) -> f64 {
        self.median
    }
}

impl From<Spread> for Cell {
    fn from(spread: Spread) -> Self {
        Self::Spread(spread)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread(Spread { median, min, max }) => {
                write!(f, "{} ({}–{})", figure(*median), figure(*min), figure(*max))
            }
            Self::Number(number) => f.write_str(&figure(*number)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// At most three significant digits, with separated thousands.
fn figure(number: f64) -> String {
    match number.abs() {
        0.0..0.0005 => "0".to_owned(),
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        ..1e4 => format!("{number:.0}"),
        _ => {
            let digits = format!("{number:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).map(|g| std::str::from_utf8(g).unwrap()).collect();
            groups.into_iter().rev().collect::<Vec<_>>().join(",")
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {}\n", self.title)?;
        if !self.note.is_empty() {
            writeln!(f, "{}\n", self.note)?;
        }
        writeln!(f, "| | {} |", self.columns.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(self.columns.len()))?;
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(Cell::to_string).collect();
            writeln!(f, "| {} | {} |", row.name, cells.join(" | "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n## {} ({:.0} s)\n", self.name, self.took_s)?;
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

impl Report {
    /// Writes `report.md` and `report.json`.
    pub(crate) fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let sections: String = self.sections.iter().map(Section::to_string).collect();
        fs::write(folder.join("report.md"), format!("{}{sections}", self.conditions)).unwrap();
        fs::write(folder.join("report.json"), serde_json::to_vec_pretty(self).unwrap()).unwrap();
    }
}

/// `bench` in cargo's target folder.
pub(crate) fn default_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}
