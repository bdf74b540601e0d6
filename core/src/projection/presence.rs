//! `presence:users`: where each user is, by `user|ip`. Last writer wins; a logout ends entries that are no newer.

use super::{Context, drain, stored, walk};
use crate::event::{Event, Kind, Login, Text};
use crate::key;
use crate::op::{Departure, Place, Plan, Sweep, keep_latest};

pub(super) const SWEEPS: &[Sweep] =
    &[walk("presence"), walk("addresses"), walk("crowds"), drain("presence_ended")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    match &event.kind {
        Kind::Heartbeat(e) if context.on => set(plan, event, [&e.user, &e.ip], &e.ua, &e.page),
        Kind::Login(e) if context.on => set(plan, event, [&e.user, &e.ip], &e.ua, Login::PAGE),
        Kind::Logout(e) => {
            let departure = Departure { user: e.user.clone(), ip: e.ip.clone() };
            let last = plan.departed.entry(departure).or_insert(event.time);
            *last = event.time.max(*last);
        }
        _ => {}
    }
}

/// The name of a user's presence entry: `user|ip`, with `%` and `|` escaped in each.
pub fn field(user: &str, ip: &str) -> String {
    key::join(&[user, ip])
}

fn set<'a>(
    plan: &mut Plan<'a>,
    event: &Event<'a>,
    [user, ip]: [&Text<'a>; 2],
    ua: &str,
    page: &str,
) {
    let texts = [("user", &**user), ("ip", ip), ("ua", ua), ("page", page)];
    let value = stored::value(("lastSeen", event.time), texts);
    let place = Place { user: user.clone(), ip: ip.clone() };
    keep_latest(plan.presence.entry(place).or_default(), event.time, value);
}
