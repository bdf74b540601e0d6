//! Where the server's time goes: the commands that it runs, Lua around them, and the rest.

use std::collections::BTreeSet;

use crate::Options;
use crate::ground::{Calls, Commands};
use crate::meter::Cost;
use crate::report::{Row, Spread, Table};
use crate::subject::{Subject, interleave};
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

/// Commands that take less than this are added up.
const LEAST_US: f64 = 0.05;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    let traffic = Traffic::new(Mix::Standard, options.users(), 1, 1);
    let way = Way::rollcall(options.batch);
    let mut subject = Subject::prepare("Rollcall", way, traffic, options.size(60_000, 10_000));
    interleave(std::slice::from_mut(&mut subject), options.rounds());
    let rounds: Vec<Round<'_>> =
        subject.costs.iter().zip(&subject.commands).map(Round::of).collect();
    vec![Table {
        title: "Where the server's time goes".to_owned(),
        note: "Standard mix, flat entries, from the server's `INFO commandstats`. A script's commands are \
               subtracted from its time; what remains of it is Lua: passing arguments, calling commands, the \
               script itself, its memory. The rest is sockets, parsing, and waking up."
            .to_owned(),
        columns: vec!["calls per event", "server µs", "share, %"],
        rows: rows(&rounds),
    }]
}

/// The cost of a round, in total and by command.
struct Round<'s> {
    cost: Cost,
    before: &'s Commands,
    after: &'s Commands,
}

impl<'s> Round<'s> {
    fn of((cost, [before, after]): (&Cost, &'s [Commands; 2])) -> Self {
        Self { cost: *cost, before, after }
    }

    /// Calls of a command, and the µs they take, per event.
    fn command(&self, name: &str) -> (f64, f64) {
        let of = |all: &Commands| all.get(name).copied().unwrap_or_default();
        let (Calls { count, took_us }, before) = (of(self.after), of(self.before));
        let each = |now: u64, before: u64| (now - before) as f64 / self.cost.events as f64;
        (each(count, before.count), each(took_us, before.took_us))
    }

    /// The script without its commands, that is, without all commands that are not called from outside.
    fn lua_us(&self) -> f64 {
        let inside: f64 =
            self.after.keys().filter(|name| is_inside(name)).map(|n| self.command(n).1).sum();
        self.command(SCRIPT).1 - inside
    }

    fn rest_us(&self) -> f64 {
        let outside: f64 =
            self.after.keys().filter(|name| !is_inside(name)).map(|n| self.command(n).1).sum();
        self.cost.server_us() - outside
    }
}

const SCRIPT: &str = "fcall";

/// Whether only the script calls a command in such a round.
fn is_inside(name: &str) -> bool {
    const OUTSIDE: [&str; 4] = [SCRIPT, "xread", "info", "function|load"];
    !OUTSIDE.contains(&name)
}

fn rows(rounds: &[Round<'_>]) -> Vec<Row> {
    let spread = |of: &dyn Fn(&Round<'_>) -> f64| Spread::of(rounds.iter().map(of));
    let names: BTreeSet<&str> = rounds
        .iter()
        .flat_map(|round| round.after.keys())
        .map(String::as_str)
        .filter(|name| *name != SCRIPT)
        .collect();
    let (large, small): (Vec<&str>, Vec<&str>) = names
        .into_iter()
        .partition(|name| spread(&|round| round.command(name).1).median() >= LEAST_US);
    let row = |name: String, calls: Option<Spread>, us: &dyn Fn(&Round<'_>) -> f64| Row {
        name,
        cells: vec![
            calls.map_or("".into(), Into::into),
            spread(us).into(),
            spread(&|round| us(round) / round.cost.server_us() * 100.0).into(),
        ],
    };
    let mut rows: Vec<Row> = large
        .into_iter()
        .map(|name| {
            row(format!("`{}`", name.to_uppercase()), Some(spread(&|r| r.command(name).0)), &|r| {
                r.command(name).1
            })
        })
        .collect();
    rows.push(row("other commands".to_owned(), None, &|round| {
        small.iter().map(|name| round.command(name).1).sum()
    }));
    rows.push(row("Lua".to_owned(), None, &|round| round.lua_us()));
    rows.push(row("sockets, parsing, waking up".to_owned(), None, &|round| round.rest_us()));
    rows.push(row("all".to_owned(), None, &|round| round.cost.server_us()));
    rows
}
