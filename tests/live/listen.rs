//! The live feed of `serve`: changes as server-sent events, with snapshots, resumed anywhere; Socket.IO with real
//! clients.

mod archive;
pub mod client;
mod drivers;
mod events;
mod examples;
mod faults;
mod ground;
mod load;
mod seen;
mod sockets;

use client::{Client, address};
use drivers::{Language, Sockets, TRANSPORTS};
