//! Shared by the live tests: the reference model, the dump of a server, random events.

pub mod dump;
pub mod events;
pub mod model;

/// Selects the random cases: `ROLLCALL_TEST_SEED`.
pub fn seed() -> u64 {
    variable("ROLLCALL_TEST_SEED", 1)
}

/// The number of random cases: `ROLLCALL_TEST_ROUNDS`.
pub fn rounds(default: u64) -> u64 {
    variable("ROLLCALL_TEST_ROUNDS", default)
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}
