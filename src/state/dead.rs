//! Dead letters, read back.

use std::cmp::Ordering;

use super::Listed;
use super::ask::{AskError, ask, number};
use crate::entry::{Entry, EntryId, Field};
use crate::key::Keys;
use crate::redis::reply;
use crate::state::Link;

/// Dead letters in a page; each may carry a mebibyte of data.
const PAGE: usize = 32;

/// The pairs that stand before the original ones, in order.
pub const HEADER: [&str; 6] = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];

/// A dead letter as it stands in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id.
    pub id: EntryId,
    /// The values of [`HEADER`], in order.
    pub header: [String; 6],
    /// The original pairs.
    pub fields: Vec<Field>,
}

impl DeadLetter {
    /// Reads an entry of the stream of dead letters; `None` if it is not one.
    pub fn read(entry: &Entry) -> Option<Self> {
        let mut fields = entry.fields();
        let mut header: [String; 6] = Default::default();
        for (name, text) in HEADER.iter().zip(&mut header) {
            let (_, value) = fields.next().filter(|field| field.0 == name.as_bytes())?;
            *text = String::from_utf8_lossy(value).into_owned();
        }
        let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Some(Self { id: entry.id, header, fields })
    }
}

/// The newest first.
pub fn newest_first(a: &DeadLetter, b: &DeadLetter) -> Ordering {
    b.id.cmp(&a.id)
}

/// How many dead letters there are for whatever reason, and the newest `limit` with this reason, if it
/// is given. The original pairs are left out: see [`show`].
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn list(
    connection: &mut Link,
    keys: &Keys,
    reason: Option<&str>,
    limit: usize,
) -> Result<Listed<DeadLetter>, AskError> {
    let key = keys.dead();
    let count = number(&ask(connection, &["XLEN", &key]).await?).unwrap_or(0);
    let mut items: Vec<DeadLetter> = Vec::new();
    let mut pages = Pages::new(&key, "-", "+");
    while items.len() < limit
        && let Some(page) = pages.next(connection).await?
    {
        let letters = page.iter().filter_map(DeadLetter::read);
        let letters =
            letters.filter(|letter| reason.is_none_or(|reason| reason == letter.header[1]));
        items.extend(letters.map(|letter| DeadLetter { fields: Vec::new(), ..letter }));
    }
    items.truncate(limit);
    Ok(Listed { count, items })
}

/// The dead letters that have this id, or whose original entry has it: several for a packed entry.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn show(
    connection: &mut Link,
    keys: &Keys,
    id: EntryId,
) -> Result<Vec<DeadLetter>, AskError> {
    let (key, text) = (keys.dead(), id.to_string());
    let own = range(connection, &["XRANGE", &key, &text, &text]).await?;
    if let Some(letter) = own.iter().find_map(DeadLetter::read) {
        return Ok(vec![letter]);
    }
    // A dead letter is younger than its entry, unless a producer chose the entry's id.
    let since = id.ms.to_string();
    let younger = of_entry(connection, Pages::new(&key, &since, "+"), &text).await?;
    if !younger.is_empty() {
        return Ok(younger);
    }
    of_entry(connection, Pages::new(&key, "-", &format!("({since}-0")), &text).await
}

async fn of_entry(
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

/// A part of a stream, from its end, a page at a time (`XREVRANGE`).
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

async fn range(connection: &mut Link, words: &[&str]) -> Result<Vec<Entry>, AskError> {
    let value = ask(connection, words).await?;
    let unexpected = reply::unexpected("reading dead letters", &redis::Value::Nil);
    reply::entries(value).ok_or_else(|| unexpected.into())
}
