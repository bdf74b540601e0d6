//! What the live tests share: the reference model, the dump of a server, random events.

pub mod dump;
pub mod events;
pub mod model;
