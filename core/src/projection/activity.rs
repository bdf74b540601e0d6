//! `user-activity/<user>`: when a user was last seen, in seconds. The highest wins.

use super::Context;
use crate::event::Event;
use crate::op::{Plan, Sweep};

/// The key's own expiry removes it.
pub(super) const SWEEPS: &[Sweep] = &[];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    if let Some(user) = event.kind.seen_user().filter(|_| context.on) {
        let seconds = plan.activity.entry(user.clone()).or_default();
        *seconds = event.time.seconds().max(*seconds);
    }
}
