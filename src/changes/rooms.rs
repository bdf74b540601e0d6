//! Messages to rooms: the events that changes and activity become, as the source document's front end knows them.
//!
//! A change contains less than such an event. The rest comes from the state as far as it still exists there; unknown
//! members are `""`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::change::{Change, ChangeKind};
use crate::state::sessions::Session;
use crate::state::users::Present;

/// The room for messages about everybody.
pub const ADMIN: &str = "admin";
/// The room for every event. Nobody joins it by its name; `GET /api/v1/activity` is the way in.
pub const EVENTS: &str = "events";
/// The beginning of the rooms of users.
pub const USER: &str = "user:";
/// The beginning of the rooms of documents.
pub const DOC: &str = "doc:";

/// An event for a room.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The room.
    pub room: String,
    /// The event's name.
    pub event: &'static str,
    /// Its content.
    pub payload: Arc<Payload>,
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Payload {
    /// `admin:presence:update` and `presence:update`.
    Presence(PresenceUpdate),
    /// `admin:sessions:update`.
    Session(SessionUpdate),
    /// `document:update`.
    Document(DocumentUpdate),
    /// An event as it came, for listeners to all events.
    Event(SeenEvent),
    /// `activity:left_out`.
    LeftOut {
        /// The room.
        room: String,
        /// How many activities were left out.
        count: u64,
    },
    /// `gap`: what happened meanwhile is unknown.
    Gap {
        /// Why.
        reason: &'static str,
    },
    /// `erased`: a user was erased; a receiver that keeps a copy of the state must read it again.
    Erased {
        /// What to do.
        reason: &'static str,
    },
}

impl Payload {
    /// The message to rooms that had not yet received the changes that were erased.
    pub const ERASED: Self = Self::Erased { reason: "a user was erased: read the state again" };
}

/// Something happened to a presence entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PresenceUpdate {
    /// What: `user_activity`, `user_login` or `user_logout`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The user.
    pub user: String,
    /// The address.
    pub ip: String,
    /// The user agent.
    pub ua: String,
    /// The page.
    pub page: String,
    /// The last sign of life, epoch milliseconds.
    #[serde(rename = "lastSeen")]
    pub last_seen: Number,
}

/// Something happened to a session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionUpdate {
    /// What: `session_activity` or `session_terminated`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The session.
    pub sid: String,
    /// Its user.
    pub user: String,
    /// The address.
    pub ip: String,
    /// The user agent.
    pub ua: String,
    /// The last activity, epoch milliseconds.
    pub last_activity: Number,
}

/// Something happened to a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DocumentUpdate {
    /// What: `joined`, `left`, `threshold_reached` or `threshold_left`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The document.
    pub doc: String,
    /// Who joined or left.
    pub user: String,
    /// Users in the document.
    pub count: Number,
    /// The threshold.
    pub threshold: Number,
}

/// An event in the stream, without tokens, data and user agents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeenEvent {
    /// The entry that holds it.
    pub id: String,
    /// Its partition.
    pub partition: u16,
    /// Its index in the entry.
    pub index: usize,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its time, epoch milliseconds.
    pub time: u64,
    /// The members that are shown.
    #[serde(flatten)]
    pub members: BTreeMap<&'static str, String>,
}

/// A number; `""` if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub Option<u64>);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str(""),
        }
    }
}

/// What the state knows beyond a change.
#[derive(Clone, Debug)]
pub enum Details {
    /// Nothing, or it was not asked.
    Unknown,
    /// The presence entry.
    Present(Present),
    /// The session's entry.
    Session(Session),
}

/// The rooms that receive a change; may be none.
pub fn rooms(change: &Change) -> Vec<String> {
    let of = |prefix: &str, name: &Option<String>| {
        name.as_ref().map(|name| format!("{prefix}{name}")).into_iter()
    };
    match change.kind {
        ChangeKind::Online | ChangeKind::Offline => {
            of(USER, &change.user).chain([ADMIN.to_owned()]).collect()
        }
        ChangeKind::SessionStarted | ChangeKind::SessionEnded | ChangeKind::SessionExpired => {
            vec![ADMIN.to_owned()]
        }
        ChangeKind::DocumentJoined
        | ChangeKind::DocumentLeft
        | ChangeKind::ThresholdReached
        | ChangeKind::ThresholdLeft => of(DOC, &change.doc).collect(),
        ChangeKind::Login | ChangeKind::Logout | ChangeKind::Erased => Vec::new(),
    }
}

/// The messages for a change to its rooms.
pub fn messages(change: &Change, details: Details) -> Vec<Message> {
    let payload = match change.kind {
        ChangeKind::Online | ChangeKind::Offline => Payload::Presence(presence(change, details)),
        ChangeKind::SessionStarted | ChangeKind::SessionEnded | ChangeKind::SessionExpired => {
            Payload::Session(session(change, details))
        }
        ChangeKind::DocumentJoined => Payload::Document(document(change, "joined")),
        ChangeKind::DocumentLeft => Payload::Document(document(change, "left")),
        ChangeKind::ThresholdReached => Payload::Document(document(change, "threshold_reached")),
        ChangeKind::ThresholdLeft => Payload::Document(document(change, "threshold_left")),
        ChangeKind::Login | ChangeKind::Logout | ChangeKind::Erased => return Vec::new(),
    };
    let payload = Arc::new(payload);
    let message = |room: String| {
        let event = event_in(&room, &payload);
        Message { room, event, payload: Arc::clone(&payload) }
    };
    rooms(change).into_iter().map(message).collect()
}

/// The name of an event in a room.
pub fn event_in(room: &str, payload: &Payload) -> &'static str {
    match payload {
        Payload::Presence(_) if room == ADMIN => "admin:presence:update",
        Payload::Presence(_) => "presence:update",
        Payload::Session(_) => "admin:sessions:update",
        Payload::Document(_) => "document:update",
        Payload::Event(_) => "event",
        Payload::LeftOut { .. } => "activity:left_out",
        Payload::Gap { .. } => "gap",
        Payload::Erased { .. } => "erased",
    }
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn presence(change: &Change, details: Details) -> PresenceUpdate {
    let is_online = change.kind == ChangeKind::Online;
    let (ua, page, last_seen) = match details {
        Details::Present(known) if is_online => (known.ua, known.page, Some(known.last_seen_ms)),
        _ => Default::default(),
    };
    PresenceUpdate {
        kind: if is_online { "user_login" } else { "user_logout" },
        user: text(&change.user),
        ip: text(&change.ip),
        ua,
        page,
        last_seen: Number(last_seen),
    }
}

fn session(change: &Change, details: Details) -> SessionUpdate {
    let is_started = change.kind == ChangeKind::SessionStarted;
    let (ip, ua, last) = match details {
        Details::Session(known) if is_started => (known.ip, known.ua, Some(known.last_activity_ms)),
        _ => Default::default(),
    };
    SessionUpdate {
        kind: if is_started { "session_activity" } else { "session_terminated" },
        sid: text(&change.sid),
        user: text(&change.user),
        ip,
        ua,
        last_activity: Number(last),
    }
}

fn document(change: &Change, kind: &'static str) -> DocumentUpdate {
    DocumentUpdate {
        kind,
        doc: text(&change.doc),
        user: text(&change.user),
        count: Number(change.count),
        threshold: Number(change.threshold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryId};

    fn change(fields: &[(&str, &str)]) -> Change {
        let all = [&[("seq", "1"), ("time", "1790000000000")], fields].concat();
        Change::read(&Entry::new(EntryId { ms: 1, seq: 0 }, all), 0).unwrap()
    }

    fn told(change: &Change, details: Details) -> Vec<(String, &'static str, String)> {
        let json = |message: &Message| serde_json::to_string(&*message.payload).unwrap();
        let messages = messages(change, details);
        messages.iter().map(|m| (m.room.clone(), m.event, json(m))).collect()
    }

    #[test]
    fn presence_comes_as_logins_and_logouts_to_admins_and_to_the_user_s_room() {
        let present = Present {
            user: "ann".to_owned(),
            ip: "10.0.0.7".to_owned(),
            page: "/home".to_owned(),
            ua: "curl".to_owned(),
            last_seen_ms: 1_790_000_000_123,
        };
        let online = change(&[("kind", "online"), ("user", "ann"), ("ip", "10.0.0.7")]);
        let json = r#"{"type":"user_login","user":"ann","ip":"10.0.0.7","ua":"curl","page":"/home","lastSeen":1790000000123}"#;
        assert_eq!(
            told(&online, Details::Present(present)),
            [
                ("user:ann".to_owned(), "presence:update", json.to_owned()),
                ("admin".to_owned(), "admin:presence:update", json.to_owned()),
            ]
        );
        let offline = change(&[("kind", "offline"), ("user", "ann"), ("ip", "")]);
        let json = r#"{"type":"user_logout","user":"ann","ip":"","ua":"","page":"","lastSeen":""}"#;
        assert_eq!(told(&offline, Details::Unknown)[1].2, json);
    }

    #[test]
    fn sessions_and_documents_have_their_rooms_and_tokens_have_none() {
        let ended = change(&[("kind", "session_expired"), ("user", "ann"), ("sid", "s")]);
        let json = r#"{"type":"session_terminated","sid":"s","user":"ann","ip":"","ua":"","last_activity":""}"#;
        let expected = ("admin".to_owned(), "admin:sessions:update", json.to_owned());
        assert_eq!(told(&ended, Details::Unknown), [expected]);
        let reached = change(&[
            ("kind", "threshold_reached"),
            ("doc", "a:b"),
            ("count", "3"),
            ("threshold", "2"),
        ]);
        let json = r#"{"type":"threshold_reached","doc":"a:b","user":"","count":3,"threshold":2}"#;
        let expected = ("doc:a:b".to_owned(), "document:update", json.to_owned());
        assert_eq!(told(&reached, Details::Unknown), [expected]);
        let login = change(&[("kind", "login"), ("user", "ann"), ("token", "t")]);
        assert_eq!((told(&login, Details::Unknown), rooms(&login)), (Vec::new(), Vec::new()));
    }
}
