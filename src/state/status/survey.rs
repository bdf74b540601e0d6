//! A survey: a janitor's queries to the server on behalf of all, in one pipeline and a look at one entry.
//!
//! What the server does not answer, because a right or the stream is missing, is left out.

use redis::{Pipeline, RedisResult, Value};

use super::group::{Backlog, Info, Owned, entry_id, read_group};
use super::{INFO, STRUCTURES, Server, Size, read_info};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;
use crate::state::Link;

const STEP: &str = "surveying the server";

/// The result of surveying one partition's server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The server itself; `None` if this user may not ask.
    pub server: Option<Server>,
    /// Entries in the stream, including finished ones.
    pub entries: u64,
    /// How far the newest entry's id is ahead of the server's clock, in seconds.
    pub clock_ahead_s: f64,
    /// The workers' backlog, without their names; `None` if there is no group.
    pub group: Option<Backlog>,
    /// Grows while the partition's owner is alive.
    pub beat: u64,
    /// The size of each structure.
    pub sizes: Vec<Size>,
}

/// Surveys a partition's server.
///
/// # Errors
/// If no reply came.
pub async fn survey(
    connection: &mut Link,
    deployment: &Deployment,
    keys: &Keys,
) -> Result<Survey, Error> {
    let stream = keys.named(&deployment.stream);
    let time: Vec<u64> =
        redis::cmd("TIME").query_async(connection).await.map_err(Error::at(STEP))?;
    let now_ms = time.first().map_or(0, |s| s * 1000) + time.get(1).map_or(0, |us| us / 1000);
    let questions = questions(keys, &stream, now_ms);
    let answers: Vec<RedisResult<Value>> =
        questions.query_async(connection).await.map_err(Error::at(STEP))?;
    let mut answers = answers.into_iter().map(|answer| answer.unwrap_or(Value::Nil));
    let mut next = || answers.next().unwrap_or(Value::Nil);

    let server = reply::text(next()).map(|info| read_info(&info));
    let about_stream = Info::read(next()).unwrap_or_default();
    let group = read_group(next(), &deployment.group);
    let owned = Owned::read(next());
    let beat = reply::number(&next()).unwrap_or(0);
    let sizes = STRUCTURES.iter().filter_map(|structure| {
        let size = reply::number(&next())?;
        Some(Size { name: structure.name, size, cap: (structure.cap)(deployment) })
    });
    let sizes = sizes.collect();
    let newest = about_stream.id("last-generated-id");
    let entries = about_stream.number("length").unwrap_or(0);
    let group = match group {
        Some(group) => {
            let position = owned.cursor.or(group.id("last-delivered-id"));
            let next = undelivered(connection, &stream, position).await?;
            Some(Backlog::of(&group, owned, next, &about_stream, now_ms))
        }
        None => None,
    };
    let clock_ahead_s = newest.map_or(0.0, |id| id.ms.saturating_sub(now_ms) as f64 / 1000.0);
    Ok(Survey { server, entries, clock_ahead_s, group, beat, sizes })
}

/// The requests, in the order in which the replies are taken.
fn questions(keys: &Keys, stream: &str, now_ms: u64) -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    pipe.cmd("INFO").arg(INFO);
    pipe.cmd("XINFO").arg("STREAM").arg(stream);
    pipe.cmd("XINFO").arg("GROUPS").arg(stream);
    pipe.cmd("HMGET").arg(keys.meta()).arg(&["owner", "term", "cursor"]);
    pipe.cmd("HGET").arg(keys.meta()).arg("beat");
    for structure in STRUCTURES {
        pipe.cmd(structure.command).arg((structure.key)(keys, now_ms / 60_000));
    }
    pipe
}

/// The id of the first entry after a position.
async fn undelivered(
    connection: &mut Link,
    stream: &str,
    position: Option<EntryId>,
) -> Result<Option<EntryId>, Error> {
    let position = position.filter(|id| *id != EntryId::GREATEST);
    let Some(position) = position else { return Ok(None) };
    let mut range = redis::cmd("XRANGE");
    range.arg(stream).arg(format!("({position}")).arg("+").arg("COUNT").arg(1);
    let entries: Value = range.query_async(connection).await.map_err(Error::at(STEP))?;
    Ok(reply::array(entries).and_then(|entries| entries.first().and_then(entry_id)))
}
