//! Follows the changes of one partition: each one in order and once, or the report of a gap.
//!
//! A blocking read does not notice when its key is removed, so each read without a result is followed by a look at
//! the end of the changes.

use std::time::Duration;

use super::position::Point;
use super::source::{Source, TailError};
use crate::change::Change;
use crate::config::Server;
use crate::key::Keys;
use crate::redis::connect::connect;
use crate::state::Link;

/// How much longer a reply may take than its read may block.
const REPLY_WITHIN: Duration = Duration::from_secs(2);

/// A reader of one partition's changes.
pub struct Tail {
    server: Server,
    source: Source,
    block: Duration,
    connection: Option<Link>,
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
        let source = Source::new(keys, partition);
        Self { server, source, block, connection: None, point, is_checked: false }
    }

    /// Where it is; `None` before the first look at the server.
    pub fn point(&self) -> Option<Point> {
        self.point
    }

    /// Continues from the newest change, as after a gap.
    pub fn skip_to_end(&mut self) {
        self.point = None;
    }

    /// The next changes; none if nothing came in time.
    ///
    /// # Errors
    /// [`TailError::Gap`] if none follows the position; it remains a gap until [`skip_to_end`](Self::skip_to_end).
    pub async fn next(&mut self) -> Result<Vec<Change>, TailError> {
        let read = self.read().await;
        if matches!(read, Err(TailError::Server(_))) {
            self.connection = None;
        }
        read
    }

    /// Connects, and finds or verifies its position. A read does this if necessary.
    ///
    /// # Errors
    /// The same as those of a read.
    pub async fn open(&mut self) -> Result<Point, TailError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.is_checked = false;
                connect(&self.server, self.source.key(), self.block + REPLY_WITHIN).await?.into()
            }
        };
        let point = match self.point {
            Some(point) => point,
            None => self.source.end(&mut connection).await?,
        };
        self.point = Some(point);
        if !self.is_checked {
            self.source.check(&mut connection, point).await?;
            self.is_checked = true;
        }
        self.connection = Some(connection);
        Ok(point)
    }

    async fn read(&mut self) -> Result<Vec<Change>, TailError> {
        let point = self.open().await?;
        let Some(connection) = &mut self.connection else { return Ok(Vec::new()) };
        let changes = self.source.after(connection, point, Some(self.block)).await?;
        self.is_checked = !changes.is_empty();
        if let Some(last) = changes.last() {
            self.point = Some(last.into());
        }
        Ok(changes)
    }
}
