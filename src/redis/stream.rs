//! Reading the stream: entries after a position, with plain `XREAD`.

use std::time::Duration;

use redis::{Cmd, Value};

use super::reply;
use crate::entry::{Entry, EntryId};

/// A read of up to `count` entries after an id, which waits up to `block` for the first (`XREAD`).
pub fn read_after(stream: &str, after: EntryId, count: usize, block: Duration) -> Cmd {
    let mut read = redis::cmd("XREAD");
    read.arg("COUNT").arg(count);
    // BLOCK 0 would wait without a limit.
    read.arg("BLOCK").arg(block.as_millis().max(1) as u64);
    read.arg("STREAMS").arg(stream).arg(after.to_string());
    read
}

/// Reads the reply of `XREAD` for one stream: `[[stream, entries]]`, or nil.
pub fn entries(value: &Value) -> Option<Vec<Entry>> {
    match value {
        Value::Nil => Some(Vec::new()),
        Value::Array(streams) => reply::entries(reply::elements(streams.first()?)?.get(1)?),
        _ => None,
    }
}
