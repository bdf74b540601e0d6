//! Reads dead letters.

mod written;

use std::cmp::Ordering;

pub use self::written::{Bytes, Header, Pair, Whole};
use super::ask::{AskError, ask, number, range};
use super::{Listed, Partition, State};
use crate::decode::Rules;
use crate::decode::retry::Original;
use crate::entry::{Entry, EntryId, Field, PlacedId};
use crate::event::RETRY_OF;
use crate::state::Link;

/// Dead letters per page; each may contain a mebibyte of data.
const PAGE: usize = 32;

/// The pairs before the original ones, in order.
pub const HEADER: [&str; 6] = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];

/// A dead letter as it is in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition that it is in, where there are several.
    pub partition: Option<u16>,
    /// Its own id.
    pub id: EntryId,
    /// The values of [`HEADER`], in order.
    pub header: [String; 6],
    /// The original pairs.
    pub fields: Vec<Field>,
}

/// Which dead letters: those that match all the conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Written for this reason.
    pub reason: Option<String>,
    /// With an event of this type, or one that claims it.
    pub kind: Option<String>,
    /// Of the entry with this id.
    pub entry: Option<EntryId>,
    /// Written at this time or later, epoch milliseconds.
    pub since_ms: Option<u64>,
    /// Written before this time, epoch milliseconds.
    pub until_ms: Option<u64>,
}

impl Filter {
    /// Whether it admits entries that Rollcall did not write, of which only the time is known.
    pub fn admits_strangers(&self) -> bool {
        self.reason.is_none() && self.kind.is_none() && self.entry.is_none()
    }

    /// Whether it admits a letter that was written in its time.
    pub fn admits(&self, letter: &DeadLetter, rules: &Rules, partition: u16) -> bool {
        let is_of = |kind: &String| {
            let original = letter.original();
            original.is_some_and(|original| original.types(rules, partition).contains(kind))
        };
        self.entry.is_none_or(|entry| letter.header[0].parse() == Ok(entry))
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.header[1])
            && self.kind.as_ref().is_none_or(is_of)
    }

    /// The ids between which letters of its time are, as `XRANGE` takes them; `None` if there can be none.
    pub fn range(&self) -> Option<(String, String)> {
        let start = self.since_ms.map_or("-".to_owned(), |ms| ms.to_string());
        let end = match self.until_ms {
            None => "+".to_owned(),
            Some(ms) => ms.checked_sub(1)?.to_string(),
        };
        Some((start, end))
    }
}

impl DeadLetter {
    /// The original entry; `None` if the letter names none.
    pub fn original(&self) -> Option<Original<'_>> {
        let index = &self.header[4];
        let index = if index.is_empty() { None } else { Some(index.parse().ok()?) };
        Some(Original { entry: self.header[0].parse().ok()?, index, fields: &self.fields })
    }

    /// The first entry, and the index in it, if this letter is of a retry.
    pub fn retry_of(&self) -> Option<String> {
        let field = self.fields.iter().rfind(|(name, _)| name == RETRY_OF.as_bytes());
        field.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    }

    /// The same without the original pairs, except for the name of the first entry.
    pub fn without_pairs(mut self) -> Self {
        self.fields.retain(|(name, _)| name == RETRY_OF.as_bytes());
        self
    }

    /// Reads an entry of the stream of dead letters; `None` if it is not a letter.
    pub fn read(entry: &Entry) -> Option<Self> {
        let mut fields = entry.fields();
        let mut header: [String; 6] = Default::default();
        for (name, text) in HEADER.iter().zip(&mut header) {
            let (_, value) = fields.next().filter(|field| field.0 == name.as_bytes())?;
            *text = String::from_utf8_lossy(value).into_owned();
        }
        let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Some(Self { partition: None, id: entry.id, header, fields })
    }
}

fn newest_first(a: &DeadLetter, b: &DeadLetter) -> Ordering {
    b.id.cmp(&a.id)
}

/// The number of all dead letters, and the newest `limit` that the filter admits. Of the original pairs only the name
/// of the first entry is kept; [`show`] returns them.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn list(
    state: &mut State,
    filter: &Filter,
    limit: usize,
) -> Result<Listed<DeadLetter>, AskError> {
    let (rules, is_one_of) = (state.deployment.rules(), state.partitions.len() > 1);
    let mut parts = Vec::new();
    for partition in &mut state.partitions {
        let mut part = list_of(partition, filter, &rules, limit).await?;
        let index = is_one_of.then_some(partition.index);
        part.items.iter_mut().for_each(|letter| letter.partition = index);
        parts.push(part);
    }
    Ok(Listed::merged(parts, limit, newest_first))
}

async fn list_of(
    partition: &mut Partition,
    filter: &Filter,
    rules: &Rules,
    limit: usize,
) -> Result<Listed<DeadLetter>, AskError> {
    let Partition { index, keys, connection } = partition;
    let key = keys.dead();
    let count = number(&ask(connection, &["XLEN", &key]).await?).unwrap_or(0);
    let mut items: Vec<DeadLetter> = Vec::new();
    let Some((start, end)) = filter.range() else { return Ok(Listed { count, items }) };
    let mut pages = Pages::new(&key, &start, &end);
    while items.len() < limit
        && let Some(page) = pages.next(connection).await?
    {
        let letters = page.iter().filter_map(DeadLetter::read);
        let letters = letters.filter(|letter| filter.admits(letter, rules, *index));
        items.extend(letters.map(DeadLetter::without_pairs));
    }
    items.truncate(limit);
    Ok(Listed { count, items })
}

/// The maximum number of letters that are examined for a page of a list, and of their bytes.
const MOST_LOOKED_AT: usize = 10_000;
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A page of the dead letters of all partitions, one after the other, the newest of each first; and the partition and
/// id where the next page begins, if there may be one. A page ends early if much had to be examined.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn page(
    state: &mut State,
    filter: &Filter,
    after: Option<(u16, EntryId)>,
    limit: usize,
) -> Result<(Vec<DeadLetter>, Option<(u16, EntryId)>), AskError> {
    let (rules, is_one_of) = (state.deployment.rules(), state.partitions.len() > 1);
    let mut found = Vec::new();
    let Some((start, end)) = filter.range() else { return Ok((found, None)) };
    let (first, mut before) = after.map_or((0, None), |(partition, id)| (partition, Some(id)));
    let (mut seen, mut bytes) = (0, 0);
    for partition in state.partitions.iter_mut().skip(usize::from(first)) {
        let key = partition.keys.dead();
        let end = before.take().map_or_else(|| end.clone(), |id| format!("({id}"));
        let mut pages = Pages::new(&key, &start, &end);
        while let Some(entries) = pages.next(&mut partition.connection).await? {
            for entry in entries {
                (seen, bytes) = (seen + 1, bytes + entry.size());
                let letter = DeadLetter::read(&entry);
                let letter = letter.filter(|l| filter.admits(l, &rules, partition.index));
                let letter = letter.map(DeadLetter::without_pairs);
                let place = is_one_of.then_some(partition.index);
                found.extend(letter.map(|letter| DeadLetter { partition: place, ..letter }));
                if found.len() == limit || seen == MOST_LOOKED_AT || bytes > MOST_BYTES {
                    return Ok((found, Some((partition.index, entry.id))));
                }
            }
        }
    }
    Ok((found, None))
}

/// How many dead letters there are.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn count(state: &mut State) -> Result<u64, AskError> {
    let mut count = 0;
    for partition in &mut state.partitions {
        let key = partition.keys.dead();
        count += number(&ask(&mut partition.connection, &["XLEN", &key]).await?).unwrap_or(0);
    }
    Ok(count)
}

/// The dead letters with this id; if there is none, those of the entry with it: several for a packed entry.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn show(state: &mut State, id: PlacedId) -> Result<Vec<DeadLetter>, AskError> {
    let (is_one_of, text) = (state.partitions.len() > 1, id.id.to_string());
    let (mut own, mut of_entries) = (Vec::new(), Vec::new());
    let is_meant = |partition: &&mut Partition| id.means(partition.index, id.id);
    for partition in state.partitions.iter_mut().filter(is_meant) {
        let (connection, key) = (&mut partition.connection, partition.keys.dead());
        let place = is_one_of.then_some(partition.index);
        let placed = |letter: DeadLetter| DeadLetter { partition: place, ..letter };
        let entries = range(connection, &["XRANGE", &key, &text, &text]).await?;
        own.extend(entries.iter().filter_map(DeadLetter::read).map(placed));
        if own.is_empty() && id.partition.is_none() {
            of_entries.extend(of_entry(connection, &key, id.id).await?.into_iter().map(placed));
        }
    }
    Ok(if own.is_empty() { of_entries } else { own })
}

async fn of_entry(
    connection: &mut Link,
    key: &str,
    entry: EntryId,
) -> Result<Vec<DeadLetter>, AskError> {
    // A dead letter is younger than its entry, unless a producer chose the entry's id.
    let (since, text) = (entry.ms.to_string(), entry.to_string());
    let younger = of_entry_within(connection, Pages::new(key, &since, "+"), &text).await?;
    if !younger.is_empty() {
        return Ok(younger);
    }
    of_entry_within(connection, Pages::new(key, "-", &format!("({since}-0")), &text).await
}

async fn of_entry_within(
    connection: &mut Link,
    mut pages: Pages<'_>,
    entry_id: &str,
) -> Result<Vec<DeadLetter>, AskError> {
    let mut found = Vec::new();
    while let Some(page) = pages.next(connection).await? {
        let letters = page.iter().filter_map(DeadLetter::read);
        found.extend(letters.filter(|letter| letter.header[0] == entry_id));
    }
    found.reverse();
    Ok(found)
}

/// A part of a stream, read from its end, a page at a time (`XREVRANGE`).
struct Pages<'k> {
    key: &'k str,
    start: &'k str,
    end: Option<String>,
}

impl<'k> Pages<'k> {
    fn new(key: &'k str, start: &'k str, end: &str) -> Self {
        Self { key, start, end: Some(end.to_owned()) }
    }

    async fn next(&mut self, connection: &mut Link) -> Result<Option<Vec<Entry>>, AskError> {
        let Some(end) = self.end.take() else { return Ok(None) };
        let count = PAGE.to_string();
        let page =
            range(connection, &["XREVRANGE", self.key, &end, self.start, "COUNT", &count]).await?;
        let last = page.last().filter(|_| page.len() == PAGE);
        self.end = last.map(|entry| format!("({}", entry.id));
        Ok(Some(page))
    }
}
