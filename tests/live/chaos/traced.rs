//! Random entries that leave a trace: each joins a document with its own connection, besides everything else in it,
//! so that the state shows for every single entry whether it was applied.

use std::collections::BTreeSet;

use rollcall::entry::{Entry, Field};
use rollcall::key::partition_of;
use serde_json::{Map, Value, json};

use crate::support::events::{Events, field, flat};
use crate::support::model::Bytes;

/// The beginning of the names by which entries are recognised in the state.
const TRACE: &str = "trace-";
/// The same for users whose activity is in a key that another program may use.
const TAKEN: &str = "taken-";

/// Random entries over all partitions, forms and types; sometimes an invalid one.
pub struct Traced {
    events: Events,
    count: u64,
    /// So many more users, sessions and tokens, which have keys of their own in all partitions.
    crowd: u64,
}

impl Traced {
    pub fn new(events: Events) -> Self {
        Self { events, count: 0, crowd: 0 }
    }

    pub fn with_crowd(self, crowd: u64) -> Self {
        Self { crowd, ..self }
    }

    /// The next entry's partition and fields.
    pub fn entry(&mut self) -> (u16, Vec<Field>) {
        self.count += 1;
        let is_of_crowd = self.crowd > 0 && self.events.rng.bool();
        let (partition, first) = if is_of_crowd { self.of_crowd() } else { self.events.event() };
        let connection = format!("{TRACE}{}", self.count);
        // With several partitions a heartbeat's document has no effect.
        let forms = if self.events.partitions == 1 { 8 } else { 7 };
        let fields = match self.events.rng.u8(..forms) {
            0 if self.events.rng.u8(..3) == 0 => vec![field("type", "nonsense")],
            7 => {
                let mut event =
                    json!({"type": "heartbeat", "doc": "trace0", "connection": connection});
                event["user"] = first["user"].clone();
                flat(event.as_object().unwrap())
            }
            form => {
                let mut events = self.events.packed(partition, first);
                events.push(json!({
                    "type": "document", "action": "join", "user": "tracer",
                    "doc": document(self.events.partitions, partition), "connection": connection,
                }));
                packed(&events, form)
            }
        };
        (partition, fields)
    }
}

impl Traced {
    fn of_crowd(&mut self) -> (u16, Map<String, Value>) {
        let n = self.events.rng.u64(..self.crowd);
        let (user, sid) = (format!("user-{n}"), format!("sid-{n}"));
        let (routing, event) = match self.events.rng.u8(..3) {
            0 => (&user, json!({"type": "heartbeat", "user": user, "ip": "10.1.1.1"})),
            1 => {
                let token = format!("token-{n}");
                let item = format!("item{}", self.events.rng.u32(..40));
                (&user, json!({"type": "view", "user": user, "token": token, "item": item}))
            }
            _ => (&sid, json!({"type": "session", "sid": sid, "user": user, "data": {"n": n}})),
        };
        let partition = partition_of(routing, self.events.partitions);
        (partition, event.as_object().unwrap().clone())
    }
}

/// The document of a partition that entries join.
pub fn document(partitions: u16, partition: u16) -> String {
    let mut names = (0..).map(|n| format!("trace{n}"));
    names.find(|name| partition_of(name, partitions) == partition).unwrap()
}

fn packed(events: &[Value], form: u8) -> Vec<Field> {
    if form == 1 {
        let data = (b"data".to_vec(), rmp_serde::to_vec(events).unwrap());
        return vec![field("datacontenttype", "application/msgpack"), data];
    }
    vec![field("data", &Value::from(events).to_string())]
}

/// Users with a single heartbeat each, recognised by its presence entry; others for each `what`.
pub fn taken_users(what: u64) -> impl Iterator<Item = String> {
    (0..4).map(move |n| format!("{TAKEN}{what}-{n}"))
}

/// The user of an entry, if it is one of [`taken_users`].
pub fn taken_user(entry: &Entry) -> Option<String> {
    let user = String::from_utf8(entry.get(b"user")?.to_vec()).ok()?;
    user.starts_with(TAKEN).then_some(user)
}

/// The trace of an entry in the state; `None` if it changes nothing there.
pub fn of_entry(entry: &Entry) -> Option<Bytes> {
    if let Some(user) = taken_user(entry) {
        return Some(user.into_bytes());
    }
    entry.fields().find_map(|(_, value)| {
        let at = value.windows(TRACE.len()).position(|part| part == TRACE.as_bytes())?;
        let digits = value[at + TRACE.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(value[at..at + TRACE.len() + digits.count()].to_vec())
    })
}

/// All traces in the state: members of `docs_joined`, fields of presence.
pub fn in_state(joined: &[Bytes], present: &[Bytes]) -> BTreeSet<Bytes> {
    let last = |member: &Bytes| member.rsplit(|byte| *byte == b'|').next().map(<[u8]>::to_vec);
    let first = |field: &Bytes| field.split(|byte| *byte == b'|').next().map(<[u8]>::to_vec);
    let connections =
        joined.iter().filter_map(last).filter(|name| name.starts_with(TRACE.as_bytes()));
    let users = present.iter().filter_map(first).filter(|name| name.starts_with(TAKEN.as_bytes()));
    connections.chain(users).collect()
}
