//! `online-users/<minute>`: the users seen in each minute. A set that only grows, until it goes as a whole.

use super::Context;
use crate::event::Event;
use crate::op::{Plan, Sweep};

/// The key's own expiry takes it.
pub(super) const SWEEPS: &[Sweep] = &[];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    if let Some(user) = event.kind.seen_user().filter(|_| context.on) {
        plan.minutes.entry(event.time.minute()).or_default().insert(user.clone());
    }
}
