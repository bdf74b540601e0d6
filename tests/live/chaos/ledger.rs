//! What became of each entry: read from the server at one instant, and from the notes that blows leave.
//!
//! An entry that stays in the stream and is delivered by a group that stays must have its effect exactly
//! once. Blows against stream and group break that premise; `ledger.lua` notes, in the same call, what
//! follows: an entry trimmed after it was acknowledged keeps its effect; one that was undelivered never has
//! any; one that was in a worker's hands may have either, and its trace in the state tells which. A consumer
//! deleted loses its pending entries for ever; a group destroyed gives again what its janitor had not seen
//! finished.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::{RedisResult, Value};
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::redis::reply;
use rollcall::state::dead::DeadLetter;

use super::traced;
use crate::scene::Scene;
use crate::support::model::{Bytes, Dead};

/// What all keys of the notes begin with.
pub const NOTES: &str = "chaos:";

/// The keys of one partition's notes.
pub fn notes<const N: usize>(partition: u16, names: [&str; N]) -> [String; N] {
    names.map(|name| format!("{NOTES}{name}:{partition}"))
}

/// Does one of the blows of `ledger.lua`; how many entries it concerned. `None` while there is no group.
pub fn blow(scene: &Scene, partition: u16, what: &str, argument: u64) -> Option<u64> {
    let deployment = &scene.deployment;
    let [gone, again, dropped] = notes(partition, ["gone", "again", "dropped"]);
    let mut call = redis::cmd("EVAL");
    call.arg(include_str!("ledger.lua")).arg(5).arg(deployment.stream(partition));
    call.arg(gone).arg(again).arg(dropped).arg(deployment.keys(partition).janitor());
    call.arg(&deployment.config.deployment.group).arg(what).arg(argument);
    let count: i64 = call.query(&mut scene.connection()).unwrap();
    u64::try_from(count).ok()
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Undelivered,
    Pending,
    Dropped,
    Acknowledged,
}

/// One entry, there or gone.
pub struct Account {
    pub entry: Entry,
    /// Where it stands, or stood when it was taken from the stream.
    pub fate: Fate,
    pub is_gone: bool,
    /// How often it had been acknowledged in groups that were destroyed; `None` if it was in none.
    pub before: Option<u32>,
    /// Whether the state shows that it was applied; `None` if it is one that changes nothing there.
    pub applied: Option<bool>,
    /// Dead letters of it.
    pub letters: Vec<Dead>,
}

/// All entries of one partition that were ever there since the server last began with nothing.
pub struct Ledger {
    pub accounts: BTreeMap<EntryId, Account>,
    /// What is pending, gone or not.
    pub pending: BTreeSet<EntryId>,
    /// Dead letters of entries that are nowhere.
    pub strangers: Vec<Dead>,
    /// The names of keys that were taken away.
    pub taken: BTreeSet<String>,
}

type Reply = (
    Vec<HashMap<String, Value>>,
    Vec<(String, String, u64, u64)>,
    Value,
    Vec<Bytes>,
    Vec<Bytes>,
    HashMap<String, u32>,
    BTreeSet<String>,
    HashMap<String, Bytes>,
    Value,
    (BTreeSet<String>, Vec<Bytes>, Value),
);

impl Ledger {
    /// Reads everything at one instant.
    ///
    /// # Errors
    /// What the server answers while there is no group.
    pub fn read(scene: &Scene, partition: u16) -> RedisResult<Self> {
        let deployment = &scene.deployment;
        let (stream, keys) = (deployment.stream(partition), deployment.keys(partition));
        let group = &deployment.config.deployment.group;
        let [gone, again, dropped] = notes(partition, ["gone", "again", "dropped"]);
        let [taken, traces, letters] = notes(partition, ["taken", "traces", "letters"]);
        let mut all = redis::pipe();
        all.atomic();
        all.cmd("XINFO").arg("GROUPS").arg(&stream);
        all.cmd("XPENDING").arg(&stream).arg(group).arg("-").arg("+").arg(1_000_000);
        all.cmd("XRANGE").arg(&stream).arg("-").arg("+");
        all.cmd("ZRANGE").arg(keys.docs_joined()).arg(0).arg(-1);
        all.cmd("HKEYS").arg(keys.presence());
        all.cmd("HGETALL").arg(again);
        all.cmd("SMEMBERS").arg(dropped);
        all.cmd("HGETALL").arg(gone);
        all.cmd("XRANGE").arg(keys.dead()).arg("-").arg("+");
        all.cmd("SMEMBERS").arg(taken);
        all.cmd("SMEMBERS").arg(traces);
        all.cmd("XRANGE").arg(letters).arg("-").arg("+");
        let mut values: Vec<Value> = all.query(&mut scene.connection())?;
        // One tuple has no room for all of them.
        let rest = values.split_off(9);
        values.push(Value::Array(rest));
        Ok(Self::of(redis::from_redis_value(Value::Array(values))?, group))
    }

    fn of(reply: Reply, group: &str) -> Self {
        let (groups, pending, entries, joined, present, again, dropped, gone, dead, rest) = reply;
        let (taken, seen, taken_dead) = rest;
        let text =
            |info: &HashMap<String, Value>, name: &str| reply::text(info[name].clone()).unwrap();
        let info = groups.iter().find(|info| text(info, "name") == group).unwrap();
        let last: EntryId = text(info, "last-delivered-id").parse().unwrap();
        let pending: BTreeSet<EntryId> = pending.iter().map(|row| row.0.parse().unwrap()).collect();
        let mut traces = traced::in_state(&joined, &present);
        // Noted as it stood in either: a name is known by its beginning.
        traces.extend(traced::in_state(&seen, &seen));
        let mut letters = letters([dead, taken_dead]);
        let mut account = |entry: Entry, fate, before, is_gone| {
            let id = entry.id;
            let applied = traced::of_entry(&entry).map(|trace| traces.contains(&trace));
            let letters = letters.remove(&id).unwrap_or_default();
            (id, Account { entry, fate, is_gone, before, applied, letters })
        };
        let mut accounts = BTreeMap::new();
        for entry in reply::entries(entries).unwrap() {
            let id = entry.id;
            let fate = match () {
                () if id > last => Fate::Undelivered,
                () if pending.contains(&id) => Fate::Pending,
                () if dropped.contains(&id.to_string()) => Fate::Dropped,
                () => Fate::Acknowledged,
            };
            accounts.extend([account(entry, fate, again.get(&id.to_string()).copied(), false)]);
        }
        for (id, note) in &gone {
            let (fate, before, fields) = note_of(note);
            let entry = Entry::new(id.parse().unwrap(), fields);
            accounts.extend([account(entry, fate, before, true)]);
        }
        let strangers = letters.into_values().flatten().collect();
        Self { accounts, pending, strangers, taken }
    }
}

/// What `ledger.lua` wrote down: `fate before ` and then each name and value with its length in front.
fn note_of(note: &[u8]) -> (Fate, Option<u32>, Vec<Field>) {
    let mut words = note.splitn(3, |byte| *byte == b' ');
    let mut word = || words.next().unwrap();
    let fate = match word() {
        b"undelivered" => Fate::Undelivered,
        b"pending" => Fate::Pending,
        b"dropped" => Fate::Dropped,
        b"acknowledged" => Fate::Acknowledged,
        other => panic!("no fate: {other:?}"),
    };
    let before = number(word());
    let mut rest = word();
    let mut texts = Vec::new();
    while !rest.is_empty() {
        let colon = rest.iter().position(|byte| *byte == b':').unwrap();
        let (length, text) = (number(&rest[..colon]).unwrap() as usize, &rest[colon + 1..]);
        texts.push(text[..length].to_vec());
        rest = &text[length..];
    }
    let pairs = texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    (fate, before, pairs.collect())
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).unwrap().parse().ok()
}

/// Dead letters by entry.
fn letters(dead: [Value; 2]) -> BTreeMap<EntryId, Vec<Dead>> {
    let mut letters: BTreeMap<EntryId, Vec<Dead>> = BTreeMap::new();
    let all = dead.into_iter().flat_map(|dead| reply::entries(dead).unwrap());
    for letter in all {
        let [id, reason, _, _, index, _] = DeadLetter::read(&letter).unwrap().header;
        let id = id.parse().unwrap();
        letters.entry(id).or_default().push((id, reason, index.parse().ok()));
    }
    letters
}
