//! Messages to a target: a change, or that changes are missing, in the format of its kind.

use serde::Serialize;

use crate::change::Change;
use crate::changes::rooms::{Details, Message, Payload, messages};
use crate::config::Sink;
use crate::redis::scripts::notify::Publication;

/// Changes that a target will never receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    /// Always `gap`, in the place of a change's kind.
    kind: &'static str,
    partition: u16,
    /// The number of the last change that was sent.
    after: u64,
    /// The number of the next one that can be sent.
    next: u64,
}

impl Missing {
    pub(super) fn new(partition: u16, after: u64, next: u64) -> Self {
        Self { kind: "gap", partition, after, next }
    }

    /// The first and the last missing number.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.after + 1, self.next.saturating_sub(1))
    }
}

/// Whether targets of this kind need more than a change contains.
pub(super) fn wants_details(sink: &Sink) -> bool {
    matches!(sink, Sink::SocketioRedis { .. } | Sink::SocketioPython { .. })
}

/// The publications of a change; none if it has no room, or if the target is a webhook.
pub(super) fn change(sink: &Sink, change: &Change, details: Details) -> Vec<Publication> {
    let each = |emit: &dyn Fn(&Message) -> Publication| {
        messages(change, details).iter().map(emit).collect()
    };
    match sink {
        Sink::Pubsub { channel } => vec![plain(channel, change)],
        _ if change.is_erased() => to_all(sink, "erased", &Payload::ERASED),
        Sink::SocketioRedis { channel, namespace } => {
            each(&|told| for_node(channel, namespace, Some(&told.room), told.event, &told.payload))
        }
        Sink::SocketioPython { channel, namespace } => each(&|told| {
            for_python(channel, namespace, Some(&told.room), told.event, &told.payload)
        }),
        Sink::Webhook(_) => Vec::new(),
    }
}

/// The report that changes are missing: to everybody in the namespace, since only the receiver knows its rooms.
pub(super) fn gap(sink: &Sink, missing: &Missing) -> Vec<Publication> {
    let payload = Payload::Gap { reason: "changes were lost: read the state again" };
    match sink {
        Sink::Pubsub { channel } => vec![plain(channel, missing)],
        _ => to_all(sink, "gap", &payload),
    }
}

/// An event for everybody in the namespace of Socket.IO servers.
fn to_all(sink: &Sink, event: &str, payload: &Payload) -> Vec<Publication> {
    match sink {
        Sink::SocketioRedis { channel, namespace } => {
            vec![for_node(channel, namespace, None, event, payload)]
        }
        Sink::SocketioPython { channel, namespace } => {
            vec![for_python(channel, namespace, None, event, payload)]
        }
        Sink::Pubsub { .. } | Sink::Webhook(_) => Vec::new(),
    }
}

fn plain(channel: &str, told: &impl Serialize) -> Publication {
    Publication { channel: channel.to_owned(), payload: json(told) }
}

/// An event for a room of Node servers, or for everybody, as one of their own processes would send it.
fn for_node(
    channel: &str,
    namespace: &str,
    room: Option<&str>,
    event: &str,
    payload: &Payload,
) -> Publication {
    let channel = match room {
        Some(room) => format!("{channel}#{namespace}#{room}#"),
        None => format!("{channel}#{namespace}#"),
    };
    Publication { channel, payload: node(room, event, payload, namespace) }
}

/// The same for Python servers.
fn for_python(
    channel: &str,
    namespace: &str,
    room: Option<&str>,
    event: &str,
    payload: &Payload,
) -> Publication {
    let call = Call { method: "emit", event, data: payload, namespace, room };
    Publication { channel: channel.to_owned(), payload: json(&call) }
}

/// A call of python-socketio's `PubSubManager`.
#[derive(Serialize)]
struct Call<'a> {
    method: &'static str,
    event: &'a str,
    data: &'a Payload,
    namespace: &'a str,
    room: Option<&'a str>,
}

/// A packet of `socket.io-parser`.
#[derive(Serialize)]
struct Packet<'a> {
    /// `EVENT`
    #[serde(rename = "type")]
    kind: u8,
    data: (&'a str, &'a Payload),
    nsp: &'a str,
}

/// The recipients of a packet.
#[derive(Serialize)]
struct Scope<'a> {
    rooms: Vec<&'a str>,
    flags: Flags,
    except: [&'a str; 0],
}

/// No flags: an empty map.
#[derive(Serialize)]
struct Flags {}

/// The payload that `@socket.io/redis-emitter` publishes: its name, the packet, the recipients.
fn node(room: Option<&str>, event: &str, payload: &Payload, namespace: &str) -> Vec<u8> {
    let packet = Packet { kind: 2, data: (event, payload), nsp: namespace };
    let scope = Scope { rooms: room.into_iter().collect(), flags: Flags {}, except: [] };
    // Texts, numbers, maps and lists can always be serialised.
    rmp_serde::to_vec_named(&("emitter", packet, scope)).unwrap_or_default()
}

fn json(told: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(told).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryId};
    use serde_json::{Value, json};

    fn joined() -> Change {
        let fields = [
            ("seq", "7"),
            ("kind", "document_joined"),
            ("time", "1790000000000"),
            ("user", "ann"),
            ("doc", "d"),
            ("count", "2"),
        ];
        Change::read(&Entry::new(EntryId { ms: 1, seq: 0 }, fields), 0).unwrap()
    }

    fn published(sink: &Sink) -> Vec<(String, Value)> {
        let missing = Missing::new(0, 7, 12);
        let all = change(sink, &joined(), Details::Unknown).into_iter().chain(gap(sink, &missing));
        let read = |told: Publication| {
            let value = match sink {
                Sink::SocketioRedis { .. } => rmp_serde::from_slice(&told.payload).unwrap(),
                _ => serde_json::from_slice(&told.payload).unwrap(),
            };
            (told.channel, value)
        };
        all.map(read).collect()
    }

    #[test]
    fn each_kind_has_its_form() {
        let payload =
            json!({"type": "joined", "doc": "d", "user": "ann", "count": 2, "threshold": ""});
        let lost = json!({"reason": "changes were lost: read the state again"});
        let scope = |rooms: Value| json!({"rooms": rooms, "flags": {}, "except": []});
        let packet =
            |event: &str, data: &Value| json!({"type": 2, "data": [event, data], "nsp": "/"});
        let (channel, namespace) = ("socket.io".to_owned(), "/".to_owned());
        assert_eq!(
            published(&Sink::SocketioRedis { channel, namespace }),
            [
                (
                    "socket.io#/#doc:d#".to_owned(),
                    json!([
                        "emitter",
                        packet("document:update", &payload),
                        scope(json!(["doc:d"]))
                    ])
                ),
                (
                    "socket.io#/#".to_owned(),
                    json!(["emitter", packet("gap", &lost), scope(json!([]))])
                ),
            ]
        );
        let (channel, namespace) = ("flask-socketio".to_owned(), "/a".to_owned());
        let call = |event: &str, data: &Value, room: Value| json!({"method": "emit", "event": event, "data": data, "namespace": "/a", "room": room});
        assert_eq!(
            published(&Sink::SocketioPython { channel: channel.clone(), namespace }),
            [
                (channel.clone(), call("document:update", &payload, json!("doc:d"))),
                (channel.clone(), call("gap", &lost, Value::Null)),
            ]
        );
        let seven = json!({"kind": "document_joined", "partition": 0, "seq": 7, "time": 1_790_000_000_000_u64,
            "user": "ann", "doc": "d", "count": 2});
        let missing = json!({"kind": "gap", "partition": 0, "after": 7, "next": 12});
        assert_eq!(
            published(&Sink::Pubsub { channel: channel.clone() }),
            [(channel.clone(), seven), (channel, missing)]
        );
    }
}
