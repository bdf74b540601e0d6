//! The results of a run of schedules, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use super::faults::{KINDS, Kind};
use super::fleet::Fleet;

/// Counts over all schedules.
#[derive(Default)]
pub struct Report(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    held: usize,
    entries: usize,
    instants: usize,
    most_fault_lines: usize,
    written_off: usize,
    /// By kind: times tried, what it counts, seeds of the schedules that failed with it.
    kinds: BTreeMap<&'static str, (u64, u64, Vec<u64>)>,
}

impl Report {
    pub fn tried(&self, kind: &Kind, counted: u64) {
        let mut counts = self.0.lock().unwrap();
        let of_kind = counts.kinds.entry(kind.name).or_default();
        of_kind.0 += 1;
        of_kind.1 += counted;
    }

    /// The entries were checked while the faults went on.
    pub fn looked(&self) {
        self.0.lock().unwrap().instants += 1;
    }

    /// A schedule held to its end.
    pub fn held(&self, entries: usize, written_off: usize, fleet: &Fleet) {
        let mut counts = self.0.lock().unwrap();
        counts.held += 1;
        counts.entries += entries;
        counts.written_off += written_off;
        counts.most_fault_lines = counts.most_fault_lines.max(fleet.most_fault_lines);
        for (point, deaths) in &fleet.deaths {
            let mut names = KINDS.iter().map(|kind| kind.name);
            let name = names.find(|name| name.ends_with(&format!(" {point}"))).unwrap();
            counts.kinds.entry(name).or_default().1 += deaths;
        }
    }

    /// A schedule with these kinds failed.
    pub fn diverged(&self, seed: u64, kinds: impl IntoIterator<Item = &'static str>) {
        let mut counts = self.0.lock().unwrap();
        for kind in kinds {
            counts.kinds.entry(kind).or_default().2.push(seed);
        }
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let counts = self.0.lock().unwrap();
        let mut table = String::from("| fault | times tried | outcome |\n|---|---:|---|\n");
        for kind in KINDS {
            let Some((tried, counted, diverged)) = counts.kinds.get(kind.name) else { continue };
            let mut outcome = match &diverged[..] {
                [] => "held".to_owned(),
                seeds => format!("in schedules that did not hold: seeds {seeds:?}"),
            };
            if !kind.counts.is_empty() {
                write!(outcome, "; {}: {counted}", kind.counts).unwrap();
            }
            writeln!(table, "| {} | {tried} | {outcome} |", kind.name).unwrap();
        }
        let Counts { held, entries, instants, most_fault_lines, written_off, .. } = &*counts;
        let faults: u64 = counts.kinds.values().map(|(tried, ..)| tried).sum();
        writeln!(
            table,
            "\n{held} schedules held: {faults} faults, {entries} entries, {instants} looks while faults went \
             on; {written_off} entries written off because workers were killed on them twice; at most {most_fault_lines} lines about faults in a second of a process's log."
        )
        .unwrap();
        table
    }
}
