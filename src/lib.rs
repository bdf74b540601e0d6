//! Rollcall turns a Redis Stream of small events into live state.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod decode;
pub mod entry;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod fold;
pub mod format;
pub mod janitor;
pub mod key;
pub mod op;
pub mod origin;
pub mod projection;
pub mod projector;
pub mod redis;
pub mod schema;
pub mod telemetry;
pub mod time;
