//! `presence:users`: where each user is, by `user|ip`. Last writer wins; a logout is a writer too.

use super::{Context, drain, stored, walk};
use crate::event::{Event, Kind, Login, Text};
use crate::key;
use crate::op::{Place, Plan, Register, Sweep};
use crate::time::EventTime;

pub(super) const SWEEPS: &[Sweep] = &[walk("presence"), drain("presence_ended")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    match &event.kind {
        Kind::Heartbeat(e) if context.on => {
            set(plan, event.time, [&e.user, &e.ip], &e.ua, &e.page);
        }
        Kind::Login(e) if context.on => {
            set(plan, event.time, [&e.user, &e.ip], &e.ua, Login::PAGE);
        }
        Kind::Logout(e) => merge(plan, [&e.user, &e.ip], Register::Ended(event.time)),
        _ => {}
    }
}

/// The name of a user's presence entry: `user|ip`, with `%` and `|` escaped in each.
pub fn field(user: &str, ip: &str) -> String {
    key::join(&[user, ip])
}

fn set<'a>(plan: &mut Plan<'a>, time: EventTime, [user, ip]: [&Text<'a>; 2], ua: &str, page: &str) {
    let texts = [("user", &**user), ("ip", ip), ("ua", ua), ("page", page)];
    let value = stored::value(("lastSeen", time), texts);
    merge(plan, [user, ip], Register::Value(time, value));
}

fn merge<'a>(plan: &mut Plan<'a>, [user, ip]: [&Text<'a>; 2], register: Register) {
    match plan.presence.entry(Place { user: user.clone(), ip: ip.clone() }) {
        indexmap::map::Entry::Occupied(mut slot) => slot.get_mut().merge(register),
        indexmap::map::Entry::Vacant(slot) => {
            slot.insert(register);
        }
    }
}
