//! Dead letters, retried: each is added to the stream and removed in one atomic step.

use redis::aio::ConnectionLike;

use super::script::LETTERS;
use crate::entry::{EntryId, Field};
use crate::error::Error;
use crate::redis::reply;

/// A letter to retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// Its own id.
    pub id: EntryId,
    /// Its `entry_id`.
    pub entry: String,
    /// The fields of the entry to add.
    pub fields: Vec<Field>,
}

impl Again {
    /// Bytes sent for it.
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// Moves letters of one partition to a stream, in this order; returns how many still existed. If it is sent again
/// because no reply came, it moves those that are left.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn move_letters(
    connection: &mut (impl ConnectionLike + Send),
    (stream, dead): (&str, &str),
    letters: &[Again],
) -> Result<u64, Error> {
    const STEP: &str = "trying dead letters again";
    let mut call = LETTERS.call();
    call.arg(2).arg(stream).arg(dead);
    for Again { id, entry, fields } in letters {
        call.arg(id.to_string()).arg(entry).arg(fields.len());
        for (name, value) in fields {
            call.arg(name).arg(value);
        }
    }
    let value = LETTERS.send(connection, &call).await.map_err(Error::at(STEP))?;
    reply::number(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}
