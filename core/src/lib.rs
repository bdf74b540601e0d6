//! The pure core of Rollcall: stream entries in, merge operations out.
//!
//! No I/O, no clock, and no crate with either: the meaning of an entry depends on the entry alone.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod blocked;
pub mod change;
pub mod decode;
pub mod entry;
pub mod event;
pub mod fold;
pub mod format;
pub mod forward;
pub mod key;
pub mod op;
pub mod projection;
pub mod time;
pub mod traceparent;
