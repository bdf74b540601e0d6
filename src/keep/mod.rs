//! What operators do with what is kept: in small calls, one after the other, so that others get their turn. All of it
//! can be killed at any moment and begun again.

pub mod erase;
pub mod letters;
pub mod repartition;
pub mod sessions;
pub mod verify;
