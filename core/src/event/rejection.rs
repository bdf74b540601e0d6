//! Why an entry is not an event, for people: the value in question, and what to send instead.

use super::{Name, Reason};
use crate::format::{Format, Malformed, Member, Shape};

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

    /// A member that violates its format.
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

    /// A time that cannot be read, or is impossible.
    pub(super) fn time(member: Member<'_>, claimed_ms: Option<i64>) -> Self {
        let found = found(member);
        let detail = match claimed_ms {
            None => format!(
                "time is {found}; send milliseconds since the epoch (13 digits), RFC 3339 or a MessagePack \
                 timestamp"
            ),
            Some(_) => format!(
                "time is {found}, which is not between 2001-09-09 and 2286-11-20; send the time of the event, or \
                 leave time out"
            ),
        };
        Self::new(Reason::InvalidTime, detail)
    }
}

/// A value as text, or its kind.
pub(super) fn found(member: Member<'_>) -> String {
    match member.shape {
        Shape::Text | Shape::Integer | Shape::Number => {
            member.value().map_or_else(|_| member.shape.to_string(), |value| excerpt(&value))
        }
        Shape::Timestamp => match member.timestamp_ms() {
            Some(ms) => format!("a MessagePack timestamp of {ms} ms"),
            None => "a malformed MessagePack timestamp".to_owned(),
        },
        shape => shape.to_string(),
    }
}

/// The beginning of a value, quoted, printable and short enough for a message.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let shown = beginning(bytes);
    if bytes.len() > SHOWN {
        format!("\"{shown}\" ({} bytes)", bytes.len())
    } else {
        format!("\"{shown}\"")
    }
}

/// The maximum number of bytes of a value in a message.
const SHOWN: usize = 40;

/// The beginning of a value, printable; an ellipsis if there is more.
pub(super) fn beginning(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", shown.escape_debug())
}
