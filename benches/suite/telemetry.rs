//! What metrics cost a worker and the server. Traces are off unless asked for, and then few by default.

use crate::Options;
use crate::report::{Row, Spread, Table};
use crate::subject::{Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let prepare = |name: &str, way| {
        let traffic = Traffic::new(Mix::Standard, options.users() / 4, 1, 1);
        Subject::prepare(name, way, traffic, options.size(60_000, 20_000))
    };
    let mut subjects = vec![
        prepare("without metrics", Way::rollcall_unmeasured(options.batch)),
        prepare("with metrics", Way::rollcall(options.batch)),
    ];
    // Differences of a few percent need more rounds.
    interleave(&mut subjects, options.rounds() * 2);
    let row = |subject: &Subject| {
        let rounds = subject.costs.iter().zip(&subjects[0].costs);
        let times =
            Spread::of(rounds.map(|(with, without)| with.client_us() / without.client_us()));
        let cells = vec![subject.server_us().into(), subject.client_us().into(), times.into()];
        Row { name: subject.name.clone(), cells }
    };
    vec![Table {
        title: "The price of metrics".to_owned(),
        note: "A worker with metrics, and one without. A quarter of the users; the janitors' survey of the server \
               is not included."
            .to_owned(),
        columns: vec!["server µs", "client µs", "client, × without"],
        rows: subjects.iter().map(row).collect(),
    }]
}
