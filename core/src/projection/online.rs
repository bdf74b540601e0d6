//! `online-users/<minute>`: the users seen in each minute. The set only grows, until it expires as a whole.

use super::Context;
use crate::event::Event;
use crate::op::{Plan, Sweep};

/// The key's own expiry removes it.
pub(super) const SWEEPS: &[Sweep] = &[];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    if let Some(user) = event.kind.seen_user().filter(|_| context.on) {
        plan.minutes.entry(event.time.minute()).or_default().insert(user.clone());
    }
}
