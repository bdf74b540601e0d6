//! With an append-only file, with a replica, with neither; and in small batches, which show the cost of a script's
//! commands and of a call.

use crate::Options;
use crate::ground::{Ground, Keeping};
use crate::report::{Cell, Row, Table};
use crate::subject::{Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    vec![kept(options), in_batches(options)]
}

fn ways(batch: u32) -> [(&'static str, Way); 5] {
    [
        ("floor: read and acknowledge through the group", Way::Floor { batch }),
        ("floor: read and move the group's position", Way::Cursor { batch }),
        ("**Rollcall**", Way::rollcall(batch)),
        ("the commands alone, coalesced", Way::Bare { batch }),
        ("redis-rs, a pipeline per batch", Way::Plain { batch }),
    ]
}

fn traffic(options: &Options) -> Traffic {
    Traffic::new(Mix::Standard, options.users() / 2, 1, 1)
}

/// All ways on servers of one kind, measured in turn.
fn measured(options: &Options, keeping: Keeping, batch: u32, events: u64) -> Vec<Subject> {
    let prepare = |(name, way): (&str, Way)| {
        Subject::prepare_on(Ground::keeping(1, keeping), name, way, traffic(options), events)
    };
    let mut subjects: Vec<Subject> = ways(batch).map(prepare).into();
    interleave(&mut subjects, options.few_rounds());
    subjects
}

fn kept(options: &Options) -> Table {
    let events = options.size(50_000, 10_000);
    let of = |keeping| measured(options, keeping, options.batch, events);
    let kinds = [of(Keeping::Nothing), of(Keeping::File), of(Keeping::Replica)];
    let row = |way: usize| {
        let mut cells: Vec<Cell> = Vec::new();
        for subjects in &kinds {
            cells.push(subjects[way].server_us().into());
            cells.push(subjects[way].times(&subjects[4]).into());
        }
        cells.push(kinds[1][way].bytes().into());
        cells.push(kinds[2][way].bytes().into());
        Row { name: kinds[0][way].name.clone(), cells }
    };
    Table {
        title: "With an append-only file (everysec), and with a replica".to_owned(),
        note: "Server µs per event, and as a multiple of a pipeline per batch in the same round. Bytes per event. \
               Half the users of the other sections; the replica runs on the clients' core."
            .to_owned(),
        columns: vec![
            "neither: µs", "× pipeline", "file: µs", "× pipeline", "replica: µs", "× pipeline", "bytes to the file",
            "bytes to the replica",
        ],
        rows: (0..5).map(row).collect(),
    }
}

fn in_batches(options: &Options) -> Table {
    let sizes = [1, 10, 100, 500];
    let events = |batch: u32| options.size((2_000 * u64::from(batch)).min(20_000), 1_000);
    let all = sizes.map(|batch| measured(options, Keeping::Nothing, batch, events(batch)));
    let row = |way: usize| Row {
        name: all[0][way].name.clone(),
        cells: all.iter().map(|subjects| subjects[way].server_us().into()).collect(),
    };
    Table {
        title: "In batches of 1, 10, 100 and 500".to_owned(),
        note: "Server µs per event. Every way applies what it reads at once as one batch."
            .to_owned(),
        columns: vec!["1", "10", "100", "500"],
        rows: (0..5).map(row).collect(),
    }
}
