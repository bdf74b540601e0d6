//! Events, written: as the fields of an entry, or as a JSON object, such as packed entries hold.
//!
//! What each type writes stands in its own file. Whoever reads what was written gets the same event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Event, Kind, Name, TYPES};
use crate::format::{compact_json, is_json, write_json_text};
use crate::time::EventTime;

/// A member that is there.
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

/// What makes a session's data opaque: it is kept byte for byte then.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::{Rules, decode};
    use crate::entry::{Entry, EntryId};
    use crate::event::{
        Document, DocumentAction, Heartbeat, Limits, Login, Logout, Session, SessionAction,
        Unknown, View,
    };
    use crate::op::Plan;
    use crate::projection::Projections;

    const ENTRY: EntryId = EntryId { ms: 9_000_000_000_000, seq: 0 };

    fn id() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z|%\"\\\\\n\u{0}é]{1,8}", "\\PC{1,20}"]
    }

    fn text() -> impl Strategy<Value = String> {
        "\\PC{0,12}"
    }

    fn maybe() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(id())
    }

    fn data() -> impl Strategy<Value = Option<Vec<u8>>> {
        let value = prop_oneof![
            text().prop_map(|text| serde_json::json!({ text.clone(): [text, 1.5, null] })),
            any::<i64>().prop_map(|number| serde_json::json!([number])),
            text().prop_map(|text| serde_json::json!(text)),
            Just(serde_json::json!(true)),
            Just(serde_json::json!(null)),
        ];
        let data = prop_oneof![
            value.clone().prop_map(|value| value.to_string().into_bytes()),
            // JSON in JSON, JSON with spaces, and what is none.
            value.clone().prop_map(|value| serde_json::json!(value.to_string()).to_string().into()),
            value.prop_map(|value| format!(" {value:#} ").into_bytes()),
            proptest::collection::vec(any::<u8>(), 1..20),
        ];
        proptest::option::of(data)
    }

    fn lives() -> impl Strategy<Value = Option<u32>> {
        proptest::option::of(1..=Session::MAX_TTL)
    }

    fn kinds() -> impl Strategy<Value = Kind<'static>> {
        let cow = |text: Option<String>| text.map(Into::into);
        let heartbeat = (id(), text(), text(), maybe(), maybe(), maybe(), maybe());
        prop_oneof![
            (heartbeat, maybe()).prop_map(move |((user, ua, page, ip, token, sid, doc), c)| {
                Kind::Heartbeat(Heartbeat {
                    user: user.into(),
                    ip: cow(ip).unwrap_or_default(),
                    ua: ua.into(),
                    page: page.into(),
                    token: cow(token),
                    sid: cow(sid),
                    doc: cow(doc),
                    connection: cow(c).unwrap_or_default(),
                })
            }),
            (id(), id(), maybe(), text(), maybe()).prop_map(move |(user, token, ip, ua, sid)| {
                Kind::Login(Login {
                    user: user.into(),
                    token: token.into(),
                    ip: cow(ip).unwrap_or_default(),
                    ua: ua.into(),
                    sid: cow(sid),
                })
            }),
            (id(), maybe(), maybe(), maybe()).prop_map(move |(user, ip, token, sid)| {
                Kind::Logout(Logout {
                    user: user.into(),
                    ip: cow(ip),
                    token: cow(token),
                    sid: cow(sid),
                })
            }),
            (id(), id(), id()).prop_map(|(user, token, item)| {
                Kind::View(View { user: user.into(), token: token.into(), item: item.into() })
            }),
            (id(), id(), maybe(), text(), lives(), proptest::option::of(data())).prop_map(
                move |(sid, user, ip, ua, ttl, action)| {
                    Kind::Session(Session {
                        sid: sid.into(),
                        user: user.into(),
                        ip: cow(ip).unwrap_or_default(),
                        ua: ua.into(),
                        ttl,
                        action: match action {
                            Some(data) => SessionAction::Update(data.map(Into::into)),
                            None => SessionAction::Terminate,
                        },
                    })
                }
            ),
            (id(), id(), maybe(), any::<bool>()).prop_map(move |(doc, user, connection, joins)| {
                Kind::Document(Document {
                    doc: doc.into(),
                    user: user.into(),
                    connection: cow(connection).unwrap_or_default(),
                    action: if joins { DocumentAction::Join } else { DocumentAction::Leave },
                })
            }),
        ]
    }

    fn events() -> impl Strategy<Value = Event<'static>> {
        (kinds(), 1_000_000_000_000..9_000_000_000_000_u64).prop_map(|(kind, ms)| Event {
            time: EventTime::from_millis(ms),
            from_future: false,
            unknown: Unknown::default(),
            kind,
        })
    }

    fn read(entry: &Entry) -> Vec<Event<'_>> {
        let rules = Rules { limits: Limits::default(), max_skew_ms: 0, partitions: 1 };
        let decoded = decode(entry, 0, &rules);
        assert_eq!(decoded.rejected, []);
        decoded.events
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_event(events in proptest::collection::vec(events(), 1..4)) {
            for event in &events {
                let fields = event.fields();
                let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
                let entry = Entry::new(ENTRY, fields);
                prop_assert_eq!(&read(&entry), std::slice::from_ref(event));
            }
            let mut json = "[".to_owned();
            for (i, event) in events.iter().enumerate() {
                json.push_str(if i == 0 { "" } else { "," });
                event.kind.write_json(event.time, &mut json);
            }
            json.push(']');
            let entry = Entry::new(ENTRY, [("data", json.as_str())]);
            prop_assert_eq!(read(&entry), events);
        }

        #[test]
        fn a_kind_and_its_foreign_parts_have_the_effect_of_the_whole(event in events()) {
            let parts = event.kind.foreign_parts();
            let own = event.kind.clone().without_foreign_parts();
            prop_assert!(own.foreign_parts().is_empty());
            prop_assert_eq!(parts.is_empty(), own == event.kind);
            let all = Projections::all();
            let mut whole = Plan::default();
            all.fold(&event, ENTRY.ms, &mut whole);
            let mut together = Plan::default();
            for kind in std::iter::once(own).chain(parts) {
                prop_assert!(kind.foreign_parts().is_empty());
                all.fold(&Event { kind, ..event.clone() }, ENTRY.ms, &mut together);
            }
            prop_assert_eq!(together, whole);
        }
    }
}
