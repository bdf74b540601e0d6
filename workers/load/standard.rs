//! The mix that benchmarks use: 80 % heartbeats, 10 % views, 5 % logins, 5 % sessions,
//! uniform over the users, each event independent of the others.

use fastrand::Rng;
use serde_json::json;

use super::event::Event;
use super::names;

const ITEMS: u32 = 100_000;

/// The next event, of a user among `users` whose number is `producer` modulo `producers`.
pub(super) fn event(rng: &mut Rng, users: u32, producer: u32, producers: u32) -> Event {
    let share = (users.saturating_sub(producer)).div_ceil(producers).max(1);
    let number = rng.u32(..share) * producers + producer;
    event_of(rng, number)
}

/// The next event of the user of that number.
pub(super) fn event_of(rng: &mut Rng, number: u32) -> Event {
    match rng.u8(..100) {
        0..80 => heartbeat(rng, number),
        80..90 => view(rng, number),
        90..95 => login(number),
        _ => session(rng, number),
    }
}

/// A heartbeat of the user of that number.
pub(super) fn heartbeat(rng: &mut Rng, number: u32) -> Event {
    let page = ("page", names::PAGES[rng.usize(..names::PAGES.len())].to_owned());
    Event::new("heartbeat", vec![user(number), ip(number), ua(number), page])
}

/// A view of the user of that number.
pub(super) fn view(rng: &mut Rng, number: u32) -> Event {
    let item = ("item", format!("item-{}", names::popular(rng, ITEMS)));
    Event::new("view", vec![user(number), token(number), item])
}

/// A login of the user of that number.
pub(super) fn login(number: u32) -> Event {
    Event::new("login", vec![user(number), token(number), ip(number), ua(number)])
}

/// A session update, with data, of the user of that number.
pub(super) fn session(rng: &mut Rng, number: u32) -> Event {
    let sid = ("sid", format!("session-{number}"));
    let data = Some(json!({"theme": "dark", "step": rng.u8(..10)}));
    Event { data, ..Event::new("session", vec![sid, user(number), ip(number), ua(number)]) }
}

type Member = (&'static str, String);

fn user(number: u32) -> Member {
    ("user", format!("user-{number}"))
}

fn token(number: u32) -> Member {
    ("token", format!("token-{number}"))
}

fn ip(number: u32) -> Member {
    ("ip", format!("10.{}.{}.{}", number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF))
}

fn ua(number: u32) -> Member {
    ("ua", names::USER_AGENTS[number as usize % names::USER_AGENTS.len()].to_owned())
}
