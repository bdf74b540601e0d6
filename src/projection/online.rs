//! `online-users/<minute>`: the users seen in each minute. A set that only grows, until it goes as a whole.

use super::Context;
use crate::event::{Event, Kind, Text};
use crate::op::{Plan, Sweep};

/// The key's own expiry takes it.
pub(super) const SWEEPS: &[Sweep] = &[];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    if let Some(user) = seen_user(&event.kind).filter(|_| context.on) {
        plan.minutes.entry(event.time.minute()).or_default().insert(user.clone());
    }
}

/// The user an event shows to be active, if it does.
pub(super) fn seen_user<'e, 'a>(kind: &'e Kind<'a>) -> Option<&'e Text<'a>> {
    match kind {
        Kind::Heartbeat(event) => Some(&event.user),
        Kind::Login(event) => Some(&event.user),
        Kind::View(event) => Some(&event.user),
        Kind::Logout(_) | Kind::Session(_) | Kind::Document(_) => None,
    }
}
