//! The changes as they come: a tail for each partition, and a position over all of them.

mod position;
mod tail;

pub use position::{InvalidPosition, Point, Position};
pub use tail::{Tail, TailError};
