//! Raw replies → plain values. The client's own stream types lose the order of fields and duplicates, and fail a
//! whole batch on one field that is not UTF-8.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use redis::Value;

use crate::entry::{Entry, EntryId};
use crate::error::Error;

/// The error for a malformed reply; quotes its first 200 characters.
pub fn unexpected(step: &'static str, value: &Value) -> Error {
    Error::Reply { step, found: beginning(format_args!("{value:?}")) }
}

/// The same for bytes that were not parsed yet.
pub fn unexpected_bytes(step: &'static str, bytes: &[u8]) -> Error {
    Error::Reply { step, found: beginning(bytes.escape_ascii()) }
}

/// The first 200 characters of a text.
pub fn beginning(text: impl fmt::Display) -> String {
    let mut shown = Beginning { text: String::new(), room: 200 };
    // The error stops the formatting, so that a reply of megabytes is not written out.
    let _full = write!(shown, "{text}");
    shown.text
}

/// The first characters of a text.
struct Beginning {
    text: String,
    room: usize,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

/// The bytes of a string reply.
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(n) => Some(n.to_string().into_bytes()),
        Value::Okay => Some(b"OK".to_vec()),
        _ => None,
    }
}

/// Bytes of a reply that stays.
type Bytes<'v> = Cow<'v, [u8]>;

/// The bytes of a string reply that stays.
fn bytes_of(value: &Value) -> Option<Bytes<'_>> {
    match value {
        Value::BulkString(bytes) => Some(Cow::Borrowed(bytes)),
        Value::SimpleString(text) => Some(Cow::Borrowed(text.as_bytes())),
        Value::Int(n) => Some(Cow::Owned(n.to_string().into_bytes())),
        Value::Okay => Some(Cow::Borrowed(b"OK")),
        _ => None,
    }
}

/// [`text`] of a reply that stays, so that an error can still quote it.
pub fn text_of(value: &Value) -> Option<String> {
    bytes_of(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A string reply as text, with U+FFFD for bad UTF-8.
pub fn text(value: Value) -> Option<String> {
    bytes(value).map(|bytes| {
        String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    })
}

/// An integer reply, even if the server sends it as text.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// An integer reply that counts something.
pub fn number(value: &Value) -> Option<u64> {
    integer(value).and_then(|n| u64::try_from(n).ok())
}

/// The elements of an array reply.
pub fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// The elements of an array reply that stays.
pub fn elements(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

/// [`pairs`] of a reply that stays.
pub fn pairs_of(value: &Value) -> Option<&[[Value; 2]]> {
    let (pairs, rest) = elements(value)?.as_chunks();
    rest.is_empty().then_some(pairs)
}

/// A reply of alternating names and values; `None` as well if the last name has no value.
pub fn pairs(value: Value) -> Option<Vec<(Value, Value)>> {
    let values = array(value)?;
    let mut pairs = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let Some(name) = values.next() {
        pairs.push((name, values.next()?));
    }
    Some(pairs)
}

/// The id of an entry.
pub fn entry_id(value: Value) -> Option<EntryId> {
    text(value)?.parse().ok()
}

/// [`entry_id`] of a reply that stays.
pub fn entry_id_of(value: &Value) -> Option<EntryId> {
    text_of(value)?.parse().ok()
}

/// Reads `[[id, [name, value, …]], …]`.
pub fn entries(value: &Value) -> Option<Vec<Entry>> {
    let entry = |row: &Value| {
        let [id, fields, ..] = elements(row)? else { return None };
        Some(Entry::new(entry_id_of(id)?, entry_fields(fields)?))
    };
    elements(value)?.iter().map(entry).collect()
}

fn entry_fields(value: &Value) -> Option<Vec<(Bytes<'_>, Bytes<'_>)>> {
    pairs_of(value)?.iter().map(|[name, value]| Some((bytes_of(name)?, bytes_of(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn no_field_is_dropped_in_silence() {
        let row = |fields: &[&str]| {
            let fields = fields.iter().map(|field| text(field)).collect();
            Value::Array(vec![Value::Array(vec![text("1-0"), Value::Array(fields)])])
        };
        assert_eq!(entries(&row(&["a", "b", "a", "c"])).unwrap()[0].fields().len(), 2);
        assert_eq!(entries(&row(&["a", "b", "c"])), None);
    }

    #[test]
    fn an_error_shows_the_beginning_of_a_long_reply() {
        let reply = Value::Array(vec![text("é"); 1_000]);
        let Error::Reply { found, .. } = unexpected("reading", &reply) else { panic!() };
        let whole = format!("{reply:?}");
        assert_eq!(found, whole.chars().take(200).collect::<String>());
    }
}
