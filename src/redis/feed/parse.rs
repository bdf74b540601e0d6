//! Parses the reply to a read as it arrives. Each text is copied once, to its place in the entry, and no tree of
//! values is built. No I/O.
//!
//! It knows one form, the RESP2 reply of `XREAD` for one stream: `[[stream, [[id, [name, value, …]], …]]]` or nil.
//! Anything else is an error that shows where it begins.
//!
//! Memory is bounded for any size of entry: of an entry larger than any event can be, only the sizes are kept. Memory
//! is also bounded for a reply: entries beyond [`Bounds::reply_bytes`] are dropped, to be read again.

use redis::{ErrorKind, RedisError, RedisResult, Value};

use crate::entry::{Entry, EntryId, Oversize, Texts};
use crate::error::Error;
use crate::event::Limits;
use crate::redis::reply;

/// The step, for errors.
pub const STEP: &str = "reading new entries";

/// The largest credible length: no server keeps a larger text.
const MOST_BYTES: usize = 1 << 30;
/// The maximum number of digits of a length.
const MOST_DIGITS: usize = 10;
/// The maximum number of bytes of a one-line reply.
const LINE_BYTES: usize = 4 << 10;

/// How much of a reply is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pairs of an entry.
    pub pairs: usize,
    /// Bytes of an entry.
    pub entry_bytes: usize,
    /// Bytes of entries after which no more are kept.
    pub reply_bytes: usize,
}

impl Bounds {
    /// Bounds for entries within `limits`, and `reply_bytes` for a whole reply.
    pub fn new(limits: &Limits, reply_bytes: usize) -> Self {
        Self { pairs: Limits::MOST_PAIRS, entry_bytes: limits.most_bytes(), reply_bytes }
    }
}

/// The entries of a read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The entries in order.
    pub entries: Vec<Entry>,
    /// Whether more came than was kept.
    pub is_cut: bool,
}

/// Parses one reply.
#[derive(Debug)]
pub struct Parser {
    bounds: Bounds,
    expected: Expected,
    /// Bytes to skip before the next element.
    skip: usize,
    /// Rows still to come after this one.
    rows: usize,
    /// Texts of this row still to come after this one.
    texts: usize,
    id: EntryId,
    entry: Texts,
    /// Sizes of this entry, if it is too large to keep.
    oversize: Option<Oversize>,
    /// Bytes of the entries kept so far.
    kept: usize,
    delivered: Delivered,
}

/// What the next element must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Streams,
    Stream,
    StreamName,
    Rows,
    Row,
    Id,
    Fields,
    Text,
    Nothing,
}

/// An element of a reply.
#[derive(Debug, PartialEq, Eq)]
enum Element<'b> {
    Nil,
    /// This many elements follow.
    Array(usize),
    Text(&'b [u8]),
}

enum Kind {
    Array,
    Text,
}

/// The bytes are no RESP2, or not what must come here.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

impl Parser {
    /// For one reply.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            expected: Expected::Streams,
            skip: 0,
            rows: 0,
            texts: 0,
            id: EntryId { ms: 0, seq: 0 },
            entry: Texts::default(),
            oversize: None,
            kept: 0,
            delivered: Delivered::default(),
        }
    }

    /// Parses all complete elements in `buffer`; returns the entries once the reply is complete.
    ///
    /// # Errors
    /// The server's own error, or that the reply has another form.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Delivered>, Error> {
        if self.expected == Expected::Streams && buffer.starts_with(b"-") {
            // The server refuses with an error in a whole line.
            line(buffer).map_err(Error::at(STEP))?;
            return Ok(None);
        }
        let mut taken = 0;
        loop {
            let skipped = self.skip.min(buffer.len() - taken);
            (taken, self.skip) = (taken + skipped, self.skip - skipped);
            if self.skip > 0 || self.expected == Expected::Nothing {
                break;
            }
            match self.take(&buffer[taken..]) {
                Ok(Some(length)) => taken += length,
                Ok(None) => break,
                Err(Malformed) => return Err(reply::unexpected_bytes(STEP, &buffer[taken..])),
            }
        }
        buffer.drain(..taken);
        let is_whole = self.expected == Expected::Nothing && self.skip == 0;
        Ok(is_whole.then(|| std::mem::take(&mut self.delivered)))
    }

    /// Parses the element at the beginning of `bytes` and returns its length; `None` if it is not complete yet.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if self.expected == Expected::Text
            && let Some((Kind::Text, Some(length), start)) = head(bytes)?
            && !self.keeps(length)
        {
            // The text and the end of its line.
            self.skip = length + 2;
            self.expected = self.next_text();
            return Ok(Some(start));
        }
        let Some((element, length)) = element(bytes)? else { return Ok(None) };
        self.expected = self.follow(element)?;
        Ok(Some(length))
    }

    /// Whether a text of this entry is kept; if not, the whole entry is not.
    fn keeps(&mut self, length: usize) -> bool {
        if self.delivered.is_cut {
            return false;
        }
        let before = self.entry.size();
        if self.oversize.is_none() && before + length > self.bounds.entry_bytes {
            self.give_up_entry();
        }
        if let Some(oversize) = &mut self.oversize {
            oversize.bytes += length as u64;
        }
        self.oversize.is_none()
    }

    /// From now on keeps only the sizes of the current entry.
    fn give_up_entry(&mut self) {
        let pairs = (self.entry.count() + 1 + self.texts) / 2;
        self.oversize = Some(Oversize { pairs, bytes: self.entry.size() as u64 });
        self.entry.clear();
    }

    /// What must follow an element.
    fn follow(&mut self, element: Element<'_>) -> Result<Expected, Malformed> {
        Ok(match (self.expected, element) {
            (Expected::Streams, Element::Nil) => Expected::Nothing,
            (Expected::Streams, Element::Array(1)) => Expected::Stream,
            (Expected::Stream, Element::Array(2)) => Expected::StreamName,
            (Expected::StreamName, Element::Text(_)) => Expected::Rows,
            (Expected::Rows, Element::Array(rows)) => {
                self.rows = rows;
                self.next_row()
            }
            (Expected::Row, Element::Array(2)) => Expected::Id,
            (Expected::Id, Element::Text(id)) => {
                self.id = entry_id(id).ok_or(Malformed)?;
                Expected::Fields
            }
            (Expected::Fields, Element::Array(texts)) if texts % 2 == 0 => {
                let pairs = texts / 2;
                self.oversize = (pairs > self.bounds.pairs).then_some(Oversize { pairs, bytes: 0 });
                self.texts = texts;
                self.next_text()
            }
            (Expected::Text, Element::Text(text)) => {
                self.entry.push(text);
                self.next_text()
            }
            _ => return Err(Malformed),
        })
    }

    fn next_row(&mut self) -> Expected {
        let Some(left) = self.rows.checked_sub(1) else { return Expected::Nothing };
        self.rows = left;
        Expected::Row
    }

    fn next_text(&mut self) -> Expected {
        let Some(left) = self.texts.checked_sub(1) else {
            self.end_entry();
            return self.next_row();
        };
        self.texts = left;
        Expected::Text
    }

    fn end_entry(&mut self) {
        // The first entry is kept whatever its size, or a reader would never get past it.
        self.delivered.is_cut |= self.kept > self.bounds.reply_bytes;
        self.kept += self.entry.size();
        let entry = match self.oversize.take() {
            Some(oversize) => Entry::oversized(self.id, oversize),
            None => self.entry.take_entry(self.id),
        };
        if !self.delivered.is_cut {
            self.delivered.entries.push(entry);
        }
    }
}

/// The element at the beginning of `bytes` and its length; `None` if it is not complete yet.
fn element(bytes: &[u8]) -> Result<Option<(Element<'_>, usize)>, Malformed> {
    let Some((kind, length, start)) = head(bytes)? else { return Ok(None) };
    let element = match (kind, length) {
        (_, None) => Element::Nil,
        (Kind::Array, Some(length)) => Element::Array(length),
        (Kind::Text, Some(length)) => {
            let (end, line_end) = (start + length, start + length + 2);
            return match bytes.get(end..line_end) {
                Some(b"\r\n") => Ok(Some((Element::Text(&bytes[start..end]), line_end))),
                Some(_) => Err(Malformed),
                None => Ok(None),
            };
        }
    };
    Ok(Some((element, start)))
}

/// The head of an element: its kind, its length (`None` for nil), and where the head ends.
fn head(bytes: &[u8]) -> Result<Option<(Kind, Option<usize>, usize)>, Malformed> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = match kind {
        b'*' => Kind::Array,
        b'$' => Kind::Text,
        _ => return Err(Malformed),
    };
    if rest.starts_with(b"-") {
        return Ok(end_of_line(rest, b"-1\r\n")?.map(|end| (kind, None, 1 + end)));
    }
    let (mut digits, mut length) = (0, 0_u64);
    for digit in rest.iter().take(MOST_DIGITS).take_while(|byte| byte.is_ascii_digit()) {
        digits += 1;
        length = length * 10 + u64::from(digit - b'0');
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= MOST_BYTES);
    if length.is_none() || (digits == 0 && !rest.is_empty()) {
        return Err(Malformed);
    }
    Ok(end_of_line(&rest[digits..], b"\r\n")?.map(|end| (kind, length, 1 + digits + end)))
}

/// Where the line ends that `rest` continues; `None` if it is not complete yet.
fn end_of_line(bytes: &[u8], rest: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.starts_with(rest) {
        return Ok(Some(rest.len()));
    }
    if rest.starts_with(bytes) { Ok(None) } else { Err(Malformed) }
}

fn entry_id(text: &[u8]) -> Option<EntryId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Takes a one-line reply or a text from `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// The server's own error, or that this is no such reply.
pub fn answer(buffer: &mut Vec<u8>) -> RedisResult<Option<Value>> {
    if !buffer.starts_with(b"$") {
        return line(buffer);
    }
    let malformed = |_| RedisError::from((ErrorKind::Parse, "a text of another form"));
    let Some((element, length)) = element(buffer).map_err(malformed)? else { return Ok(None) };
    let value = match element {
        Element::Text(text) => Value::BulkString(text.to_vec()),
        _ => Value::Nil,
    };
    buffer.drain(..length);
    Ok(Some(value))
}

/// Takes a one-line reply from `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// The server's own error, or that this is no such reply.
pub fn line(buffer: &mut Vec<u8>) -> RedisResult<Option<Value>> {
    let Some(end) = buffer.windows(2).position(|two| two == b"\r\n") else {
        if buffer.len() < LINE_BYTES {
            return Ok(None);
        }
        let shown = reply::beginning(buffer.escape_ascii());
        return Err((ErrorKind::Parse, "a line without end", shown).into());
    };
    let line: Vec<u8> = buffer.drain(..end + 2).collect();
    redis::parse_redis_value(&line)?.extract_error().map(Some)
}

#[cfg(test)]
mod tests;
