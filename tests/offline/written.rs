//! Written events decode to the same events; and the parts of an event have the effect of the whole.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use rollcall::decode::{Rules, decode};
use rollcall::entry::{Entry, EntryId};
use rollcall::event::{
    Document, DocumentAction, Event, Heartbeat, Kind, Limits, Login, Logout, Session,
    SessionAction, TYPES, Unknown, View,
};
use rollcall::op::Plan;
use rollcall::projection::Projections;
use rollcall::time::EventTime;

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

#[test]
fn every_type_is_drawn() {
    let (mut runner, kinds) = (TestRunner::deterministic(), kinds());
    let mut draw = || kinds.new_tree(&mut runner).unwrap().current().place();
    let drawn: BTreeSet<_> = (0..40 * TYPES.len()).map(|_| draw()).collect();
    assert_eq!(drawn, (0..TYPES.len()).collect());
}

fn read(entry: &Entry) -> Vec<Event<'_>> {
    let rules =
        Rules { limits: Limits::default(), max_skew_ms: 0, partitions: 1, moved_from: Vec::new() };
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
