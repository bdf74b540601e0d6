//! Stream entries as the server hands them out: an id and its fields, bytes untouched.
//!
//! Fields keep their order and duplicates, because a dead letter must carry them unchanged.

use std::fmt;
use std::str::FromStr;

/// The id of a stream entry: 64 bits of milliseconds and 64 bits of sequence (never a float).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since the epoch, by the clock of the server that took the `XADD`.
    pub ms: u64,
    /// Position within that millisecond.
    pub seq: u64,
}

impl EntryId {
    /// No entry can come after it.
    pub const GREATEST: Self = Self { ms: u64::MAX, seq: u64::MAX };
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written for every entry that is acknowledged: without the machinery of `write!`.
        f.write_str(itoa::Buffer::new().format(self.ms))?;
        f.write_str("-")?;
        f.write_str(itoa::Buffer::new().format(self.seq))
    }
}

/// The text is no complete entry id (`<ms>-<seq>`).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry id of the form <ms>-<seq>")]
pub struct InvalidEntryId;

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        let (ms, seq) = text.split_once('-').ok_or(InvalidEntryId)?;
        match (ms.parse(), seq.parse()) {
            (Ok(ms), Ok(seq)) => Ok(Self { ms, seq }),
            _ => Err(InvalidEntryId),
        }
    }
}

/// A field of an entry: its name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// One entry of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its fields in order, duplicates included.
    pub fields: Vec<Field>,
}

impl Entry {
    /// The value of the last field of that name; an empty value counts as absent.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.fields.iter().rfind(|(n, _)| n == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_use_all_128_bits() {
        let id = EntryId::GREATEST;
        assert_eq!("18446744073709551615-18446744073709551615".parse(), Ok(id));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("5".parse::<EntryId>().is_err());
        assert!("5-x".parse::<EntryId>().is_err());
    }

    #[test]
    fn of_a_field_named_twice_the_last_counts() {
        let field = |n: &str, v: &str| (n.as_bytes().to_vec(), v.as_bytes().to_vec());
        let entry = Entry {
            id: EntryId { ms: 1, seq: 0 },
            fields: vec![
                field("user", "alice"),
                field("user", "bob"),
                field("ip", "x"),
                field("ip", ""),
            ],
        };
        assert_eq!(entry.get(b"user"), Some(&b"bob"[..]));
        assert_eq!(entry.get(b"ip"), None);
    }
}
