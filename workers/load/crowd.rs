//! A crowd of users who arrive, look around and leave, some of them without a logout.
//!
//! It has its own clock, by which each user present acts about every 20 s. How fast this clock runs depends on how many
//! events per second are taken.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;
use serde_json::json;

use super::event::Event;
use super::names;

/// In milliseconds of the crowd's clock.
const PAUSE: std::ops::Range<u64> = 10_000..30_000;
const MEAN_VISIT: f64 = 1_200_000.0;
const MEAN_ABSENCE: f64 = 720_000.0;

/// The users; each is either away or on a visit.
#[derive(Debug)]
pub(super) struct Crowd {
    users: Vec<User>,
    /// When each user acts next, the soonest first.
    agenda: BinaryHeap<Reverse<(u64, usize)>>,
    ready: VecDeque<Event>,
    items: u32,
    documents: u32,
}

#[derive(Debug)]
struct User {
    number: u32,
    visit: Option<Box<Visit>>,
}

#[derive(Debug)]
struct Visit {
    ip: String,
    ua: &'static str,
    token: String,
    sid: String,
    page: String,
    /// The open document and its connection.
    document: Option<(String, String)>,
    ends: u64,
}

impl Crowd {
    /// The users among `users` whose number is `producer` modulo `producers`, all of them away. Half of them arrive
    /// within the first minute, the others as after an absence.
    pub(super) fn new(rng: &mut Rng, users: u32, producer: u32, producers: u32) -> Self {
        let share = (producer..users.max(producer + 1)).step_by(producers.max(1) as usize);
        let users_here: Vec<User> = share.map(|number| User { number, visit: None }).collect();
        let arrivals = (0..users_here.len()).map(|user| {
            let soon = rng.bool();
            let at = if soon { rng.u64(..60_000) } else { mean(rng, MEAN_ABSENCE) };
            Reverse((at, user))
        });
        let agenda = arrivals.collect();
        let (items, documents) = ((users * 2).clamp(120, 100_000), (users / 10).clamp(6, 10_000));
        Self { users: users_here, agenda, ready: VecDeque::new(), items, documents }
    }

    /// The next event.
    pub(super) fn event(&mut self, rng: &mut Rng) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let Some(Reverse((now, index))) = self.agenda.pop() else {
                return Event::new("heartbeat", vec![("user", names::user(0))]);
            };
            let pause = self.act(rng, index, now);
            self.agenda.push(Reverse((now + pause.max(1), index)));
        }
    }

    /// Performs a user's next action; returns the time until the one after it.
    fn act(&mut self, rng: &mut Rng, index: usize, now: u64) -> u64 {
        let user = &mut self.users[index];
        match &mut user.visit {
            None => {
                let visit = Visit::begin(rng, now);
                visit.arrive(rng, user.number, &mut self.ready);
                user.visit = Some(Box::new(visit));
            }
            Some(visit) if now >= visit.ends => {
                visit.leave(rng, user.number, &mut self.ready);
                user.visit = None;
                return mean(rng, MEAN_ABSENCE);
            }
            Some(visit) => {
                let places = (self.items, self.documents);
                self.ready.push_back(visit.go_on(rng, user.number, places));
            }
        }
        rng.u64(PAUSE)
    }
}

/// A random duration: exponentially distributed with this mean, and limited.
fn mean(rng: &mut Rng, mean: f64) -> u64 {
    (-(1.0 - rng.f64()).ln() * mean).min(mean * 5.0) as u64
}

impl Visit {
    fn begin(rng: &mut Rng, now: u64) -> Self {
        Self {
            ip: names::address(rng),
            ua: names::USER_AGENTS[names::popular(rng, 5) as usize],
            token: format!("tk_{:016x}", rng.u64(..)),
            sid: format!("s_{:012x}", rng.u64(..1 << 48)),
            page: "/".to_owned(),
            document: None,
            ends: now + 60_000 + mean(rng, MEAN_VISIT),
        }
    }

    /// Logs in. Some users have an anonymous session first.
    fn arrive(&self, rng: &mut Rng, number: u32, events: &mut VecDeque<Event>) {
        if rng.u8(..10) < 3 {
            let members = vec![("sid", self.sid.clone()), self.ip(), self.ua()];
            events.push_back(Event::new("session", members));
        }
        let members = vec![user(number), self.token(), self.ip(), self.ua(), self.sid()];
        events.push_back(Event::new("login", members));
    }

    /// Most users log out, some only end their session, and some just disappear.
    fn leave(&mut self, rng: &mut Rng, number: u32, events: &mut VecDeque<Event>) {
        let manner = rng.u8(..100);
        if manner >= 85 {
            return;
        }
        if self.document.is_some() {
            events.push_back(self.leave_document(number));
        }
        events.push_back(if manner < 65 {
            Event::new("logout", vec![user(number), self.ip(), self.token(), self.sid()])
        } else {
            let terminate = ("action", "terminate".to_owned());
            Event::new("session", vec![self.sid(), user(number), terminate])
        });
    }

    fn go_on(&mut self, rng: &mut Rng, number: u32, (items, documents): (u32, u32)) -> Event {
        match rng.u8(..100) {
            0..18 => {
                let item = names::item(names::popular(rng, items));
                self.page = format!("/items/{item}");
                Event::new("view", vec![user(number), self.token(), ("item", item)])
            }
            18..23 => self.save_session(rng, number, items),
            23..31 if self.document.is_none() => self.join_document(rng, number, documents),
            23..28 => self.leave_document(number),
            _ => self.heartbeat(rng, number),
        }
    }

    fn heartbeat(&mut self, rng: &mut Rng, number: u32) -> Event {
        if rng.u8(..10) < 3 {
            self.page = names::PAGES[rng.usize(..names::PAGES.len())].to_owned();
        }
        let mut members = vec![user(number), self.ip(), self.ua(), ("page", self.page.clone())];
        if rng.bool() {
            members.extend([self.token(), self.sid()]);
        }
        if let Some((document, connection)) = self.document.as_ref().filter(|_| rng.bool()) {
            members.extend([("doc", document.clone()), ("connection", connection.clone())]);
        }
        Event::new("heartbeat", members)
    }

    fn save_session(&self, rng: &mut Rng, number: u32, items: u32) -> Event {
        let cart: Vec<String> =
            (0..rng.u8(..4)).map(|_| names::item(names::popular(rng, items))).collect();
        let data = json!({"cart": cart, "theme": if rng.bool() { "dark" } else { "light" }});
        let members = vec![self.sid(), user(number), self.ip(), self.ua()];
        Event { data: Some(data), ..Event::new("session", members) }
    }

    fn join_document(&mut self, rng: &mut Rng, number: u32, documents: u32) -> Event {
        let document = names::document(names::popular(rng, documents));
        let connection = format!("c{:04x}", rng.u16(..));
        self.page = format!("/docs/{document}");
        self.document = Some((document.clone(), connection.clone()));
        document_event(number, document, connection, "join")
    }

    fn leave_document(&mut self, number: u32) -> Event {
        let (document, connection) = self.document.take().unwrap_or_default();
        document_event(number, document, connection, "leave")
    }

    fn ip(&self) -> (&'static str, String) {
        ("ip", self.ip.clone())
    }

    fn ua(&self) -> (&'static str, String) {
        ("ua", self.ua.to_owned())
    }

    fn token(&self) -> (&'static str, String) {
        ("token", self.token.clone())
    }

    fn sid(&self) -> (&'static str, String) {
        ("sid", self.sid.clone())
    }
}

fn user(number: u32) -> (&'static str, String) {
    ("user", names::user(number))
}

fn document_event(number: u32, document: String, connection: String, action: &str) -> Event {
    let members = vec![("doc", document), user(number), ("connection", connection)];
    let mut event = Event::new("document", members);
    event.members.push(("action", action.to_owned()));
    event
}
