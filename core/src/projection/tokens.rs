//! `login:`, `recent:` and `viewed:<token>`: who holds a token, when it was last used, what it viewed.
//!
//! The three switch together: a token enters and leaves them at once, and `recent:` versions `login:`.

use super::{Context, drain, patrol};
use crate::event::{Event, Kind, Text};
use crate::op::{Ending, Plan, Sweep, keep_latest};

pub(super) const SWEEPS: &[Sweep] = &[drain("recent"), drain("tokens_ended"), patrol("logins")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    match &event.kind {
        Kind::Heartbeat(e) if context.on => {
            if let Some(token) = &e.token {
                used(plan, event, token, &e.user, None);
            }
        }
        Kind::Login(e) if context.on => used(plan, event, &e.token, &e.user, None),
        Kind::View(e) if context.on => used(plan, event, &e.token, &e.user, Some(&e.item)),
        Kind::Logout(e) => {
            if let Some(token) = &e.token {
                let merge = plan.tokens.entry(token.clone()).or_default();
                Ending::merge(
                    &mut merge.ended,
                    Ending { entry_ms: context.entry_ms, time: event.time },
                );
            }
        }
        _ => {}
    }
}

fn used<'a>(
    plan: &mut Plan<'a>,
    event: &Event<'a>,
    token: &Text<'a>,
    user: &Text<'a>,
    item: Option<&Text<'a>>,
) {
    let merge = plan.tokens.entry(token.clone()).or_default();
    keep_latest(&mut merge.used, event.time, user.clone());
    if let Some(item) = item {
        let viewed = merge.items.entry(item.clone()).or_insert(event.time);
        *viewed = event.time.max(*viewed);
    }
}
