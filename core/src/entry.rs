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
    /// The greatest id; no entry can come after it.
    pub const GREATEST: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The greatest id that is smaller. The smallest id stays as it is.
    pub fn before(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self { ms: ms - 1, seq: u64::MAX },
            (ms, seq) => Self { ms, seq: seq - 1 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written for every acknowledged entry, so without the machinery of `write!`.
        f.write_str(itoa::Buffer::new().format(self.ms))?;
        f.write_str("-")?;
        f.write_str(itoa::Buffer::new().format(self.seq))
    }
}

/// The text is not a complete entry id (`<ms>-<seq>`).
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

/// An id and, where there are several partitions, the one that it is in: `<ms>-<seq>` or `<partition>:<ms>-<seq>`.
///
/// Each stream assigns its own ids: the same one may stand for entries, and for dead letters, of several partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedId {
    /// The partition that it is in; `None` for the only one, or any.
    pub partition: Option<u16>,
    /// The id.
    pub id: EntryId,
}

impl PlacedId {
    /// Whether it means this id in this partition.
    pub fn means(self, partition: u16, id: EntryId) -> bool {
        self.id == id && self.partition.is_none_or(|own| own == partition)
    }
}

impl fmt::Display for PlacedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "{partition}:{}", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// The text is neither form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form <ms>-<seq> or <partition>:<ms>-<seq>")]
pub struct InvalidPlacedId;

impl From<InvalidEntryId> for InvalidPlacedId {
    fn from(_: InvalidEntryId) -> Self {
        Self
    }
}

impl FromStr for PlacedId {
    type Err = InvalidPlacedId;

    fn from_str(text: &str) -> Result<Self, InvalidPlacedId> {
        let Some((partition, id)) = text.split_once(':') else {
            return Ok(Self { partition: None, id: text.parse()? });
        };
        let partition = partition.parse().map_err(|_| InvalidPlacedId)?;
        Ok(Self { partition: Some(partition), id: id.parse()? })
    }
}

/// A field of an entry: its name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// One entry of the stream. All of its texts are in one buffer: a worker reads hundreds of thousands of entries a
/// second, and allocating each name and value would cost more than the rest of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Names and values in turn, without separators.
    bytes: Box<[u8]>,
    /// Where each of them ends.
    ends: Box<[usize]>,
    oversize: Option<Box<Oversize>>,
}

/// The sizes of an entry whose names and values were not kept because they exceed every limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversize {
    /// Its pairs of names and values.
    pub pairs: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Entry {
    /// An entry with these names and values.
    pub fn new<T: AsRef<[u8]>>(id: EntryId, fields: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut texts = Texts::default();
        for (name, value) in fields {
            texts.push(name.as_ref());
            texts.push(value.as_ref());
        }
        texts.take_entry(id)
    }

    /// An entry whose names and values were not kept.
    pub fn oversized(id: EntryId, oversize: Oversize) -> Self {
        let (bytes, ends) = (Box::default(), Box::default());
        Self { id, bytes, ends, oversize: Some(Box::new(oversize)) }
    }

    /// Its sizes if its names and values were not kept; it then has no fields.
    pub fn oversize(&self) -> Option<Oversize> {
        self.oversize.as_deref().copied()
    }

    /// Its fields in order, duplicates included: names and values.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator {
        let text = |n: usize| {
            let start = n.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[start..self.ends[n]]
        };
        (0..self.ends.len() / 2).map(move |n| (text(2 * n), text(2 * n + 1)))
    }

    /// The value of the last field of that name; an empty value counts as absent.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.fields().rfind(|(n, _)| *n == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The names and values of entries as they arrive, one entry after the other.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a name, or the value of the name before.
    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    /// Makes an entry of them, names and values in turn, and becomes empty. The capacity stays.
    pub fn take_entry(&mut self, id: EntryId) -> Entry {
        let (bytes, ends) = (self.bytes.as_slice().into(), self.ends.as_slice().into());
        self.clear();
        Entry { id, bytes, ends, oversize: None }
    }

    /// Removes them.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Bytes of all of them.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_an_id_is_the_next_less_one() {
        let id = |ms, seq| EntryId { ms, seq };
        assert_eq!(id(5, 3).before(), id(5, 2));
        assert_eq!(id(5, 0).before(), id(4, u64::MAX));
        assert_eq!(id(0, 0).before(), id(0, 0));
    }

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
        let fields = [("user", "alice"), ("user", "bob"), ("ip", "x"), ("ip", "")];
        let entry = Entry::new(EntryId { ms: 1, seq: 0 }, fields);
        assert_eq!(entry.get(b"user"), Some(&b"bob"[..]));
        assert_eq!(entry.get(b"ip"), None);
    }

    #[test]
    fn fields_keep_their_order_and_their_borders() {
        let fields = [("b", "2"), ("", ""), ("a", "1"), ("b", "2"), ("", "3")];
        let mut texts = Texts::default();
        texts.push(b"of the one before");
        texts.push(b"");
        texts.take_entry(EntryId::GREATEST);
        for (name, value) in fields {
            texts.push(name.as_bytes());
            texts.push(value.as_bytes());
        }
        let entry = texts.take_entry(EntryId { ms: 1, seq: 0 });
        assert_eq!(entry, Entry::new(entry.id, fields));
        let expected = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        assert_eq!(entry.fields().collect::<Vec<_>>(), expected);
        assert_eq!(
            entry.fields().rev().collect::<Vec<_>>(),
            expected.into_iter().rev().collect::<Vec<_>>()
        );
        assert_eq!((entry.fields().len(), entry.size()), (5, 7));
        assert_eq!(Entry::new(entry.id, [("", ""); 0]).fields().len(), 0);
    }
}
