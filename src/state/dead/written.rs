//! Dead letters as programs get them, by command and by HTTP: names that stay.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::DeadLetter;

/// A dead letter without the original pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Its own id.
    pub id: String,
    /// When it was written.
    pub time_ms: u64,
    /// The original entry's id.
    pub entry_id: String,
    /// Why it is one.
    pub reason: String,
    /// The same for people.
    pub detail: String,
    /// How often the entry was delivered.
    pub deliveries: Option<u64>,
    /// Place of an element in a packed entry.
    pub index: Option<u64>,
    /// The stream it stood in.
    pub stream: String,
    /// The first entry, and the place in it, that this one tried again.
    pub retry_of: Option<String>,
}

/// A dead letter whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Whole {
    /// What it says.
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
        let (id, time_ms) = (letter.id.to_string(), letter.id.ms);
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
