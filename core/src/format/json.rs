//! JSON, split into raw values; and texts written as JSON.

mod scan;

use std::borrow::Cow;

use super::{Format, Malformed, Member, Piece};
use scan::Scan;

fn syntax(problem: impl Into<String>) -> Malformed {
    Malformed::Syntax { format: Format::Json, problem: problem.into() }
}

pub(super) fn begins_with(raw: &[u8], first: u8) -> bool {
    raw.iter().find(|byte| !is_space(**byte)) == Some(&first)
}

/// The content of JSON that is nothing but a text.
pub(super) fn whole_text(raw: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut scan = Scan::new(raw);
    let text = scan.value()?;
    scan.end()?;
    text.value()
}

/// Flat session data, validated and unchanged.
pub(super) fn validated(raw: &[u8]) -> Result<&str, Malformed> {
    let mut scan = Scan::new(raw);
    scan.value()?;
    scan.end()?;
    std::str::from_utf8(raw).map_err(|error| syntax(error.to_string()))
}

pub(super) fn elements<'a>(
    raw: &'a [u8],
    mut each: impl FnMut(Piece<'_, 'a>),
) -> Result<(), Malformed> {
    let mut scan = Scan::new(raw);
    scan.array(|scan| {
        let element = scan.value_with(|name, member| {
            each(Piece::Member(&name.value()?, member));
            Ok(())
        })?;
        each(Piece::Element(element));
        Ok(())
    })?;
    scan.end()
}

pub(super) fn members<'a>(
    raw: &'a [u8],
    mut each: impl FnMut(&[u8], Member<'a>),
) -> Result<(), Malformed> {
    let mut scan = Scan::new(raw);
    scan.object(|name, member| {
        each(&name.value()?, member);
        Ok(())
    })?;
    scan.end()
}

/// The bytes that a JSON string stands for. Bytes that are not UTF-8 stay as they are.
pub(super) fn text(raw: &[u8], escaped: bool) -> Result<Cow<'_, [u8]>, Malformed> {
    if !escaped {
        return Ok(Cow::Borrowed(raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()));
    }
    // With byte strings, serde_json undoes the escapes without requiring UTF-8.
    let bytes: Bytes = serde_json::from_slice(raw).map_err(|error| syntax(error.to_string()))?;
    Ok(Cow::Owned(bytes.0))
}

/// Bytes, as serde_json returns them.
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

/// The text without white space between its tokens; everything else stays as written.
pub(super) fn compact(raw: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let (mut in_text, mut escaped) = (false, false);
    for byte in raw {
        if in_text || !is_space(*byte) {
            bytes.push(*byte);
        }
        in_text ^= *byte == b'"' && !escaped;
        escaped = in_text && *byte == b'\\' && !escaped;
    }
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Whether it is JSON text.
pub fn is_json(raw: &[u8]) -> bool {
    validated(raw).is_ok()
}

/// `raw` as text, if it is an object, array, number or truth value written as compactly as possible; otherwise
/// `None`.
pub fn compact_json(raw: &[u8]) -> Option<&str> {
    let is_text_or_null = matches!(raw.first(), Some(b'"' | b'n'));
    let text = validated(raw).ok().filter(|_| !is_text_or_null)?;
    (compact(raw) == text).then_some(text)
}

/// Writes a text as JSON, in quotes.
pub fn write_text(json: &mut String, text: &str) {
    if scan::plain(text.as_bytes()) == text.len() {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        // A text always has a JSON form.
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::MAX_DEPTH;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<(String, String)> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut found = Vec::new();
        members(text.as_bytes(), |n, member| found.push((lossy(n), lossy(member.raw)))).unwrap();
        found
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
        let mut found = Vec::new();
        members(raw, |_, member| found.push(member.value().unwrap())).unwrap();
        assert_eq!(found, [&b"\xff\xc3\xa9"[..], b"alice"]);
    }

    #[test]
    fn nesting_is_bounded() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n)).into_bytes();
        assert!(validated(&nest(MAX_DEPTH)).is_ok());
        assert!(validated(&nest(MAX_DEPTH + 1)).is_err());
        assert!(validated(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok());
        assert!(elements(&nest(MAX_DEPTH + 1), |_| {}).is_err());
    }

    #[test]
    fn elements_follow_their_members() {
        let mut found = Vec::new();
        let each = |piece: Piece<'_, '_>| {
            found.push(match piece {
                Piece::Member(name, member) => [name, b"=", member.raw].concat(),
                Piece::Element(element) => element.raw.to_vec(),
            });
        };
        elements(br#"[1, {"a":{"b":2} } ,[{"c":3}]]"#, each).unwrap();
        let expected = ["1", r#"a={"b":2}"#, r#"{"a":{"b":2} }"#, r#"[{"c":3}]"#];
        assert_eq!(found, expected.map(|text| text.as_bytes().to_vec()));
        assert!(elements(b"[1,2", |_| {}).is_err());
        assert!(elements(b"[] 1", |_| {}).is_err());
    }

    proptest! {
        #[test]
        fn compacting_keeps_the_value(text in r#"\PC{0,20}"#, number in any::<i64>()) {
            let value = serde_json::json!({"a b": [text, number, {" ": null}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(pretty.as_bytes()), value.to_string());
        }

        #[test]
        fn no_text_makes_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (members(&raw, |_, _| {}), elements(&raw, |_| {}), text(&raw, true), compact(&raw));
        }

        #[test]
        fn no_json_like_text_makes_it_panic(raw in r#"[\[\]{}",:\\ untrfalse0-9.]{0,40}"#) {
            let raw = raw.as_bytes();
            let _ = (members(raw, |_, _| {}), elements(raw, |_| {}), text(raw, true), compact(raw));
        }
    }
}
