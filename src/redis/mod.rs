//! Everything that speaks to the server: connections, the stream, the scripts, the queries.

pub mod apply;
pub mod changes;
pub mod connect;
pub mod dead_letter;
pub mod doctor;
pub mod feed;
pub mod group;
pub mod losses;
pub mod private_server;
pub mod query;
pub mod reply;
pub mod script;
pub mod stream;
pub mod sweep;
