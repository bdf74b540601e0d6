//! Whether an event costs more with more users, backlog, workers or partitions.

use crate::Options;
use crate::report::{Row, Spread, Table};
use crate::subject::{Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    vec![with_users(options), with_backlog(options), with_workers(options)]
}

fn with_users(options: &Options) -> Table {
    let counts = options.size([10_000, 100_000, 1_000_000], [1_000, 5_000, 25_000]);
    let prepare = |users: u32| {
        let traffic = Traffic::new(Mix::Standard, users, 1, 1);
        let name = format!("{users} users");
        Subject::prepare(name, Way::rollcall(options.batch), traffic, options.size(40_000, 5_000))
    };
    let mut subjects = counts.map(prepare);
    interleave(&mut subjects, options.few_rounds());
    table("With the number of users", "", &subjects)
}

fn with_backlog(options: &Options) -> Table {
    let backlogs = options.size([1_000, 30_000, 1_000_000], [1_000, 10_000, 50_000]);
    let prepare = |entries: u64| {
        let traffic = Traffic::new(Mix::Standard, options.users() / 4, 1, 1);
        let name = format!("a backlog of {entries} entries");
        Subject::prepare(name, Way::rollcall(options.batch), traffic, entries)
    };
    let mut subjects = backlogs.map(prepare);
    let [small, middle, large] = &mut subjects;
    for round in 0..options.few_rounds() {
        small.round();
        middle.round();
        // Longer than all others together, and already an average of many batches.
        if round == 0 {
            large.round();
        }
    }
    subjects.iter_mut().for_each(Subject::check_sizes);
    let note = "Each round includes a worker's start, which is noticeable in the smallest. One round of the largest. A quarter of the users.";
    table("With the backlog", note, &subjects)
}

fn with_workers(options: &Options) -> Table {
    let prepare = |partitions: u16, workers: usize| {
        let traffic = Traffic::new(Mix::Standard, options.users() / 4, partitions, 1);
        let flags = vec![("batch", options.batch.to_string())];
        let way = Way::Rollcall { workers, metrics: true, flags };
        let plural =
            |many: usize, noun: &str| format!("{many} {noun}{}", if many == 1 { "" } else { "s" });
        let name = format!(
            "{}, {}",
            plural(usize::from(partitions), "partition"),
            plural(workers, "worker")
        );
        Subject::prepare(name, way, traffic, options.size(20_000, 5_000))
    };
    let mut subjects: Vec<Subject> =
        [1, 4, 16].into_iter().flat_map(|p| [1, 2, 4].map(|w| prepare(p, w))).collect();
    interleave(&mut subjects, options.few_rounds());
    let note = "One server. Each worker is a thread with its own runtime; all share the clients' core. A quarter of the users.";
    table("With workers and partitions", note, &subjects)
}

fn table(title: &str, note: &str, subjects: &[Subject]) -> Table {
    let row = |subject: &Subject| Row {
        name: subject.name.clone(),
        cells: vec![
            Spread::of(subject.costs.iter().map(crate::meter::Cost::events_per_s)).into(),
            subject.server_us().into(),
            Spread::of(subject.costs.iter().map(crate::meter::Cost::client_us)).into(),
        ],
    };
    Table {
        title: title.to_owned(),
        note: note.to_owned(),
        columns: vec!["events/s", "server µs", "client µs"],
        rows: subjects.iter().map(row).collect(),
    }
}
