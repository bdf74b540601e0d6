//! The mix that benchmarks use: 80 % heartbeats, 10 % views, 5 % logins, 5 % sessions,
//! uniform over the users, each event independent of the others.

use fastrand::Rng;
use serde_json::json;

use super::event::Event;
use super::names;

const ITEMS: u32 = 100_000;

/// The next event of one of `users` users, those whose number is `producer` modulo `producers`.
pub(super) fn event(rng: &mut Rng, users: u32, producer: u32, producers: u32) -> Event {
    let share = (users.saturating_sub(producer)).div_ceil(producers).max(1);
    let number = rng.u32(..share) * producers + producer;
    let user = ("user", format!("user-{number}"));
    let token = ("token", format!("token-{number}"));
    let ip = ("ip", format!("10.{}.{}.{}", number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF));
    let ua = ("ua", names::USER_AGENTS[number as usize % names::USER_AGENTS.len()].to_owned());
    match rng.u8(..100) {
        0..80 => {
            let page = ("page", names::PAGES[rng.usize(..names::PAGES.len())].to_owned());
            Event::new("heartbeat", vec![user, ip, ua, page])
        }
        80..90 => {
            let item = ("item", format!("item-{}", names::popular(rng, ITEMS)));
            Event::new("view", vec![user, token, item])
        }
        90..95 => Event::new("login", vec![user, token, ip, ua]),
        _ => {
            let sid = ("sid", format!("session-{number}"));
            let data = json!({"theme": "dark", "step": rng.u8(..10)});
            Event { data: Some(data), ..Event::new("session", vec![sid, user, ip, ua]) }
        }
    }
}
