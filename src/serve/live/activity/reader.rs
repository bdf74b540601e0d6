//! Reads one partition's stream of events from now on, without a group: nobody waits for it, and it acknowledges
//! nothing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use super::{Activity, Read};
use crate::changes::rooms::{EVENTS, Number, PresenceUpdate, SeenEvent, SessionUpdate};
use crate::config::{Config, Server};
use crate::decode::{Rules, decode};
use crate::entry::{Entry, EntryId};
use crate::error::{Error, chain};
use crate::event::{Event, Heartbeat, Kind, Login, Session, SessionAction};
use crate::key::Keys;
use crate::redis::connect::connect;
use crate::redis::reply;
use crate::redis::stream::entries;
use crate::serve::live::rooms::Rooms;
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics;

/// How long a read waits for an entry.
const BLOCK: Duration = Duration::from_secs(2);
/// How much longer its reply may take.
const REPLY_WITHIN: Duration = Duration::from_secs(3);
/// The target for the bytes of a read, and the maximum number of entries.
const BYTES: usize = 1 << 20;
const ENTRIES: usize = 1_000;
/// How old an entry may be before all up to the newest are skipped: activity is about now.
const STALE: Duration = Duration::from_secs(5);
/// The members of an event that listeners to all events receive.
const SHOWN: [&str; 8] = ["user", "ip", "page", "sid", "doc", "connection", "item", "action"];
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    server: Server,
    partition: u16,
    stream: String,
    rules: Rules,
    rooms: Rooms,
}

/// The position of a reader: the last entry it read, and how many had been added by then.
struct Place {
    id: EntryId,
    added: u64,
}

impl Reader {
    pub(super) fn new(config: &Config, partition: u16, rooms: Rooms) -> Self {
        let deployment = &config.deployment;
        let keys = Keys::new(&deployment.prefix, deployment.partitions, partition);
        let rules = deployment.rules();
        let stream = keys.named(&deployment.stream);
        Self { server: config.redis.server(), partition, stream, rules, rooms }
    }

    /// Reads endlessly; after a failure it continues from the newest entry.
    pub(super) async fn run(self, read: mpsc::Sender<Read>) {
        loop {
            let Err(error) = self.session(&read).await;
            metrics::redis_error(error.kind());
            if let Some(times) = failure_line_due() {
                let (partition, kind) = (self.partition, error.kind());
                warn!(partition, kind, times, "not reading activity: {}", chain(&error));
            }
            sleep(PAUSE).await;
        }
    }

    async fn session(&self, read: &mpsc::Sender<Read>) -> Result<std::convert::Infallible, Error> {
        let mut connection = connect(&self.server, &self.stream, BLOCK + REPLY_WITHIN).await?;
        let (mut place, mut count) = (self.end(&mut connection).await?, 1);
        let mut looked = Instant::now();
        loop {
            let entries = self.after(&mut connection, &place, count).await?;
            let Some(last) = entries.last() else { continue };
            place = Place { id: last.id, added: place.added + entries.len() as u64 };
            let bytes: usize = entries.iter().map(Entry::size).sum();
            count = (entries.len() * BYTES / bytes.max(1)).clamp(1, (count * 4).min(ENTRIES));
            let activities = entries.iter().flat_map(|entry| self.activities(entry)).collect();
            // The receiver goes when nobody watches any more, and this reader with it.
            let _gone = read.send(Read::Activities(activities)).await;
            if age(place.id) > STALE && looked.elapsed() > STALE {
                looked = Instant::now();
                let end = self.end(&mut connection).await?;
                let skipped = end.added.saturating_sub(place.added);
                place = end;
                let _gone = read.send(Read::Skipped(skipped)).await;
            }
        }
    }

    /// The newest entry (`XINFO STREAM`).
    async fn end(&self, connection: &mut MultiplexedConnection) -> Result<Place, Error> {
        const STEP: &str = "looking for the newest event";
        let mut ask = redis::cmd("XINFO");
        ask.arg("STREAM").arg(&self.stream);
        let value: Value = match ask.query_async(connection).await {
            Ok(value) => value,
            // There is no stream yet, so everything that comes is new.
            Err(error) if error.code() == Some("ERR") => {
                return Ok(Place { id: EntryId { ms: 0, seq: 0 }, added: 0 });
            }
            Err(error) => return Err(Error::at(STEP)(error)),
        };
        let (mut id, mut added) = (None, None);
        for [name, value] in reply::pairs_of(&value).unwrap_or_default() {
            match reply::text_of(name).as_deref() {
                Some("last-generated-id") => id = reply::entry_id_of(value),
                Some("entries-added") => added = reply::number(value),
                _ => {}
            }
        }
        let place = id.zip(added).map(|(id, added)| Place { id, added });
        place.ok_or_else(|| reply::unexpected(STEP, &value))
    }

    async fn after(
        &self,
        connection: &mut MultiplexedConnection,
        place: &Place,
        count: usize,
    ) -> Result<Vec<Entry>, Error> {
        const STEP: &str = "reading events along";
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.stream).arg(place.id.to_string());
        let value: Value = read.query_async(connection).await.map_err(Error::at(STEP))?;
        entries(&value).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    fn activities(&self, entry: &Entry) -> Vec<Activity> {
        // Parts that are not events become dead letters elsewhere.
        let events = decode(entry, self.partition, &self.rules).events;
        let mut activities: Vec<_> = events.iter().flat_map(activities).collect();
        if self.rooms.is_used(EVENTS) {
            let seen =
                events.iter().enumerate().map(|(index, event)| self.seen(entry, index, event));
            activities.extend(seen.map(Activity::Event));
        }
        activities
    }

    fn seen(&self, entry: &Entry, index: usize, event: &Event<'_>) -> SeenEvent {
        let fields = event.fields().into_iter();
        let shown = fields.filter(|(name, value)| SHOWN.contains(name) && !value.is_empty());
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        SeenEvent {
            id: entry.id.to_string(),
            partition: self.partition,
            index,
            kind: event.kind.name(),
            time: event.time.millis(),
            members: shown.map(|(name, value)| (name, text(value))).collect(),
        }
    }
}

/// The activities in an event: of its user, and of its session.
fn activities(event: &Event<'_>) -> Vec<Activity> {
    let time = Number(Some(event.time.millis()));
    let presence = |user: &str, ip: &str, ua: &str, page: &str| {
        Activity::Presence(PresenceUpdate {
            kind: "user_activity",
            user: user.to_owned(),
            ip: ip.to_owned(),
            ua: ua.to_owned(),
            page: page.to_owned(),
            last_seen: time,
        })
    };
    let session = |sid: &str, user: &str, ip: &str, ua: &str| {
        Activity::Session(SessionUpdate {
            kind: "session_activity",
            sid: sid.to_owned(),
            user: user.to_owned(),
            ip: ip.to_owned(),
            ua: ua.to_owned(),
            last_activity: time,
        })
    };
    match &event.kind {
        Kind::Heartbeat(Heartbeat { user, ip, ua, page, sid, .. }) => {
            let in_session = sid.iter().map(|sid| session(sid, user, ip, ua));
            [presence(user, ip, ua, page)].into_iter().chain(in_session).collect()
        }
        Kind::Login(Login { user, ip, ua, sid, .. }) => {
            let in_session = sid.iter().map(|sid| session(sid, user, ip, ua));
            [presence(user, ip, ua, Login::PAGE)].into_iter().chain(in_session).collect()
        }
        Kind::Session(Session { sid, user, ip, ua, action: SessionAction::Update(_), .. }) => {
            vec![session(sid, user, ip, ua)]
        }
        Kind::Session(_) | Kind::Logout(_) | Kind::View(_) | Kind::Document(_) => Vec::new(),
    }
}

/// How long ago an entry was added, by this process's clock against the server's.
fn age(id: EntryId) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(id.ms))
}
