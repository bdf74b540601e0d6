//! One command and its reply: errors that name the key, and walks over structures that may be large.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use redis::aio::ConnectionLike;
use redis::{Cmd, Value};

use super::Link;
use crate::config::Shell;
use crate::entry::Entry;
use crate::error::Error;
use crate::redis::reply;
pub(crate) use crate::redis::reply::number;

/// The maximum number of members in a page of a walk: about a millisecond of the server's time.
const PAGE: usize = 1_000;
/// Members in the first page, while their size is unknown.
const FIRST_PAGE: usize = 250;
/// The target for the bytes of a page, for the same reason.
const PAGE_BYTES: usize = 256 * 1024;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The server could not be reached, refused, or sent an unexpected reply.
    #[error(transparent)]
    Server(#[from] Error),
    /// A key has a type that Rollcall never keeps there.
    #[error("the key {} holds a {found}, where Rollcall keeps a {wanted}", key.escape_debug())]
    WrongType {
        /// The key.
        key: String,
        /// Its type, according to `TYPE`.
        found: String,
        /// The type that belongs there.
        wanted: &'static str,
    },
    /// It cannot be done here.
    #[error("{0}")]
    Refused(String),
    /// The deployment has another number of partitions.
    #[error("{key} has partitions = {stored}")]
    Partitions {
        /// The key that says so.
        key: String,
        /// How many there are.
        stored: String,
    },
    /// Another process works on the shadow.
    #[error("another verify or rebuild works on the shadow {}", key.escape_debug())]
    ShadowInUse {
        /// The beginning of its keys.
        key: String,
    },
    /// There is something else where the shadow should be.
    #[error("the key {} is not Rollcall's and is in the way of the shadow", key.escape_debug())]
    ShadowTaken {
        /// The key.
        key: String,
    },
    /// The server has no memory left for a shadow.
    #[error("more than 90 % of the server's maxmemory is used, so there is no room for a shadow")]
    NearlyFull,
    /// Session data is encrypted, and no keys were given.
    #[error("session data is encrypted")]
    NoSessionKeys,
    /// A signal came.
    #[error("it was stopped, and the shadow was removed")]
    Stopped,
    /// The partition was begun again meanwhile.
    #[error("{} was begun again meanwhile: another stream, other settings, or a server that went back", key.escape_debug())]
    BegunAgain {
        /// The key that says so.
        key: String,
    },
}

impl AskError {
    /// What to do about it, unless trying again is enough.
    pub fn remedy(&self, shell: &Shell) -> Option<String> {
        match self {
            Self::Server(error) => error.remedy(shell),
            Self::WrongType { key, .. } => Some(format!(
                "find out which program wrote it, and move it out of the way: {}",
                shell.redis_cli(&["RENAMENX", key, &format!("foreign:{key}")])
            )),
            Self::Refused(_) => None,
            Self::Partitions { stored, .. } => Some(format!("use --partitions {stored}")),
            Self::ShadowInUse { .. } => {
                Some("wait until it ends, or choose another name with --into".to_owned())
            }
            Self::ShadowTaken { .. } => Some("choose another name with --into".to_owned()),
            Self::Stopped => None,
            Self::NearlyFull => {
                Some("raise maxmemory, or run it when less memory is used".to_owned())
            }
            Self::NoSessionKeys => Some("give the keys with --session-key-file".to_owned()),
            Self::BegunAgain { .. } => Some("run it again".to_owned()),
        }
    }

    /// Whether the server's access rules forbid the command.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Server(error) if error.kind() == "permission")
    }

    /// Whether this user may not send the command, or the server does not have it.
    pub fn is_unavailable(&self) -> bool {
        self.is_forbidden() || matches!(self, Self::Server(Error::NoCommand { .. }))
    }
}

/// Sends a command, given as its words, and waits for the reply.
pub(crate) async fn ask(
    connection: &mut (impl ConnectionLike + Send),
    words: &[&str],
) -> Result<Value, AskError> {
    match command(words).query_async::<Value>(connection).await {
        Ok(value) => Ok(value),
        Err(error) if error.code() == Some("WRONGTYPE") => {
            Err(wrong_type(connection, words).await.unwrap_or_else(|| failed(error)))
        }
        Err(error) => Err(failed(error)),
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command
}

fn failed(error: redis::RedisError) -> AskError {
    Error::at("reading the state")(error).into()
}

/// The server does not say which key has the wrong type, so this asks.
async fn wrong_type(
    connection: &mut (impl ConnectionLike + Send),
    words: &[&str],
) -> Option<AskError> {
    let name = *words.first()?;
    let key = words.get(if name == "XINFO" { 2 } else { 1 })?;
    let found = redis::cmd("TYPE").arg(*key).query_async::<Value>(connection).await.ok()?;
    let wanted = match name.as_bytes().first()? {
        b'H' => "hash",
        b'S' => "set",
        b'X' => "stream",
        b'Z' => "sorted set",
        _ => "string",
    };
    let found = reply::text(found)?;
    let found = if found == "zset" { "sorted set".to_owned() } else { found };
    Some(AskError::WrongType { key: (*key).to_owned(), found, wanted })
}

/// A number with decimals.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        value => reply::integer(value).map(|n| n as f64),
    }
}

/// Members with their scores (`WITHSCORES`).
pub(super) fn scored(value: Value) -> Vec<(String, f64)> {
    let pairs = reply::pairs(value).unwrap_or_default().into_iter();
    pairs.filter_map(|(member, score)| Some((reply::text(member)?, float(&score)?))).collect()
}

/// A walk over a whole hash or set, a page at a time (`HSCAN`, `SSCAN`, `ZSCAN`).
///
/// Members that exist from beginning to end are returned once; members that come or go meanwhile may be.
pub(crate) struct Walk<'k> {
    command: &'static str,
    key: &'k str,
    pattern: Option<&'k str>,
    cursor: Option<String>,
    count: usize,
    seen: Seen,
}

impl<'k> Walk<'k> {
    /// Over the members of a set.
    pub(crate) fn set(key: &'k str) -> Self {
        Self::over("SSCAN", key, None)
    }

    /// Over the fields of a hash, or those that match the pattern.
    pub(crate) fn hash(key: &'k str, pattern: Option<&'k str>) -> Self {
        Self::over("HSCAN", key, pattern)
    }

    /// Over the members of a sorted set, or those that match the pattern; scores are returned as values.
    pub(crate) fn scores(key: &'k str, pattern: Option<&'k str>) -> Self {
        Self::over("ZSCAN", key, pattern)
    }

    fn over(command: &'static str, key: &'k str, pattern: Option<&'k str>) -> Self {
        let (cursor, seen) = (Some("0".to_owned()), Seen::default());
        Self { command, key, pattern, cursor, count: FIRST_PAGE, seen }
    }

    /// The next members; `None` at the end.
    pub(crate) async fn members(
        &mut self,
        connection: &mut Link,
    ) -> Result<Option<Vec<String>>, AskError> {
        let Some(page) = self.page(connection).await? else { return Ok(None) };
        let members = page.into_iter().filter_map(reply::text);
        Ok(Some(members.filter(|member| self.seen.is_first(member)).collect()))
    }

    /// The next fields and values; `None` at the end.
    pub(crate) async fn fields(
        &mut self,
        connection: &mut Link,
    ) -> Result<Option<Vec<(String, String)>>, AskError> {
        let Some(page) = self.page(connection).await? else { return Ok(None) };
        let pairs = reply::pairs(Value::Array(page)).unwrap_or_default();
        let pairs = pairs.into_iter().filter_map(|(n, v)| reply::text(n).zip(reply::text(v)));
        Ok(Some(pairs.filter(|(field, _)| self.seen.is_first(field)).collect()))
    }

    async fn page(&mut self, connection: &mut Link) -> Result<Option<Vec<Value>>, AskError> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let count = self.count.to_string();
        let mut words = vec![self.command, self.key, &cursor, "COUNT", &count];
        if let Some(pattern) = self.pattern {
            words.extend(["MATCH", pattern]);
        }
        let (next, page) = scanned(ask(connection, &words).await?, self.command)?;
        self.cursor = Some(next).filter(|next| *next != 0).map(|next| next.to_string());
        self.count = next_count(self.count, &page);
        Ok(Some(page))
    }
}

/// The reply of a scan: the next cursor, 0 at the end, and the members.
pub(super) fn scanned(value: Value, command: &'static str) -> Result<(u64, Vec<Value>), AskError> {
    let Value::Array(parts) = value else {
        return Err(reply::unexpected(command, &value).into());
    };
    let [next, found]: [Value; 2] =
        parts.try_into().map_err(|parts| reply::unexpected(command, &Value::Array(parts)))?;
    match (reply::text_of(&next).and_then(|next| next.parse().ok()), found) {
        (Some(next), Value::Array(found)) => Ok((next, found)),
        (_, found) => Err(reply::unexpected(command, &Value::Array(vec![next, found])).into()),
    }
}

/// How many members to request after a page of `count`; fewer if they are large.
fn next_count(count: usize, page: &[Value]) -> usize {
    let size = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    };
    let bytes: usize = page.iter().map(size).sum();
    (count * PAGE_BYTES / bytes.max(1)).clamp(1, (count * 4).min(PAGE))
}

/// The members a walk has seen, because a table that grows or shrinks meanwhile may return a member twice. Digests
/// take an eighth of the members' memory; a collision is less likely than a hardware error.
#[derive(Default)]
struct Seen {
    state: RandomState,
    digests: HashSet<u64>,
}

impl Seen {
    fn is_first(&mut self, member: &str) -> bool {
        self.digests.insert(self.state.hash_one(member))
    }
}

/// Text as a pattern that matches only itself (`MATCH`).
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// Entries of a stream (`XRANGE`, `XREVRANGE`).
pub(crate) async fn range(
    connection: &mut (impl ConnectionLike + Send),
    words: &[&str],
) -> Result<Vec<Entry>, AskError> {
    let value = ask(connection, words).await?;
    reply::entries(&value).ok_or_else(|| reply::unexpected("reading entries", &value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_shrink_where_members_are_large_and_grow_again() {
        let page = |bytes: usize| vec![Value::BulkString(vec![0; bytes]); 250];
        assert_eq!(next_count(250, &page(10)), 1_000);
        assert_eq!(next_count(250, &page(16_384)), 16);
        assert_eq!(next_count(16, &page(10)), 64);
        assert_eq!(next_count(1, &page(1 << 20)), 1);
        assert_eq!(next_count(1_000, &[]), 1_000);
    }

    #[test]
    fn a_pattern_matches_only_its_text() {
        assert_eq!(literal("a*[b]?\\^-ü\n"), "a\\*\\[b\\]\\?\\\\\\^\\-ü\n");
    }
}
