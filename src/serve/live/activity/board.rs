//! The messages to each room at the end of an interval: the newest activity of each subject, for a limited number of
//! subjects.

use std::collections::HashMap;
use std::sync::Arc;

use super::Activity;
use crate::changes::rooms::{ADMIN, EVENTS, Message, Payload, USER, event_in};
use crate::serve::live::rooms::{Rooms, wants_activity};

/// Activities of an interval, by room.
pub(super) struct Board {
    /// The maximum number of subjects for a room in an interval.
    most: usize,
    rooms: HashMap<String, Pending>,
}

#[derive(Default)]
struct Pending {
    newest: HashMap<Subject, Arc<Payload>>,
    left_out: u64,
}

/// Whose activity it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// A user and an address.
    Entry(String, String),
    /// A session.
    Session(String),
    /// A single event: its entry, and its index in it.
    Event(String, usize),
}

/// Activities that will not be sent: in how many rooms, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// A newer one is sent instead.
    pub(super) newer: u64,
    /// The room has reached its limit of subjects.
    pub(super) rate: u64,
}

/// The messages at the end of an interval.
pub(super) struct Told {
    pub(super) all: Vec<Message>,
    /// How many of them are activities.
    pub(super) told: u64,
}

impl Board {
    pub(super) fn new(most: usize) -> Self {
        Self { most, rooms: HashMap::new() }
    }

    /// Records an activity for the occupied rooms; returns what will not be sent because of it.
    pub(super) fn note(&mut self, activity: Activity, used: &Rooms) -> Counts {
        let (subject, mut rooms, payload) = match activity {
            Activity::Presence(update) => (
                Subject::Entry(update.user.clone(), update.ip.clone()),
                vec![ADMIN.to_owned(), format!("{USER}{}", update.user)],
                Payload::Presence(update),
            ),
            Activity::Session(update) => (
                Subject::Session(update.sid.clone()),
                vec![ADMIN.to_owned()],
                Payload::Session(update),
            ),
            Activity::Event(seen) => (
                Subject::Event(seen.id.clone(), seen.index),
                vec![EVENTS.to_owned()],
                Payload::Event(seen),
            ),
        };
        used.retain_used(&mut rooms);
        let (payload, mut counts) = (Arc::new(payload), Counts::default());
        for room in rooms {
            let Pending { newest, left_out } = self.rooms.entry(room).or_default();
            let count = newest.len();
            match newest.get_mut(&subject) {
                Some(older) => {
                    counts.newer += 1;
                    if is_newer(&payload, older) {
                        *older = Arc::clone(&payload);
                    }
                }
                None if count < self.most => {
                    newest.insert(subject.clone(), Arc::clone(&payload));
                }
                None => {
                    counts.rate += 1;
                    *left_out += 1;
                }
            }
        }
        counts
    }

    /// Records that entries were not read.
    pub(super) fn skipped(&mut self, entries: u64, used: &Rooms) {
        let mut rooms = used.used();
        rooms.retain(|room| wants_activity(room));
        for room in rooms {
            self.rooms.entry(room).or_default().left_out += entries;
        }
    }

    /// The messages to send now.
    pub(super) fn take(&mut self) -> Told {
        let (mut all, mut told) = (Vec::new(), 0);
        for (room, Pending { newest, left_out }) in std::mem::take(&mut self.rooms) {
            told += newest.len() as u64;
            let mut payloads: Vec<_> = newest.into_values().collect();
            payloads.sort_by_key(|payload| time(payload));
            if left_out > 0 {
                payloads.push(Arc::new(Payload::LeftOut { room: room.clone(), count: left_out }));
            }
            let message = |payload: Arc<Payload>| Message {
                room: room.clone(),
                event: event_in(&room, &payload),
                payload,
            };
            all.extend(payloads.into_iter().map(message));
        }
        Told { all, told }
    }
}

fn time(payload: &Payload) -> Option<u64> {
    match payload {
        Payload::Presence(update) => update.last_seen.0,
        Payload::Session(update) => update.last_activity.0,
        Payload::Event(seen) => Some(seen.time),
        _ => None,
    }
}

/// Whether an activity replaces another one of the same subject.
fn is_newer(payload: &Payload, than: &Payload) -> bool {
    time(payload) >= time(than)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::rooms::{Number, PresenceUpdate, SessionUpdate};

    fn seen(user: &str, page: &str, ms: u64) -> Activity {
        Activity::Presence(PresenceUpdate {
            kind: "user_activity",
            user: user.to_owned(),
            ip: String::new(),
            ua: String::new(),
            page: page.to_owned(),
            last_seen: Number(Some(ms)),
        })
    }

    fn session(sid: &str, ms: u64) -> Activity {
        Activity::Session(SessionUpdate {
            kind: "session_activity",
            sid: sid.to_owned(),
            user: String::new(),
            ip: String::new(),
            ua: String::new(),
            last_activity: Number(Some(ms)),
        })
    }

    fn told(board: &mut Board) -> Vec<String> {
        let Told { all, told } = board.take();
        let activities = all.iter().filter(|m| m.event != "activity:left_out").count();
        assert_eq!(told, activities as u64);
        let line = |m: Message| {
            let json = serde_json::to_value(&*m.payload).unwrap();
            let what = ["page", "sid", "count"].iter().find_map(|name| json.get(name)).unwrap();
            format!("{} {} {what}", m.room, m.event)
        };
        let mut lines: Vec<_> = all.into_iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_newest_of_each_subject_is_told_to_those_who_are_there() {
        let (mut board, rooms) = (Board::new(10), Rooms::new());
        let (_admin, _ann) = (rooms.enter("admin"), rooms.enter("user:ann"));
        assert_eq!(board.note(seen("ann", "/1", 5), &rooms), Counts::default());
        assert_eq!(board.note(seen("ann", "/2", 7), &rooms), Counts { newer: 2, rate: 0 });
        assert_eq!(board.note(seen("ann", "/0", 6), &rooms), Counts { newer: 2, rate: 0 });
        board.note(seen("bob", "/b", 1), &rooms);
        board.note(session("s", 9), &rooms);
        let expected = [
            "admin admin:presence:update \"/2\"",
            "admin admin:presence:update \"/b\"",
            "admin admin:sessions:update \"s\"",
            "user:ann presence:update \"/2\"",
        ];
        assert_eq!(told(&mut board), expected);
        assert_eq!(told(&mut board), [""; 0]);
    }

    #[test]
    fn what_is_too_much_for_a_room_is_counted_and_told() {
        let (mut board, rooms) = (Board::new(2), Rooms::new());
        let _admin = rooms.enter("admin");
        for n in 0..5 {
            let rate = u64::from(n >= 2);
            let counts = board.note(seen(&n.to_string(), "/", n), &rooms);
            assert_eq!(counts, Counts { newer: 0, rate });
        }
        board.skipped(10, &rooms);
        let lines = told(&mut board);
        assert_eq!(lines[0], "admin activity:left_out 13");
        assert_eq!(lines.len(), 3);
    }
}
