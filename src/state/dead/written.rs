//! Dead letters as programs receive them, by command and over HTTP. The names must not change.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::DeadLetter;
use crate::entry::PlacedId;

/// A dead letter without the original pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Its own id, as a [`PlacedId`].
    pub id: String,
    /// When it was written.
    pub time_ms: u64,
    /// The original entry's id.
    pub entry_id: String,
    /// The reason, as the label of the metric.
    pub reason: String,
    /// The reason for people.
    pub detail: String,
    /// How often the entry was delivered.
    pub deliveries: Option<u64>,
    /// Index of an element in a packed entry.
    pub index: Option<u64>,
    /// The stream it was in.
    pub stream: String,
    /// The first entry, and the index in it, if this letter is of a retry.
    pub retry_of: Option<String>,
}

/// A complete dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Whole {
    /// Its header.
    #[serde(flatten)]
    pub header: Header,
    /// The entry's own pairs, in order.
    pub fields: Vec<Pair>,
}

/// A pair of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Its name.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// Bytes: a text or, if they are not UTF-8, `{"base64": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", STANDARD.encode(&self.0))]),
        }
    }
}

impl From<DeadLetter> for Header {
    fn from(letter: DeadLetter) -> Self {
        let retry_of = letter.retry_of();
        let [entry_id, reason, detail, deliveries, index, stream] = letter.header;
        let (deliveries, index) = (deliveries.parse().ok(), index.parse().ok());
        let id = PlacedId { partition: letter.partition, id: letter.id }.to_string();
        let time_ms = letter.id.ms;
        Self { id, time_ms, entry_id, reason, detail, deliveries, index, stream, retry_of }
    }
}

impl From<DeadLetter> for Whole {
    fn from(letter: DeadLetter) -> Self {
        let pair = |(name, value): &(Vec<u8>, Vec<u8>)| Pair {
            name: Bytes(name.clone()),
            value: Bytes(value.clone()),
        };
        Self { fields: letter.fields.iter().map(pair).collect(), header: letter.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let json = |bytes: &[u8]| serde_json::to_string(&Bytes(bytes.to_vec())).unwrap();
        assert_eq!(json("é\n".as_bytes()), r#""é\n""#);
        assert_eq!(json(b"\xff"), r#"{"base64":"/w=="}"#);
    }
}
