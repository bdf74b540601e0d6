//! The changes as they come: a tail for each partition, a position over all of them, and the state at a position.

mod filter;
mod position;
mod snapshot;
mod source;
mod tail;

pub use filter::{Filter, Parts};
pub use position::{InvalidPosition, Point, Position};
pub use snapshot::{Lines, Scope, Snapshot, SnapshotError};
pub use source::{Source, TailError};
pub use tail::Tail;
