//! Session data as it is sent: plain, or as tokens under the first session key.
//!
//! Of two writes with the same time the greater data wins, and not the greater token, since tokens depend on the key.
//! If the script finds stored data with the same time as a token, it reports the session. The stored value is
//! decrypted here, and the script is told which value the token wins over. A value that changes meanwhile is compared
//! again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::error::Error;
use crate::event::Text;
use crate::key::Keys;
use crate::op::{Map, SessionMerge};
use crate::redis::reply;
use crate::seal::{Opened, Ring};
use crate::time::EventTime;

/// The script's answer if it cannot decide.
const TIED: &[u8] = b"TIED";
const STEP: &str = "reading session data";

/// The keys of one call, and the ties decided so far.
pub(super) struct Sealed {
    ring: Arc<Ring>,
    ties: HashMap<String, Tie>,
}

/// Which of two writes with the same time wins.
enum Tie {
    /// The new one, over this stored value.
    Beats(Vec<u8>),
    /// The stored one.
    Loses,
}

impl Sealed {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, ties: HashMap::new() }
    }

    /// Whether data is sent at all.
    pub(super) fn is_sent(&self, sid: &str) -> bool {
        !matches!(self.ties.get(sid), Some(Tie::Loses))
    }

    /// The token, and the stored value that it wins over; empty if none is known.
    pub(super) fn token(&self, sid: &str, time: EventTime, data: &[u8]) -> (Vec<u8>, &[u8]) {
        let beaten = match self.ties.get(sid) {
            Some(Tie::Beats(stored)) => stored.as_slice(),
            _ => b"",
        };
        (self.ring.seal(sid, time, data), beaten)
    }

    /// Reads the stored data of sessions, and decides.
    pub(super) async fn decide(
        &mut self,
        connection: &mut MultiplexedConnection,
        keys: &Keys,
        sessions: &Map<Text<'_>, SessionMerge<'_>>,
        tied: Vec<String>,
    ) -> Result<(), Error> {
        for sid in tied {
            let Some((_, data)) = sessions.get(sid.as_str()).and_then(|merge| merge.data.as_ref())
            else {
                continue;
            };
            let mut get = redis::cmd("GET");
            get.arg(format!("{}{sid}", keys.session_data()));
            let stored: Value = get.query_async(connection).await.map_err(Error::at(STEP))?;
            // It has expired meanwhile; there is nothing to win over.
            let Some(stored) = reply::bytes(stored) else { continue };
            let tie = if self.wins(data, &stored) { Tie::Beats(stored) } else { Tie::Loses };
            self.ties.insert(sid, tie);
        }
        Ok(())
    }

    fn wins(&self, data: &[u8], stored: &[u8]) -> bool {
        let (held, is_of_first): (Cow<'_, [u8]>, bool) = match self.ring.open(stored) {
            Opened::ByFirst(held) => (held.into(), true),
            Opened::ByOther(held) => (held.into(), false),
            Opened::Plain => (stored.into(), false),
        };
        // The same data under another key, or unencrypted, is encrypted now.
        *data > *held || *data == *held && !is_of_first
    }
}

/// The sessions that the script could not decide, if that is its answer.
pub(super) fn tied(value: &Value) -> Option<Vec<String>> {
    let Value::Array(values) = value else { return None };
    let (first, sids) = values.split_first()?;
    let is_tied = matches!(first, Value::BulkString(word) if word == TIED);
    is_tied.then(|| sids.iter().cloned().filter_map(reply::text).collect())
}
