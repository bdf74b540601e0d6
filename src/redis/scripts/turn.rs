//! Turns: keys with a TTL by which janitors agree who does what for a while.
//!
//! The server keeps the end of a TTL by its clock. If the clock goes back, or a failover leads to a server whose
//! clock is behind, a turn would last that much longer. Each turn therefore records its length, and none lasts longer
//! than that.

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::error::Error;
use crate::redis::reply;

const STEP: &str = "asking whose turn it is";

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The caller's, from now on.
    Now {
        /// Whether the previous turn had to be ended: by its TTL it would have lasted longer than its length.
        overran: bool,
    },
    /// The caller's, for a while already.
    Mine,
    /// Another janitor's.
    Others,
}

impl Turn {
    /// Takes the turn of `key` for `length_ms`, if nobody has it.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn take(
        connection: &mut MultiplexedConnection,
        key: &str,
        owner: &str,
        length_ms: u64,
    ) -> Result<Self, Error> {
        let value = format!("{length_ms} {owner}");
        let mut ask = redis::pipe();
        ask.cmd("SET").arg(key).arg(&value).arg("NX").arg("GET").arg("PX").arg(length_ms);
        ask.cmd("PTTL").arg(key);
        let (holder, left_ms): (Value, i64) =
            ask.query_async(connection).await.map_err(Error::at(STEP))?;
        let Some(holder) = reply::text(holder) else { return Ok(Self::Now { overran: false }) };
        let is_own = self::owner(&holder) == owner;
        let overran = overruns(&holder, left_ms, length_ms);
        // Its own turn, from before its interval was shortened.
        let is_long = is_own && left_ms > 0 && left_ms.unsigned_abs() > length_ms;
        if !overran && !is_long {
            return Ok(if is_own { Self::Mine } else { Self::Others });
        }
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&value).arg("PX").arg(length_ms);
        let () = set.query_async(connection).await.map_err(Error::at(STEP))?;
        Ok(Self::Now { overran })
    }
}

/// The owner of a turn, from the value of its key.
pub fn owner(holder: &str) -> &str {
    parts(holder).map_or(holder, |(_, owner)| owner)
}

fn parts(holder: &str) -> Option<(u64, &str)> {
    let (length_ms, owner) = holder.split_once(' ')?;
    Some((length_ms.parse().ok()?, owner))
}

/// Whether a turn has more time left than its length, or no end at all.
fn overruns(holder: &str, left_ms: i64, own_ms: u64) -> bool {
    const NO_EXPIRY: i64 = -1;
    // A turn without a length is another version's.
    let length_ms = parts(holder).map_or(own_ms, |(length_ms, _)| length_ms);
    left_ms == NO_EXPIRY || u64::try_from(left_ms).is_ok_and(|left_ms| left_ms > length_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_with_longer_to_go_than_it_is_long_is_none() {
        let holder = "700 host-12-a b";
        assert_eq!(owner(holder), "host-12-a b");
        assert!(!overruns(holder, 700, 100) && !overruns(holder, 0, 100));
        assert!(overruns(holder, 701, 1_000), "the clock went back");
        assert!(overruns(holder, -1, 1_000), "others took its expiry off");
        assert!(!overruns(holder, -2, 1_000), "it has just ended");
        assert_eq!(owner("host-12"), "host-12");
        assert!(overruns("host-12", 701, 700) && !overruns("host-12", 700, 700));
    }
}
