//! Random events over few identifiers and few instants, so that they collide: ties, repeats, endings before
//! beginnings, late events and events from the future.

use fastrand::Rng;
use rollcall::entry::Field;
use rollcall::event::TYPES;
use rollcall::key::partition_of;
use serde_json::{Map, Value, json};

pub const USERS: [&str; 7] = ["alice", "bob", "a|b", "a%7Cb", "x/{y}", "new\nline", "nul\0"];
pub const IPS: [&str; 4] = ["", "10.0.0.7", "10.0.0.8", "b|c"];
pub const TOKENS: [&str; 6] = ["t1", "t2", "t3", "t|4", "t{5}", "%"];
pub const SIDS: [&str; 5] = ["s1", "s2", "s|3", "s{4}", "s 5"];
pub const DOCS: [&str; 4] = ["d1", "d:2", "d|3", "a:users"];
pub const CONNECTIONS: [&str; 3] = ["", "c1", "c|2"];
/// Shorter and longer than sessions live by default.
const TTLS: [&str; 4] = ["1200", "7200", "2592000", "60"];

/// Random events around one instant.
pub struct Events {
    pub rng: Rng,
    /// The instant, ms.
    pub around: u64,
    /// Only these types, if any are named.
    pub types: Vec<&'static str>,
    /// The number of partitions; [`event`](Self::event) returns the partition first.
    pub partitions: u16,
}

impl Events {
    pub fn new(seed: u64, around: u64) -> Self {
        Self { rng: Rng::with_seed(seed), around, types: Vec::new(), partitions: 1 }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    /// Near the instant, with many ties; sometimes long expired for some structures, or far ahead.
    fn time(&mut self) -> u64 {
        let near = self.around - 30_000 + self.rng.u64(0..12) * 2_501;
        match self.rng.u32(0..20) {
            0 => self.around - 400_000 - self.rng.u64(0..3),
            1 => self.around - 2_000_000 - self.rng.u64(0..3),
            2 => self.around + 600_000,
            _ => near,
        }
    }

    /// One event as a JSON object, and the partition it belongs to.
    pub fn event(&mut self) -> (u16, Map<String, Value>) {
        let types = if self.types.is_empty() { TYPES.to_vec() } else { self.types.clone() };
        let kind = self.pick(&types);
        let mut event = Map::new();
        let mut put = |name: &str, value: &str| event.insert(name.to_owned(), Value::from(value));
        put("type", kind);
        let (user, sid, doc) = (self.pick(&USERS), self.pick(&SIDS), self.pick(&DOCS));
        put("user", user);
        if kind != "view" && kind != "document" {
            put("ip", self.pick(&IPS));
        }
        if self.rng.bool() {
            put("ua", self.pick(&["ua1", "ua2", "Ü\"\\/\u{1}"]));
        }
        let optional = self.rng.u32(0..3) == 0;
        match kind {
            "heartbeat" => {
                put("page", self.pick(&["/", "/home"]));
                if optional {
                    put("token", self.pick(&TOKENS));
                    put("sid", sid);
                    put("doc", doc);
                    put("connection", self.pick(&CONNECTIONS));
                }
            }
            "login" => {
                put("token", self.pick(&TOKENS));
                if optional {
                    put("sid", sid);
                }
            }
            "logout" => {
                if self.rng.u32(0..4) == 0 {
                    put("token", self.pick(&TOKENS));
                    put("sid", sid);
                }
            }
            "view" => {
                put("token", self.pick(&TOKENS));
                put("item", &format!("item{}", self.rng.u32(0..40)));
            }
            "session" => {
                put("sid", sid);
                if self.rng.u32(0..5) == 0 {
                    put("ttl", self.pick(&TTLS));
                }
                if self.rng.u32(0..8) == 0 {
                    put("action", "terminate");
                }
            }
            "document" => {
                put("doc", doc);
                put("connection", self.pick(&CONNECTIONS));
                put("action", self.pick(&["join", "join", "leave"]));
            }
            other => panic!("nothing says what {other} contains"),
        }
        if kind == "session" && self.rng.bool() {
            let data = json!({"cart": self.rng.u32(0..3), "a b": null});
            event.insert("data".to_owned(), data);
        }
        if self.rng.u32(0..10) > 0 {
            event.insert("time".to_owned(), Value::from(self.time()));
        }
        (partition_of(routing_id(&event), self.partitions), event)
    }

    /// One entry in any of the ways to write it, and its partition; a few are invalid.
    pub fn entry(&mut self) -> (u16, Vec<Field>) {
        let (partition, event) = self.event();
        let fields = match self.rng.u32(0..20) {
            0 => vec![field("type", "nonsense"), field("user", "alice")],
            1..=3 => vec![field("data", &Value::from(event).to_string())],
            4 | 5 => vec![
                field("datacontenttype", "application/msgpack"),
                (b"data".to_vec(), rmp_serde::to_vec(&event).unwrap()),
            ],
            6..=8 => vec![field("data", &Value::from(self.packed(partition, event)).to_string())],
            9 => {
                let kind = event["type"].clone();
                let cloud_event = json!({"specversion": "1.0", "id": "1", "source": "s", "type": kind, "data": event});
                vec![field("data", &cloud_event.to_string())]
            }
            _ => flat(&event),
        };
        (partition, fields)
    }

    /// Several events of one partition; sometimes one of them is bad.
    pub fn packed(&mut self, partition: u16, first: Map<String, Value>) -> Vec<Value> {
        let mut events = vec![Value::from(first)];
        while events.len() < self.rng.usize(1..6) {
            let (other, event) = self.event();
            if other == partition {
                events.push(event.into());
            }
        }
        if self.rng.u32(0..6) == 0 {
            events.push(json!({"type": "view", "user": "alice"}));
        }
        events
    }
}

/// The member that selects an event's partition, by the contract and not by what is tested.
pub fn routing_member(kind: &str) -> &'static str {
    match kind {
        "heartbeat" | "login" | "logout" | "view" => "user",
        "session" => "sid",
        "document" => "doc",
        other => panic!("nothing says which partition {other} belongs to"),
    }
}

/// The identifier that selects an event's partition.
pub fn routing_id(event: &Map<String, Value>) -> &str {
    event[routing_member(event["type"].as_str().unwrap())].as_str().unwrap()
}

/// An event's members as fields of an entry.
pub fn flat(event: &Map<String, Value>) -> Vec<Field> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    event.iter().map(|(name, value)| field(name, &text(value))).collect()
}

pub fn field(name: &str, value: &str) -> Field {
    (name.as_bytes().to_vec(), value.as_bytes().to_vec())
}
