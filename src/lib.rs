//! Rollcall turns a Redis Stream of small events into live state.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// The core's modules keep their paths in this crate.
pub use rollcall_core::{
    blocked, change, decode, entry, event, fold, format, forward, key, op, projection, time,
    traceparent,
};

pub mod changes;
pub mod config;
pub mod doctor;
pub mod error;
pub mod failpoint;
pub mod files;
pub mod janitor;
pub mod keep;
pub mod notifier;
pub mod private_server;
pub mod projector;
pub mod redis;
pub mod schema;
pub mod seal;
pub mod serve;
pub mod state;
pub mod telemetry;
