//! Everything that speaks to the server: connections, the stream, the scripts.

pub mod connect;
pub mod feed;
mod login;
pub mod reply;
pub mod scripts;
pub mod stream;
