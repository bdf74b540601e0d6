//! The reply to a read of new entries, taken apart as it arrives: each text is copied once, to where it stands
//! in its entry, and no tree of values is built in between. No I/O.
//!
//! It knows one form, RESP2 as `XREADGROUP` answers about one stream: `[[stream, [[id, [name, value, …]], …]]]`
//! or nil. Anything else is an error that shows where it begins.

use redis::{ErrorKind, RedisResult, Value};

use crate::entry::{EntryId, Texts};
use crate::error::Error;
use crate::redis::reply::{self, Delivered};

/// What is being done, for errors.
pub const STEP: &str = "reading new entries";

/// The largest length that is believed: no server keeps a larger entry.
const MOST_BYTES: usize = 1 << 30;
/// Digits that a length may have.
const MOST_DIGITS: usize = 10;
/// Bytes that a reply of one line may have.
const LINE_BYTES: usize = 4 << 10;

/// Takes one reply apart.
#[derive(Debug)]
pub struct Parser {
    expected: Expected,
    /// Rows still to come after this one.
    rows: usize,
    /// Texts of this row still to come after this one.
    texts: usize,
    id: EntryId,
    entry: Texts,
    delivered: Delivered,
}

/// What the next element is.
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
    /// So many elements come next.
    Array(usize),
    Text(&'b [u8]),
}

enum Kind {
    Array,
    Text,
}

/// The bytes are no RESP2, or not what comes here.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

impl Default for Parser {
    fn default() -> Self {
        Self {
            expected: Expected::Streams,
            rows: 0,
            texts: 0,
            id: EntryId { ms: 0, seq: 0 },
            entry: Texts::default(),
            delivered: Delivered::default(),
        }
    }
}

impl Parser {
    /// Takes from `buffer` what is whole; returns what was delivered once that is all of it.
    ///
    /// # Errors
    /// The server's own, or that the reply has another form.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Delivered>, Error> {
        if self.expected == Expected::Streams && buffer.starts_with(b"-") {
            // The server refuses: a whole line is an error.
            line(buffer).map_err(Error::at(STEP))?;
            return Ok(None);
        }
        let mut taken = 0;
        while self.expected != Expected::Nothing {
            match self.take(&buffer[taken..]) {
                Ok(Some(length)) => taken += length,
                Ok(None) => break,
                Err(Malformed) => return Err(reply::unexpected_bytes(STEP, &buffer[taken..])),
            }
        }
        buffer.drain(..taken);
        Ok((self.expected == Expected::Nothing).then(|| std::mem::take(&mut self.delivered)))
    }

    /// Takes the element that `bytes` begin with, and says how long it is; `None` if it is not whole yet.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some((element, length)) = element(bytes)? else { return Ok(None) };
        self.expected = self.follow(element)?;
        Ok(Some(length))
    }

    /// What is expected after an element.
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
            // The entry was deleted while it was pending.
            (Expected::Fields, Element::Nil) => {
                self.delivered.lost.push(self.id);
                self.next_row()
            }
            (Expected::Fields, Element::Array(texts)) if texts % 2 == 0 => {
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
            self.delivered.entries.push(self.entry.take_entry(self.id));
            return self.next_row();
        };
        self.texts = left;
        Expected::Text
    }
}

/// The element that `bytes` begin with, and how long it is; `None` if it is not whole yet.
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

/// The head of an element: its kind, its length (`None` if there is nothing) and where the head ends.
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

/// Where the line ends, of which this is the rest; `None` if it is not whole yet.
fn end_of_line(bytes: &[u8], rest: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.starts_with(rest) {
        return Ok(Some(rest.len()));
    }
    if rest.starts_with(bytes) { Ok(None) } else { Err(Malformed) }
}

fn entry_id(text: &[u8]) -> Option<EntryId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Takes a reply of one line from `buffer`; `None` if it is not whole yet.
///
/// # Errors
/// The server's own, or that this is no such reply.
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
mod tests {
    use super::*;
    use crate::entry::Entry;

    /// Two entries and one that was deleted.
    const REPLY: &[u8] = b"*1\r\n*2\r\n$1\r\ns\r\n*3\r\n\
        *2\r\n$3\r\n1-0\r\n*4\r\n$1\r\nb\r\n$2\r\n\r\n\r\n$1\r\nb\r\n$0\r\n\r\n\
        *2\r\n$3\r\n1-1\r\n*-1\r\n\
        *2\r\n$3\r\n2-0\r\n*0\r\n";

    /// What comes of bytes that arrive in pieces of `size`.
    fn read(bytes: &[u8], size: usize) -> Result<Option<Delivered>, Error> {
        let (mut parser, mut buffer) = (Parser::default(), Vec::new());
        for piece in bytes.chunks(size) {
            buffer.extend_from_slice(piece);
            if let Some(delivered) = parser.read(&mut buffer)? {
                return Ok(Some(delivered));
            }
        }
        Ok(None)
    }

    fn refused(bytes: &[u8]) -> String {
        assert!(read(bytes, 1).is_err(), "refused only as a whole");
        crate::error::chain(&read(bytes, bytes.len()).unwrap_err())
    }

    #[test]
    fn entries_keep_order_and_duplicates_wherever_the_reply_is_cut() {
        let id = |ms, seq| EntryId { ms, seq };
        let expected = Delivered {
            entries: vec![
                Entry::new(id(1, 0), [("b", "\r\n"), ("b", "")]),
                Entry::new(id(2, 0), [("", ""); 0]),
            ],
            lost: vec![id(1, 1)],
        };
        for size in 1..=REPLY.len() {
            assert_eq!(read(REPLY, size).unwrap().as_ref(), Some(&expected), "pieces of {size}");
        }
        assert_eq!(read(&REPLY[..REPLY.len() - 1], 1).unwrap(), None, "it is not whole");
    }

    #[test]
    fn nothing_came_within_the_time() {
        for nothing in [&b"*-1\r\n"[..], b"$-1\r\n", b"*1\r\n*2\r\n$1\r\ns\r\n*0\r\n"] {
            assert_eq!(read(nothing, 1).unwrap(), Some(Delivered::default()));
        }
    }

    #[test]
    fn errors_of_the_server_are_what_the_client_makes_of_them() {
        let missing = read(b"-NOGROUP No such key 's'\r\n", 4).unwrap_err();
        assert!(missing.is_missing_group());
        let Error::Redis { source, .. } = read(b"-MOVED 1 h:7\r\n", 4).unwrap_err() else {
            panic!()
        };
        assert_eq!(source.redirect_node(), Some(("h:7", 1)));
        let said = refused(&[b'-'; LINE_BYTES]);
        assert!(said.contains("a line without end") && said.len() < 300, "{said}");
    }

    #[test]
    fn what_has_another_form_is_refused_where_it_begins() {
        let whole = String::from_utf8(REPLY.to_vec()).unwrap();
        for (right, wrong, shown) in [
            ("*1", "HTTP/1.1 400", "HTTP/1.1 400"),
            ("*1", "*2", "*2"),
            ("*1", "*1\n", "*1\n"),
            ("*2", "*3", "*3"),
            ("$1\r\ns", "$1\r\nstream", "$1\r\nstream"),
            ("$1\r\ns", "*0", "*0"),
            ("$3\r\n1-0", "$1\r\n1", "$1\r\n1"),
            ("*4", "*3", "*3"),
            ("*4", "*", "*"),
            ("*4", "*+4", "*+4"),
            ("*4", "*-2", "*-2"),
            ("*4", "*00000000004", "*00000000004"),
            ("$1\r\nb", "$-1", "$-1"),
            ("$1\r\nb", ":1", ":1"),
            ("$1\r\nb", "$1073741825", "$1073741825"),
            ("$1\r\nb", "$99999999999999999999", "$99999999999999999999"),
        ] {
            let said = refused(whole.replacen(right, wrong, 1).as_bytes());
            let shown = format!("an unexpected form: {}", shown.escape_default());
            assert!(said.contains(&shown), "{wrong:?}: {said}");
            assert!(said.len() < 300, "{said}");
        }
    }
}
