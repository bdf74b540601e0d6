//! Entries as producers write them, and what they are decoded to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::*;
use crate::entry::EntryId;
use crate::event::SessionAction;

const ENTRY_MS: u64 = 1_790_000_001_000;

fn rules() -> Rules {
    Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions: 1, moved_from: Vec::new() }
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

/// The data that an entry gives its session.
fn session_data(fields: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let entry = entry(fields);
    let decoded = decode(&entry, 0, &rules());
    assert_eq!(decoded.rejected, [], "{entry:?}");
    let Kind::Session(session) = &decoded.events[0].kind else { panic!("{decoded:?}") };
    let SessionAction::Update(data) = &session.action else { panic!("{session:?}") };
    data.as_ref().map(|data| data.to_vec())
}

#[test]
fn opaque_session_data_is_kept_byte_for_byte() {
    let bytes = b"gAAAA\xff\0{\"\\ \r\n";
    for media_type in [
        &b"text/plain"[..],
        b"application/octet-stream",
        b"Text/PLAIN; charset=utf-8",
        b" application/octet-stream ;x",
    ] {
        let content = ("datacontenttype", media_type);
        let flat = [("type", &b"session"[..]), ("sid", b"s"), content, ("data", bytes)];
        assert_eq!(session_data(&flat).unwrap(), bytes, "{media_type:?}");
        let encoded = STANDARD.encode(bytes);
        let base64 = ("data_base64", encoded.as_bytes());
        assert_eq!(session_data(&[flat[0], flat[1], content, base64]).unwrap(), bytes);
        let media_type = String::from_utf8_lossy(media_type);
        let structured = json!({"specversion": "1.0", "type": "session", "sid": "s",
            "datacontenttype": media_type, "data_base64": encoded});
        assert_eq!(session_data(&[("data", structured.to_string().as_bytes())]).unwrap(), bytes);
        let text =
            json!({"type": "session", "sid": "s", "datacontenttype": media_type, "data": "{\n"});
        assert_eq!(session_data(&[("data", text.to_string().as_bytes())]).unwrap(), b"{\n");
    }
}

#[test]
fn session_data_that_is_not_declared_as_opaque_is_json() {
    let own = [("type", &b"session"[..]), ("sid", b"s")];
    assert_eq!(session_data(&[own[0], own[1], ("data", b" [ 1 ] ")]).unwrap(), b" [ 1 ] ");
    assert_eq!(
        session_data(&[own[0], own[1], ("data_base64", b"IFsgMSBdIA==")]).unwrap(),
        b" [ 1 ] "
    );
    let content = ("datacontenttype", &b"application/json"[..]);
    assert_eq!(session_data(&[own[0], own[1], content, ("data", b"7")]).unwrap(), b"7");
    for (name, value, expected) in [
        ("data", &b"gAAAA"[..], Reason::InvalidJson),
        ("data_base64", b"gAAAA===", Reason::InvalidBase64),
        ("data_base64", b"gAAA", Reason::InvalidJson),
    ] {
        assert_eq!(reason(&entry(&[own[0], own[1], (name, value)])), Some(expected), "{value:?}");
    }
    // The outer type belongs to the envelope, not to the session's data inside.
    let inside = ("data", &br#"{"sid":"s","data":{ "a":1}}"#[..]);
    assert_eq!(session_data(&[own[0], content, inside]).unwrap(), br#"{"a":1}"#);
    let opaque = ("datacontenttype", &b"text/plain"[..]);
    let unsupported = Some(Reason::UnsupportedContentType);
    assert_eq!(reason(&entry(&[own[0], opaque, inside])), unsupported);
}

#[test]
fn data_inside_a_text_or_base64_is_read_wherever_it_stands() {
    let heartbeat = json!({"type": "heartbeat", "user": "al\"ice", "page": "/\u{e9}"});
    let text = heartbeat.to_string();
    let entries = [
        vec![("data", json!(text).to_string().into_bytes())],
        vec![("data_base64", STANDARD.encode(&text).into_bytes())],
        vec![("data_base64", STANDARD.encode(json!(text).to_string()).into_bytes())],
        vec![("data", json!({"data": text}).to_string().into_bytes())],
        vec![("data", json!([{"data": text}]).to_string().into_bytes())],
        vec![("data", json!([{"data_base64": STANDARD.encode(&text)}]).to_string().into_bytes())],
        vec![("data_base64", STANDARD.encode(json!({"data": heartbeat}).to_string()).into_bytes())],
        vec![(
            "data_base64",
            STANDARD
                .encode(json!({"data_base64": STANDARD.encode(&text)}).to_string())
                .into_bytes(),
        )],
        vec![(
            "data",
            json!({"user": "outer", "datacontenttype": "application/msgpack",
                "data_base64": STANDARD.encode(rmp_serde::to_vec(&heartbeat).unwrap())})
            .to_string()
            .into_bytes(),
        )],
    ];
    // The outermost datacontenttype is about the outermost data.
    let in_msgpack = rmp_serde::to_vec(&json!({"data": text})).unwrap();
    let msgpack = ("datacontenttype", b"application/msgpack".to_vec());
    let in_msgpack = vec![msgpack, ("data", in_msgpack)];
    for fields in entries.into_iter().chain([in_msgpack]) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let entry = entry(&fields);
        let decoded = decode(&entry, 0, &rules());
        assert_eq!(decoded.rejected, [], "{entry:?}");
        let Kind::Heartbeat(event) = &decoded.events[0].kind else { panic!("{decoded:?}") };
        assert_eq!((&*event.user, &*event.page), ("al\"ice", "/\u{e9}"), "{entry:?}");
    }
}

#[test]
fn data_that_is_said_to_be_something_else_is_left_alone() {
    for (more, user) in [
        (json!({"data": "no JSON"}), "alice"),
        (json!({"data": "[{\"user\":\"bob\"}]"}), "alice"),
        (json!({"data_base64": "AAEC"}), "alice"),
        (json!({"data": "{broken", "datacontenttype": "text/plain"}), "alice"),
        (
            json!({"data_base64": STANDARD.encode("{broken"), "datacontenttype": "image/png"}),
            "alice",
        ),
        (json!({"data": " {\"user\":\"bob\"}", "datacontenttype": 7}), "bob"),
        (json!({"data": "{\"user\":\"bob\"}", "datacontenttype": "a/b+json"}), "bob"),
    ] {
        let mut event = with(&json!({"type": "heartbeat"}), "user", json!("alice"));
        event.extend(more.as_object().unwrap().clone());
        let entry = entry(&[("data", json!(event).to_string().as_bytes())]);
        let decoded = decode(&entry, 0, &rules());
        assert_eq!(decoded.events[0].kind.routing_id(), user, "{entry:?}");
    }
}

/// How many members are unknown, and which.
fn unknown(fields: &[(&str, &[u8])]) -> (u32, String) {
    let entry = entry(fields);
    let decoded = decode_with_unknown_names(&entry, 0, &rules());
    assert_eq!(decoded.rejected, [], "{entry:?}");
    let unknown = &decoded.events[0].unknown;
    assert_eq!(decode(&entry, 0, &rules()).events[0].unknown.count, unknown.count);
    (unknown.count, unknown.names.clone().unwrap().join(" "))
}

#[test]
fn members_that_nothing_reads_are_counted_and_named() {
    let flat = [("type", &b"heartbeat"[..]), ("user", b"alice")];
    let with = |more: &[(&'static str, &'static [u8])]| unknown(&[&flat, more].concat());
    assert_eq!(
        with(&[("page", b"/"), ("item", b"of views"), ("action", b"join")]),
        (0, String::new())
    );
    let traced =
        [("traceparent", &b"00"[..]), ("tracestate", b"x"), ("baggage", b"a=b"), ("id", b"1")];
    assert_eq!(with(&traced), (0, String::new()));
    assert_eq!(with(&[("pgae", b"/"), ("User", b"x")]), (2, "pgae User".to_owned()));
    assert_eq!(with(&[("pgae", b"")]), (0, String::new()), "an empty value counts as absent");
    assert_eq!(with(&[("pg\n\x1b", b"/")]).1, "pg\\n\\u{1b}");
    // Beside specversion there may be extension attributes of any name; in data there may not.
    assert_eq!(with(&[("specversion", b"1.0"), ("tenant", b"7")]), (0, String::new()));
    let inside = [("specversion", &b"1.0"[..]), ("tenant", b"7"), ("data", b"{\"pgae\":1}")];
    assert_eq!(with(&inside), (1, "pgae".to_owned()));
    let beside =
        [("tenant", &b"7"[..]), ("data", br#"{"specversion":"1.0","x":1,"data":{"y":2}}"#)];
    assert_eq!(with(&beside), (2, "y tenant".to_owned()));
    let packed = br#"[{"type":"heartbeat","user":"a","pgae":1},{"type":"login","user":"a","token":"t","z":0}]"#;
    let entry = entry(&[("shard", b"3"), ("data", packed)]);
    let counts = decode(&entry, 0, &rules()).events.into_iter().map(|event| event.unknown.count);
    assert_eq!(counts.collect::<Vec<_>>(), [1, 1], "what is around packed events is no event's");
}

#[test]
fn few_names_are_kept_however_many_there_are() {
    let mut event = with(&json!({"type": "heartbeat"}), "user", json!("alice"));
    event.extend((0..1000).map(|n| (format!("n{n}"), json!(1))));
    let (count, names) = unknown(&[("data", json!(event).to_string().as_bytes())]);
    assert_eq!((count, names.split(' ').count()), (1000, 16));
}
