//! Decode and fold without a server: time by Criterion, and the number of allocations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[allow(dead_code, reason = "the suite uses more of it")]
#[path = "../suite/traffic.rs"]
mod traffic;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rollcall::config::{Limits, Projections};
use rollcall::decode::{Rules, decode};
use rollcall::entry::{Entry, EntryId};
use rollcall::fold::{Avoided, FoldSettings, Planner};

use crate::traffic::{Mix, Traffic};

const EVENTS: u64 = 500;

fn main() {
    let cases = [
        ("standard, flat", Mix::Standard, 1),
        ("heartbeats, flat", Mix::Heartbeats, 1),
        ("standard, packed by 50", Mix::Standard, 50),
    ];
    let cases = cases.map(|(name, mix, pack)| (name, entries(mix, pack)));
    let settings = settings();
    let mut criterion = Criterion::default().configure_from_args();
    for (name, entries) in &cases {
        let mut group = criterion.benchmark_group(*name);
        group.throughput(Throughput::Elements(EVENTS));
        group.bench_function("decode", |b| b.iter(|| decode_all(entries, &settings)));
        group.bench_function("decode and fold", |b| b.iter(|| fold_all(entries, &settings)));
        group.finish();
    }
    criterion.final_summary();
    println!("\n| per event, {EVENTS} in a batch | allocations | bytes | peak |");
    println!("|---|---:|---:|---:|");
    for (name, entries) in &cases {
        count(&format!("{name}: decode"), || decode_all(entries, &settings));
        count(&format!("{name}: decode and fold"), || fold_all(entries, &settings));
    }
}

/// Allocations of the second call; the first one may create what stays.
fn count(name: &str, work: impl Fn()) {
    work();
    let counted = allocation_counter::measure(&work);
    assert_eq!(counted.count_current, 0, "{name} keeps memory");
    let [allocations, bytes, most] = [counted.count_total, counted.bytes_total, counted.bytes_max]
        .map(|count| count as f64 / EVENTS as f64);
    println!("| {name} | {allocations:.2} | {bytes:.0} | {most:.0} |");
}

fn entries(mix: Mix, pack: usize) -> Vec<Entry> {
    let batch = Traffic::new(mix, 100_000, 1, pack).batch(EVENTS);
    let entry = |(seq, entry): (u64, traffic::event::Entry)| {
        let fields = entry.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        Entry::new(EntryId { ms: 1_790_000_000_000, seq }, fields)
    };
    (0..).zip(batch.entries).map(entry).collect()
}

fn settings() -> FoldSettings {
    FoldSettings {
        rules: Rules {
            limits: Limits::default(),
            max_skew_ms: 60_000,
            partitions: 1,
            moved_from: Vec::new(),
        },
        projections: Projections::all(),
        partition: 0,
    }
}

fn decode_all(entries: &[Entry], settings: &FoldSettings) {
    for entry in entries {
        black_box(decode(entry, 0, &settings.rules));
    }
}

fn fold_all(entries: &[Entry], settings: &FoldSettings) {
    let avoided = Avoided::default();
    let mut planner = Planner::with_capacity(settings, entries.len());
    for entry in entries {
        planner.add(entry, &avoided);
    }
    black_box(planner.finish(&avoided));
}
