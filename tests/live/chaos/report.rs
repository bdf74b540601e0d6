//! The results of a run of schedules, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use super::fleet::Fleet;
use super::plan::Kind;

/// Counts over all schedules.
pub struct Report {
    /// Each kind's name, and what its count counts.
    kinds: Vec<(&'static str, &'static str)>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    held: usize,
    entries: usize,
    instants: usize,
    most_fault_lines: usize,
    written_off: usize,
    /// What else a suite counts.
    others: BTreeMap<&'static str, usize>,
    /// By kind: times tried, what it counts, schedules that had it and did not hold.
    kinds: BTreeMap<&'static str, (u64, u64, Vec<u64>)>,
}

impl Report {
    pub fn of<C>(kinds: &[Kind<C>]) -> Self {
        let kinds = kinds.iter().map(|kind| (kind.name, kind.counts)).collect();
        Self { kinds, counts: Mutex::default() }
    }

    pub fn tried(&self, kind: &'static str, counted: u64) {
        let mut counts = self.counts.lock().unwrap();
        let of_kind = counts.kinds.entry(kind).or_default();
        of_kind.0 += 1;
        of_kind.1 += counted;
    }

    /// The entries were checked while the faults went on.
    pub fn looked(&self) {
        self.counts.lock().unwrap().instants += 1;
    }

    /// Counts something else over all schedules.
    pub fn count(&self, what: &'static str, number: usize) {
        *self.counts.lock().unwrap().others.entry(what).or_default() += number;
    }

    /// A schedule held to its end.
    pub fn held(&self, entries: usize, written_off: usize, fleet: &Fleet) {
        let mut counts = self.counts.lock().unwrap();
        counts.held += 1;
        counts.entries += entries;
        counts.written_off += written_off;
        counts.most_fault_lines = counts.most_fault_lines.max(fleet.most_fault_lines);
        for (point, deaths) in &fleet.deaths {
            let mut names = self.kinds.iter().map(|(name, _)| *name);
            let name = names.find(|name| name.ends_with(&format!(" {point}"))).unwrap();
            counts.kinds.entry(name).or_default().1 += deaths;
        }
    }

    /// A schedule with these kinds failed.
    pub fn diverged(&self, seed: u64, kinds: impl IntoIterator<Item = &'static str>) {
        let mut counts = self.counts.lock().unwrap();
        for kind in kinds {
            counts.kinds.entry(kind).or_default().2.push(seed);
        }
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let counts = self.counts.lock().unwrap();
        let mut table = String::from("| fault | times tried | outcome |\n|---|---:|---|\n");
        for (name, counts_what) in &self.kinds {
            let Some((tried, counted, diverged)) = counts.kinds.get(name) else { continue };
            let mut outcome = match &diverged[..] {
                [] => "held".to_owned(),
                seeds => format!("in schedules that did not hold: seeds {seeds:?}"),
            };
            if !counts_what.is_empty() {
                write!(outcome, "; {counts_what}: {counted}").unwrap();
            }
            writeln!(table, "| {name} | {tried} | {outcome} |").unwrap();
        }
        let Counts { held, entries, instants, most_fault_lines, written_off, .. } = &*counts;
        let faults: u64 = counts.kinds.values().map(|(tried, ..)| tried).sum();
        writeln!(
            table,
            "\n{held} schedules held: {faults} faults, {entries} entries, {instants} looks while faults went \
             on; {written_off} entries written off because workers were killed on them twice; at most {most_fault_lines} lines about faults in a second of a process's log."
        )
        .unwrap();
        for (what, number) in &counts.others {
            writeln!(table, "{what}: {number}").unwrap();
        }
        table
    }
}
