//! The rooms of this process: who is in which, and the newest messages to them, which every socket reads at its own
//! pace. Memory is limited: a socket that falls behind the oldest message is too slow.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::changes::rooms::{ADMIN, EVENTS, Message, USER};

/// Messages that are kept.
const MOST: usize = 20_000;

/// The rooms; cheap to clone.
#[derive(Clone)]
pub(super) struct Rooms(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Wakes sockets.
    moved: watch::Sender<()>,
    /// Whether somebody is in a room that wants activity.
    watched: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// How many sockets are in each room.
    sockets: HashMap<String, usize>,
    /// How many are in rooms that want activity.
    watchers: usize,
    messages: VecDeque<Arc<Message>>,
    /// The number of the next message.
    next: u64,
}

/// A socket in a room, until it is dropped.
pub(super) struct Stay {
    rooms: Rooms,
    room: String,
}

/// One socket's position among the messages.
pub(super) struct Hearing {
    rooms: Rooms,
    moved: watch::Receiver<()>,
    next: u64,
}

/// What a socket receives.
pub(super) enum Heard {
    /// The next message, to any room.
    Message(Arc<Message>),
    /// It fell behind the messages that are kept.
    TooSlow,
}

/// Whether a room receives what users do, beyond coming and going.
pub(super) fn wants_activity(room: &str) -> bool {
    [ADMIN, EVENTS].contains(&room) || room.starts_with(USER)
}

impl Rooms {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            moved: watch::Sender::new(()),
            watched: watch::Sender::new(false),
        }))
    }

    /// Enters a room.
    pub(super) fn enter(&self, room: &str) -> Stay {
        let mut state = self.state();
        *state.sockets.entry(room.to_owned()).or_default() += 1;
        state.watchers += usize::from(wants_activity(room));
        self.tell_watched(&state);
        Stay { rooms: self.clone(), room: room.to_owned() }
    }

    fn leave(&self, room: &str) {
        let mut state = self.state();
        if let Some(count) = state.sockets.get_mut(room) {
            *count -= 1;
            if *count == 0 {
                state.sockets.remove(room);
            }
            state.watchers -= usize::from(wants_activity(room));
        }
        self.tell_watched(&state);
    }

    fn tell_watched(&self, state: &State) {
        let is_watched = state.watchers > 0;
        self.0.watched.send_if_modified(|was| std::mem::replace(was, is_watched) != is_watched);
    }

    /// Whether somebody is in a room that wants activity, as a value to watch.
    pub(super) fn watched(&self) -> watch::Receiver<bool> {
        self.0.watched.subscribe()
    }

    /// Whether anybody is in any room.
    pub(super) fn is_empty(&self) -> bool {
        self.state().sockets.is_empty()
    }

    /// Whether somebody is in a room.
    pub(super) fn is_used(&self, room: &str) -> bool {
        self.state().sockets.contains_key(room)
    }

    /// Those of these rooms that somebody is in.
    pub(super) fn retain_used(&self, rooms: &mut Vec<String>) {
        let state = self.state();
        rooms.retain(|room| state.sockets.contains_key(room));
    }

    /// The rooms that somebody is in.
    pub(super) fn used(&self) -> Vec<String> {
        self.state().sockets.keys().cloned().collect()
    }

    /// Sends messages; those to empty rooms are not kept.
    pub(super) fn tell(&self, messages: impl IntoIterator<Item = Message>) {
        let mut state = self.state();
        let before = state.next;
        for message in messages {
            if !state.sockets.contains_key(&message.room) {
                continue;
            }
            if state.messages.len() == MOST {
                state.messages.pop_front();
            }
            state.messages.push_back(Arc::new(message));
            state.next += 1;
        }
        let is_moved = state.next > before;
        drop(state);
        if is_moved {
            self.0.moved.send_replace(());
        }
    }

    /// Receives messages from now on.
    pub(super) fn hear(&self) -> Hearing {
        let next = self.state().next;
        Hearing { rooms: self.clone(), moved: self.0.moved.subscribe(), next }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.rooms.leave(&self.room);
    }
}

impl Hearing {
    /// Continues with messages from now on.
    pub(super) fn skip_to_end(&mut self) {
        self.next = self.rooms.state().next;
    }

    /// Whether it fell behind the messages that are kept.
    pub(super) fn is_too_slow(&self) -> bool {
        let state = self.rooms.state();
        self.next < state.next - state.messages.len() as u64
    }

    /// Waits for what comes next. The future may be dropped without losing anything.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            self.moved.mark_unchanged();
            {
                let state = self.rooms.state();
                let first = state.next - state.messages.len() as u64;
                let Some(place) = self.next.checked_sub(first) else { return Heard::TooSlow };
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                if let Some(message) = state.messages.get(place) {
                    self.next += 1;
                    return Heard::Message(Arc::clone(message));
                }
            }
            // The sender lives as long as the rooms.
            let _never_gone = self.moved.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::rooms::{Payload, event_in};

    fn message(room: &str, count: u64) -> Message {
        let payload = Payload::LeftOut { room: room.to_owned(), count };
        Message {
            room: room.to_owned(),
            event: event_in(room, &payload),
            payload: Arc::new(payload),
        }
    }

    #[tokio::test]
    async fn messages_are_kept_for_rooms_that_somebody_is_in() {
        let rooms = Rooms::new();
        let mut hearing = rooms.hear();
        let stay = rooms.enter("a");
        rooms.tell([message("a", 1), message("b", 2), message("a", 3)]);
        for expected in [1, 3] {
            let Heard::Message(heard) = hearing.next().await else { panic!("too slow") };
            assert_eq!(*heard, message("a", expected));
        }
        drop(stay);
        assert!(rooms.is_empty());
        rooms.tell([message("a", 4)]);
        let _stay = rooms.enter("a");
        rooms.tell((0..=MOST as u64).map(|n| message("a", n)));
        assert!(matches!(hearing.next().await, Heard::TooSlow));
        hearing.skip_to_end();
        rooms.tell([message("a", 5)]);
        assert!(matches!(hearing.next().await, Heard::Message(heard) if *heard == message("a", 5)));
    }

    #[test]
    fn activity_is_wanted_while_somebody_is_in_a_room_that_wants_it() {
        let rooms = Rooms::new();
        let watched = rooms.watched();
        let document = rooms.enter("doc:d");
        assert!(!*watched.borrow());
        let (admin, user) = (rooms.enter("admin"), rooms.enter("user:ann"));
        assert!(*watched.borrow());
        drop((admin, document));
        assert!(*watched.borrow());
        drop(user);
        assert!(!*watched.borrow());
    }
}
