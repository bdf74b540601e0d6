//! What a careful reader of the original recipes would write: the same structures by plain commands, in pipelines,
//! event by event. It reads through redis-rs and decodes with Rollcall's own code; only the writing differs. It
//! promises nothing: a crash, a second worker or a redelivery leaves a wrong state.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Connection, FromRedisValue, Pipeline, Value};
use rollcall::decode::{Rules, decode};
use rollcall::entry::Entry;
use rollcall::event::{
    Document, DocumentAction, Event, Heartbeat, Kind, Limits, Login, Session, SessionAction, View,
};
use rollcall::time::EventTime;
use serde_json::json;

use crate::ground::{GROUP, STREAM};

pub(crate) const WINDOW_S: u64 = 300;
pub(crate) const SESSION_TTL_S: u64 = 1800;
const RECENT_CAP: i64 = 1_000_000;

/// The reply of `XINFO`.
type About = HashMap<String, Value>;

/// One consumer of the group, on a connection of its own.
pub(crate) struct Consumer {
    conn: Connection,
    batch: u32,
}

impl Consumer {
    pub(crate) fn new(mut conn: Connection, batch: u32) -> Self {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM");
        match create.exec(&mut conn) {
            Err(error) if error.code() != Some("BUSYGROUP") => panic!("no group: {error}"),
            _ => Self { conn, batch },
        }
    }

    /// The floor: reads and acknowledges, nothing else.
    pub(crate) fn acknowledge_all(&mut self) {
        while let Some(entries) = self.read() {
            let mut acknowledge = redis::pipe();
            add_acknowledgement(&mut acknowledge, &entries);
            self.send(&acknowledge);
        }
    }

    /// The other floor: reads on from its position, and moves the group's position once per batch.
    pub(crate) fn move_the_group(&mut self) {
        let groups = self.about::<Vec<About>>("GROUPS").remove(0);
        let mut last = String::from_redis_value_ref(&groups["last-delivered-id"]).unwrap();
        let stream: About = self.about("STREAM");
        let number = |name: &str| u64::from_redis_value_ref(&stream[name]).unwrap();
        // What was read has been trimmed.
        let mut read_so_far = number("entries-added") - number("length");
        loop {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(self.batch).arg("STREAMS").arg(STREAM).arg(&last);
            let Some(entries) = entries_of(read.query(&mut self.conn).unwrap()) else { return };
            last = entries.last().unwrap().id.to_string();
            let mut set = redis::cmd("XGROUP");
            set.arg("SETID").arg(STREAM).arg(GROUP).arg(&last).arg("ENTRIESREAD");
            read_so_far += entries.len() as u64;
            set.arg(read_so_far).exec(&mut self.conn).unwrap();
        }
    }

    fn about<T: FromRedisValue>(&mut self, what: &str) -> T {
        redis::cmd("XINFO").arg(what).arg(STREAM).query(&mut self.conn).unwrap()
    }

    /// The floor of latency: reads entries as they come, acknowledges them, and creates the key that reports a probe,
    /// until it is over.
    pub(crate) fn acknowledge_as_they_come(
        &mut self,
        probed: impl Fn(&Entry) -> Option<String>,
        over: &AtomicBool,
    ) {
        while !over.load(Ordering::Relaxed) {
            let Some(entries) = self.read_within(100) else { continue };
            let mut acknowledge = redis::pipe();
            for key in entries.iter().filter_map(&probed) {
                acknowledge.cmd("ZADD").arg(key).arg(0).arg("probe").ignore();
            }
            add_acknowledgement(&mut acknowledge, &entries);
            self.send(&acknowledge);
        }
    }

    /// Writes the events, one pipeline per batch.
    pub(crate) fn write_all(&mut self) {
        let rules = rules();
        while let Some(entries) = self.read() {
            let mut pipeline = redis::pipe();
            let mut documents = Vec::new();
            for entry in &entries {
                let decoded = decode(entry, 0, &rules);
                assert_eq!(decoded.rejected, [], "only valid events are measured");
                for event in decoded.events {
                    write(&mut pipeline, &event);
                    if let Kind::Document(document) = &event.kind {
                        documents.push(document.doc.to_string());
                    }
                }
            }
            if !documents.is_empty() {
                self.send(&pipeline);
                pipeline = self.counted(&documents);
            }
            add_acknowledgement(&mut pipeline, &entries);
            self.send(&pipeline);
        }
    }

    pub(crate) fn send(&mut self, pipeline: &Pipeline) {
        pipeline.exec(&mut self.conn).unwrap();
    }

    /// The commands that store the number of users of each document; asks for these numbers.
    fn counted(&mut self, documents: &[String]) -> Pipeline {
        let mut ask = redis::pipe();
        for doc in documents {
            ask.cmd("SCARD").arg(format!("sessions:doc:{doc}:users"));
        }
        let counts: Vec<u64> = ask.query(&mut self.conn).unwrap();
        let mut store = redis::pipe();
        for (doc, count) in documents.iter().zip(counts) {
            store.cmd("SET").arg(format!("sessions:doc:{doc}:count")).arg(count).ignore();
        }
        store
    }

    pub(crate) fn read(&mut self) -> Option<Vec<Entry>> {
        self.query(&["STREAMS", STREAM, ">"])
    }

    /// Waits this many milliseconds for entries.
    fn read_within(&mut self, ms: u32) -> Option<Vec<Entry>> {
        self.query(&["BLOCK", &ms.to_string(), "STREAMS", STREAM, ">"])
    }

    fn query(&mut self, what: &[&str]) -> Option<Vec<Entry>> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("bench").arg("COUNT").arg(self.batch).arg(what);
        entries_of(read.query(&mut self.conn).unwrap())
    }
}

/// The entries in the reply of a read of one stream.
fn entries_of(reply: Value) -> Option<Vec<Entry>> {
    match reply {
        Value::Nil => None,
        Value::Array(mut streams) => {
            let entries = array(array(streams.remove(0)).remove(1));
            Some(entries.into_iter().map(entry).collect())
        }
        other => panic!("a read answered {other:?}"),
    }
}

/// How entries are decoded.
pub(crate) fn rules() -> Rules {
    Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions: 1, moved_from: Vec::new() }
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        other => panic!("{other:?} is no array"),
    }
}

fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        other => panic!("{other:?} is no text"),
    }
}

fn entry(value: Value) -> Entry {
    let mut parts = array(value).into_iter();
    let id = String::from_utf8(bytes(parts.next().unwrap())).unwrap();
    let mut values = array(parts.next().unwrap()).into_iter().map(bytes);
    let mut fields = Vec::with_capacity(values.len() / 2);
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.push((name, value));
    }
    Entry::new(id.parse().unwrap(), fields)
}

pub(crate) fn add_acknowledgement(pipeline: &mut Pipeline, entries: &[Entry]) {
    pipeline.cmd("XACK").arg(STREAM).arg(GROUP);
    for entry in entries {
        pipeline.arg(entry.id.to_string());
    }
    pipeline.ignore();
}

fn write(pipeline: &mut Pipeline, event: &Event<'_>) {
    let time = event.time;
    match &event.kind {
        Kind::Heartbeat(Heartbeat { user, ip, ua, page, .. }) => {
            write_seen(pipeline, time, user);
            write_presence(pipeline, time, [user, ip, ua, page]);
        }
        Kind::Login(Login { user, token, ip, ua, .. }) => {
            write_seen(pipeline, time, user);
            write_presence(pipeline, time, [user, ip, ua, Login::PAGE]);
            write_token(pipeline, time, user, token);
        }
        Kind::View(View { user, token, item }) => {
            write_seen(pipeline, time, user);
            write_token(pipeline, time, user, token);
            let viewed = format!("viewed:{token}");
            pipeline.cmd("ZADD").arg(&viewed).arg(time.score()).arg(&**item).ignore();
            pipeline.cmd("ZREMRANGEBYRANK").arg(viewed).arg(0).arg(-26).ignore();
            pipeline.cmd("ZINCRBY").arg("viewed:").arg(1).arg(&**item).ignore();
        }
        Kind::Session(session) => write_session(pipeline, time, session),
        Kind::Document(Document { doc, user, action: DocumentAction::Join, .. }) => {
            pipeline.cmd("SADD").arg(format!("sessions:doc:{doc}:users")).arg(&**user).ignore();
        }
        Kind::Document(_) | Kind::Logout(_) => panic!("no mix here has an ending: {event:?}"),
    }
}

fn write_seen(pipeline: &mut Pipeline, time: EventTime, user: &str) {
    let minute = format!("online-users/{}", time.minute());
    pipeline.cmd("SADD").arg(&minute).arg(user).ignore();
    pipeline.cmd("EXPIRE").arg(minute).arg(WINDOW_S + 70).ignore();
    let activity = format!("user-activity/{user}");
    pipeline.cmd("SET").arg(activity).arg(time.seconds()).arg("EX").arg(WINDOW_S + 10).ignore();
}

fn write_presence(pipeline: &mut Pipeline, time: EventTime, [user, ip, ua, page]: [&str; 4]) {
    let value = json!({"lastSeen": time.millis(), "user": user, "ip": ip, "ua": ua, "page": page});
    let field = format!("{user}|{ip}");
    pipeline.cmd("HSET").arg("presence:users").arg(field).arg(value.to_string()).ignore();
}

fn write_token(pipeline: &mut Pipeline, time: EventTime, user: &str, token: &str) {
    pipeline.cmd("HSET").arg("login:").arg(token).arg(user).ignore();
    pipeline.cmd("ZADD").arg("recent:").arg(time.score()).arg(token).ignore();
    pipeline.cmd("ZREMRANGEBYRANK").arg("recent:").arg(0).arg(-RECENT_CAP - 1).ignore();
}

fn write_session(pipeline: &mut Pipeline, time: EventTime, session: &Session<'_>) {
    let Session { sid, user, ip, ua, action, .. } = session;
    let value = json!({
        "last_activity": time.millis(), "sid": sid, "session_id": sid, "user": user, "ip": ip, "ua": ua,
    });
    pipeline.cmd("HSET").arg("sessions:active").arg(&**sid).arg(value.to_string()).ignore();
    if let SessionAction::Update(Some(data)) = action {
        let key = format!("session:{sid}");
        pipeline.cmd("SET").arg(key).arg(&**data).arg("EX").arg(SESSION_TTL_S).ignore();
    }
}
