//! Follows the changes of one partition: every one, in order, once, or word of the gap.
//!
//! Numbers are gapless, so a number that does not follow the last one read is a gap: the cap dropped changes, or the
//! server went back in time and gave their numbers again. A change at the entry id that was read last, under another
//! number, is a gap as well. A blocking read says nothing when its key goes, so each one that brings nothing is
//! followed by a look at where the changes stand.

use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::position::Point;
use crate::change::Change;
use crate::config::Server;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::connect::connect;
use crate::redis::reply;
use crate::redis::stream::{entries, read_after};

/// How much longer than a read may block its reply may take.
const REPLY_WITHIN: Duration = Duration::from_secs(2);
/// Changes in one read.
const MOST: usize = 1_000;

/// Why the next change cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Changes after the position are no longer kept, or were never made here.
    #[error("the changes after number {after} are no longer kept")]
    Gap {
        /// The number of the last change that was read.
        after: u64,
    },
    /// The server cannot be asked: try again later, the position stays.
    #[error(transparent)]
    Server(#[from] Error),
}

/// A reader of one partition's changes.
pub struct Tail {
    server: Server,
    partition: u16,
    changes: String,
    changes_seq: String,
    block: Duration,
    connection: Option<MultiplexedConnection>,
    point: Option<Point>,
    /// Whether the position was compared with the stream since the connection was opened.
    is_checked: bool,
}

impl Tail {
    /// Follows the changes after `point`, or from now on. A read waits up to `block` for the first.
    pub fn new(
        server: Server,
        keys: &Keys,
        partition: u16,
        point: Option<Point>,
        block: Duration,
    ) -> Self {
        let (changes, changes_seq) = (keys.changes(), keys.changes_seq());
        Self {
            server,
            partition,
            changes,
            changes_seq,
            block,
            connection: None,
            point,
            is_checked: false,
        }
    }

    /// Where it is; `None` before the first look at the server.
    pub fn point(&self) -> Option<Point> {
        self.point
    }

    /// Goes on from the newest change, as after a gap.
    pub fn skip_to_end(&mut self) {
        self.point = None;
    }

    /// The next changes; none if nothing came in time.
    ///
    /// # Errors
    /// [`TailError::Gap`] if there is none that follows; it stays one until [`skip_to_end`](Self::skip_to_end).
    pub async fn next(&mut self) -> Result<Vec<Change>, TailError> {
        let read = self.read().await;
        if matches!(read, Err(TailError::Server(_))) {
            self.connection = None;
        }
        read
    }

    async fn read(&mut self) -> Result<Vec<Change>, TailError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.is_checked = false;
                connect(&self.server, &self.changes, self.block + REPLY_WITHIN).await?
            }
        };
        let point = match self.point {
            Some(point) => point,
            None => end(&mut connection, &self.changes, &self.changes_seq).await?,
        };
        self.point = Some(point);
        if !self.is_checked {
            self.check(&mut connection, point).await?;
        }
        let changes = self.read_after(&mut connection, point).await?;
        self.is_checked = !changes.is_empty();
        self.connection = Some(connection);
        if let Some(last) = changes.last() {
            self.point = Some(last.into());
        }
        Ok(changes)
    }

    /// Whether what was read last is still what the stream has, or had, there.
    async fn check(
        &mut self,
        connection: &mut MultiplexedConnection,
        point: Point,
    ) -> Result<(), TailError> {
        let gap = TailError::Gap { after: point.seq };
        let id = point.id.to_string();
        // The number first: a change that it counts is in the stream by the time that is read.
        let mut ask = redis::pipe();
        ask.cmd("GET").arg(&self.changes_seq);
        ask.cmd("XRANGE").arg(&self.changes).arg(&id).arg(&id);
        ask.cmd("XRANGE").arg(&self.changes).arg("-").arg("+").arg("COUNT").arg(1);
        ask.cmd("XREVRANGE").arg(&self.changes).arg("+").arg("-").arg("COUNT").arg(1);
        let (seq, same, first, last): (Value, Value, Value, Value) =
            ask.query_async(connection).await.map_err(Error::at("looking at the changes"))?;
        let seq = reply::number(&seq).unwrap_or(0);
        let [same, first, last] = [same, first, last].map(|entries| self.first_of(entries));
        let is_same_history = match (same, first) {
            (Some(same), _) => same.seq == point.seq,
            // Dropped by the cap, as all before it. Older entries without it are another history.
            (None, Some(first)) => first.id > point.id,
            (None, None) => true,
        };
        let has_more = last.is_some_and(|last| last.id > point.id);
        if is_same_history && (has_more || seq == point.seq) { Ok(()) } else { Err(gap) }
    }

    fn first_of(&self, entries: Value) -> Option<Change> {
        let entries = reply::entries(entries)?;
        Change::read(entries.first()?, self.partition)
    }

    async fn read_after(
        &self,
        connection: &mut MultiplexedConnection,
        point: Point,
    ) -> Result<Vec<Change>, TailError> {
        const STEP: &str = "reading changes";
        let read = read_after(&self.changes, point.id, MOST, self.block);
        let value: Value = read.query_async(connection).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &Value::Nil);
        let entries = entries(value).ok_or(unexpected)?;
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
                _ => return Err(TailError::Gap { after }),
            }
        }
        Ok(changes)
    }
}

/// The newest change of a partition.
async fn end(
    connection: &mut MultiplexedConnection,
    changes: &str,
    changes_seq: &str,
) -> Result<Point, Error> {
    let mut ask = redis::pipe();
    ask.cmd("GET").arg(changes_seq);
    ask.cmd("XREVRANGE").arg(changes).arg("+").arg("-").arg("COUNT").arg(1);
    let (seq, newest): (Value, Value) =
        ask.query_async(connection).await.map_err(Error::at("looking for the newest change"))?;
    let newest = reply::entries(newest).unwrap_or_default();
    let newest = newest.first().and_then(|entry| Change::read(entry, 0));
    let before = Point { seq: reply::number(&seq).unwrap_or(0), ..Point::START };
    Ok(newest.as_ref().map_or(before, Point::from))
}
