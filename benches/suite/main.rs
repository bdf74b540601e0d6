//! The benchmark suite: one command, one report. `benches/README.md` says how to run and read it.
//!
//! Every figure comes from a private server of its own, and every round is checked: a way that did not do its work
//! ends the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bare;
mod breakdown;
mod conditions;
mod durability;
mod fleet;
mod ground;
mod growth;
mod janitor;
mod latency;
mod machine;
mod memory;
mod meter;
mod plain;
mod prices;
mod projection;
mod python;
mod report;
mod subject;
mod telemetry;
mod traffic;
mod way;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use crate::conditions::Conditions;
use crate::report::{Report, Section, Table};

/// Measures the cost of Rollcall, next to the floor and to plain writers, round by round.
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench suite --")]
struct Options {
    /// Sections to run [default: all]
    #[arg(value_enum)]
    sections: Vec<Name>,
    /// Small sizes: everything in about two minutes, for approximate figures
    #[arg(long)]
    quick: bool,
    /// Interleaved rounds [default: 5; 3 in the quick form and for growth]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Users [default: 100000, or 10000 in the quick form]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1000..))]
    users: Option<u32>,
    /// Members of the structures that the janitor sweeps [default: 400000, or 40000 in the quick form]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..))]
    members: Option<u64>,
    /// Maximum number of entries read at once
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    batch: u32,
    /// Directory for report.md and report.json [default: target/bench]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// `cargo bench` passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The size of the full form, or of the quick one.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(self.size(5, 3))
    }

    /// For sections where filling takes most of the time and a few rounds are enough.
    fn few_rounds(&self) -> u32 {
        self.rounds.unwrap_or(3)
    }

    fn users(&self) -> u32 {
        self.users.unwrap_or(self.size(100_000, 10_000))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Rollcall compared with the floor and with plain writers
    Projection,
    /// Where the server's time goes, command by command
    Breakdown,
    /// With an append-only file, with a replica, and in small batches
    Durability,
    /// What each projection costs
    Prices,
    /// The time from XADD to applied, at a steady rate
    Latency,
    /// Removing what is stale, and the delay for other clients
    Janitor,
    /// Bytes per user, and a worker's own memory
    Memory,
    /// Growth with users, backlog, workers and partitions
    Growth,
    /// What metrics cost
    Telemetry,
}

impl Name {
    fn run(self, options: &Options) -> Vec<Table> {
        match self {
            Self::Projection => projection::run(options),
            Self::Breakdown => breakdown::run(options),
            Self::Durability => durability::run(options),
            Self::Prices => prices::run(options),
            Self::Latency => latency::run(options),
            Self::Janitor => janitor::run(options),
            Self::Memory => memory::run(options),
            Self::Growth => growth::run(options),
            Self::Telemetry => telemetry::run(options),
        }
    }
}

fn main() {
    let options = Options::parse();
    machine::pin_clients();
    let conditions = Conditions::seen(&options);
    println!("{conditions}");
    let all = Name::value_variants();
    let chosen = if options.sections.is_empty() { all } else { &options.sections[..] };
    let sections = chosen.iter().map(|name| {
        let started = Instant::now();
        let tables = name.run(&options);
        let name = name.to_possible_value().unwrap().get_name().to_owned();
        let section = Section { name, took_s: started.elapsed().as_secs_f64(), tables };
        println!("{section}");
        section
    });
    let report = Report { sections: sections.collect(), conditions };
    let folder = options.out.unwrap_or_else(report::default_folder);
    report.write(&folder);
    println!("report.md and report.json are in {}", folder.display());
}
