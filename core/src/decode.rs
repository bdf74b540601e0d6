//! Decode: a stream entry → its events, and what of it cannot be one. Pure.
//!
//! The four ways to write an entry are one mechanism: levels of members. The entry's fields are the
//! outermost level; `data` may hold an object, whose own `data` may hold another (CloudEvents, binary
//! and structured), and inside wins over outside. An array in `data` is many objects, each by itself.

use crate::entry::{Entry, Oversize};
use crate::event::{Event, Kind, Limits, Members, Name, Reason, Rejection};
use crate::format::{Format, Malformed, Member, Piece, Shape};
use crate::key::partition_of;
use crate::time::EventTime;

/// What decoding depends on besides the entry: settings of the deployment, never a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Sizes beyond which an entry or a member is rejected.
    pub limits: Limits,
    /// How far an event may claim to be later than its entry, in milliseconds.
    pub max_skew_ms: u64,
    /// The number of partitions.
    pub partitions: u16,
}

/// The ways to write an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Plain fields.
    Flat,
    /// A JSON object in `data`.
    Json,
    /// A MessagePack map in `data`.
    MessagePack,
    /// A CloudEvent, binary or structured.
    CloudEvents,
    /// An array of events in `data`.
    Packed,
}

impl Form {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Flat, Self::Json, Self::MessagePack, Self::CloudEvents, Self::Packed];

    /// Its name, the label of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Json => "json",
            Self::MessagePack => "msgpack",
            Self::CloudEvents => "cloudevents",
            Self::Packed => "packed",
        }
    }

    /// The form of a single event whose members stand in `format`.
    fn of_event(format: Format, members: &Members<'_>) -> Self {
        match format {
            _ if members.is_cloud_event() => Self::CloudEvents,
            Format::Flat => Self::Flat,
            Format::Json => Self::Json,
            Format::MessagePack => Self::MessagePack,
        }
    }
}

/// What an entry holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How it is written; `None` if it was rejected whole.
    pub form: Option<Form>,
    /// Its events, in order.
    pub events: Vec<Event<'a>>,
    /// What cannot be applied: the entry whole, or elements of a packed one.
    pub rejected: Vec<Rejected<'a>>,
}

/// A part of an entry that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Why.
    pub rejection: Rejection,
    /// Position and bytes of the element; `None` for the entry whole.
    pub element: Option<(usize, &'a [u8])>,
}

/// Decodes an entry of the stream of partition `partition`.
pub fn decode<'a>(entry: &'a Entry, partition: u16, rules: &Rules) -> Decoded<'a> {
    let decoder = Decoder { entry_ms: entry.id.ms, partition, rules };
    decoder.entry(entry).unwrap_or_else(|rejection| Decoded {
        rejected: vec![Rejected { rejection, element: None }],
        ..Decoded::default()
    })
}

struct Decoder<'r> {
    entry_ms: u64,
    partition: u16,
    rules: &'r Rules,
}

impl Decoder<'_> {
    fn entry<'a>(&self, entry: &'a Entry) -> Result<Decoded<'a>, Rejection> {
        if let Some(Oversize { pairs, bytes }) = entry.oversize() {
            let detail = format!(
                "the entry has {pairs} fields with {bytes} bytes, more than any event can have; \
                 it stays in the stream under this id until it is trimmed"
            );
            return Err(Rejection::new(Reason::TooLarge, detail));
        }
        let fields = self.fields(entry)?;
        let Some(data) = envelope(&fields) else { return self.single(Format::Flat, &fields) };
        let format = content_format(&fields)?;
        let raw = data.raw;
        if format.is_array(raw) {
            let decoded = self.packed(&fields, format, raw)?;
            self.check_letters(entry, raw.len(), decoded.rejected.len())?;
            return Ok(decoded);
        }
        let members = read_object(format, raw)?.over(&fields.without(Name::Data));
        self.single(format, &opened(members)?)
    }

    /// An entry that is one event.
    fn single<'a>(&self, format: Format, members: &Members<'a>) -> Result<Decoded<'a>, Rejection> {
        let form = Some(Form::of_event(format, members));
        Ok(Decoded { form, events: vec![self.event(members)?], rejected: Vec::new() })
    }

    /// The outermost level: the fields of the entry.
    fn fields<'a>(&self, entry: &'a Entry) -> Result<Members<'a>, Rejection> {
        let limits = &self.rules.limits;
        if entry.fields().len() > limits.max_fields {
            let detail = format!(
                "the entry has {} fields; the limit is {}",
                entry.fields().len(),
                limits.max_fields
            );
            return Err(Rejection::new(Reason::TooManyFields, detail));
        }
        let mut members = Members::default();
        for (name, value) in entry.fields() {
            let known = Name::from_name(name);
            let limit = if known == Some(Name::Data) {
                limits.max_data_bytes
            } else {
                limits.max_field_bytes
            };
            let longest = name.len().max(value.len());
            if longest > limit {
                return Err(Rejection::too_long(
                    known.map_or("a field", Name::name),
                    longest,
                    limit,
                ));
            }
            match known {
                Some(name) => members.set(name, Member::flat(value)),
                None => members.note(name),
            }
        }
        Ok(members)
    }

    /// A packed entry: each element is an event of its own.
    fn packed<'a>(
        &self,
        fields: &Members<'a>,
        format: Format,
        raw: &'a [u8],
    ) -> Result<Decoded<'a>, Rejection> {
        let (mut decoded, mut members, mut count) = (Decoded::default(), Members::default(), 0);
        let limit = self.rules.limits.max_events;
        let each = |piece: Piece<'_, 'a>| match piece {
            Piece::Member(name, member) => members.add(name, member),
            Piece::Element(element) => {
                let members = std::mem::take(&mut members);
                if count < limit {
                    self.element(count, element, members, &mut decoded);
                }
                count += 1;
            }
        };
        format.elements(raw, each).map_err(malformed)?;
        if fields.get(Name::Type).is_some() {
            let detail = "data is an array though the entry has a type; leave type out to pack events, \
                          or send one object";
            return Err(Rejection::new(Reason::UnexpectedArray, detail));
        }
        if count > limit {
            let detail = format!("data packs more than {limit} events; send fewer an entry");
            return Err(Rejection::new(Reason::TooManyEvents, detail));
        }
        decoded.form = Some(Form::Packed);
        Ok(decoded)
    }

    /// An element of a packed entry, and its members if it is an object.
    fn element<'a>(
        &self,
        index: usize,
        element: Member<'a>,
        members: Members<'a>,
        decoded: &mut Decoded<'a>,
    ) {
        let members = match element.shape {
            Shape::Object => Ok(members),
            _ => read_object(element.format, element.raw),
        };
        match members.and_then(opened).and_then(|members| self.event(&members)) {
            Ok(event) => decoded.events.push(event),
            Err(rejection) => {
                let element = Some((index, element.raw));
                decoded.rejected.push(Rejected { rejection, element });
            }
        }
    }

    /// Each bad element becomes a dead letter with all other fields of its entry: large ones beside many bad
    /// elements would multiply, so that such an entry is rejected whole.
    fn check_letters(
        &self,
        entry: &Entry,
        data_bytes: usize,
        letters: usize,
    ) -> Result<(), Rejection> {
        let beside = entry.size().saturating_sub(data_bytes);
        let limit = self.rules.limits.max_data_bytes;
        if letters < 2 || beside.saturating_mul(letters) <= limit {
            return Ok(());
        }
        let detail = format!(
            "{letters} elements of data are no events, and the fields beside it have {beside} bytes; \
             send packed events without other fields"
        );
        Err(Rejection::new(Reason::FieldTooLong, detail))
    }

    fn event<'a>(&self, members: &Members<'a>) -> Result<Event<'a>, Rejection> {
        let kind = Kind::read(&members.event_type()?, members, &self.rules.limits)?;
        let claimed_ms = members.time()?;
        let time = EventTime::of_event(claimed_ms, self.entry_ms, self.rules.max_skew_ms);
        let latest_ms = self.entry_ms.saturating_add(self.rules.max_skew_ms);
        let from_future = claimed_ms.is_some_and(|ms| ms > latest_ms);
        if self.rules.partitions == 1 {
            return Ok(Event { time, from_future, kind });
        }
        self.check_partition(&kind)?;
        Ok(Event { time, from_future, kind: kind.without_foreign_parts() })
    }

    fn check_partition(&self, kind: &Kind<'_>) -> Result<(), Rejection> {
        let right = partition_of(kind.routing_id(), self.rules.partitions);
        if right == self.partition {
            return Ok(());
        }
        let detail = format!(
            "the event belongs in partition {right}, not {}; send it to the stream of {{p{right}}}",
            self.partition
        );
        Err(Rejection::new(Reason::WrongPartition, detail))
    }
}

fn malformed(problem: Malformed) -> Rejection {
    Rejection::malformed(Name::Data, &problem)
}

fn read_object(format: Format, raw: &[u8]) -> Result<Members<'_>, Rejection> {
    let mut members = Members::default();
    format.members(raw, |name, member| members.add(name, member)).map_err(malformed)?;
    Ok(members)
}

/// Members; over them, those of the object that their `data` may be.
fn opened<'a>(members: Members<'a>) -> Result<Members<'a>, Rejection> {
    match envelope(&members) {
        Some(data) if data.shape == Shape::Object => {
            let inner = read_object(data.format, data.raw)?;
            // A third level would be no envelope any more: its data counts only as a session's.
            Ok(inner.over(&members.without(Name::Data)))
        }
        _ => Ok(members),
    }
}

/// `data`, unless it is a session's own: that is so beside `type session` and a `sid`.
fn envelope<'a>(members: &Members<'a>) -> Option<Member<'a>> {
    let data = members.get(Name::Data)?;
    let is_session = || {
        let value = members.get(Name::Type).and_then(|member| member.value().ok());
        value.is_some_and(|value| *value == *b"session")
    };
    (!(members.get(Name::Sid).is_some() && is_session())).then_some(data)
}

/// The format that `datacontenttype` names.
fn content_format(members: &Members<'_>) -> Result<Format, Rejection> {
    let Some(member) = members.get(Name::ContentType) else { return Ok(Format::Json) };
    let media_type = member.value().map_err(malformed)?;
    Format::of_content_type(&media_type).ok_or_else(|| {
        Rejection::new(
            Reason::UnsupportedContentType,
            "datacontenttype is neither application/json nor application/msgpack; send data as one of these",
        )
    })
}
