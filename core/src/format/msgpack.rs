//! MessagePack, split into raw values: rmp reads the heads, rmp-serde skips values.

use std::fmt::Write as _;

use rmp::Marker;
use serde::Deserialize;
use serde::de::IgnoredAny;
use time::OffsetDateTime;

use super::{Format, MAX_DEPTH, Malformed, Member, Piece, Shape, json};

fn syntax(problem: impl Into<String>) -> Malformed {
    Malformed::Syntax { format: Format::MessagePack, problem: problem.into() }
}

fn not_json(what: &'static str, remedy: &'static str) -> Malformed {
    Malformed::NotJson { what, remedy }
}

pub(super) fn shape(raw: &[u8]) -> Option<Shape> {
    Some(match Marker::from_u8(*raw.first()?) {
        Marker::Null => Shape::Null,
        Marker::True | Marker::False => Shape::Boolean,
        Marker::FixPos(_) | Marker::FixNeg(_) => Shape::Integer,
        Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => Shape::Integer,
        Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => Shape::Integer,
        Marker::F32 | Marker::F64 => Shape::Number,
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => Shape::Text,
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => Shape::Text,
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => Shape::Array,
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => Shape::Object,
        _ => match extension(raw) {
            Some((TIMESTAMP, _)) => Shape::Timestamp,
            Some(UNDEFINED) => Shape::Null,
            _ => Shape::Extension,
        },
    })
}

/// The extension type of points in time.
const TIMESTAMP: i8 = -1;

/// How msgpackr, msgpack5 and notepack write JavaScript's `undefined`.
const UNDEFINED: (i8, &[u8]) = (0, &[0]);

/// The type and the bytes of an extension.
fn extension(raw: &[u8]) -> Option<(i8, &[u8])> {
    let mut rest = raw;
    let head = rmp::decode::read_ext_meta(&mut rest).ok()?;
    Some((head.typeid, rest.get(..head.size as usize)?))
}

/// Seconds since the epoch and nanoseconds, from a timestamp of any of the three sizes.
pub(super) fn timestamp(raw: &[u8]) -> Option<(i64, u32)> {
    let (TIMESTAMP, bytes) = extension(raw)? else { return None };
    let (seconds, nanos) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            ((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    (nanos < 1_000_000_000).then_some((seconds, nanos))
}

/// Splits the first value off `rest`. Lengths that a head claims are never allocated.
fn take_value<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let mut deserializer = rmp_serde::Deserializer::new(*rest);
    // The array or object around the value counts, but here so does the scalar inside the innermost one.
    deserializer.set_max_depth(MAX_DEPTH);
    IgnoredAny::deserialize(&mut deserializer).map_err(|error| syntax(error.to_string()))?;
    let (value, after) = rest.split_at(rest.len() - deserializer.get_ref().len());
    *rest = after;
    Ok(value)
}

fn end(rest: &[u8]) -> Result<(), Malformed> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(syntax(format!("{} bytes follow the value", rest.len())))
}

fn member(raw: &[u8]) -> Member<'_> {
    let shape = shape(raw).unwrap_or(Shape::Null);
    Member { shape, raw, format: Format::MessagePack, escaped: false }
}

pub(super) fn elements<'a>(
    raw: &'a [u8],
    mut each: impl FnMut(Piece<'_, 'a>),
) -> Result<(), Malformed> {
    let mut rest = raw;
    let count = rmp::decode::read_array_len(&mut rest).map_err(|_| syntax("not an array"))?;
    for _ in 0..count {
        let element = member(take_value(&mut rest)?);
        if element.shape == Shape::Object {
            members(element.raw, |name, member| each(Piece::Member(name, member)))?;
        }
        each(Piece::Element(element));
    }
    end(rest)
}

pub(super) fn members<'a>(
    raw: &'a [u8],
    mut each: impl FnMut(&[u8], Member<'a>),
) -> Result<(), Malformed> {
    let mut rest = raw;
    let count = rmp::decode::read_map_len(&mut rest).map_err(|_| syntax(not_a_map(raw)))?;
    for _ in 0..count {
        let name = take_value(&mut rest)?;
        let value = take_value(&mut rest)?;
        // A key that is not text names no member.
        if shape(name) == Some(Shape::Text) {
            each(text(name)?, member(value));
        }
    }
    end(rest)
}

/// By default an instance of msgpackr's `Packr` writes records in a format of its own.
fn not_a_map(raw: &[u8]) -> &'static str {
    const RECORD: &[u8] = b"\xd4\x72";
    if raw.starts_with(RECORD) {
        "a record of msgpackr, not a map; pack() writes maps, and so does a Packr with useRecords: false"
    } else {
        "not a map"
    }
}

pub(super) fn integer(raw: &[u8]) -> Result<String, Malformed> {
    let unsigned = rmp_serde::from_slice::<u64>(raw).map(|n| n.to_string());
    unsigned
        .or_else(|_| rmp_serde::from_slice::<i64>(raw).map(|n| n.to_string()))
        .map_err(|error| syntax(error.to_string()))
}

pub(super) fn float(raw: &[u8]) -> Result<f64, Malformed> {
    rmp_serde::from_slice(raw).map_err(|error| syntax(error.to_string()))
}

fn is_binary(raw: &[u8]) -> bool {
    let marker = raw.first().map(|byte| Marker::from_u8(*byte));
    matches!(marker, Some(Marker::Bin8 | Marker::Bin16 | Marker::Bin32))
}

pub(super) fn text(raw: &[u8]) -> Result<&[u8], Malformed> {
    let mut rest = raw;
    let length = if is_binary(raw) {
        rmp::decode::read_bin_len(&mut rest).ok()
    } else {
        rmp::decode::read_str_len(&mut rest).ok()
    };
    length.and_then(|n| rest.get(..n as usize)).ok_or_else(|| syntax("a text ends too early"))
}

/// A value that was split off a whole one, as compact JSON.
pub(super) fn to_json(raw: &[u8]) -> Result<String, Malformed> {
    let mut json = String::with_capacity(raw.len());
    write_json(&mut { raw }, &mut json)?;
    Ok(json)
}

fn write_json(rest: &mut &[u8], json: &mut String) -> Result<(), Malformed> {
    match shape(rest) {
        Some(Shape::Array) => {
            let count = rmp::decode::read_array_len(rest).map_err(|_| syntax("not an array"))?;
            json.push('[');
            for i in 0..count {
                if i > 0 {
                    json.push(',');
                }
                write_json(rest, json)?;
            }
            json.push(']');
            Ok(())
        }
        Some(Shape::Object) => {
            let count = rmp::decode::read_map_len(rest).map_err(|_| syntax("not a map"))?;
            write_members(rest, count, json)
        }
        _ => write_scalar(take_value(rest)?, json),
    }
}

/// Members that are `undefined` are left out, as JavaScript leaves them out of JSON; in an array they become null.
fn write_members(rest: &mut &[u8], count: u32, json: &mut String) -> Result<(), Malformed> {
    json.push('{');
    let empty = json.len();
    for _ in 0..count {
        let name = take_value(rest)?;
        if shape(name) != Some(Shape::Text) {
            return Err(not_json("a key that is not text", "send text keys"));
        }
        if extension(rest) == Some(UNDEFINED) {
            take_value(rest)?;
            continue;
        }
        if json.len() > empty {
            json.push(',');
        }
        write_scalar(name, json)?;
        json.push(':');
        write_json(rest, json)?;
    }
    json.push('}');
    Ok(())
}

/// RFC 3339 in UTC, as dates are written in JSON: with milliseconds, or with nanoseconds if there are any.
fn format_timestamp((seconds, nanos): (i64, u32)) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    (0..=9999).contains(&at.year()).then(|| {
        let (date, (hour, minute, second)) = (at.date(), at.to_hms());
        let (digits, fraction) =
            if nanos % 1_000_000 == 0 { (3, nanos / 1_000_000) } else { (9, nanos) };
        format!("{date}T{hour:02}:{minute:02}:{second:02}.{fraction:0digits$}Z")
    })
}

/// A float as JavaScript writes a number: without a fraction it is written as an integer.
fn write_float(float: f64, json: &mut String) -> Result<(), Malformed> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if float.fract() == 0.0 && float.abs() <= EXACT {
        json.push_str(itoa::Buffer::new().format(float as i64));
        return Ok(());
    }
    let Some(number) = serde_json::Number::from_f64(float) else {
        return Err(not_json("a number that is not finite", "send null or text"));
    };
    let _infallible = write!(json, "{number}");
    Ok(())
}

fn write_scalar(raw: &[u8], json: &mut String) -> Result<(), Malformed> {
    match shape(raw).unwrap_or(Shape::Null) {
        Shape::Text if is_binary(raw) => {
            return Err(not_json("binary data", "send text, such as base64"));
        }
        Shape::Text => json::write_text(json, &String::from_utf8_lossy(text(raw)?)),
        Shape::Integer => json.push_str(&integer(raw)?),
        Shape::Boolean => {
            json.push_str(if raw[0] == Marker::True.to_u8() { "true" } else { "false" })
        }
        Shape::Null => json.push_str("null"),
        Shape::Number => write_float(float(raw)?, json)?,
        Shape::Timestamp => match timestamp(raw).and_then(format_timestamp) {
            Some(text) => json::write_text(json, &text),
            None => return Err(not_json("a timestamp of no date", "send text or a number")),
        },
        _ => return Err(not_json("an extension type", "send text or a number")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packed(value: &serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec(value).unwrap()
    }

    #[test]
    fn members_are_raw_and_in_order() {
        let raw = packed(&serde_json::json!({"user": "alice", "time": 1_790_000_000_000_u64}));
        let mut found = Vec::new();
        members(&raw, |name, member| found.push((name.to_vec(), member.raw))).unwrap();
        assert_eq!(found[0].0, b"time");
        assert_eq!(integer(found[0].1).unwrap(), "1790000000000");
        assert_eq!(found[1].0, b"user");
        assert_eq!(text(found[1].1).unwrap(), b"alice");
    }

    #[test]
    fn claims_of_billions_are_only_claims() {
        for head in [
            &b"\xdd\xff\xff\xff\xff"[..],
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
        ] {
            assert!(members(head, |_, _| {}).is_err());
            assert!(elements(head, |_| {}).is_err());
            assert!(take_value(&mut { head }).is_err());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nest = |n: usize| [vec![0x91; n], vec![0xc0]].concat();
        assert!(elements(&nest(MAX_DEPTH), |_| {}).is_ok());
        assert!(elements(&nest(MAX_DEPTH + 1), |_| {}).is_err());
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for raw in [
            &b"\xc4\x01a"[..],
            b"\xd6\x01\0\0\0\0",
            b"\xd4\xff\xff",
            b"\x81\x01\x02",
            b"\xcb\x7f\xf8\0\0\0\0\0\0",
        ] {
            assert!(matches!(to_json(raw), Err(Malformed::NotJson { .. })), "{raw:?}");
        }
    }

    #[test]
    fn timestamps_have_three_sizes() {
        for (raw, expected, json) in [
            (&b"\xd6\xff\0\0\0\x01"[..], Some((1, 0)), "\"1970-01-01T00:00:01.000Z\""),
            // The same date as msgpackr, @msgpack/msgpack and Python's msgpack write it.
            (
                b"\xd7\xff\x1d\x53\x53\0\x6a\xb1\x3b\x80",
                Some((1_790_000_000, 123_000_000)),
                "\"2026-09-21T14:13:20.123Z\"",
            ),
            (
                b"\xc7\x0c\xff\0\0\0\x07\xff\xff\xff\xff\xff\xff\xff\xff",
                Some((-1, 7)),
                "\"1969-12-31T23:59:59.000000007Z\"",
            ),
            (b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some((i64::MAX, 0)), ""),
            // More nanoseconds than a second has, an invalid date, another size, another type.
            (b"\xd7\xff\xff\xff\xff\xff\0\0\0\0", None, ""),
            (b"\xd4\xff\xff", None, ""),
            (b"\xd5\xff\0\0", None, ""),
            (b"\xd6\x01\0\0\0\x01", None, ""),
            (b"\xd6\xff\0\0\0", None, ""),
        ] {
            assert_eq!(timestamp(raw), expected, "{raw:?}");
            assert_eq!(to_json(raw).unwrap_or_default(), json, "{raw:?}");
        }
    }

    #[test]
    fn undefined_is_absent() {
        assert_eq!(shape(b"\xd4\0\0"), Some(Shape::Null));
        assert_eq!(shape(b"\xd4\0\x01"), Some(Shape::Extension));
        let raw = b"\x83\xa1a\xd4\0\0\xa1b\x92\xd4\0\0\xc0\xa1c\xd4\0\0";
        assert_eq!(to_json(raw).unwrap(), r#"{"b":[null,null]}"#);
    }

    proptest! {
        #[test]
        fn data_becomes_the_same_json(text in r#"\PC{0,20}"#, n in any::<i64>(), x in -1e9..1e9_f64) {
            let value = serde_json::json!({"a": [text, n, x, null, true], "b": {"c": {}}});
            prop_assert_eq!(to_json(&packed(&value)).unwrap(), value.to_string());
        }

        #[test]
        fn no_bytes_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (members(&raw, |_, _| {}), elements(&raw, |_| {}), text(&raw), to_json(&raw));
        }
    }
}
