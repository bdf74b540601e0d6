//! Operators' work on stored data, in small calls one after the other, so that other clients get their turn. All of
//! it can be killed at any moment and run again.

pub mod erase;
pub mod letters;
pub mod repartition;
pub mod sessions;
pub mod verify;
