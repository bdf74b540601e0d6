//! Entries that the server lost: those removed since the last look, and those that a server that went back in time no
//! longer has.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::Scripts;
use super::script::Script;
use crate::config::Deployment;
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

/// Entries per page, if they must be counted one by one; a page stays small even with the largest entries.
const PAGE: usize = 50;
/// The maximum number of entries that are counted. If more were lost, the reported number is too low.
const MOST_COUNTED: u64 = 100_000;

/// The position of the stream at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Rewinds that were reported, and streams that replaced another.
    pub rewinds: u64,
    /// Entries that were ever added.
    pub added: u64,
    /// The id of the last of them.
    pub last: EntryId,
}

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where the stream stands.
    pub position: StreamEnd,
    /// Entries that were lost since the last look of any janitor.
    pub lost: u64,
    /// The oldest unfinished entry at that last look; lost ones are not older.
    pub since: String,
    first: Option<EntryId>,
    entries: u64,
    has_seen: bool,
}

/// Entries that a server lost by going back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// How many, at least.
    pub lost: u64,
    /// The last entry before them that the server still has, if it has any.
    pub after: Option<EntryId>,
}

/// Looks for losses in one partition.
#[derive(Clone, Debug)]
pub struct Losses {
    scripts: Scripts,
    stream: String,
}

impl Losses {
    /// Over one partition of a deployment.
    pub fn new(deployment: &Deployment, keys: &Keys) -> Self {
        Self { scripts: Scripts::new(deployment, keys), stream: keys.named(&deployment.stream) }
    }

    /// Looks; `seen` is the position that this process saw last.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn look(
        &self,
        connection: &mut MultiplexedConnection,
        seen: Option<&StreamEnd>,
    ) -> Result<Look, Error> {
        const STEP: &str = "looking for lost entries";
        let mut call = self.scripts.call(Script::Losses, "");
        call.arg("look").arg(seen.map_or(EntryId { ms: 0, seq: 0 }, |seen| seen.last).to_string());
        let value =
            self.scripts.send(connection, Script::Losses, &call).await.map_err(Error::at(STEP))?;
        read_look(&value).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    /// How many of the entries that were `seen` the server no longer has because it went back in time, and after
    /// which one. The number is a lower bound; only the first caller gets it.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn rewound(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &StreamEnd,
        now: &Look,
    ) -> Result<Option<Rewind>, Error> {
        let position = &now.position;
        let is_told = position.rewinds > seen.rewinds;
        if is_told || position.rewinds == seen.rewinds && now.has_seen {
            return Ok(None);
        }
        let newer = if now.first.is_none_or(|first| first > seen.last) {
            now.entries
        } else {
            self.count(connection, seen.last, position.last).await?
        };
        let kept = position.added.saturating_sub(newer);
        let lost = seen.added.saturating_sub(kept);
        if lost == 0 || !self.claim(connection, seen.rewinds.max(position.rewinds) + 1).await? {
            return Ok(None);
        }
        let after = self.last_before(connection, seen.last).await?;
        Ok(Some(Rewind { lost, after }))
    }

    /// The last existing entry up to an id; `None` if there is none.
    async fn last_before(
        &self,
        connection: &mut MultiplexedConnection,
        id: EntryId,
    ) -> Result<Option<EntryId>, Error> {
        let mut ask = redis::cmd("XREVRANGE");
        ask.arg(&self.stream).arg(id.to_string()).arg("-").arg("COUNT").arg(1);
        let entries = self.entries(connection, &ask, "looking for the last entry").await?;
        Ok(entries.first().map(|entry| entry.id))
    }

    async fn entries(
        &self,
        connection: &mut MultiplexedConnection,
        ask: &Cmd,
        step: &'static str,
    ) -> Result<Vec<Entry>, Error> {
        let value: Value = ask.query_async(connection).await.map_err(Error::at(step))?;
        reply::entries(&value).ok_or_else(|| reply::unexpected(step, &value))
    }

    /// Entries after one id and up to another.
    async fn count(
        &self,
        connection: &mut MultiplexedConnection,
        after: EntryId,
        last: EntryId,
    ) -> Result<u64, Error> {
        let (mut after, mut count) = (after, 0);
        while after < last && count < MOST_COUNTED {
            let mut ask = redis::cmd("XRANGE");
            ask.arg(&self.stream).arg(format!("({after}")).arg(last.to_string());
            ask.arg("COUNT").arg(PAGE);
            let page = self.entries(connection, &ask, "counting entries").await?;
            count += page.len() as u64;
            let Some(entry) = page.last() else { break };
            after = entry.id;
        }
        Ok(count)
    }

    async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        number: u64,
    ) -> Result<bool, Error> {
        const STEP: &str = "telling a rewind";
        let mut call = self.scripts.call(Script::Losses, "");
        call.arg("claim").arg(number);
        let value =
            self.scripts.send(connection, Script::Losses, &call).await.map_err(Error::at(STEP))?;
        reply::integer(&value).map(|mine| mine == 1).ok_or_else(|| reply::unexpected(STEP, &value))
    }
}

fn read_look(value: &Value) -> Option<Look> {
    let [rewinds, added, last, first, entries, has_seen, lost, since] = reply::elements(value)?
    else {
        return None;
    };
    Some(Look {
        position: StreamEnd {
            rewinds: reply::number(rewinds)?,
            added: reply::number(added)?,
            last: reply::entry_id_of(last)?,
        },
        lost: reply::number(lost)?,
        since: reply::text_of(since)?,
        first: reply::entry_id_of(first),
        entries: reply::number(entries)?,
        has_seen: reply::number(has_seen)? == 1,
    })
}
