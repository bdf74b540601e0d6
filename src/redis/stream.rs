//! The stream as one consumer reads it: new entries, its own pending ones, those of dead consumers.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::feed::Feed;
use super::reply::{self, Delivered};
use crate::entry::EntryId;
use crate::error::Error;

/// One consumer's view of one partition's stream.
#[derive(Clone, Debug)]
pub struct StreamReader {
    /// The stream's key.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// This consumer.
    pub consumer: String,
}

/// A part of what was claimed from others.
#[derive(Debug)]
pub struct Claimed {
    /// The entries that are ours now.
    pub delivered: Delivered,
    /// Where to go on; `None` at the end of the pending entries list.
    pub next: Option<String>,
}

impl StreamReader {
    /// Up to `count` new entries (`XREADGROUP … >`), waiting up to `block` for the first.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn read_new(
        &self,
        feed: &mut Feed,
        count: usize,
        block: Duration,
    ) -> Result<Delivered, Error> {
        let mut read = self.read(count);
        // BLOCK 0 would wait for ever.
        read.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        read.arg("STREAMS").arg(&self.stream).arg(">");
        feed.read(&read).await
    }

    /// Up to `count` of this consumer's own pending entries after `after`. Counts as a delivery of each.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn read_pending(
        &self,
        connection: &mut MultiplexedConnection,
        count: usize,
        after: &str,
    ) -> Result<Delivered, Error> {
        let mut read = self.read(count);
        read.arg("STREAMS").arg(&self.stream).arg(after);
        query(connection, &read, "reading pending entries").await
    }

    fn read(&self, count: usize) -> Cmd {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        read
    }

    /// Takes over up to `count` entries that any consumer left pending for `idle` (`XAUTOCLAIM`), from
    /// `start` on. Counts as a delivery of each.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        idle: Duration,
        start: &str,
        count: usize,
    ) -> Result<Claimed, Error> {
        const STEP: &str = "claiming entries";
        let mut claim = redis::cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.group).arg(&self.consumer);
        claim.arg(idle.as_millis() as u64).arg(start).arg("COUNT").arg(count);
        let value: Value = claim.query_async(connection).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &value);
        claimed(value).ok_or(unexpected)
    }

    /// How often each pending entry of this consumer between two ids was delivered.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn deliveries(
        &self,
        connection: &mut MultiplexedConnection,
        first: EntryId,
        last: EntryId,
        count: usize,
    ) -> Result<HashMap<EntryId, u64>, Error> {
        const STEP: &str = "asking for delivery counts";
        let mut ask = redis::cmd("XPENDING");
        ask.arg(&self.stream).arg(&self.group).arg(first.to_string()).arg(last.to_string());
        ask.arg(count).arg(&self.consumer);
        let value: Value = ask.query_async(connection).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &value);
        let rows =
            reply::array(value).and_then(|rows| rows.into_iter().map(delivery_count).collect());
        rows.ok_or(unexpected)
    }
}

/// What an `XREADGROUP` of one stream delivers.
pub(super) async fn query(
    connection: &mut MultiplexedConnection,
    read: &Cmd,
    step: &'static str,
) -> Result<Delivered, Error> {
    let value: Value = read.query_async(connection).await.map_err(Error::at(step))?;
    let unexpected = reply::unexpected(step, &value);
    delivered(value).ok_or(unexpected)
}

fn delivery_count(row: Value) -> Option<(EntryId, u64)> {
    let mut row = reply::array(row)?.into_iter();
    let id = reply::entry_id(row.next()?)?;
    let count = reply::integer(&row.nth(2)?)?;
    Some((id, u64::try_from(count).ok()?))
}

/// Reads the reply of `XREADGROUP` from one stream: `[[stream, entries]]`, or nothing.
pub fn delivered(value: Value) -> Option<Delivered> {
    let entries = match value {
        Value::Nil => return Some(Delivered::default()),
        Value::Array(streams) => reply::array(streams.into_iter().next()?)?.into_iter().nth(1)?,
        _ => return None,
    };
    reply::delivered(entries)
}

/// Reads the reply of `XAUTOCLAIM`: `[next, entries, ids of entries that are gone]`.
pub fn claimed(value: Value) -> Option<Claimed> {
    let mut parts = reply::array(value)?.into_iter();
    let next = reply::text(parts.next()?)?;
    let mut delivered = reply::delivered(parts.next()?)?;
    // Since 7.0: ids that were pending but whose entries are gone; the server has dropped them.
    if let Some(lost) = parts.next() {
        delivered.lost =
            reply::array(lost)?.into_iter().map(reply::entry_id).collect::<Option<_>>()?;
    }
    Some(Claimed { delivered, next: (next != "0-0").then_some(next) })
}
