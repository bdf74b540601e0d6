//! `sessions:active` and `session:<sid>`: the active sessions, and their data.
//!
//! Last writer wins, separately for the entry, the data and the session's own lifetime. What ended stays ended.

use super::{Context, drain, stored, walk};
use crate::event::{Event, Kind, Session, SessionAction, Text};
use crate::op::{Ending, Plan, SessionMerge, Sweep, keep_latest};

pub(super) const SWEEPS: &[Sweep] =
    &[walk("sessions"), walk("session_data"), walk("session_ttls"), drain("sessions_ended")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    let ending = Ending { entry_ms: context.entry_ms, time: event.time };
    match &event.kind {
        Kind::Heartbeat(e) if context.on => {
            touch(plan, event, e.sid.as_ref(), [&e.user, &e.ip, &e.ua])
        }
        Kind::Login(e) if context.on => touch(plan, event, e.sid.as_ref(), [&e.user, &e.ip, &e.ua]),
        Kind::Logout(e) => {
            if let Some(sid) = &e.sid {
                Ending::merge(&mut session(plan, sid).ended, ending);
            }
        }
        Kind::Session(Session { sid, action: SessionAction::Terminate, .. }) => {
            Ending::merge(&mut session(plan, sid).ended, ending);
        }
        Kind::Session(e) if context.on => {
            touch(plan, event, Some(&e.sid), [&e.user, &e.ip, &e.ua]);
            if let Some(ttl) = e.ttl {
                keep_latest(&mut session(plan, &e.sid).ttl, event.time, ttl);
            }
            if let SessionAction::Update(Some(data)) = &e.action {
                keep_latest(&mut session(plan, &e.sid).data, event.time, data.clone());
            }
        }
        _ => {}
    }
}

fn session<'p, 'a>(plan: &'p mut Plan<'a>, sid: &Text<'a>) -> &'p mut SessionMerge<'a> {
    plan.sessions.entry(sid.clone()).or_default()
}

fn touch<'a>(
    plan: &mut Plan<'a>,
    event: &Event<'a>,
    sid: Option<&Text<'a>>,
    [user, ip, ua]: [&str; 3],
) {
    let Some(sid) = sid else { return };
    let texts = [("sid", &**sid), ("session_id", sid), ("user", user), ("ip", ip), ("ua", ua)];
    let value = stored::value(("last_activity", event.time), texts);
    keep_latest(&mut session(plan, sid).touched, event.time, value);
}
