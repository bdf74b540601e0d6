//! The members an event can have, and how each is read: identifiers, free text, choices, time, data.
//!
//! Everything that is wrong with a member becomes a [`Rejection`] that names the member, the shape of its value and
//! the remedy.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::rejection::{excerpt, found};
use super::{Bytes, Rejection, Text, Unknown};
use crate::format::{Copied, Malformed, Member, Shape, is_opaque};
use crate::time::{EventTime, parse_time};

/// Sizes beyond which an entry or a member is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an identifier.
    pub max_identifier_bytes: usize,
    /// Bytes of any other field.
    pub max_field_bytes: usize,
    /// Bytes of `data`.
    pub max_data_bytes: usize,
    /// Fields of an entry.
    pub max_fields: usize,
    /// Events packed in one entry.
    pub max_events: usize,
}

impl Limits {
    /// Pairs beyond which an entry is not kept, whatever the limits: a script cannot pass more to a command.
    pub const MOST_PAIRS: usize = 3_900;

    /// Bytes of names and values beyond which no entry can hold an event; such an entry is not kept.
    pub fn most_bytes(&self) -> usize {
        (self.max_fields * 2 * self.max_field_bytes).saturating_add(self.max_data_bytes)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_identifier_bytes: 256,
            max_field_bytes: 16 * 1024,
            max_data_bytes: 1024 * 1024,
            max_fields: 64,
            max_events: 1000,
        }
    }
}

/// Declares a closed set of names with their text.
macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$item])* $variant,)* }

        impl $type {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name as text.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one of that name.
            pub fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $text.as_bytes() { return Some(Self::$variant); })*
                None
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

names! {
    /// The members that can have an effect.
    Name {
        /// Event type.
        Type = "type",
        /// Identifier of a user.
        User = "user",
        /// Network address.
        Ip = "ip",
        /// User agent.
        Ua = "ua",
        /// Page.
        Page = "page",
        /// Identifier of a login token.
        Token = "token",
        /// Identifier of a session.
        Sid = "sid",
        /// Identifier of a document.
        Doc = "doc",
        /// Identifier of a user's connection to a document.
        Connection = "connection",
        /// Identifier of an item.
        Item = "item",
        /// What happened to a session or a document.
        Action = "action",
        /// Event time.
        Time = "time",
        /// A session's own lifetime.
        Ttl = "ttl",
        /// An envelope's content, or a session's data.
        Data = "data",
        /// The same in base64, as CloudEvents in JSON write bytes.
        DataBase64 = "data_base64",
        /// The format of `data`.
        ContentType = "datacontenttype",
    }
}

names! {
    /// Why an entry is a dead letter: the `reason` field, and the label of the metric.
    Reason {
        /// `type` names no event type.
        UnknownType = "unknown_type",
        /// A required member is absent or empty.
        MissingField = "missing_field",
        /// A field or member is longer than its limit.
        FieldTooLong = "field_too_long",
        /// The entry has more fields than the limit.
        TooManyFields = "too_many_fields",
        /// The entry is larger than any event can be, and was not kept.
        TooLarge = "too_large",
        /// An identifier is not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// A member has the wrong shape, or none of the values it can have.
        InvalidValue = "invalid_value",
        /// `time` is neither milliseconds nor RFC 3339 nor a timestamp, or is outside the possible range.
        InvalidTime = "invalid_time",
        /// `data` is not JSON.
        InvalidJson = "invalid_json",
        /// `data` is not MessagePack.
        InvalidMsgpack = "invalid_msgpack",
        /// `data_base64` is not base64.
        InvalidBase64 = "invalid_base64",
        /// `datacontenttype` is neither JSON nor MessagePack.
        UnsupportedContentType = "unsupported_content_type",
        /// `data` is an array though the entry has a `type`.
        UnexpectedArray = "unexpected_array",
        /// An entry packs more events than the limit.
        TooManyEvents = "too_many_events",
        /// The event belongs to another partition's stream.
        WrongPartition = "wrong_partition",
        /// A key that the event would write has another type.
        WrongType = "wrong_type",
        /// Applying the entry alone failed.
        ApplyFailed = "apply_failed",
        /// Workers died each time they tried the entry alone.
        Poison = "poison",
    }
}

/// The members of one event by name. Absent, empty and null members are left out.
#[derive(Clone, Debug, Default)]
pub struct Members<'a> {
    slots: [Option<Member<'a>>; Name::ALL.len()],
    /// Members from a text, or from base64, inside the entry; they override the others.
    copies: Option<Box<Copies>>,
    unknown: Unknown,
}

type Copies = [Option<Copied>; Name::ALL.len()];

impl<'a> Members<'a> {
    /// No members. The names of unknown members are kept on demand.
    pub(crate) fn new(with_unknown_names: bool) -> Self {
        Self { unknown: Unknown::new(with_unknown_names), ..Self::default() }
    }

    /// Adds a member of any name. A later one of the same name replaces it, an empty one removes it.
    pub fn add(&mut self, name: &[u8], member: Member<'a>) {
        match Name::from_name(name) {
            Some(name) => self.slots[name as usize] = Some(member).filter(|m| !m.is_absent()),
            None => self.unknown.note(name, member),
        }
    }

    /// The same for a member whose bytes do not live as long as the entry.
    pub(crate) fn add_copy(&mut self, name: &[u8], member: Member<'_>) {
        match Name::from_name(name) {
            Some(name) => self.set_copy(name, Some(member).filter(|m| !m.is_absent())),
            None => self.unknown.note(name, member),
        }
    }

    fn set_copy(&mut self, name: Name, member: Option<Member<'_>>) {
        self.copies.get_or_insert_default()[name as usize] = member.as_ref().map(Member::copied);
    }

    /// Completes a level: `data_base64` becomes `data`.
    pub(crate) fn close(mut self) -> Result<Self, Rejection> {
        self.unknown.close();
        self.decode_base64()?;
        Ok(self)
    }

    /// Whether they, or the members around them, are a CloudEvent's.
    pub fn is_cloud_event(&self) -> bool {
        self.unknown.is_cloud_event
    }

    /// The members that nothing reads.
    pub(crate) fn unknown(&self) -> &Unknown {
        &self.unknown
    }

    /// A member, if it is there.
    pub fn get(&self, name: Name) -> Option<Member<'_>> {
        self.copy(name).or(self.slots[name as usize])
    }

    fn copy(&self, name: Name) -> Option<Member<'_>> {
        self.copies.as_ref()?[name as usize].as_ref().map(Copied::member)
    }

    /// The result of `read` for a member, borrowed if the member is in the entry itself.
    fn read<T: ToOwned + ?Sized>(
        &self,
        name: Name,
        read: impl for<'m> Fn(Member<'m>) -> Result<Cow<'m, T>, Malformed>,
    ) -> Result<Option<Cow<'a, T>>, Rejection> {
        let value = match self.copy(name) {
            Some(copy) => read(copy).map(|value| Some(Cow::Owned(value.into_owned()))),
            None => self.slots[name as usize].map(read).transpose(),
        };
        value.map_err(|malformed| Rejection::malformed(name, &malformed))
    }

    /// The value of a member as it is in its envelope.
    pub(crate) fn raw(&self, name: Name) -> Result<Option<Bytes<'a>>, Rejection> {
        self.read(name, |member| Ok(Cow::Borrowed(member.raw)))
    }

    /// These members, completed by those of `outer`.
    pub fn over(mut self, mut outer: Self) -> Self {
        if let Some(copies) = outer.copies.take() {
            let own = self.copies.get_or_insert_default();
            for ((own, outer), slot) in own.iter_mut().zip(*copies).zip(&self.slots) {
                *own = own.take().or(outer.filter(|_| slot.is_none()));
            }
        }
        for (slot, outer) in self.slots.iter_mut().zip(outer.slots) {
            *slot = slot.or(outer);
        }
        self.unknown.join(outer.unknown);
        self
    }

    /// The same without `data` and the members about it, since the inner level has its own.
    pub(crate) fn without_data(mut self) -> Self {
        [Name::Data, Name::ContentType].into_iter().for_each(|name| self.remove(name));
        self
    }

    fn remove(&mut self, name: Name) {
        self.slots[name as usize] = None;
        if let Some(copies) = &mut self.copies {
            copies[name as usize] = None;
        }
    }

    fn decode_base64(&mut self) -> Result<(), Rejection> {
        let Some(text) = self.bytes(Name::DataBase64)? else { return Ok(()) };
        if self.get(Name::Data).is_some() {
            let detail = "both data and data_base64 are present; send one of them";
            return Err(Rejection::new(Reason::InvalidValue, detail));
        }
        let data = STANDARD.decode(&text).map_err(|error| {
            let detail = format!(
                "data_base64 is not base64: {error}; send the standard alphabet with padding"
            );
            Rejection::new(Reason::InvalidBase64, detail)
        })?;
        self.remove(Name::DataBase64);
        self.set_copy(Name::Data, Some(Member::flat(&data)));
        Ok(())
    }

    /// The value of `datacontenttype`, if it is a text.
    pub(crate) fn content_type(&self) -> Option<Cow<'_, [u8]>> {
        self.get(Name::ContentType).filter(|member| member.shape == Shape::Text)?.value().ok()
    }

    /// The text of a member; `None` if it is absent.
    pub(crate) fn bytes(&self, name: Name) -> Result<Option<Bytes<'a>>, Rejection> {
        match self.get(name) {
            None => Ok(None),
            Some(member) if member.shape == Shape::Text => self.read(name, |member| member.value()),
            Some(member) => Err(Rejection::new(
                Reason::InvalidValue,
                format!("{name} is {}; send it as text", member.shape),
            )),
        }
    }

    /// An identifier that is required.
    pub(super) fn required_id(&self, name: Name, limits: &Limits) -> Result<Text<'a>, Rejection> {
        self.optional_id(name, limits)?.ok_or_else(|| {
            Rejection::missing(name, "this event type needs it: an identifier of UTF-8 text")
        })
    }

    /// An identifier that may be absent.
    pub(super) fn optional_id(
        &self,
        name: Name,
        limits: &Limits,
    ) -> Result<Option<Text<'a>>, Rejection> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        if bytes.len() > limits.max_identifier_bytes {
            return Err(Rejection::too_long(name.name(), bytes.len(), limits.max_identifier_bytes));
        }
        utf8(bytes).map(Some).map_err(|bytes| {
            let detail = format!(
                "{name} is {}, which is not UTF-8; identifiers must be UTF-8",
                excerpt(&bytes)
            );
            Rejection::new(Reason::InvalidUtf8, detail)
        })
    }

    /// Free text; empty if it is absent, with U+FFFD for bad UTF-8.
    pub(super) fn text(&self, name: Name, limits: &Limits) -> Result<Text<'a>, Rejection> {
        let Some(bytes) = self.bytes(name)? else { return Ok(Text::default()) };
        if bytes.len() > limits.max_field_bytes {
            return Err(Rejection::too_long(name.name(), bytes.len(), limits.max_field_bytes));
        }
        Ok(utf8(bytes).unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into_owned().into()))
    }

    /// One of a few words.
    pub(super) fn choice(
        &self,
        name: Name,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, Rejection> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        match words.iter().find(|word| word.as_bytes() == bytes.as_ref()) {
            Some(word) => Ok(Some(word)),
            None => {
                let detail = format!("{name} is {}; send {}", excerpt(&bytes), words.join(" or "));
                Err(Rejection::new(Reason::InvalidValue, detail))
            }
        }
    }

    /// A number without fraction and sign, in any notation: the digits of an integer, as a number or as text, or a
    /// float such as `7200.0` or `7.2e3`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn whole_number(&self, name: Name) -> Result<Option<u64>, Rejection> {
        let Some(member) = self.get(name) else { return Ok(None) };
        let rejection = || {
            let detail = format!("{name} is {}; send a whole number", found(member));
            Rejection::new(Reason::InvalidValue, detail)
        };
        member.whole().map(Some).ok_or_else(rejection)
    }

    /// Whole seconds, from 1 to `most`.
    pub(super) fn seconds(&self, name: Name, most: u32) -> Result<Option<u32>, Rejection> {
        let Some(member) = self.get(name) else { return Ok(None) };
        let seconds = member.whole().and_then(|seconds| u32::try_from(seconds).ok());
        match seconds.filter(|seconds| (1..=most).contains(seconds)) {
            Some(seconds) => Ok(Some(seconds)),
            None => {
                let detail =
                    format!("{name} is {}; send whole seconds from 1 to {most}", found(member));
                Err(Rejection::new(Reason::InvalidValue, detail))
            }
        }
    }

    /// The event type.
    pub(crate) fn event_type(&self) -> Result<Cow<'a, [u8]>, Rejection> {
        self.bytes(Name::Type)?.ok_or_else(|| {
            let remedy = format!("send one of {}", super::TYPES.join(", "));
            Rejection::missing(Name::Type, &remedy)
        })
    }

    /// The claimed event time in milliseconds.
    pub(crate) fn time(&self) -> Result<Option<u64>, Rejection> {
        let Some(member) = self.get(Name::Time) else { return Ok(None) };
        let claimed = member.timestamp_ms().or_else(|| {
            member.whole().and_then(|ms| i64::try_from(ms).ok()).or_else(|| date_time(member))
        });
        let in_bounds = |ms: &u64| (EventTime::MIN.millis()..=EventTime::MAX.millis()).contains(ms);
        let time = claimed.and_then(|ms| u64::try_from(ms).ok()).filter(in_bounds);
        time.map(Some).ok_or_else(|| Rejection::time(member, claimed))
    }

    /// A session's data: opaque bytes if declared so; otherwise JSON text, verbatim from a flat entry and compact
    /// from any other.
    pub(super) fn session_data(&self, limits: &Limits) -> Result<Option<Bytes<'a>>, Rejection> {
        let Some(member) = self.get(Name::Data) else { return Ok(None) };
        let is_opaque = member.shape == Shape::Text
            && self.content_type().is_some_and(|media_type| is_opaque(&media_type));
        let data = if is_opaque {
            self.bytes(Name::Data)?
        } else {
            self.read(Name::Data, |member| member.json())?.map(|text| match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            })
        };
        match data {
            Some(data) if data.len() > limits.max_data_bytes => {
                Err(Rejection::too_long("data", data.len(), limits.max_data_bytes))
            }
            data => Ok(data),
        }
    }
}

/// RFC 3339, in milliseconds since the epoch.
fn date_time(member: Member<'_>) -> Option<i64> {
    let text = member.value().ok().filter(|_| member.shape == Shape::Text)?;
    parse_time(std::str::from_utf8(&text).ok()?)
}

/// The bytes as text, borrowed if they were borrowed; `Err` returns them if they are not UTF-8.
fn utf8(bytes: Cow<'_, [u8]>) -> Result<Text<'_>, Cow<'_, [u8]>> {
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => Err(Cow::Borrowed(bytes)),
        },
        Cow::Owned(bytes) => {
            String::from_utf8(bytes).map(Cow::Owned).map_err(|e| Cow::Owned(e.into_bytes()))
        }
    }
}
