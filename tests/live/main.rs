//! Tests against real servers, each started by the test that needs it, on a free port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod convergence;
mod harness;
#[path = "../support/mod.rs"]
mod support;
