//! What each projection costs the server: alone over the floor, and what is saved without it.

use rollcall::config::{Projection, Projections};

use crate::Options;
use crate::report::{Row, Spread, Table};
use crate::subject::{Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let batch = options.batch;
    let prepare = |name: &str, way| {
        let traffic = Traffic::new(Mix::Documents, options.users() / 2, 1, 1);
        Subject::prepare(name, way, traffic, options.size(30_000, 5_000))
    };
    let kept = |keep: &dyn Fn(Projection) -> bool| {
        let projections: Projections = Projections::all().iter().filter(|p| keep(*p)).collect();
        Way::rollcall_with(batch, projections)
    };
    let mut subjects =
        vec![prepare("floor", Way::Floor { batch }), prepare("everything", Way::rollcall(batch))];
    for one in Projections::all().iter() {
        subjects.push(prepare(one.name(), kept(&|p| p == one)));
        subjects.push(prepare(one.name(), kept(&|p| p != one)));
    }
    interleave(&mut subjects, options.rounds());
    let [floor, everything, pairs @ ..] = &subjects[..] else { panic!("two before the pairs") };
    let row_of = |subject: &Subject| Row {
        name: subject.name.clone(),
        cells: vec![subject.server_us().into(), "".into(), "".into(), "".into()],
    };
    let mut rows = vec![row_of(floor), row_of(everything)];
    rows.extend(pairs.chunks_exact(2).map(|pair| Row {
        name: pair[0].name.clone(),
        cells: vec![
            pair[0].server_us().into(),
            difference(&pair[0], floor).into(),
            pair[1].server_us().into(),
            difference(everything, &pair[1]).into(),
        ],
    }));
    vec![Table {
        title: "The price of each projection".to_owned(),
        note: "Server µs per event. Half the users of the other sections; every tenth event is a join of \
               a document. Differences are computed within each round."
            .to_owned(),
        columns: vec!["alone", "over the floor", "all except it", "saved without it"],
        rows,
    }]
}

fn difference(more: &Subject, less: &Subject) -> Spread {
    let rounds = more.costs.iter().zip(&less.costs);
    Spread::of(rounds.map(|(more, less)| more.server_us() - less.server_us()))
}
