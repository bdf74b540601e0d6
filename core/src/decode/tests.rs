//! Entries as producers write them, and what they are decoded to.

use serde_json::{Map, Value, json};

use super::*;
use crate::entry::EntryId;

const ENTRY_MS: u64 = 1_790_000_001_000;

fn rules() -> Rules {
    Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions: 1 }
}

fn entry(fields: &[(&str, &[u8])]) -> Entry {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), *value));
    Entry::new(EntryId { ms: ENTRY_MS, seq: 0 }, fields)
}

/// The reason for which an entry, or its first bad element, is rejected.
fn reason(entry: &Entry) -> Option<Reason> {
    Some(decode(entry, 0, &rules()).rejected.first()?.rejection.reason)
}

/// One event of each type.
fn every_type() -> [Value; 6] {
    [
        json!({"type": "heartbeat", "user": "alice"}),
        json!({"type": "login", "user": "alice", "token": "t"}),
        json!({"type": "logout", "user": "alice"}),
        json!({"type": "view", "user": "alice", "token": "t", "item": "i"}),
        json!({"type": "session", "sid": "s"}),
        json!({"type": "document", "doc": "d", "user": "alice", "action": "join"}),
    ]
}

fn with(event: &Value, name: &str, value: Value) -> Map<String, Value> {
    let mut event = event.as_object().unwrap().clone();
    event.insert(name.to_owned(), value);
    event
}

/// An event in each of the ways to write an entry.
fn every_form(event: &Map<String, Value>) -> Vec<Entry> {
    const MSGPACK: (&str, &[u8]) = ("datacontenttype", b"application/msgpack");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let flat: Vec<_> = event.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let flat: Vec<_> = flat.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let json = json!(event).to_string();
    let packed = json!([event]).to_string();
    let cloud = json!({"specversion": "1.0", "data": event}).to_string();
    let msgpack = |value: Value| rmp_serde::to_vec(&value).unwrap();
    vec![
        entry(&flat),
        entry(&[("data", json.as_bytes())]),
        entry(&[("data", packed.as_bytes())]),
        entry(&[("data", cloud.as_bytes())]),
        entry(&[("specversion", b"1.0"), ("data", json.as_bytes())]),
        entry(&[MSGPACK, ("data", &msgpack(json!(event)))]),
        entry(&[MSGPACK, ("data", &msgpack(json!([event])))]),
    ]
}

#[test]
fn a_time_that_cannot_be_meant_is_refused_in_every_type_and_form() {
    let no_times = [
        json!("0001-01-01T00:00:00Z"),
        json!("1970-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59.999Z"),
        json!("0000000000000"),
        json!(0),
        json!(0.0),
        json!(-1),
        json!(1_790_000_000),
        json!(999_999_999_999_u64),
        json!(1e13),
        json!(u64::MAX),
        json!(1e300),
        json!(1_790_000_000_000.5),
    ];
    for event in every_type() {
        for time in &no_times {
            for entry in every_form(&with(&event, "time", time.clone())) {
                assert_eq!(reason(&entry), Some(Reason::InvalidTime), "{time}: {entry:?}");
            }
        }
    }
}

#[test]
fn one_time_has_many_forms() {
    const MS: u64 = 1_790_000_000_123;
    let forms = [
        json!(MS),
        json!(MS as f64),
        json!(MS.to_string()),
        json!("1790000000123.0"),
        json!("2026-09-21T14:13:20.123999Z"),
        json!("2026-09-21t16:13:20.123+02:00"),
    ];
    for event in every_type() {
        for time in &forms {
            for entry in every_form(&with(&event, "time", time.clone())) {
                let decoded = decode(&entry, 0, &rules());
                assert_eq!(decoded.rejected, [], "{entry:?}");
                assert_eq!(decoded.events[0].time.millis(), MS, "{entry:?}");
            }
        }
    }
}

/// A heartbeat in MessagePack whose time is `time`, as it is written.
fn msgpack_at(time: &[u8]) -> Entry {
    let event = [&b"\x83\xa4type\xa9heartbeat\xa4user\xa5alice\xa4time"[..], time].concat();
    entry(&[("datacontenttype", b"application/msgpack"), ("data", &event)])
}

#[test]
fn messagepack_has_times_of_its_own() {
    for (time, ms) in [
        // A float of 64 bits, one of 32, a timestamp of each size, undefined.
        (&b"\xcb\x42\x7a\x0c\x45\x06\xc7\xb0\0"[..], 1_790_000_000_123),
        (b"\xca\x53\xd0\x62\x28", 1_789_999_972_352),
        (b"\xd6\xff\x6a\xb1\x3b\x80", 1_790_000_000_000),
        (b"\xd7\xff\x1d\x53\x53\0\x6a\xb1\x3b\x80", 1_790_000_000_123),
        (b"\xc7\x0c\xff\x07\x54\xd4\xbf\0\0\0\0\x6a\xb1\x3b\x80", 1_790_000_000_122),
        (b"\xd4\0\0", ENTRY_MS),
        (b"\xc0", ENTRY_MS),
    ] {
        let entry = msgpack_at(time);
        let decoded = decode(&entry, 0, &rules());
        assert_eq!(decoded.rejected, [], "{time:x?}");
        assert_eq!(decoded.events[0].time.millis(), ms, "{time:x?}");
    }
    for time in [
        // Before 2001, after 2286, no date at all, not a number, another extension.
        &b"\xd6\xff\0\0\0\0"[..],
        b"\xc7\x0c\xff\0\0\0\0\0\0\0\x14\xf4\x6b\x04\0",
        b"\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xd4\xff\xff",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xd4\x01\0",
    ] {
        assert_eq!(reason(&msgpack_at(time)), Some(Reason::InvalidTime), "{time:x?}");
    }
}
