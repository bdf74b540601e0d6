//! Everything that speaks to the server: connections, the stream, the scripts.

mod cluster;
pub mod connect;
mod dial;
pub mod feed;
mod login;
pub mod nodes;
pub mod reply;
pub mod scripts;
mod sentinel;
pub mod stream;
