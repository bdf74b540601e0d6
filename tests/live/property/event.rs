//! Events and entries as strategies: few identifiers, so that they collide, and every time, id and form at a limit.
//! Times are relative to the instant at which a case begins, by the server's clock.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::event::TYPES;
use rollcall::key::partition_of;
use rollcall::time::format_time;
use serde_json::{Map, Value, json};

use super::settings::Drawn;
use crate::support::events::{CONNECTIONS, DOCS, IPS, SIDS, TOKENS, USERS, field, routing_member};

/// One event: its members except the time.
#[derive(Clone, Debug)]
pub struct Said {
    pub kind: &'static str,
    pub members: Vec<(&'static str, &'static str)>,
    pub time: Time,
}

/// The time in an event.
#[derive(Clone, Copy, Debug)]
pub enum Time {
    /// None: the entry's own time counts.
    Unsaid,
    /// This many milliseconds after the beginning, as an integer.
    At(i64),
    /// The same as RFC 3339.
    Date(i64),
    /// Such that something with this lifetime expires this many milliseconds after the beginning.
    Expiring(Lifetime, i64),
    /// This text, whatever the clock shows.
    Text(&'static str),
}

/// What expires.
#[derive(Clone, Copy, Debug)]
pub enum Lifetime {
    Presence,
    Session,
    /// A session's own lifetime of this many seconds.
    Ttl(u64),
    Document,
    Activity,
    Minute,
}

/// A draft of an entry; the entry depends on the instant and the settings.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: Id,
    pub form: Form,
    pub events: Vec<Said>,
}

/// The milliseconds of an entry's id, and its sequence number.
#[derive(Clone, Copy, Debug)]
pub enum Id {
    /// This many milliseconds before the beginning.
    Ago(u64, u64),
    Fixed(u64, u64),
}

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Flat,
    Json,
    JsonUnderType,
    MessagePack,
    BinaryCloudEvent,
    StructuredCloudEvent,
    Packed,
    /// Packed, with this JSON text as the last element.
    PackedWith(&'static str),
    PackedMessagePack,
    /// These fields, whatever the events are.
    Broken(&'static [(&'static str, &'static [u8])]),
    /// In another partition's stream, if there is one.
    Astray,
}

const BROKEN: [&[(&str, &[u8])]; 7] = [
    &[("type", b"nonsense"), ("user", b"alice")],
    &[("type", b"heartbeat")],
    &[("type", b"heartbeat"), ("user", b"\xff")],
    &[("type", b"heartbeat"), ("user", b"alice"), ("time", b"5")],
    &[("type", b"view"), ("data", b"[]")],
    &[("data", b"{")],
    &[("data", b"\x93"), ("datacontenttype", b"application/msgpack")],
];
const BAD_ELEMENTS: [&str; 4] = [
    "7",
    r#"{"type":"view","user":"alice"}"#,
    r#"{"type":"heartbeat","user":"bob","time":1}"#,
    "[]",
];
/// Session data that is kept as it is.
const OPAQUE: [&str; 4] = ["gAAAAA==", "7", "{\u{7f}", "\u{1f}\"é"];
/// Equal and almost equal values in different bytes.
const DATA: [&str; 5] = [r#"{"a":1}"#, r#"{ "a": 1 }"#, r#"{"a":1,"b":[]}"#, "7", r#""ü""#];
const AGENTS: [&str; 4] = ["ua1", "ua2", "Ü\"\\/\u{1}", "u"];
/// Seconds, as text or as a number. With short ones much depends on the schedule.
const TTLS: [&str; 5] = ["7200", "2592000", "60", "2", "1"];
const PAGES: [&str; 2] = ["/", "/home"];
const ITEMS: [&str; 5] = ["i1", "i2", "i|3", "i\n4", "日本"];

/// Beyond the exact integers of a double, at the limits of thirteen digits, and at the limit of ids.
const ID_MS: [u64; 12] = [
    0,
    1,
    999_999_999_999,
    1_000_000_000_000,
    1_000_000_000_001,
    9_999_999_999_999,
    10_000_000_000_000,
    (1 << 53) - 1,
    1 << 53,
    (1 << 53) + 1,
    u64::MAX - 1,
    u64::MAX,
];
const ID_SEQ: [u64; 5] = [0, 1, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
const TIMES: [&str; 6] = [
    "0001-01-01T00:00:00Z",
    "0000000000000",
    "1000000000000.0",
    "2001-09-09T03:46:40.001+02:00",
    "9999999999999",
    "9999-12-31T23:59:59Z",
];

/// A drafted entry.
pub fn draft() -> impl Strategy<Value = Draft> {
    (id(), form(), vec(said(), 1..5)).prop_map(|(id, form, events)| Draft { id, form, events })
}

/// The entries of drafts, in the order of their ids.
pub fn entries<'d>(
    drafts: impl Iterator<Item = &'d Draft>,
    drawn: &Drawn,
    base: u64,
) -> Vec<Entry> {
    let entry = |draft: &Draft| Entry::new(draft.id.at(base), draft.fields(drawn, base));
    let mut entries: Vec<_> = drafts.map(entry).collect();
    entries.sort_by_key(|entry| entry.id);
    entries.dedup_by_key(|entry| entry.id);
    entries
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        12 => (0..40_u64, 0..3_u64).prop_map(|(ago, seq)| Id::Ago(ago * 131, seq)),
        1 => (0..5_000_000_u64, select(&ID_SEQ[..])).prop_map(|(ago, seq)| Id::Ago(ago, seq)),
        2 => (select(&ID_MS[..]), select(&ID_SEQ[..])).prop_map(|(ms, seq)| Id::Fixed(ms, seq)),
    ]
}

fn form() -> impl Strategy<Value = Form> {
    const USUAL: [Form; 6] = [
        Form::Flat,
        Form::Json,
        Form::JsonUnderType,
        Form::MessagePack,
        Form::BinaryCloudEvent,
        Form::StructuredCloudEvent,
    ];
    prop_oneof![
        12 => select(&USUAL[..]),
        8 => select(&[Form::Packed, Form::PackedMessagePack][..]),
        1 => select(&BAD_ELEMENTS[..]).prop_map(Form::PackedWith),
        1 => select(&BROKEN[..]).prop_map(Form::Broken),
        1 => Just(Form::Astray),
    ]
}

/// Types with the members that they require and those that they allow. What is here twice is drawn more often.
const KINDS: [(&str, &[&str], &[&str]); 9] = [
    ("heartbeat", &["user"], &["ip", "ua", "page", "token", "sid", "doc", "connection"]),
    ("login", &["user", "token"], &["ip", "ua", "sid"]),
    ("logout", &["user"], &["ip", "token", "sid"]),
    ("view", &["user", "token", "item"], &[]),
    ("view", &["user", "token", "item"], &[]),
    ("session", &["sid"], &["user", "ip", "ua", "data", "data", "opaque", "ttl", "end"]),
    ("document", &["doc", "user", "act"], &["connection"]),
    ("document", &["doc", "user", "act"], &["connection"]),
    ("document", &["doc", "user", "act", "connection"], &[]),
];

#[test]
fn every_type_is_drawn() {
    for kind in TYPES {
        assert!(KINDS.iter().any(|(drawn, ..)| drawn == kind), "{kind}");
    }
}

fn said() -> impl Strategy<Value = Said> {
    select(&KINDS[..]).prop_flat_map(|(kind, required, optional)| {
        let members = required.iter().map(|name| member(name).prop_map(Some).boxed());
        // Final endings of sessions are rare, or nothing else would be tested; so are lifetimes.
        let often = |name| match name {
            "end" | "opaque" => 0.1,
            "ttl" => 0.2,
            _ => 0.4,
        };
        let optional = optional.iter().map(|name| weighted(often(*name), member(name)).boxed());
        (members.chain(optional).collect::<Vec<_>>(), time()).prop_map(move |(members, time)| {
            Said { kind, members: members.into_iter().flatten().collect(), time }
        })
    })
}

fn member(name: &str) -> impl Strategy<Value = (&'static str, &'static str)> + use<> {
    let (name, values): (&'static str, &'static [&'static str]) = match name {
        "user" => ("user", &USERS),
        "ip" => ("ip", &IPS),
        "ua" => ("ua", &AGENTS),
        "page" => ("page", &PAGES),
        "token" => ("token", &TOKENS),
        "sid" => ("sid", &SIDS),
        "doc" => ("doc", &DOCS),
        "connection" => ("connection", &CONNECTIONS),
        "item" => ("item", &ITEMS),
        "data" => ("data", &DATA),
        "opaque" => ("opaque", &OPAQUE),
        "ttl" => ("ttl", &TTLS),
        "end" => ("action", &["terminate"]),
        "act" => ("action", &["join", "leave", "join"]),
        other => panic!("no values for {other}"),
    };
    // Most are about the same names, so that they collide.
    let value = prop_oneof![
        3 => Just(values[0]),
        3 => select(&values[..values.len().min(2)]),
        2 => select(values),
    ];
    value.prop_map(move |value| (name, value))
}

fn time() -> impl Strategy<Value = Time> {
    const LIFETIMES: [Lifetime; 8] = [
        Lifetime::Presence,
        Lifetime::Session,
        Lifetime::Ttl(1),
        Lifetime::Ttl(2),
        Lifetime::Ttl(7200),
        Lifetime::Document,
        Lifetime::Activity,
        Lifetime::Minute,
    ];
    // Few instants, so that there are ties.
    let near = || (-2..1_i64).prop_map(|n| n * 2_501);
    prop_oneof![
        2 => Just(Time::Unsaid),
        8 => near().prop_map(Time::At),
        1 => near().prop_map(Time::Date),
        1 => select(&[600_000, 10, -400_000, -2_000_000][..]).prop_map(Time::At),
        4 => (select(&LIFETIMES[..]), -2..60_i64).prop_map(|(of, ms)| Time::Expiring(of, ms)),
        1 => select(&TIMES[..]).prop_map(Time::Text),
    ]
}

impl Id {
    /// The id, if the case begins at `base` ms.
    pub fn at(self, base: u64) -> EntryId {
        let (ms, seq) = match self {
            Self::Ago(ago, seq) => (base - ago, seq),
            Self::Fixed(ms, seq) => (ms, seq),
        };
        EntryId { ms, seq: if ms == 0 { seq.max(1) } else { seq } }
    }
}

impl Draft {
    /// The partition whose stream it goes to.
    pub fn partition(&self, partitions: u16) -> u16 {
        let first = &self.events[0];
        let routing = routing_member(first.kind);
        let (_, id) = first.members.iter().find(|(name, _)| *name == routing).unwrap();
        let right = partition_of(id, partitions);
        if self.form == Form::Astray { (right + 1) % partitions } else { right }
    }

    /// The entry's fields.
    pub fn fields(&self, drawn: &Drawn, base: u64) -> Vec<Field> {
        let objects: Vec<_> = self.events.iter().map(|said| said.object(drawn, base)).collect();
        let first = &objects[0];
        let msgpack = |value: Vec<u8>| {
            vec![field("datacontenttype", "application/msgpack"), (b"data".to_vec(), value)]
        };
        let json = |value: String| vec![field("data", &value)];
        let array = |more: &[&str]| {
            let texts = objects.iter().map(|object| json!(object).to_string());
            let texts: Vec<_> = texts.chain(more.iter().map(|text| (*text).to_owned())).collect();
            format!("[{}]", texts.join(","))
        };
        match self.form {
            Form::Flat | Form::Astray => self.events[0].flat(drawn, base),
            Form::Json => json(json!(first).to_string()),
            Form::JsonUnderType => [json(json!(first).to_string()), under_type(first)].concat(),
            Form::MessagePack => msgpack(rmp_serde::to_vec(first).unwrap()),
            Form::BinaryCloudEvent => {
                let attributes = ["specversion", "id", "source"].map(|name| field(name, "1"));
                [under_type(first), attributes.to_vec(), json(json!(first).to_string())].concat()
            }
            Form::StructuredCloudEvent => {
                let (kind, data) = (&first["type"], first);
                let event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": kind, "data": data});
                json(event.to_string())
            }
            Form::Packed => json(array(&[])),
            Form::PackedWith(bad) => json(array(&[bad])),
            Form::PackedMessagePack => msgpack(rmp_serde::to_vec(&objects).unwrap()),
            Form::Broken(pairs) => pairs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
        }
    }
}

/// An instant this many milliseconds after, or before, another.
pub fn after(base: u64, ms: i64) -> u64 {
    base.checked_add_signed(ms).unwrap()
}

fn under_type(object: &Map<String, Value>) -> Vec<Field> {
    vec![field("type", object["type"].as_str().unwrap())]
}

impl Said {
    /// As fields, each value byte for byte.
    fn flat(&self, drawn: &Drawn, base: u64) -> Vec<Field> {
        let opaque = [field("datacontenttype", "application/octet-stream")];
        let members = self.members.iter().flat_map(|(name, value)| match *name {
            "opaque" => [&opaque[..], &[field("data", value)]].concat(),
            name => vec![field(name, value)],
        });
        let time = self.time.value(drawn, base).map(|time| {
            field("time", time.as_str().map_or_else(|| time.to_string(), str::to_owned).as_str())
        });
        [field("type", self.kind)].into_iter().chain(members).chain(time).collect()
    }

    fn object(&self, drawn: &Drawn, base: u64) -> Map<String, Value> {
        let mut object = Map::from_iter([("type".to_owned(), json!(self.kind))]);
        for (name, value) in &self.members {
            // In JSON a session's data is a value.
            let (name, value) = match *name {
                "data" => ("data", serde_json::from_str(value).unwrap()),
                "opaque" => {
                    object.insert("datacontenttype".to_owned(), json!("text/plain"));
                    ("data", json!(value))
                }
                "ttl" if self.members.len().is_multiple_of(2) => {
                    ("ttl", json!(value.parse::<u64>().unwrap()))
                }
                name => (name, json!(value)),
            };
            object.insert(name.to_owned(), value);
        }
        if let Some(time) = self.time.value(drawn, base) {
            object.insert("time".to_owned(), time);
        }
        object
    }
}

impl Time {
    fn value(self, drawn: &Drawn, base: u64) -> Option<Value> {
        match self {
            Self::Unsaid => None,
            Self::At(ms) => Some(json!(after(base, ms))),
            Self::Date(ms) => Some(json!(format_time(after(base, ms)))),
            Self::Expiring(of, ms) => Some(json!(drawn.expiring(of, base, ms))),
            Self::Text(text) => Some(json!(text)),
        }
    }
}
