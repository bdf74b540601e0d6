//! Looks: several reads of one partition at one instant, with the cursor that they belong to.

use redis::Value;
use redis::aio::ConnectionLike;

use super::script::LOOK;
use crate::entry::EntryId;
use crate::error::Error;
use crate::redis::reply;

const STEP: &str = "reading the state at one instant";
/// Stands for the reply of a read that found another type.
const WRONG: &str = "WRONGTYPE";

/// The result of a look.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The epoch; empty if there is none.
    pub epoch: String,
    /// The last entry that has had its effect; `None` if unknown.
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
    call.arg(1).arg(meta).arg(1).arg("TIME");
    for words in reads {
        call.arg(words.len()).arg(words);
    }
    let value = LOOK.send(connection, &call).await.map_err(Error::at(STEP))?;
    let Value::Array(parts) = value else { return Err(reply::unexpected(STEP, &value)) };
    let [epoch, cursor, replies]: [Value; 3] =
        parts.try_into().map_err(|parts| reply::unexpected(STEP, &Value::Array(parts)))?;
    let Value::Array(mut replies) = replies else {
        return Err(reply::unexpected(STEP, &replies));
    };
    let now_ms =
        replies.first().and_then(milliseconds).filter(|_| replies.len() == reads.len() + 1);
    let Some(now_ms) = now_ms else {
        return Err(reply::unexpected(STEP, &Value::Array(replies)));
    };
    Ok(Looked {
        epoch: reply::text(epoch).unwrap_or_default(),
        cursor: reply::entry_id(cursor),
        now_ms,
        replies: replies.split_off(1),
    })
}

/// From the reply to `TIME`.
fn milliseconds(time: &Value) -> Option<u64> {
    let [seconds, micros] = reply::elements(time)? else { return None };
    Some(reply::number(seconds)? * 1000 + reply::number(micros)? / 1000)
}
