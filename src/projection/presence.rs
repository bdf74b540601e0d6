//! `presence:users`: where each user is, by `user|ip`. Last writer wins; a logout is a writer too.

use serde::Serialize;

use super::{Context, drain, walk};
use crate::event::{Event, Kind, Login};
use crate::key;
use crate::op::{Plan, Register, Sweep};
use crate::time::EventTime;

pub(super) const SWEEPS: &[Sweep] = &[walk("presence"), drain("presence_ended")];

/// The stored value. `lastSeen` stands first: the script compares the beginnings.
#[derive(Serialize)]
struct Value<'e> {
    #[serde(rename = "lastSeen")]
    last_seen: u64,
    user: &'e str,
    ip: &'e str,
    ua: &'e str,
    page: &'e str,
}

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    let last_seen = event.time.millis();
    match &event.kind {
        Kind::Heartbeat(e) if context.on => {
            let value = Value { last_seen, user: &e.user, ip: &e.ip, ua: &e.ua, page: &e.page };
            set(plan, event.time, &value);
        }
        Kind::Login(e) if context.on => {
            let value = Value { last_seen, user: &e.user, ip: &e.ip, ua: &e.ua, page: Login::PAGE };
            set(plan, event.time, &value);
        }
        Kind::Logout(e) => merge(plan, field(&e.user, &e.ip), Register::Ended(event.time)),
        _ => {}
    }
}

/// The name of a user's presence entry: `user|ip`, with `%` and `|` escaped in each.
pub fn field(user: &str, ip: &str) -> String {
    key::join(&[user, ip])
}

fn set(plan: &mut Plan<'_>, time: EventTime, value: &Value<'_>) {
    let register = Register::Value(time, super::to_json(value));
    merge(plan, field(value.user, value.ip), register);
}

fn merge(plan: &mut Plan<'_>, field: String, register: Register) {
    match plan.presence.entry(field) {
        indexmap::map::Entry::Occupied(mut slot) => slot.get_mut().merge(register),
        indexmap::map::Entry::Vacant(slot) => {
            slot.insert(register);
        }
    }
}
