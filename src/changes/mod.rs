//! The changes as they come: a tail for each partition, a position over all of them, the state at a position, and the
//! live feed that any number of listeners share.

pub mod details;
mod filter;
mod frame;
mod hub;
mod listener;
mod position;
mod ring;
pub mod rooms;
mod snapshot;
mod snapshots;
mod source;
mod tail;

pub use filter::{Filter, Parts};
pub use hub::{Hub, Joined};
pub use listener::{Heard, Listener, own_id, own_text};
pub use position::{InvalidPosition, Point, Position};
pub use ring::Batch;
pub use snapshot::{Lines, Scope, Snapshot, SnapshotError};
pub use snapshots::Snapshots;
pub use source::{Source, TailError};
pub use tail::Tail;
