//! `sessions:doc:<doc>:users` and `:count`: who is active in a document.
//!
//! A user is active while any of their connections is. The script derives set, count and threshold levels from the
//! connections, so they cannot drift apart.

use super::{Context, drain, patrol};
use crate::event::{DocumentAction, Event, Kind, Text};
use crate::op::{Connection, JoinOrLeave, Plan, Sweep};

pub(super) const SWEEPS: &[Sweep] =
    &[drain("documents"), drain("documents_left"), patrol("document_users")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    match &event.kind {
        Kind::Heartbeat(e) if context.on => {
            if let Some(doc) = &e.doc {
                merge(plan, event, [doc, &e.user, &e.connection], false);
            }
        }
        Kind::Document(e) => {
            let left = e.action == DocumentAction::Leave;
            if left || context.on {
                merge(plan, event, [&e.doc, &e.user, &e.connection], left);
            }
        }
        _ => {}
    }
}

fn merge<'a>(plan: &mut Plan<'a>, event: &Event<'a>, [doc, user, id]: [&Text<'a>; 3], left: bool) {
    let connection = Connection { doc: doc.clone(), user: user.clone(), id: id.clone() };
    let latest = JoinOrLeave { time: event.time, left };
    let slot = plan.connections.entry(connection).or_insert(latest);
    *slot = latest.max(*slot);
}
