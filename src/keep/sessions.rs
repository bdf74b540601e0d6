//! Session data, encrypted with the first key: what is plain, and what another key encrypted.
//!
//! Only data that Rollcall stored is touched: it alone has the time of its event, from which the token follows.

use redis::aio::ConnectionLike;

use crate::redis::reply;
use crate::redis::scripts::encrypt::replace;
use crate::seal::{Opened, Ring, SessionKeys, is_token};
use crate::state::{AskError, State, Walk, ask};
use crate::time::EventTime;

/// How often data that changes meanwhile is read again.
const MOST_TRIES: u32 = 4;

/// What became of sessions' data.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Those that were looked at.
    pub sessions: u64,
    /// Those that were encrypted; in a dry run, those that would be.
    pub encrypted: u64,
    /// Those that the first key has encrypted before.
    pub current: u64,
    /// Those that ended or expired meanwhile, or whose key holds another type.
    pub gone: u64,
    /// Those that look like tokens of none of the keys, and are left as they are.
    pub unknown_key: u64,
    /// Those that changed again and again.
    pub changed: u64,
}

/// Encrypts what is stored with the first key, and tells how far it is after each session.
///
/// # Errors
/// If the server refuses, or no reply came. What was done is done, and whoever begins again finds the rest.
pub async fn encrypt(
    state: &mut State,
    keys: &SessionKeys,
    dry_run: bool,
    mut tell: impl FnMut(&Tally),
) -> Result<Tally, AskError> {
    let mut tally = Tally::default();
    for partition in &mut state.partitions {
        let (versions, base) =
            (partition.keys.session_data_versions(), partition.keys.session_data());
        let mut walk = Walk::hash(&versions, None);
        while let Some(page) = walk.fields(&mut partition.connection).await? {
            let ring = keys.get();
            for (sid, time) in page {
                tally.sessions += 1;
                // What is no time was not written by Rollcall.
                if let Ok(ms) = time.parse() {
                    let (time, key) = (EventTime::from_millis(ms), format!("{base}{sid}"));
                    let session = Session { ring: &ring, sid: &sid, time, key, dry_run };
                    session.encrypt(&mut partition.connection, &mut tally).await?;
                }
                tell(&tally);
            }
        }
    }
    Ok(tally)
}

struct Session<'s> {
    ring: &'s Ring,
    sid: &'s str,
    time: EventTime,
    key: String,
    dry_run: bool,
}

impl Session<'_> {
    async fn encrypt(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        tally: &mut Tally,
    ) -> Result<(), AskError> {
        for _ in 0..MOST_TRIES {
            let stored = match ask(connection, &["GET", &self.key]).await {
                Ok(stored) => reply::bytes(stored),
                // Somebody else's: workers leave it alone, too.
                Err(AskError::WrongType { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(stored) = stored else {
                tally.gone += 1;
                return Ok(());
            };
            let data = match self.ring.open(&stored) {
                Opened::ByFirst(_) => {
                    tally.current += 1;
                    return Ok(());
                }
                Opened::ByOther(data) => data,
                Opened::Plain if is_token(&stored) => {
                    tally.unknown_key += 1;
                    return Ok(());
                }
                Opened::Plain => stored.clone(),
            };
            let token = self.ring.seal(self.sid, self.time, &data);
            if self.dry_run || replace(connection, &self.key, &stored, &token).await? {
                tally.encrypted += 1;
                return Ok(());
            }
        }
        tally.changed += 1;
        Ok(())
    }
}
