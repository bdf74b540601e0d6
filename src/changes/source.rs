//! One partition's changes on the server: their end, and those after a point.
//!
//! Numbers are gapless, so a number that does not follow the last one read is a gap: the cap dropped changes, or the
//! server went back in time and assigned the numbers again. The entry id that was read last under another number is a
//! gap as well. Numbers of erased changes are recorded; each is reported as erased, so that readers who count miss
//! none.

use std::time::Duration;

use redis::Value;

use super::position::Point;
use crate::change::Change;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;
use crate::redis::stream::entries;
use crate::state::Link;

/// Changes in one read.
pub(super) const PAGE: usize = 1_000;

/// Why the next change cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Changes after the position are no longer kept, or were never made on this server.
    #[error("the changes after number {after} are no longer kept")]
    Gap {
        /// The number of the last change that was read.
        after: u64,
    },
    /// The server cannot be queried: try again later; the position stays.
    #[error(transparent)]
    Server(#[from] Error),
}

/// The names of one partition's changes.
#[derive(Clone, Debug)]
pub struct Source {
    partition: u16,
    changes: String,
    changes_seq: String,
    erased: String,
}

impl Source {
    /// The changes of `partition`, whose keys these are.
    pub fn new(keys: &Keys, partition: u16) -> Self {
        let (changes, changes_seq) = (keys.changes(), keys.changes_seq());
        Self { partition, changes, changes_seq, erased: keys.changes_erased() }
    }

    /// The key of the stream.
    pub fn key(&self) -> &str {
        &self.changes
    }

    /// The newest change.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn end(&self, connection: &mut Link) -> Result<Point, Error> {
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(&self.changes_seq);
        ask.cmd("XREVRANGE").arg(&self.changes).arg("+").arg("-").arg("COUNT").arg(1);
        let (seq, newest): (Value, Value) = ask
            .query_async(connection)
            .await
            .map_err(Error::at("looking for the newest change"))?;
        let newest = self.first_of(&newest);
        let before = Point { seq: reply::number(&seq).unwrap_or(0), ..Point::START };
        Ok(newest.as_ref().map_or(before, Point::from))
    }

    /// The position before the oldest change that is kept, or the end if none is.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn start(&self, connection: &mut Link) -> Result<Point, Error> {
        let mut ask = redis::cmd("XRANGE");
        ask.arg(&self.changes).arg("-").arg("+").arg("COUNT").arg(1);
        let oldest: Value = ask
            .query_async(connection)
            .await
            .map_err(Error::at("looking for the oldest change"))?;
        match self.first_of(&oldest) {
            Some(oldest) => Ok(Point { seq: oldest.seq.saturating_sub(1), id: oldest.id.before() }),
            None => self.end(connection).await,
        }
    }

    /// Checks that the stream has, or had, this change there, and that what follows it is kept.
    ///
    /// # Errors
    /// [`TailError::Gap`] if not.
    pub async fn check(&self, connection: &mut Link, point: Point) -> Result<(), TailError> {
        let gap = TailError::Gap { after: point.seq };
        let id = point.id.to_string();
        // The number first: a change that it counts is then in the stream when that is read.
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(&self.changes_seq);
        ask.cmd("XRANGE").arg(&self.changes).arg(&id).arg(&id);
        ask.cmd("XRANGE").arg(&self.changes).arg("-").arg("+").arg("COUNT").arg(1);
        ask.cmd("XREVRANGE").arg(&self.changes).arg("+").arg("-").arg("COUNT").arg(1);
        let (seq, same, first, last): (Value, Value, Value, Value) =
            ask.query_async(connection).await.map_err(Error::at("looking at the changes"))?;
        let seq = reply::number(&seq).unwrap_or(0);
        let [same, first, last] = [same, first, last].map(|entries| self.first_of(&entries));
        let is_same_history = match (same, first) {
            (Some(same), _) => same.seq == point.seq,
            // Dropped by the cap, like everything before it. If it were older, or had the number of the oldest
            // change, it would be of another history, unless the change was erased.
            (None, Some(first)) => {
                first.id > point.id && first.seq > point.seq
                    || self.are_erased(connection, point.seq, point.seq).await?
            }
            (None, None) => true,
        };
        let has_more = last.is_some_and(|last| last.id > point.id);
        let is_at_end = has_more
            || seq == point.seq
            || seq > point.seq && self.are_erased(connection, point.seq + 1, seq).await?;
        if is_same_history && is_at_end { Ok(()) } else { Err(gap) }
    }

    /// Whether all changes with these numbers were erased (`ZRANGE`). Without the right to ask, none counts as
    /// erased.
    async fn are_erased(
        &self,
        connection: &mut Link,
        mut first: u64,
        last: u64,
    ) -> Result<bool, Error> {
        while first <= last {
            let some = last.min(first + PAGE as u64 - 1);
            let mut ask = redis::cmd("ZRANGE");
            ask.arg(&self.erased).arg(first).arg(some).arg("BYSCORE");
            let erased = match ask.query_async::<Value>(connection).await {
                Ok(numbers) => reply::array(numbers).map_or(0, |numbers| numbers.len() as u64),
                Err(error) if error.code() == Some("NOPERM") => 0,
                Err(error) => return Err(Error::at("asking what was erased")(error)),
            };
            if erased != some + 1 - first {
                return Ok(false);
            }
            first = some + 1;
        }
        Ok(true)
    }

    fn first_of(&self, entries: &Value) -> Option<Change> {
        let entries = reply::entries(entries)?;
        Change::read(entries.first()?, self.partition)
    }

    /// Up to a page of changes after `point`; waits up to `block` for the first, if given.
    ///
    /// # Errors
    /// [`TailError::Gap`] if the first of them does not follow `point`.
    pub async fn after(
        &self,
        connection: &mut Link,
        point: Point,
        block: Option<Duration>,
    ) -> Result<Vec<Change>, TailError> {
        const STEP: &str = "reading changes";
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(PAGE);
        if let Some(block) = block {
            // BLOCK 0 would wait without a limit.
            read.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        }
        read.arg("STREAMS").arg(&self.changes).arg(point.id.to_string());
        let value: Value = read.query_async(connection).await.map_err(Error::at(STEP))?;
        let entries = entries(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
        let mut changes = Vec::with_capacity(entries.len());
        let mut after = point.seq;
        for entry in &entries {
            match Change::read(entry, self.partition) {
                Some(change) if change.seq == after + 1 => {
                    after = change.seq;
                    changes.push(change);
                }
                // Those before the gap were read in order.
                _ if !changes.is_empty() => break,
                Some(change) if change.seq > after => {
                    return self.across(connection, after, change).await;
                }
                _ => return Err(TailError::Gap { after }),
            }
        }
        Ok(changes)
    }

    /// The changes to report between two existing ones if all in between were erased; at most a page.
    async fn across(
        &self,
        connection: &mut Link,
        after: u64,
        next: Change,
    ) -> Result<Vec<Change>, TailError> {
        let erased = after + 1..=next.seq - 1;
        if !self.are_erased(connection, after + 1, next.seq - 1).await? {
            return Err(TailError::Gap { after });
        }
        let is_whole = next.seq - after <= PAGE as u64;
        let mut changes: Vec<_> = erased.take(PAGE).map(|seq| Change::erased(seq, &next)).collect();
        if is_whole {
            changes.push(next);
        }
        Ok(changes)
    }
}
