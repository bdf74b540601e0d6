//! The state is a function of the set of entries: random entries under random settings, read, claimed,
//! repeated, split and swept in random order by several workers, give what the reference model says, key by
//! key, expiries included.
//!
//! `ROLLCALL_TEST_SEED` and `ROLLCALL_TEST_ROUNDS` say which cases and how many.

mod event;
mod fold;
mod schedule;
mod settings;
mod world;

use std::cell::RefCell;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use self::schedule::case;
use self::world::World;
use crate::scene::{SOON, Scene};
use crate::support::{rounds, seed};

#[test]
fn any_schedule_gives_the_state_that_the_entries_say() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = RefCell::new(runtime.block_on(World::start()));
    check(&case(60, 40), |case| {
        runtime.block_on(world.borrow_mut().run(&case)).map_err(TestCaseError::fail)
    });
}

#[test]
fn one_plan_does_what_a_plan_for_each_event_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = RefCell::new(runtime.block_on(World::start()));
    check(&case(60, 1), |case| {
        runtime.block_on(world.borrow_mut().run_twins(&case)).map_err(TestCaseError::fail)
    });
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

/// Runs a property over random cases; fails with the seed and the smallest case that breaks it.
fn check<S: Strategy>(cases: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let (seed, rounds) = (seed(), rounds(64));
    let config = ProptestConfig {
        cases: u32::try_from(rounds).unwrap(),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..ProptestConfig::default()
    };
    let started = Instant::now();
    if let Err(error) = TestRunner::new(config).run(cases, property) {
        panic!("ROLLCALL_TEST_SEED={seed} ROLLCALL_TEST_ROUNDS={rounds}: {error}");
    }
    eprintln!("seed {seed}: {rounds} cases in {:?}", started.elapsed());
}
