//! Looks: many reads of one partition at one instant, beside the cursor that they belong to.

use redis::Value;
use redis::aio::ConnectionLike;

use super::script::LOOK;
use crate::entry::EntryId;
use crate::error::Error;
use crate::redis::reply;

const STEP: &str = "reading the state at one instant";
/// What stands for the reply of a read that met another type.
const WRONG: &str = "WRONGTYPE";

/// What a look saw.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The epoch; empty if there is none.
    pub epoch: String,
    /// The last entry that has had its effect; `None` if nobody knows.
    pub cursor: Option<EntryId>,
    /// The server's time, in milliseconds.
    pub now_ms: u64,
    /// The replies, in the order of the reads.
    pub replies: Vec<Value>,
}

/// Whether a reply says that the key holds another type.
pub fn is_wrong(reply: &Value) -> bool {
    matches!(reply, Value::SimpleString(word) if word == WRONG)
}

/// Makes these reads, each given as its words, at one instant.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn look(
    connection: &mut (impl ConnectionLike + Send),
    meta: &str,
    reads: &[Vec<&str>],
) -> Result<Looked, Error> {
    let mut call = LOOK.read();
    call.arg(1).arg(meta);
    for words in reads {
        call.arg(words.len()).arg(words);
    }
    let value = LOOK.send(connection, &call).await.map_err(Error::at(STEP))?;
    let unexpected = reply::unexpected(STEP, &Value::Nil);
    let parts: Option<[Value; 4]> = reply::array(value).and_then(|parts| parts.try_into().ok());
    let Some([epoch, cursor, now, replies]) = parts else { return Err(unexpected) };
    match (reply::number(&now), reply::array(replies)) {
        (Some(now_ms), Some(replies)) if replies.len() == reads.len() => Ok(Looked {
            epoch: reply::text(epoch).unwrap_or_default(),
            cursor: reply::entry_id(cursor),
            now_ms,
            replies,
        }),
        _ => Err(unexpected),
    }
}
