//! The live feed of `serve`: changes as server-sent events, with snapshots, resumed anywhere.

pub mod client;
mod events;
mod faults;

use client::{Client, address};
