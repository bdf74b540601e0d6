//! The members an event can have, and how each is read: identifiers, free text, choices, time, data.
//!
//! Everything that is wrong with a member becomes a [`Rejection`] that names the member, the shape
//! of what stood there and the remedy.

use std::borrow::Cow;
use std::fmt;

use super::Text;
use crate::format::{Format, Malformed, Member, Shape};
use crate::time::parse_time;

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
    /// Pairs beyond which an entry is not kept, whatever the limits: more than a script can pass to a command.
    pub const MOST_PAIRS: usize = 3_900;

    /// Bytes of names and values beyond which no entry can hold an event, and none is kept.
    pub fn most_bytes(&self) -> usize {
        self.max_fields * 2 * self.max_field_bytes + self.max_data_bytes
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
        /// An envelope's content, or a session's data.
        Data = "data",
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
        /// `time` is neither thirteen digits nor RFC 3339.
        InvalidTime = "invalid_time",
        /// `data` is not JSON.
        InvalidJson = "invalid_json",
        /// `data` is not MessagePack.
        InvalidMsgpack = "invalid_msgpack",
        /// `datacontenttype` is neither JSON nor MessagePack.
        UnsupportedContentType = "unsupported_content_type",
        /// `data` is an array though the entry has a `type`.
        UnexpectedArray = "unexpected_array",
        /// An entry packs more events than the limit.
        TooManyEvents = "too_many_events",
        /// The event belongs in another partition's stream.
        WrongPartition = "wrong_partition",
        /// A key the event would write has another type.
        WrongType = "wrong_type",
        /// Applying the entry alone failed.
        ApplyFailed = "apply_failed",
        /// Workers died each time they tried the entry alone.
        Poison = "poison",
    }
}

/// Why an entry, or one element of a packed entry, cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of reason.
    pub reason: Reason,
    /// The field, the shape of its value and the remedy, for people.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its explanation.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub(crate) fn missing(name: Name, remedy: &str) -> Self {
        Self::new(Reason::MissingField, format!("{name} is missing or empty; {remedy}"))
    }

    pub(crate) fn unknown_type(found: &[u8]) -> Self {
        let detail =
            format!("type is {}; it must be one of {}", excerpt(found), super::TYPES.join(", "));
        Self::new(Reason::UnknownType, detail)
    }

    /// A member whose text breaks the rules of its format.
    pub(crate) fn malformed(name: Name, malformed: &Malformed) -> Self {
        let reason = match malformed {
            Malformed::Syntax { format: Format::MessagePack, .. } => Reason::InvalidMsgpack,
            Malformed::Syntax { .. } => Reason::InvalidJson,
            Malformed::NotJson { .. } => Reason::InvalidValue,
        };
        Self::new(reason, format!("{name} {malformed}"))
    }

    pub(crate) fn too_long(what: &str, bytes: usize, limit: usize) -> Self {
        let detail = format!("{what} has {bytes} bytes; the limit is {limit}");
        Self::new(Reason::FieldTooLong, detail)
    }
}

/// The beginning of a value, printable and short enough for a message.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let shown =
        String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).escape_debug().to_string();
    if bytes.len() > SHOWN {
        format!("\"{shown}…\" ({} bytes)", bytes.len())
    } else {
        format!("\"{shown}\"")
    }
}

/// The members of one event by name; absent, empty and null ones are not there.
#[derive(Clone, Debug, Default)]
pub struct Members<'a> {
    slots: [Option<Member<'a>>; Name::ALL.len()],
    is_cloud_event: bool,
}

/// The member that makes a CloudEvent of whatever has it; its value has no effect.
const CLOUD_EVENT: &[u8] = b"specversion";

impl<'a> Members<'a> {
    /// Adds a member, whatever its name.
    pub fn add(&mut self, name: &[u8], member: Member<'a>) {
        match Name::from_name(name) {
            Some(name) => self.set(name, member),
            None => self.note(name),
        }
    }

    /// Sets a member; a later one of the same name replaces it, an empty one removes it.
    pub fn set(&mut self, name: Name, member: Member<'a>) {
        self.slots[name as usize] = Some(member).filter(|member| !member.is_absent());
    }

    /// Notes a member that has no effect: one of them tells a CloudEvent.
    pub fn note(&mut self, name: &[u8]) {
        self.is_cloud_event |= name == CLOUD_EVENT;
    }

    /// Whether they, or those around them, are a CloudEvent's.
    pub fn is_cloud_event(&self) -> bool {
        self.is_cloud_event
    }

    /// A member, if it is there.
    pub fn get(&self, name: Name) -> Option<Member<'a>> {
        self.slots[name as usize]
    }

    /// These members; what they lack, `outer` gives.
    pub fn over(mut self, outer: &Self) -> Self {
        for (slot, outer) in self.slots.iter_mut().zip(&outer.slots) {
            *slot = slot.or(*outer);
        }
        self.is_cloud_event |= outer.is_cloud_event;
        self
    }

    /// The same without one member.
    pub fn without(mut self, name: Name) -> Self {
        self.slots[name as usize] = None;
        self
    }

    /// The text of a member, `None` where it is absent.
    fn bytes(&self, name: Name) -> Result<Option<Cow<'a, [u8]>>, Rejection> {
        match self.get(name) {
            None => Ok(None),
            Some(member) if member.shape == Shape::Text => value(name, member).map(Some),
            Some(member) => Err(Rejection::new(
                Reason::InvalidValue,
                format!("{name} is {}; send it as text", member.shape),
            )),
        }
    }

    /// An identifier that must be there.
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
            let detail = format!("{name} is {}, not UTF-8; identifiers are UTF-8", excerpt(&bytes));
            Rejection::new(Reason::InvalidUtf8, detail)
        })
    }

    /// Free text; empty where it is absent, U+FFFD where it is not UTF-8.
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
        let thirteen_digits = |text: &str| text.len() == 13;
        let value = value(Name::Time, member)?;
        let time = match (member.shape, std::str::from_utf8(&value)) {
            (Shape::Text, Ok(text)) => parse_time(text),
            (Shape::Integer, Ok(text)) if thirteen_digits(text) => parse_time(text),
            _ => None,
        };
        let found = match member.shape {
            Shape::Text | Shape::Integer => excerpt(&value),
            shape => shape.to_string(),
        };
        let rejection = || {
            let detail = format!(
                "time is {found}; send milliseconds since the epoch (13 digits) or RFC 3339"
            );
            Rejection::new(Reason::InvalidTime, detail)
        };
        time.map(Some).ok_or_else(rejection)
    }

    /// A session's data as JSON text: verbatim from a flat entry, compact otherwise.
    pub(super) fn session_data(&self, limits: &Limits) -> Result<Option<Text<'a>>, Rejection> {
        let Some(member) = self.get(Name::Data) else { return Ok(None) };
        let text =
            member.json().map_err(|malformed| Rejection::malformed(Name::Data, &malformed))?;
        if text.len() > limits.max_data_bytes {
            return Err(Rejection::too_long("data", text.len(), limits.max_data_bytes));
        }
        Ok(Some(text))
    }
}

fn value<'a>(name: Name, member: Member<'a>) -> Result<Cow<'a, [u8]>, Rejection> {
    member.value().map_err(|malformed| Rejection::malformed(name, &malformed))
}

/// The bytes as text, borrowed where they were borrowed; back again if they are not UTF-8.
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
