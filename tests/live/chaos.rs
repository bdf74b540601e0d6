//! Chaos: a fleet of workers and two janitors, under traffic, through a random schedule of faults of all kinds.
//!
//! A seed repeats a schedule. The short form runs with all other tests; the long one is
//!
//!     ROLLCALL_TEST_SEED=1 ROLLCALL_TEST_ROUNDS=200 cargo test --test live chaos::random -- --nocapture
//!
//! and prints what it tried as a table.

mod faults;
pub mod fleet;
mod half_open;
pub mod ledger;
pub mod plan;
pub mod proxy;
pub mod report;
mod schedule;
mod taking;
pub mod traced;
pub mod verdict;

use std::time::Duration;

use plan::{Persistence, Suite};
use schedule::Chaos;

static SUITE: Suite<Chaos> = Suite {
    kinds: faults::KINDS,
    partitions: &["1", "1", "3"],
    persistence: &[Persistence::Always, Persistence::EverySecond, Persistence::Nothing],
    budget: Duration::from_secs(6),
    kinds_at_least: 3,
    at_once: 4,
    seed: 1,
    rounds: 3,
};

#[test]
fn random_faults_leave_the_guarantee_whole() {
    SUITE.run(schedule::run);
}
