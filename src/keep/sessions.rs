//! Encrypts session data with the first key: data that is plain, and data under another key.
//!
//! Only data that Rollcall stored is changed: it alone has the time of its event, which the token depends on.

use redis::aio::ConnectionLike;

use crate::redis::reply;
use crate::redis::scripts::encrypt::replace;
use crate::seal::{Opened, Ring, SessionKeys, is_token};
use crate::state::{AskError, State, Walk, ask};
use crate::time::EventTime;

/// How many times data that changes meanwhile is read again.
const MOST_TRIES: u32 = 4;

/// The results for sessions' data.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Sessions that were examined.
    pub sessions: u64,
    /// Sessions that were encrypted; in a dry run, those that would be.
    pub encrypted: u64,
    /// Sessions that the first key had already encrypted.
    pub current: u64,
    /// Sessions that ended or expired meanwhile, or whose key has another type.
    pub gone: u64,
    /// Sessions whose data looks like tokens of unknown keys; they are left unchanged.
    pub unknown_key: u64,
    /// Sessions that changed repeatedly.
    pub changed: u64,
}

/// Encrypts stored data with the first key, and reports the progress after each session.
///
/// # Errors
/// If the server refuses, or no reply came. What is done stays done, and another run continues.
pub async fn encrypt(
    state: &mut State,
    keys: &SessionKeys,
    dry_run: bool,
    mut tell: impl FnMut(&Tally),
) -> Result<Tally, AskError> {
    super::check_not_moving(state).await?;
    let mut tally = Tally::default();
    for partition in &mut state.partitions {
        let (versions, base) =
            (partition.keys.session_data_versions(), partition.keys.session_data());
        let mut walk = Walk::hash(&versions, None);
        while let Some(page) = walk.fields(&mut partition.connection).await? {
            let ring = keys.get();
            for (sid, time) in page {
                tally.sessions += 1;
                // A value that is not a time was not written by Rollcall.
                if let Ok(ms) = time.parse() {
                    let (time, key) = (EventTime::from_millis(ms), format!("{base}{sid}"));
                    let session = Session { ring: &ring, sid: &sid, time, key, dry_run };
                    session.encrypt(&mut partition.connection, &mut tally).await?;
                }
                tell(&tally);
            }
        }
    }
    // What was moved meanwhile was not found.
    super::check_not_moving(state).await?;
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
                // The key is somebody else's; workers leave it alone, too.
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
