//! The state is a function of the set of entries: random entries under random settings, read, repeated, split and
//! swept in random order by several workers, give what the reference model says, key by key, including expiries.
//!
//! `ROLLCALL_TEST_SEED` and `ROLLCALL_TEST_ROUNDS` choose the cases and their number.

mod event;
mod fold;
mod limits;
mod schedule;
mod settings;
mod thresholds;
mod ties;
mod world;

use std::cell::RefCell;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use self::schedule::{Case, case};
use self::world::World;
use crate::scene::{SOON, Scene};
use crate::support::{rounds, seed};

#[test]
fn any_schedule_gives_the_state_that_the_entries_say() {
    check_world(64, case(60, 40), async |world, case| world.run(case).await);
}

#[test]
fn one_plan_does_what_a_plan_for_each_event_does() {
    check_world(16, case(60, 1), async |world, case| world.run_twins(case).await);
}

#[test]
fn one_and_three_workers_give_the_same_state() {
    for partitions in ["1", "4"] {
        for workers in [1, 3] {
            let scene = Scene::start(&[("partitions", partitions)]);
            scene.add_random(11, 600);
            let running: Vec<_> = (0..workers).map(|_| scene.worker(&[])).collect();
            scene.wait_finished(SOON, "the workers finish the stream");
            scene.verify(&format!("{workers} workers, {partitions} partitions"));
            drop(running);
        }
    }
}

/// Runs a property over random cases on one server.
fn check_world(
    usual_rounds: u64,
    cases: impl Strategy<Value = Case>,
    property: impl AsyncFn(&mut World, &Case) -> Result<(), String>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = RefCell::new(runtime.block_on(World::start()));
    check(usual_rounds, &cases, |case| {
        let held = runtime.block_on(property(&mut world.borrow_mut(), &case));
        held.map_err(TestCaseError::fail)
    });
}

/// Runs a property over random cases; fails with the seed and the smallest case that breaks it.
fn check<S: Strategy>(
    usual_rounds: u64,
    cases: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let (seed, rounds) = (seed(), rounds(usual_rounds));
    let mut config = ProptestConfig {
        cases: u32::try_from(rounds).unwrap(),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // Unless PROPTEST_MAX_SHRINK_ITERS says how often a smaller case is searched for.
    config.max_shrink_iters = config.max_shrink_iters.min(3_000);
    let started = Instant::now();
    if let Err(error) = TestRunner::new(config).run(cases, property) {
        panic!("ROLLCALL_TEST_SEED={seed} ROLLCALL_TEST_ROUNDS={rounds}: {error}");
    }
    eprintln!("seed {seed}: {rounds} cases in {:?}", started.elapsed());
}
