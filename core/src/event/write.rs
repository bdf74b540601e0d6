//! Events, written as the fields of an entry or as a JSON object, such as packed entries hold.
//!
//! Each type writes itself in its own file. Decoding the result gives the same event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Event, Kind, Name, TYPES};
use crate::format::{compact_json, is_json, write_json_text};
use crate::time::EventTime;

/// A member with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written<'e> {
    /// Text.
    Text(&'e str),
    /// A number.
    Number(u64),
    /// A session's data: JSON, or any bytes.
    Data(&'e [u8]),
}

/// Takes the members of an event, one after the other.
pub(super) struct Writer<'w> {
    each: &'w mut dyn FnMut(Name, Written<'_>),
}

impl Writer<'_> {
    /// A member that counts as absent if it is empty.
    pub(super) fn text(&mut self, name: Name, text: &str) {
        if !text.is_empty() {
            (self.each)(name, Written::Text(text));
        }
    }

    /// A member that may be absent.
    pub(super) fn optional(&mut self, name: Name, text: Option<&str>) {
        self.text(name, text.unwrap_or_default());
    }

    /// A number.
    pub(super) fn number(&mut self, name: Name, number: u64) {
        (self.each)(name, Written::Number(number));
    }

    /// A session's data.
    pub(super) fn data(&mut self, data: &[u8]) {
        (self.each)(Name::Data, Written::Data(data));
    }
}

/// The content type that makes a session's data opaque, so that it is kept byte for byte.
const OPAQUE: &str = "application/octet-stream";

/// Writes a member of a JSON object.
fn write_member(json: &mut String, name: Name, value: Written<'_>) {
    json.extend([",\"", name.name(), "\":"]);
    match value {
        Written::Text(text) => write_json_text(json, text),
        Written::Number(number) => json.push_str(itoa::Buffer::new().format(number)),
        Written::Data(data) => match compact_json(data) {
            Some(value) => json.push_str(value),
            None => {
                json.truncate(json.len() - "data\":".len());
                json.push_str("data_base64\":\"");
                BASE64.encode_string(data, json);
                json.extend(["\",\"datacontenttype\":\"", OPAQUE, "\""]);
            }
        },
    }
}

impl Kind<'_> {
    /// The name of its type, as `type` carries it.
    pub fn name(&self) -> &'static str {
        TYPES.get(self.place()).copied().unwrap_or_default()
    }

    /// Writes an event of this kind as a JSON object; its time is a number.
    pub fn write_json(&self, time: EventTime, json: &mut String) {
        json.push_str("{\"type\":\"");
        json.push_str(self.name());
        json.push_str("\",\"time\":");
        json.push_str(itoa::Buffer::new().format(time.millis()));
        let mut each = |name: Name, value: Written<'_>| write_member(json, name, value);
        self.write(&mut Writer { each: &mut each });
        json.push('}');
    }
}

impl Event<'_> {
    /// The fields of an entry that holds just this event.
    pub fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let text = |name: Name, text: &str| (name.name(), text.as_bytes().to_vec());
        let mut fields =
            vec![text(Name::Type, self.kind.name()), text(Name::Time, &self.time.to_string())];
        let mut each = |name: Name, value: Written<'_>| match value {
            Written::Text(value) => fields.push(text(name, value)),
            Written::Number(number) => fields.push(text(name, &number.to_string())),
            Written::Data(data) => {
                fields.push((name.name(), data.to_vec()));
                if !is_json(data) {
                    fields.push(text(Name::ContentType, OPAQUE));
                }
            }
        };
        self.kind.write(&mut Writer { each: &mut each });
        fields
    }
}
