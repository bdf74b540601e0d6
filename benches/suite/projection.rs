//! Rollcall compared with what it cannot undercut, and with what one would write without it.

use crate::Options;
use crate::python::Python;
use crate::report::{Row, Table};
use crate::subject::{COLUMNS, Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

const NOTE: &str = "Measured in turn, round by round, each on its own server with a full state. All except the floor \
    keep the whole state; only Rollcall guarantees anything. `× floor` compares server time within each \
    round. The producer's columns are the cost of `XADD` in pipelines of 200.";

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let python = Python::find();
    let mut subjects = candidates(options);
    let mut tables = vec![standard(options, &mut subjects, &python)];
    let mixes = [
        ("Zipf: few users send most", Mix::Zipf, 1),
        ("Heartbeats alone", Mix::Heartbeats, 1),
        ("10 events packed in an entry", Mix::Standard, 10),
        ("50 events packed in an entry", Mix::Standard, 50),
    ];
    tables.extend(mixes.map(|(title, mix, pack)| {
        subjects.iter_mut().for_each(|subject| subject.turn_to(traffic(options, mix, pack)));
        table(title, &mut subjects, &mut [], options, Vec::new())
    }));
    tables
}

fn standard(options: &Options, subjects: &mut [Subject], python: &Result<Python, String>) -> Table {
    let batch = options.batch;
    let traffic = || traffic(options, Mix::Standard, 1);
    let way = Way::Plain { batch: 1 };
    let events = options.size(4_000, 500);
    let mut slow = vec![Subject::prepare("redis-rs, a pipeline per event", way, traffic(), events)];
    let mut missing = Vec::new();
    for (name, batch, events) in [
        ("redis-py, pipelines of 100", batch.min(100), options.size(15_000, 1_500)),
        ("redis-py, a pipeline per event", 1, options.size(2_000, 200)),
    ] {
        match python {
            Ok(python) => {
                let way = Way::Python { python: python.clone(), batch };
                slow.push(Subject::prepare(name, way, traffic(), events));
            }
            Err(why) => missing.push(Row::not_run(name, why, COLUMNS.len())),
        }
    }
    let mut table = table("Standard mix", subjects, &mut slow, options, missing);
    if let Ok(python) = python {
        table.note = format!("{} {}.", table.note, python.version);
    }
    table
}

/// The ways that all mixes are measured with, in the same state.
fn candidates(options: &Options) -> Vec<Subject> {
    let batch = options.batch;
    let events = options.size(50_000, 10_000);
    let ways = [
        ("floor: read and acknowledge", Way::Floor { batch }),
        ("**Rollcall**", Way::rollcall(batch)),
        ("the commands alone, coalesced", Way::Bare { batch }),
        ("redis-rs, a pipeline per batch", Way::Plain { batch }),
    ];
    let prepare =
        |(name, way)| Subject::prepare(name, way, traffic(options, Mix::Standard, 1), events);
    ways.map(prepare).into()
}

fn traffic(options: &Options, mix: Mix, pack: usize) -> Traffic {
    Traffic::new(mix, options.users(), 1, pack)
}

fn table(
    title: &str,
    subjects: &mut [Subject],
    others: &mut [Subject],
    options: &Options,
    missing: Vec<Row>,
) -> Table {
    interleave(subjects.iter_mut().chain(&mut *others), options.rounds());
    let (floor, _) = subjects.split_first().unwrap();
    let mut rows: Vec<Row> =
        subjects.iter().chain(&*others).map(|subject| subject.row(floor)).collect();
    rows.extend(missing);
    Table { title: title.to_owned(), note: NOTE.to_owned(), columns: COLUMNS.into(), rows }
}
