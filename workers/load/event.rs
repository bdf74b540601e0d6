//! Synthetic events, and the equivalent ways to write them as entries of a stream.

use rollcall::event::routing_member;
use rollcall::key::partition_of;
use rollcall::time::format_time;
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

/// The fields of an entry.
pub(crate) type Fields = Vec<(&'static str, Vec<u8>)>;

/// One event, not yet written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// The event type.
    pub kind: &'static str,
    /// Its text members.
    pub members: Vec<(&'static str, String)>,
    /// A session's data.
    pub data: Option<serde_json::Value>,
    /// The event's own time; without it the entry's time counts.
    pub time_ms: Option<u64>,
}

/// An entry ready for `XADD`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The partition whose stream it belongs to.
    pub partition: u16,
    /// How many events it holds.
    pub events: u64,
    /// Its fields.
    pub fields: Fields,
}

/// How one event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One field for each member.
    Flat,
    /// `type` outside, the rest as JSON in `data`.
    Json,
    /// All of it as MessagePack in `data`.
    MessagePack,
    /// CloudEvents, binary mode: attributes as fields.
    CloudBinary,
    /// CloudEvents, structured mode: one JSON event in `data`.
    CloudStructured,
}

impl Event {
    /// An event without data, at the time of its entry.
    pub(super) fn new(kind: &'static str, members: Vec<(&'static str, String)>) -> Self {
        Self { kind, members, data: None, time_ms: None }
    }

    /// The partition whose stream it belongs to.
    pub(super) fn partition(&self, partitions: u16) -> u16 {
        let decides = routing_member(self.kind);
        let id = self.members.iter().find(|(name, _)| Some(*name) == decides);
        id.map_or(0, |(_, id)| partition_of(id, partitions))
    }

    /// The entry that holds just this event. Forms that require an id and a time use `id` and `now_ms`.
    pub(super) fn written(&self, form: Form, partitions: u16, id: u64, now_ms: u64) -> Entry {
        let fields = match form {
            Form::Flat => self.flat(),
            Form::Json => vec![text("type", self.kind), ("data", json(&Members(self)))],
            Form::MessagePack => {
                vec![text("datacontenttype", "application/msgpack"), ("data", message_pack(self))]
            }
            Form::CloudBinary => self.cloud_binary(&CloudEvent::of(self, id, now_ms)),
            Form::CloudStructured => vec![("data", json(&CloudEvent::of(self, id, now_ms)))],
        };
        Entry { partition: self.partition(partitions), events: 1, fields }
    }

    fn flat(&self) -> Fields {
        let mut fields = Vec::with_capacity(self.members.len() + 3);
        fields.push(text("type", self.kind));
        fields.extend(self.members.iter().map(|(name, value)| text(name, value)));
        fields.extend(self.time_ms.map(|time| text("time", &time.to_string())));
        fields.extend(self.data.as_ref().map(|data| ("data", json(data))));
        fields
    }

    fn cloud_binary(&self, about: &CloudEvent<'_>) -> Fields {
        vec![
            text("specversion", about.specversion),
            text("id", &about.id),
            text("source", about.source),
            text("type", about.kind),
            text("time", &about.time),
            text("traceparent", &about.traceparent),
            text("datacontenttype", "application/json"),
            ("data", json(&about.data)),
        ]
    }
}

/// A packed entry with events of one partition.
pub(super) fn packed(events: &[Event], partition: u16) -> Entry {
    let fields = vec![("data", json(events))];
    Entry { partition, events: events.len() as u64, fields }
}

fn text(name: &'static str, value: &str) -> (&'static str, Vec<u8>) {
    (name, value.as_bytes().to_vec())
}

/// Strings, numbers and maps with string keys can always be written.
fn json(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn message_pack(event: &Event) -> Vec<u8> {
    rmp_serde::to_vec(event).unwrap_or_default()
}

/// The whole event as a map.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let more = 1 + usize::from(self.time_ms.is_some()) + usize::from(self.data.is_some());
        let mut map = serializer.serialize_map(Some(self.members.len() + more))?;
        map.serialize_entry("type", self.kind)?;
        if let Some(time) = self.time_ms {
            map.serialize_entry("time", &time)?;
        }
        write_members(self, &mut map)?;
        map.end()
    }
}

/// An event without its type and time, as a map.
#[derive(Debug)]
struct Members<'a>(&'a Event);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = self.0.members.len() + usize::from(self.0.data.is_some());
        let mut map = serializer.serialize_map(Some(length))?;
        write_members(self.0, &mut map)?;
        map.end()
    }
}

fn write_members<M: serde::ser::SerializeMap>(event: &Event, map: &mut M) -> Result<(), M::Error> {
    for (name, value) in &event.members {
        map.serialize_entry(name, value)?;
    }
    event.data.as_ref().map_or(Ok(()), |data| map.serialize_entry("data", data))
}

/// The attributes of CloudEvents 1.0 around an event.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    traceparent: String,
    data: Members<'a>,
}

impl<'a> CloudEvent<'a> {
    fn of(event: &'a Event, id: u64, now_ms: u64) -> Self {
        Self {
            specversion: "1.0",
            id: format!("{id:016x}"),
            source: "/rollcall/load",
            kind: event.kind,
            time: format_time(event.time_ms.unwrap_or(now_ms)),
            traceparent: format!("00-{id:032x}-{id:016x}-01"),
            data: Members(event),
        }
    }
}
