//! JSON, cut into raw values.
//!
//! serde_json finds where a value ends without asking for UTF-8 in texts it skips; that is what
//! lets a user agent with bad bytes live beside a good user.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::Deserializer;

use super::{Format, MAX_DEPTH, Malformed, Member, RawMember, Shape};

fn syntax(problem: impl Into<String>) -> Malformed {
    Malformed::Syntax { format: Format::Json, problem: problem.into() }
}

pub(super) fn shape(raw: &[u8]) -> Option<Shape> {
    let first = raw.iter().find(|byte| !is_space(**byte))?;
    Some(match first {
        b'{' => Shape::Object,
        b'[' => Shape::Array,
        b'"' => Shape::Text,
        b't' | b'f' => Shape::Boolean,
        b'n' => Shape::Null,
        _ if raw.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => Shape::Number,
        _ => Shape::Integer,
    })
}

pub(super) fn check(raw: &[u8]) -> Result<(), Malformed> {
    check_depth(raw)?;
    serde_json::from_slice::<IgnoredAny>(raw).map(drop).map_err(|error| syntax(error.to_string()))
}

/// Flat session data: valid as it is.
pub(super) fn validated(raw: &[u8]) -> Result<&str, Malformed> {
    check(raw)?;
    std::str::from_utf8(raw).map_err(|error| syntax(error.to_string()))
}

pub(super) fn elements(raw: &[u8], limit: usize) -> Result<Option<Vec<&[u8]>>, Malformed> {
    let mut scan = Scan::open(raw, b'[', "an array")?;
    let mut elements = Vec::new();
    while scan.next_item(b']')? {
        if elements.len() == limit {
            return Ok(None);
        }
        elements.push(scan.value()?);
    }
    Ok(Some(elements))
}

pub(super) fn members(raw: &[u8]) -> Result<Vec<RawMember<'_>>, Malformed> {
    let mut scan = Scan::open(raw, b'{', "an object")?;
    let mut members = Vec::new();
    while scan.next_item(b'}')? {
        let name = text(scan.value()?)?;
        scan.expect(b':')?;
        members.push((name, scan.value()?));
    }
    Ok(members)
}

pub(super) fn member(raw: &[u8]) -> Result<Member<'_>, Malformed> {
    let shape = shape(raw).ok_or_else(|| syntax("empty"))?;
    let value = if shape == Shape::Text { text(raw)? } else { Cow::Borrowed(raw) };
    Ok(Member { shape, value, raw, format: Format::Json })
}

/// The bytes a JSON string stands for. Bytes that are not UTF-8 are taken as they are.
fn text(raw: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // Byte strings let serde_json undo the escapes without asking for UTF-8.
    let bytes: Bytes = serde_json::from_slice(raw).map_err(|error| syntax(error.to_string()))?;
    Ok(Cow::Owned(bytes.0))
}

/// What serde_json hands out when asked for bytes.
struct Bytes(Vec<u8>);

impl<'de> serde::Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The text without the white space between its tokens; everything else stays as it was written.
pub(super) fn compact(raw: &[u8]) -> Result<String, Malformed> {
    let mut bytes = Vec::with_capacity(raw.len());
    each_byte(raw, |byte, in_text| {
        if in_text || !is_space(byte) {
            bytes.push(byte);
        }
    });
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn check_depth(raw: &[u8]) -> Result<(), Malformed> {
    let (mut depth, mut deepest) = (0_usize, 0);
    each_byte(raw, |byte, in_text| match byte {
        b'[' | b'{' if !in_text => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
        _ => {}
    });
    if deepest > MAX_DEPTH {
        return Err(syntax(format!("nested {deepest} deep; the limit is {MAX_DEPTH}")));
    }
    Ok(())
}

/// Calls `visit` with each byte and whether it belongs to a text.
fn each_byte(raw: &[u8], mut visit: impl FnMut(u8, bool)) {
    let (mut in_text, mut escaped) = (false, false);
    for byte in raw {
        let quote = *byte == b'"' && !escaped;
        visit(*byte, in_text || quote);
        escaped = in_text && *byte == b'\\' && !escaped;
        in_text ^= quote;
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A position in a JSON text.
struct Scan<'a> {
    rest: &'a [u8],
    first: bool,
}

impl<'a> Scan<'a> {
    fn open(raw: &'a [u8], bracket: u8, what: &str) -> Result<Self, Malformed> {
        let mut scan = Self { rest: raw, first: true };
        scan.expect(bracket).map_err(|_| syntax(format!("not {what}")))?;
        Ok(scan)
    }

    fn peek(&mut self) -> Option<u8> {
        let space = self.rest.iter().take_while(|byte| is_space(**byte)).count();
        self.rest = &self.rest[space..];
        self.rest.first().copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(syntax(format!("expected {:?}", char::from(byte))));
        }
        self.rest = &self.rest[1..];
        Ok(())
    }

    /// Whether another item follows; goes past the comma before it.
    fn next_item(&mut self, end: u8) -> Result<bool, Malformed> {
        if self.peek() == Some(end) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// The next value, whole and raw.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        self.peek();
        let mut values = Deserializer::from_slice(self.rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(syntax(error.to_string())),
            None => return Err(syntax("it ends too early")),
        }
        let (value, rest) = self.rest.split_at(values.byte_offset());
        self.rest = rest;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<(String, String)> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        members(text.as_bytes()).unwrap().iter().map(|(n, v)| (lossy(n), lossy(v))).collect()
    }

    #[test]
    fn members_keep_order_duplicates_and_raw_values() {
        let found = names(r#" { "a" : 1.50 , "b\n": [1, {"c":"}"}], "a": "\"x" } "#);
        let expected = [("a", "1.50"), ("b\n", r#"[1, {"c":"}"}]"#), ("a", r#""\"x""#)];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(names("{}").is_empty());
    }

    #[test]
    fn bad_utf8_stays_where_it_is() {
        let raw = b"{\"ua\":\"\xff\\u00e9\",\"user\":\"alice\"}";
        check(raw).unwrap();
        let found = members(raw).unwrap();
        assert_eq!(member(found[0].1).unwrap().value.as_ref(), b"\xff\xc3\xa9");
        assert_eq!(member(found[1].1).unwrap().value.as_ref(), b"alice");
    }

    #[test]
    fn nesting_is_bounded() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n)).into_bytes();
        assert!(check(&nest(MAX_DEPTH)).is_ok());
        assert!(check(&nest(MAX_DEPTH + 1)).is_err());
        assert!(check(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok());
    }

    #[test]
    fn elements_stop_at_the_limit() {
        assert_eq!(elements(b"[1,2 , 3]", 3).unwrap().unwrap(), [&b"1"[..], b"2", b"3"]);
        assert_eq!(elements(b"[1,2,3]", 2).unwrap(), None);
    }

    proptest! {
        #[test]
        fn compacting_keeps_the_value(text in r#"\PC{0,20}"#, number in any::<i64>()) {
            let value = serde_json::json!({"a b": [text, number, {" ": null}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(pretty.as_bytes()).unwrap(), value.to_string());
        }

        #[test]
        fn no_text_makes_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (check(&raw), members(&raw), elements(&raw, 5), member(&raw), compact(&raw));
        }

        #[test]
        fn no_json_like_text_makes_it_panic(raw in r#"[\[\]{}",:\\ untrfalse0-9.]{0,40}"#) {
            let raw = raw.as_bytes();
            let _ = (check(raw), members(raw), elements(raw, 5), member(raw), compact(raw));
        }
    }
}
