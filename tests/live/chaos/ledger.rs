//! The fate of each entry, read from the server at one instant and from the notes that blows leave.
//!
//! An entry that the cursor has passed must have had its effect exactly once, and one behind it none. An entry that
//! was removed from the stream keeps its fate: if it was passed, it has had its effect; if it was behind the cursor
//! it never has one, unless a worker was applying it, which its trace in the state shows. Nothing that strangers do
//! to the group changes any of this.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{Connection, RedisResult, Value};
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::redis::reply;
use rollcall::state::dead::DeadLetter;

use super::traced;
use crate::harness::Layout;
use crate::scene::Scene;
use crate::support::model::{Bytes, Dead};

/// The beginning of all keys of the notes.
pub const NOTES: &str = "chaos:";
/// The server's information about a stream and its groups, if they exist.
const INFO: &str = "if redis.call('EXISTS', KEYS[1]) == 0 then return {{}, {}} end \
                    return {redis.call('XINFO', 'STREAM', KEYS[1]), redis.call('XINFO', 'GROUPS', KEYS[1])}";

/// The keys of one partition's notes, which lie where the partition does.
pub fn notes<const N: usize>(partition: u16, names: [&str; N]) -> [String; N] {
    names.map(|name| format!("{NOTES}{name}:{{p{partition}}}"))
}

/// Carries out one of the blows of `ledger.lua`; returns how many entries it affected. `None` while there is no group
/// for it.
pub fn blow(scene: &Scene, partition: u16, what: &str, argument: u64) -> Option<u64> {
    let deployment = &scene.deployment;
    let keys = deployment.keys(partition);
    let mut call = redis::cmd("EVAL");
    call.arg(include_str!("ledger.lua")).arg(6).arg(deployment.stream(partition));
    call.arg(&notes(partition, ["gone", "kept", "base"])).arg(keys.meta()).arg(keys.janitor());
    call.arg(&deployment.config.deployment.group).arg(what).arg(argument);
    let count: i64 = call.query(&mut scene.connection()).unwrap();
    u64::try_from(count).ok()
}

/// The position of an entry relative to the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The cursor has yet to pass it.
    Behind,
    /// The cursor has passed it.
    Passed,
}

/// One entry, there or gone.
pub struct Account {
    pub entry: Entry,
    /// Its fate, now or when it was removed from the stream.
    pub fate: Fate,
    pub is_gone: bool,
    /// Whether the state shows that it was applied; `None` if it changes nothing there.
    pub applied: Option<bool>,
    /// Dead letters of it.
    pub letters: Vec<Dead>,
}

impl Account {
    /// Whether it had its effect, on the state or as a dead letter.
    pub fn has_effect(&self) -> bool {
        self.applied.unwrap_or(!self.letters.is_empty())
    }

    /// Whether it was written off because workers died on it.
    pub fn is_written_off(&self) -> bool {
        self.letters.iter().any(|letter| letter.1 == "poison")
    }
}

/// The server's information about the group.
pub struct Group {
    pub at: EntryId,
    pub pending: u64,
    pub lag: Option<u64>,
}

/// All entries of one partition that ever existed since the server last started empty.
pub struct Ledger {
    pub accounts: BTreeMap<EntryId, Account>,
    pub cursor: EntryId,
    pub group: Option<Group>,
    /// The newest existing entry.
    pub last: EntryId,
    /// Entries ever added.
    pub added: i64,
    /// Entries that Rollcall counts as passed.
    pub settled: i64,
    /// Dead letters of entries that are not known.
    pub strangers: Vec<Dead>,
    /// The names of keys that were removed.
    pub taken: BTreeSet<String>,
}

type Reply = (
    (Value, Vec<Value>),
    Option<String>,
    (Option<String>, Option<i64>),
    Value,
    Vec<Bytes>,
    Vec<Bytes>,
    HashMap<String, Bytes>,
    HashMap<String, Bytes>,
    Option<i64>,
    (Value, BTreeSet<String>, Vec<Bytes>, Value),
);

impl Ledger {
    /// Reads everything at one instant.
    ///
    /// # Errors
    /// What the server answers while it is in trouble.
    pub fn read(layout: &Layout, conn: &mut Connection, partition: u16) -> RedisResult<Self> {
        let (stream, keys) = (layout.stream(partition), layout.keys(partition));
        let [gone, kept, base] = notes(partition, ["gone", "kept", "base"]);
        let [taken, traces, letters] = notes(partition, ["taken", "traces", "letters"]);
        let mut all = redis::pipe();
        all.atomic();
        all.cmd("EVAL").arg(INFO).arg(1).arg(&stream);
        all.cmd("HGET").arg(keys.meta()).arg("cursor");
        all.cmd("HMGET").arg(keys.janitor()).arg(&["cursor", "settled"]);
        all.cmd("XRANGE").arg(&stream).arg("-").arg("+");
        all.cmd("ZRANGE").arg(keys.docs_joined()).arg(0).arg(-1);
        all.cmd("HKEYS").arg(keys.presence());
        all.cmd("HGETALL").arg(gone);
        all.cmd("HGETALL").arg(kept);
        all.cmd("GET").arg(base);
        all.cmd("XRANGE").arg(keys.dead()).arg("-").arg("+");
        all.cmd("SMEMBERS").arg(taken);
        all.cmd("SMEMBERS").arg(traces);
        all.cmd("XRANGE").arg(letters).arg("-").arg("+");
        let mut values: Vec<Value> = all.query(conn)?;
        // One tuple has no room for all of them.
        let rest = values.split_off(9);
        values.push(Value::Array(rest));
        let reply: Reply = redis::from_redis_value(Value::Array(values))?;
        Ok(Self::of(reply, &layout.config.deployment.group))
    }

    fn of(reply: Reply, group: &str) -> Self {
        let ((stream, groups), cursor, copy, entries, joined, present, gone, kept, base, rest) =
            reply;
        let (dead, taken, seen, taken_dead) = rest;
        let cursor = cursor.or(copy.0).map_or(EntryId { ms: 0, seq: 0 }, |id| id.parse().unwrap());
        let mut traces = traced::in_state(&joined, &present);
        // Recorded as in either; a name is recognised by its beginning.
        traces.extend(traced::in_state(&seen, &seen));
        let mut letters = letters([dead, taken_dead]);
        let mut accounts = BTreeMap::new();
        let mut add = |entry: Entry, fate, is_gone| {
            let id = entry.id;
            let applied = traced::of_entry(&entry).map(|trace| traces.contains(&trace));
            let letters = letters.remove(&id).unwrap_or_default();
            accounts.insert(id, Account { entry, fate, is_gone, applied, letters });
        };
        let entries = reply::entries(&entries).unwrap();
        let last = entries.last().map_or(cursor, |entry| entry.id);
        let there: BTreeMap<EntryId, ()> = entries.iter().map(|entry| (entry.id, ())).collect();
        for entry in entries {
            let fate = if entry.id > cursor { Fate::Behind } else { Fate::Passed };
            add(entry, fate, false);
        }
        // The cursor has passed what Rollcall itself trims.
        let trimmed = kept
            .iter()
            .filter(|(id, _)| !gone.contains_key(*id) && !there.contains_key(&id.parse().unwrap()));
        for (id, note) in trimmed {
            add(Entry::new(id.parse().unwrap(), note_of(note).1), Fate::Passed, true);
        }
        for (id, note) in &gone {
            let (fate, fields) = note_of(note);
            add(Entry::new(id.parse().unwrap(), fields), fate, true);
        }
        Self {
            accounts,
            cursor,
            group: groups.into_iter().map(members).find_map(|info| Group::of(&info, group)),
            last,
            added: number(&members(stream), "entries-added").unwrap_or(0) as i64
                + base.unwrap_or(0),
            settled: copy.1.unwrap_or(0),
            strangers: letters.into_values().flatten().collect(),
            taken,
        }
    }

    /// Whether the cursor belongs to the current stream, as far as its beginning shows.
    pub fn is_of_one_stream(&self) -> bool {
        let there = self.accounts.values().find(|account| !account.is_gone);
        there.is_none_or(|first| first.fate == Fate::Behind || first.has_effect())
    }

    /// Entries behind the cursor.
    pub fn behind(&self) -> u64 {
        let is_behind = |account: &&Account| !account.is_gone && account.fate == Fate::Behind;
        self.accounts.values().filter(is_behind).count() as u64
    }
}

impl Group {
    fn of(info: &HashMap<String, Value>, name: &str) -> Option<Self> {
        let text = |name: &str| info.get(name).cloned().and_then(reply::text);
        (text("name")? == name).then(|| Self {
            at: text("last-delivered-id").unwrap().parse().unwrap(),
            pending: number(info, "pending").unwrap(),
            lag: number(info, "lag"),
        })
    }
}

fn members(info: Value) -> HashMap<String, Value> {
    let pairs = reply::pairs(info).unwrap_or_default().into_iter();
    pairs.map(|(name, value)| (reply::text(name).unwrap(), value)).collect()
}

fn number(info: &HashMap<String, Value>, name: &str) -> Option<u64> {
    info.get(name).and_then(reply::number)
}

/// A note of `ledger.lua`: `fate ` and then each name and value, preceded by its length.
fn note_of(note: &[u8]) -> (Fate, Vec<Field>) {
    let space = note.iter().position(|byte| *byte == b' ').unwrap();
    let fate = match &note[..space] {
        b"behind" => Fate::Behind,
        b"passed" => Fate::Passed,
        other => panic!("no fate: {other:?}"),
    };
    let mut rest = &note[space + 1..];
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let colon = rest.iter().position(|byte| *byte == b':').unwrap();
        let length: usize = std::str::from_utf8(&rest[..colon]).unwrap().parse().unwrap();
        let text = &rest[colon + 1..];
        texts.push(text[..length].to_vec());
        rest = &text[length..];
    }
    let pairs = texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    (fate, pairs.collect())
}

/// Dead letters by entry.
fn letters(dead: [Value; 2]) -> BTreeMap<EntryId, Vec<Dead>> {
    let mut letters: BTreeMap<EntryId, Vec<Dead>> = BTreeMap::new();
    for letter in dead.into_iter().flat_map(|dead| reply::entries(&dead).unwrap()) {
        let [id, reason, _, _, index, _] = DeadLetter::read(&letter).unwrap().header;
        let id = id.parse().unwrap();
        letters.entry(id).or_default().push((id, reason, index.parse().ok()));
    }
    letters
}
