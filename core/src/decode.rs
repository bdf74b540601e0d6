//! Decode: a stream entry → its events, and the parts that are not events. Pure.
//!
//! The four ways to write an entry are one mechanism: levels of members. The entry's fields are the outermost level.
//! `data` may hold an object, whose own `data` may hold another (CloudEvents, binary and structured); inner members
//! override outer ones. An array in `data` is many objects, each by itself.
//!
//! Text and base64 inside must be unpacked first and are copied; everything else is borrowed.

pub mod erase;
mod place;
pub mod retry;

use std::borrow::Cow;

pub use self::place::Former;

use crate::entry::{Entry, EntryId, Oversize};
use crate::event::{Bytes, Event, Kind, Limits, Members, Name, Reason, Rejection};
use crate::format::{Format, Malformed, Member, Piece, Shape};
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
    /// Earlier layouts: an event that belonged here under one of them is passed over, because it is forwarded
    /// ([`crate::forward`]).
    pub moved_from: Vec<Former>,
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

    /// The form of a single event whose members are in `format`.
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
    /// How it is written; `None` if it was rejected as a whole.
    pub form: Option<Form>,
    /// Its events, in order.
    pub events: Vec<Event<'a>>,
    /// What cannot be applied: the whole entry, or elements of a packed one.
    pub rejected: Vec<Rejected<'a>>,
    /// Events that are passed over because they now belong to another partition.
    pub moved: usize,
    /// Whether it is the rest of an entry that already had its effect: its views are counted and its bad elements
    /// written off.
    pub is_rest: bool,
}

/// A part of an entry that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Why.
    pub rejection: Rejection,
    /// Position and bytes of the element; `None` for the whole entry.
    pub element: Option<(usize, &'a [u8])>,
}

/// Decodes an entry of the stream of partition `partition`.
pub fn decode<'a>(entry: &'a Entry, partition: u16, rules: &Rules) -> Decoded<'a> {
    decode_with(entry, partition, rules, Looks::default())
}

/// Decodes only the events that the other functions pass over: those that now belong to other partitions.
pub(crate) fn decode_moved<'a>(entry: &'a Entry, partition: u16, rules: &Rules) -> Decoded<'a> {
    decode_with(entry, partition, rules, Looks { at: At::Elsewhere, ..Looks::default() })
}

/// Decodes an entry including the events that the other functions pass over.
pub(crate) fn decode_all<'a>(entry: &'a Entry, partition: u16, rules: &Rules) -> Decoded<'a> {
    decode_with(entry, partition, rules, Looks { at: At::Any, ..Looks::default() })
}

/// The same, with the names of each event's unknown members, for people who ask for them.
pub fn decode_with_unknown_names<'a>(
    entry: &'a Entry,
    partition: u16,
    rules: &Rules,
) -> Decoded<'a> {
    decode_with(entry, partition, rules, Looks { for_unknown_names: true, ..Looks::default() })
}

/// Options of decoding.
#[derive(Clone, Copy, Default)]
struct Looks {
    for_unknown_names: bool,
    at: At,
}

/// Which events are wanted, by the partition they now belong to.
#[derive(Clone, Copy, Default)]
enum At {
    #[default]
    Here,
    Elsewhere,
    Any,
}

fn decode_with<'a>(entry: &'a Entry, partition: u16, rules: &Rules, looks: Looks) -> Decoded<'a> {
    let decoder = Decoder { id: entry.id, partition, rules, looks };
    decoder.entry(entry).unwrap_or_else(|rejection| Decoded {
        rejected: vec![Rejected { rejection, element: None }],
        ..Decoded::default()
    })
}

struct Decoder<'r> {
    id: EntryId,
    partition: u16,
    rules: &'r Rules,
    looks: Looks,
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
        let data = if is_envelope(&fields) { fields.bytes(Name::Data)? } else { None };
        let Some(data) = data else { return self.single(Format::Flat, &fields) };
        let format = content_format(&fields)?;
        if let Cow::Borrowed(raw) = data
            && format.is_array(raw)
        {
            let decoded = self.packed(&fields, format, raw)?;
            self.check_letters(entry, raw.len(), decoded.rejected.len())?;
            return Ok(decoded);
        }
        let object = unquoted(format, data)?;
        if format.is_array(&object) {
            let detail =
                "data holds an array inside a text or base64; send the array itself as data";
            return Err(Rejection::new(Reason::UnexpectedArray, detail));
        }
        let members = self.object(format, object)?.over(fields.without_data());
        self.single(format, &self.opened(members)?)
    }

    /// An entry that is one event.
    fn single<'a>(&self, format: Format, members: &Members<'a>) -> Result<Decoded<'a>, Rejection> {
        let form = Some(Form::of_event(format, members));
        let events: Vec<_> = self.event(members)?.into_iter().collect();
        let is_rest = events.iter().any(|event| event.unknown.is_rest);
        let moved = usize::from(events.is_empty());
        Ok(Decoded { form, moved, events, is_rest, ..Decoded::default() })
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
        let mut members = self.members();
        for (name, value) in entry.fields() {
            let known = Name::from_name(name);
            let limit = match known {
                Some(Name::Data | Name::DataBase64) => limits.max_data_bytes,
                _ => limits.max_field_bytes,
            };
            let longest = name.len().max(value.len());
            if longest > limit {
                return Err(Rejection::too_long(
                    known.map_or("a field", Name::name),
                    longest,
                    limit,
                ));
            }
            members.add(name, Member::flat(value));
        }
        members.close()
    }

    /// A packed entry: each element is an event of its own.
    fn packed<'a>(
        &self,
        fields: &Members<'a>,
        format: Format,
        raw: &'a [u8],
    ) -> Result<Decoded<'a>, Rejection> {
        let (mut decoded, mut members, mut count) = (Decoded::default(), self.members(), 0);
        let limit = self.rules.limits.max_events;
        let each = |piece: Piece<'_, 'a>| match piece {
            Piece::Member(name, member) => members.add(name, member),
            Piece::Element(element) => {
                let members = std::mem::replace(&mut members, self.members());
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
        decoded.is_rest = fields.unknown().is_rest;
        if decoded.is_rest {
            decoded.rejected.clear();
        }
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
            Shape::Object => members.close(),
            _ => self.object(element.format, Cow::Borrowed(element.raw)),
        };
        let opened = members.and_then(|members| self.opened(members));
        match opened.and_then(|members| self.event(&members)) {
            Ok(Some(event)) => decoded.events.push(event),
            Ok(None) => decoded.moved += 1,
            Err(rejection) => {
                let element = Some((index, element.raw));
                decoded.rejected.push(Rejected { rejection, element });
            }
        }
    }

    /// Each bad element becomes a dead letter with all other fields of its entry. Large fields beside many bad
    /// elements would multiply, so such an entry is rejected as a whole.
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

    /// The event that the members describe; `None` if it is passed over.
    fn event<'a>(&self, members: &Members<'a>) -> Result<Option<Event<'a>>, Rejection> {
        let kind = Kind::read(&members.event_type()?, members, &self.rules.limits)?;
        let claimed_ms = members.time()?;
        let time = EventTime::of_event(claimed_ms, self.id.ms, self.rules.max_skew_ms);
        let latest_ms = self.id.ms.saturating_add(self.rules.max_skew_ms);
        let from_future = claimed_ms.is_some_and(|ms| ms > latest_ms);
        let unknown = members.unknown().clone();
        if self.rules.partitions == 1 {
            return Ok(Some(Event { time, from_future, unknown, kind }));
        }
        let is_here = self.belongs(&kind)?;
        let is_wanted = match self.looks.at {
            At::Here => is_here,
            At::Elsewhere => !is_here,
            At::Any => true,
        };
        if !is_wanted || self.is_on_its_way(&kind) {
            return Ok(None);
        }
        Ok(Some(Event { time, from_future, unknown, kind: kind.without_foreign_parts() }))
    }

    /// No members yet.
    fn members<'a>(&self) -> Members<'a> {
        Members::new(self.looks.for_unknown_names)
    }

    /// The members of an object.
    fn object<'a>(&self, format: Format, raw: Bytes<'a>) -> Result<Members<'a>, Rejection> {
        let mut members = self.members();
        match raw {
            Cow::Borrowed(raw) => format.members(raw, |name, member| members.add(name, member)),
            Cow::Owned(raw) => format.members(&raw, |name, member| members.add_copy(name, member)),
        }
        .map_err(malformed)?;
        members.close()
    }

    /// The members, overridden by those of the object in their `data`, which may also be given as text.
    fn opened<'a>(&self, members: Members<'a>) -> Result<Members<'a>, Rejection> {
        match inner_object(&members)? {
            // A third level is not an envelope any more: its data counts only as a session's.
            Some((format, raw)) => Ok(self.object(format, raw)?.over(members.without_data())),
            None => Ok(members),
        }
    }
}

fn malformed(problem: Malformed) -> Rejection {
    Rejection::malformed(Name::Data, &problem)
}

/// The object in `data`, which may also be given as text.
fn inner_object<'a>(members: &Members<'a>) -> Result<Option<(Format, Bytes<'a>)>, Rejection> {
    let Some(data) = members.get(Name::Data).filter(|_| is_envelope(members)) else {
        return Ok(None);
    };
    let (format, raw) = match data.shape {
        Shape::Object => (Some(data.format), members.raw(Name::Data)?),
        Shape::Text => (text_format(members), members.bytes(Name::Data)?),
        _ => return Ok(None),
    };
    Ok(format.zip(raw).filter(|(format, raw)| format.is_object(raw)))
}

/// Whether `data`, if any, is an envelope. Beside `type session` and a `sid` it is the session's own data.
fn is_envelope(members: &Members<'_>) -> bool {
    let is_session = || {
        let value = members.get(Name::Type).and_then(|member| member.value().ok());
        value.is_some_and(|value| *value == *b"session")
    };
    !(members.get(Name::Sid).is_some() && is_session())
}

/// The format that `datacontenttype` names.
fn text_format(members: &Members<'_>) -> Option<Format> {
    members
        .content_type()
        .map_or(Some(Format::Json), |media_type| Format::of_content_type(&media_type))
}

fn content_format(members: &Members<'_>) -> Result<Format, Rejection> {
    text_format(members).ok_or_else(|| {
        Rejection::new(
            Reason::UnsupportedContentType,
            "datacontenttype is neither application/json nor application/msgpack; send data as one of these",
        )
    })
}

/// The content of JSON that is nothing but a text: some libraries encode twice.
fn unquoted(format: Format, data: Bytes<'_>) -> Result<Bytes<'_>, Rejection> {
    match data {
        Cow::Borrowed(raw) => format.unquoted(raw).map(|text| text.unwrap_or(data)),
        Cow::Owned(ref raw) => {
            let text = format.unquoted(raw).map(|text| text.map(Cow::into_owned));
            text.map(|text| text.map_or(data, Cow::Owned))
        }
    }
    .map_err(malformed)
}

#[cfg(test)]
mod tests;
