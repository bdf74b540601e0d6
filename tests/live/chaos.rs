//! Chaos: a fleet of workers and two janitors, under traffic, through a random schedule of faults of all kinds.
//!
//! A seed repeats a schedule. The short form runs with all other tests; the long one is
//!
//!     ROLLCALL_TEST_SEED=1 ROLLCALL_TEST_ROUNDS=200 cargo test --test live chaos::random -- --nocapture
//!
//! and prints what it tried as a table.

mod faults;
mod fleet;
mod half_open;
mod ledger;
pub mod proxy;
mod report;
mod schedule;
mod taking;
mod traced;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use report::Report;
use schedule::Plan;

use crate::scene::in_parallel;

/// Schedules that run at the same time; they mostly wait.
const AT_ONCE: u64 = 4;

#[test]
fn random_faults_leave_the_guarantee_whole() {
    let variable = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let first = variable("ROLLCALL_TEST_SEED", 1);
    let last = first + variable("ROLLCALL_TEST_ROUNDS", 3);
    let (next, report, diverged) =
        (AtomicU64::new(first), Report::default(), Mutex::new(Vec::new()));
    in_parallel(0..AT_ONCE, |_| {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let plan = Plan::of(seed);
            eprintln!("{}", plan.told());
            // The others go on, so that a long run reports everything that fails.
            if catch_unwind(AssertUnwindSafe(|| schedule::run(&plan, &report))).is_err() {
                report.diverged(seed, plan.kinds());
                diverged.lock().unwrap().push(seed);
            }
        }
    });
    eprintln!("{}", report.table());
    let diverged = diverged.into_inner().unwrap();
    assert!(diverged.is_empty(), "these seeds did not hold: {diverged:?}");
}
