//! Sessions and their data.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::What;
use super::state::{put, put_field, put_score, whole};
use super::{Fold, State};

/// Tombstones: sid → the greatest entry-id milliseconds of an ending, while remembered.
pub(super) fn ended(fold: &Fold<'_>, state: &mut State) {
    let endings = fold.greatest(|fact, what| match what {
        What::SessionEnded { sid } => Some((sid, fact.entry_ms)),
        _ => None,
    });
    for (sid, entry_ms) in endings {
        if fold.is_remembered(entry_ms) {
            put_score(state, fold.keys.sessions_ended(), sid, whole(entry_ms));
        }
    }
}

/// The last writer's entry of each session that is alive.
pub(super) fn active(fold: &Fold<'_>, state: &mut State) {
    for (sid, (_, value)) in alive(fold) {
        put_field(state, fold.keys.sessions(), sid, value);
    }
}

/// The last data of each session that is alive. It lives as long as the session, which may be
/// longer than its own time says.
pub(super) fn data(fold: &Fold<'_>, state: &mut State) {
    let alive = alive(fold);
    let latest = fold.greatest(|fact, what| match what {
        What::Data { sid, data } => Some((sid.as_str(), (fact.t, data))),
        _ => None,
    });
    for (sid, (t, data)) in latest {
        let Some((last_activity, _)) = alive.get(sid) else { continue };
        let expiry = last_activity + fold.settings.session_ttl_ms;
        put(state, format!("{}{sid}", fold.keys.session_data()), data, Some(expiry));
        put_field(state, fold.keys.session_data_versions(), sid, t.to_string());
    }
}

/// Sessions that never ended and have not expired: last activity, and the last writer's value.
fn alive<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, (u64, &'a str)> {
    let mut latest = fold.greatest(|fact, what| match what {
        What::Touched { sid, value } => Some((sid.as_str(), (fact.t, value.as_str()))),
        _ => None,
    });
    let ended: BTreeSet<&str> = fold
        .each(|_, what| match what {
            What::SessionEnded { sid } => Some(sid.as_str()),
            _ => None,
        })
        .collect();
    latest.retain(|sid, (t, _)| {
        !ended.contains(sid) && !fold.is_gone(*t + fold.settings.session_ttl_ms)
    });
    latest
}
