//! Replaces session data by a token: atomically, and only if the data is still what was read.

use redis::aio::ConnectionLike;

use super::script::ENCRYPT;
use crate::error::Error;
use crate::redis::reply;

/// Replaces the data under `key` by a token if it is still what was read; returns whether it was.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn replace(
    connection: &mut (impl ConnectionLike + Send),
    key: &str,
    read: &[u8],
    token: &[u8],
) -> Result<bool, Error> {
    const STEP: &str = "encrypting session data";
    let mut call = ENCRYPT.call();
    call.arg(1).arg(key).arg(read).arg(token);
    let value = ENCRYPT.send(connection, &call).await.map_err(Error::at(STEP))?;
    let done = reply::number(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
    Ok(done == 1)
}
