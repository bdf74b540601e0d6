//! The two formats of `data`, JSON and MessagePack, taken apart without building trees.
//!
//! A value is first split into the raw bytes of its elements or members, so a bad element can be kept byte for byte,
//! and bad UTF-8 in one member does not affect another. A scalar is only parsed on demand.

mod json;
mod msgpack;
mod write;

use std::borrow::Cow;
use std::fmt;

pub use json::{compact_json, is_json, write_text as write_json_text};

/// Arrays and objects may nest this deep.
pub const MAX_DEPTH: usize = 128;

/// What kind of value a member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: counts as absent.
    Null,
    /// Text: its bytes.
    Text,
    /// An integer: its digits.
    Integer,
    /// A number written with a fraction or an exponent, or as a float.
    Number,
    /// A point in time: MessagePack's timestamp extension.
    Timestamp,
    /// A truth value.
    Boolean,
    /// An array, in its own format.
    Array,
    /// An object, in its own format.
    Object,
    /// A value that JSON does not have.
    Extension,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Text => "text",
            Self::Integer => "an integer",
            Self::Number => "a number with a fraction or exponent",
            Self::Timestamp => "a MessagePack timestamp",
            Self::Boolean => "true or false",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::Extension => "a MessagePack extension",
        })
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A field of the stream entry: plain bytes.
    Flat,
    /// JSON (RFC 8259).
    Json,
    /// MessagePack.
    MessagePack,
}

/// A text that breaks the rules of its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It cannot be read.
    #[error("is not valid {}: {problem}", match .format { Format::MessagePack => "MessagePack", _ => "JSON" })]
    Syntax {
        /// The format it was read as.
        format: Format,
        /// What is wrong, and where.
        problem: String,
    },
    /// It can be read, but JSON has no such value.
    #[error("holds {what}, which JSON cannot express; {remedy}")]
    NotJson {
        /// The value.
        what: &'static str,
        /// What to send instead.
        remedy: &'static str,
    },
}

/// One member: the kind of its value, and the value as it is in its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// What kind of value.
    pub shape: Shape,
    /// The whole value as it is in its envelope.
    pub raw: &'a [u8],
    /// How `raw` is written.
    pub format: Format,
    /// Whether it is JSON text with escapes.
    escaped: bool,
}

/// A member with a copy of its value.
#[derive(Clone, Debug)]
pub struct Copied {
    shape: Shape,
    raw: Box<[u8]>,
    format: Format,
    escaped: bool,
}

impl Copied {
    /// The member.
    pub fn member(&self) -> Member<'_> {
        let Self { shape, raw, format, escaped } = self;
        Member { shape: *shape, raw, format: *format, escaped: *escaped }
    }
}

/// What is found in an array.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'n, 'a> {
    /// A member, with its name, of the object that ends next.
    Member(&'n [u8], Member<'a>),
    /// The end of an element of any kind.
    Element(Member<'a>),
}

impl<'a> Member<'a> {
    /// A field of a stream entry.
    pub fn flat(value: &'a [u8]) -> Self {
        Self { shape: Shape::Text, raw: value, format: Format::Flat, escaped: false }
    }

    /// The same with a copy of its value.
    pub fn copied(&self) -> Copied {
        let Self { shape, raw, format, escaped } = *self;
        Copied { shape, raw: raw.into(), format, escaped }
    }

    /// Whether it counts as absent: null, or empty text.
    pub fn is_absent(&self) -> bool {
        match self.shape {
            Shape::Null => true,
            Shape::Text => self.format.is_empty_text(self.raw),
            _ => false,
        }
    }

    /// The text itself, or the digits of a number; otherwise the value in its own format.
    ///
    /// # Errors
    /// If a text has broken escapes, or is cut off.
    pub fn value(&self) -> Result<Cow<'a, [u8]>, Malformed> {
        match (self.format, self.shape) {
            (Format::Json, Shape::Text) => json::text(self.raw, self.escaped),
            (Format::MessagePack, Shape::Text) => msgpack::text(self.raw).map(Cow::Borrowed),
            (Format::MessagePack, Shape::Integer) => {
                msgpack::integer(self.raw).map(|digits| Cow::Owned(digits.into_bytes()))
            }
            (Format::MessagePack, Shape::Number) => {
                msgpack::float(self.raw).map(|float| Cow::Owned(float.to_string().into_bytes()))
            }
            _ => Ok(Cow::Borrowed(self.raw)),
        }
    }

    /// The non-negative whole number that the value is: an integer, a float without a fraction (up to 2^53), or a
    /// text of digits, with or without `.0`. `None` for anything else.
    pub fn whole(&self) -> Option<u64> {
        let value = self.value().ok()?;
        let digits = std::str::from_utf8(&value).ok()?;
        match self.shape {
            Shape::Integer => digits.parse().ok(),
            Shape::Number => whole_float(digits.parse().ok()?),
            Shape::Text => whole_text(digits),
            _ => None,
        }
    }

    /// The point in time of a timestamp, in milliseconds since the epoch, rounded down. `None` for anything else, and
    /// if it does not fit into milliseconds.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let (seconds, nanos) =
            msgpack::timestamp(self.raw).filter(|_| self.shape == Shape::Timestamp)?;
        seconds.checked_mul(1000)?.checked_add(i64::from(nanos / 1_000_000))
    }

    /// The value as JSON text: verbatim from a flat field, compact in member order otherwise.
    ///
    /// # Errors
    /// If it is not valid, nests deeper than [`MAX_DEPTH`], or has no JSON form.
    pub fn json(&self) -> Result<Cow<'a, str>, Malformed> {
        match self.format {
            Format::Flat => json::validated(self.raw).map(Cow::Borrowed),
            Format::Json => Ok(Cow::Owned(json::compact(self.raw))),
            Format::MessagePack => msgpack::to_json(self.raw).map(Cow::Owned),
        }
    }
}

/// Whether a media type declares `data` as opaque.
pub fn is_opaque(media_type: &[u8]) -> bool {
    matches!(essence(media_type).as_str(), "text/plain" | "application/octet-stream")
}

/// A media type without its parameters, in lower case.
fn essence(media_type: &[u8]) -> String {
    let full = String::from_utf8_lossy(media_type);
    full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Floats count as whole only up to where each integer is exact.
fn whole_float(float: f64) -> Option<u64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
}

/// Digits without a leading zero, possibly with `.0`: some languages write a float like that.
fn whole_text(text: &str) -> Option<u64> {
    let (digits, zeros) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole = !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0');
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = digits == "0" || !digits.starts_with('0');
    if is_whole && is_number && is_short { digits.parse().ok() } else { None }
}

impl Format {
    /// The format of a media type; its parameters do not matter.
    pub fn of_content_type(media_type: &[u8]) -> Option<Self> {
        match essence(media_type).as_str() {
            "application/json" | "text/json" => Some(Self::Json),
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
                Some(Self::MessagePack)
            }
            other if other.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }

    /// Whether `raw` begins with an array; nothing is validated.
    pub fn is_array(self, raw: &[u8]) -> bool {
        match self {
            Self::MessagePack => msgpack::shape(raw) == Some(Shape::Array),
            Self::Json | Self::Flat => json::begins_with(raw, b'['),
        }
    }

    /// Whether `raw` begins with an object; nothing is validated.
    pub fn is_object(self, raw: &[u8]) -> bool {
        match self {
            Self::MessagePack => msgpack::shape(raw) == Some(Shape::Object),
            Self::Json | Self::Flat => json::begins_with(raw, b'{'),
        }
    }

    /// The content of a text, if `raw` is JSON and nothing but a text.
    ///
    /// # Errors
    /// If a text begins but is malformed or followed by more.
    pub fn unquoted(self, raw: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
        match self {
            Self::Json | Self::Flat if json::begins_with(raw, b'"') => {
                json::whole_text(raw).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Passes on the elements of an array in order, each after its members.
    ///
    /// # Errors
    /// If `raw` is not an array, is malformed anywhere, nests too deep, or is followed by more. What was passed on then
    /// does not count.
    pub fn elements<'a>(
        self,
        raw: &'a [u8],
        each: impl FnMut(Piece<'_, 'a>),
    ) -> Result<(), Malformed> {
        match self {
            Self::MessagePack => msgpack::elements(raw, each),
            Self::Json | Self::Flat => json::elements(raw, each),
        }
    }

    /// Passes on the members of an object with their names, in order, including duplicates.
    ///
    /// # Errors
    /// If `raw` is not an object, is malformed anywhere, nests too deep, or is followed by more. What was passed on then
    /// does not count.
    pub fn members<'a>(
        self,
        raw: &'a [u8],
        each: impl FnMut(&[u8], Member<'a>),
    ) -> Result<(), Malformed> {
        match self {
            Self::MessagePack => msgpack::members(raw, each),
            Self::Json | Self::Flat => json::members(raw, each),
        }
    }

    fn is_empty_text(self, raw: &[u8]) -> bool {
        match self {
            Self::Flat => raw.is_empty(),
            Self::Json => raw == b"\"\"",
            Self::MessagePack => msgpack::text(raw).is_ok_and(<[u8]>::is_empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_whole(text: &str) -> Option<u64> {
        let array = format!("[{text}]");
        let mut found = None;
        let each = |piece: Piece<'_, '_>| {
            if let Piece::Element(member) = piece {
                found = member.whole();
            }
        };
        Format::Json.elements(array.as_bytes(), each).unwrap();
        found
    }

    #[test]
    fn a_float_without_a_fraction_is_the_integer_it_is() {
        for (text, whole) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("1790000000123", Some(1_790_000_000_123)),
            ("1790000000123.0", Some(1_790_000_000_123)),
            ("1.79e12", Some(1_790_000_000_000)),
            ("179000000012300E-2", Some(1_790_000_000_123)),
            ("18446744073709551615", Some(u64::MAX)),
            ("9007199254740992.0", Some(1 << 53)),
            ("9007199254740994.0", None),
            ("1e999", None),
            ("0.5", None),
            ("-1", None),
            ("-1.0", None),
            ("true", None),
            ("null", None),
            ("[1]", None),
            (r#""7200""#, Some(7200)),
            (r#""7200.00""#, Some(7200)),
            (r#""07""#, None),
            (r#""7.""#, None),
            (r#"".0""#, None),
            (r#""7.5""#, None),
            (r#""1e3""#, None),
            (r#""+7""#, None),
            (r#"" 7""#, None),
        ] {
            assert_eq!(json_whole(text), whole, "{text}");
        }
        assert_eq!(Member::flat(b"7200").whole(), Some(7200));
    }
}
