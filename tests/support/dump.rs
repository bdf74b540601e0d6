//! The content of a real server in the form of the reference model: state, changes, dead letters.
//!
//! Reads everything under one partition's names, whatever wrote it, because an unexpected key is a difference too. It
//! is plain and synchronous, for servers that nobody writes to meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports)]

use std::collections::BTreeMap;

use redis::{Cmd, Connection, FromRedisValue};
use rollcall::entry::{EntryId, Field};
use rollcall::key::Keys;

use super::model::{Bytes, Dead, State, score_text};
pub use super::model::{Change, Value, check_changes, check_changes_but, check_transitions, diff};

/// A complete dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub entry: EntryId,
    pub reason: String,
    pub detail: String,
    pub deliveries: u64,
    /// Index of a packed element; `None` for a whole entry.
    pub index: Option<usize>,
    pub stream: String,
    /// The pairs after the first six.
    pub original: Vec<Field>,
}

impl DeadLetter {
    /// The part of it that the model knows.
    pub fn dead(&self) -> Dead {
        (self.entry, self.reason.clone(), self.index)
    }
}

/// A connection to the server at `url`.
pub fn connect(url: &str) -> Connection {
    let connection = redis::Client::open(url).unwrap().get_connection();
    let dead = || rollcall::private_server::ended_of_this_thread().join("\n");
    connection.unwrap_or_else(|error| panic!("{url}: {error}\n{}", dead()))
}

/// The server's clock, epoch milliseconds.
pub fn server_now(conn: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = ask(conn, &["TIME"]);
    seconds * 1000 + micros / 1000
}

/// How often the server ran a command since it started.
pub fn calls(conn: &mut Connection, command: &str) -> u64 {
    let stats: String = ask(conn, &["INFO", "commandstats"]);
    let name = format!("cmdstat_{command}:calls=");
    let calls = stats.lines().find_map(|line| line.strip_prefix(&name)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Everything under the partition's names, except what is not a function of the entries.
pub fn dump(conn: &mut Connection, keys: &Keys) -> State {
    let others = [
        keys.meta(),
        keys.janitor(),
        keys.janitor_lease(),
        keys.janitor_survey(),
        keys.workers(),
        keys.notifier(),
        keys.changes(),
        keys.changes_seq(),
        keys.changes_erased(),
        keys.blocked(),
        keys.dead(),
        keys.named("rollcall:events"),
    ];
    let mut found: Vec<(Bytes, String, Vec<Bytes>, i64)> =
        ask(conn, &[b"EVAL", DUMP.as_bytes(), b"0", keys.base().as_bytes()]);
    found.retain(|(name, ..)| others.iter().all(|other| other.as_bytes() != name.as_slice()));
    let content =
        |(name, kind, words, expiry)| (name, (value(kind, words), u64::try_from(expiry).ok()));
    found.into_iter().map(content).collect()
}

/// All keys with this prefix at one instant: name, type, content, expiry. The prefix is compared here, because a
/// pattern would interpret `[` and `*`.
const DUMP: &str = r"
local read = {
  string = function(name) return { redis.call('GET', name) } end,
  hash = function(name) return redis.call('HGETALL', name) end,
  set = function(name) return redis.call('SMEMBERS', name) end,
  zset = function(name) return redis.call('ZRANGE', name, 0, -1, 'WITHSCORES') end,
}
local found = {}
for _, name in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', name).ok
  if string.sub(name, 1, #ARGV[1]) == ARGV[1] then
    local words = read[kind] and read[kind](name) or {}
    found[#found + 1] = { name, kind, words, redis.call('PEXPIRETIME', name) }
  end
end
return found";

fn value(kind: String, words: Vec<Bytes>) -> Value {
    let pairs = || words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    let score = |text: Bytes| score_text(String::from_utf8(text).unwrap().parse().unwrap());
    match kind.as_str() {
        "string" => Value::Str(words.concat()),
        "hash" => Value::Hash(pairs().collect()),
        "set" => Value::Set(words.into_iter().collect()),
        "zset" => Value::Zset(pairs().map(|(member, text)| (member, score(text))).collect()),
        _ => Value::Other(kind),
    }
}

/// All existing changes, in order.
pub fn changes(conn: &mut Connection, keys: &Keys) -> Vec<Change> {
    let named = |(name, value)| (String::from_utf8(name).unwrap(), value);
    let change = |(_, fields): (_, Vec<Field>)| fields.into_iter().map(named).collect();
    stream(conn, &keys.changes()).into_iter().map(change).collect()
}

/// All dead letters, in the model's order.
pub fn dead_letters(conn: &mut Connection, keys: &Keys) -> Vec<DeadLetter> {
    let entries = stream(conn, &keys.dead()).into_iter();
    let mut letters: Vec<_> = entries.map(|(_, fields)| dead_letter(fields)).collect();
    letters.sort_by_key(DeadLetter::dead);
    letters
}

/// Dead letters in the model's form.
pub fn dead(letters: &[DeadLetter]) -> Vec<Dead> {
    letters.iter().map(DeadLetter::dead).collect()
}

fn dead_letter(mut fields: Vec<Field>) -> DeadLetter {
    const FIRST: [&str; 6] = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];
    assert!(fields.len() >= FIRST.len(), "a dead letter begins with {FIRST:?}: {fields:?}");
    let original = fields.split_off(FIRST.len());
    let mut first = fields.into_iter().zip(FIRST);
    let mut next = || {
        let ((name, value), expected) = first.next().unwrap();
        assert_eq!(String::from_utf8_lossy(&name), expected, "a dead letter begins with {FIRST:?}");
        String::from_utf8(value).unwrap()
    };
    DeadLetter {
        entry: next().parse().unwrap(),
        reason: next(),
        detail: next(),
        deliveries: next().parse().unwrap(),
        index: Some(next()).filter(|index| !index.is_empty()).map(|index| index.parse().unwrap()),
        stream: next(),
        original,
    }
}

/// A whole stream; fields keep their order and duplicates.
fn stream(conn: &mut Connection, name: &str) -> Vec<(EntryId, Vec<Field>)> {
    let entries: Vec<(String, Vec<Bytes>)> = ask(conn, &["XRANGE", name, "-", "+"]);
    let fields = |flat: Vec<Bytes>| {
        flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    };
    entries.into_iter().map(|(id, flat)| (id.parse().unwrap(), fields(flat))).collect()
}

/// The reply to a command, which must not be an error.
fn ask<T: FromRedisValue>(conn: &mut Connection, words: &[impl AsRef<[u8]>]) -> T {
    let mut command = Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    let name = String::from_utf8_lossy(words[0].as_ref());
    command.query(conn).unwrap_or_else(|error| panic!("{name}: {error}"))
}
