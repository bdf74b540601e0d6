//! Sessions and their data.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::What;
use super::open::{Open, allow, field_of, string_of};
use super::state::{put, put_field, put_score, whole};
use super::{Fold, State};

/// Tombstones: sid → the greatest entry-id milliseconds of an ending, while remembered.
pub(super) fn ended(fold: &Fold<'_>, state: &mut State) {
    for (sid, entry_ms) in endings(fold) {
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
    for (sid, (t, data)) in latest_data(fold) {
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
    let ended = endings(fold);
    latest.retain(|sid, (t, _)| {
        !ended.contains_key(sid) && !fold.is_gone(*t + fold.settings.session_ttl_ms)
    });
    latest
}

/// The greatest entry-id milliseconds of each session's endings.
fn endings<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, u64> {
    fold.greatest(|fact, what| match what {
        What::SessionEnded { sid } => Some((sid.as_str(), fact.entry_ms)),
        _ => None,
    })
}

fn latest_data<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, (u64, &'a [u8])> {
    fold.greatest(|fact, what| match what {
        What::Data { sid, data } => Some((sid.as_str(), (fact.t, data.as_slice()))),
        _ => None,
    })
}

/// Data whose own time is over may have gone before a touch came that would have kept it, or may have
/// come too late itself; and a session whose ending is forgotten may have begun again.
pub(super) fn open(fold: &Fold<'_>, open: &mut Open) {
    let ttl_ms = fold.settings.session_ttl_ms;
    let mut open_data: BTreeSet<_> = latest_data(fold)
        .into_iter()
        .filter_map(|(sid, (t, _))| fold.is_gone(t + ttl_ms).then_some(sid))
        .collect();
    let mut forgotten = endings(fold);
    forgotten.retain(|_, entry_ms| !fold.is_remembered(*entry_ms));
    open_data.extend(forgotten.keys());
    for (fact, what) in fold.each(|fact, what| Some((fact, what))) {
        match what {
            What::Touched { sid, value } if forgotten.contains_key(sid.as_str()) => {
                allow(open, field_of(fold.keys.sessions(), sid), [value.as_str()]);
            }
            What::Data { sid, data } if open_data.contains(sid.as_str()) => {
                let key = format!("{}{sid}", fold.keys.session_data());
                allow(open, string_of(key), [data.as_slice()]);
                let version = field_of(fold.keys.session_data_versions(), sid);
                allow(open, version, [fact.t.to_string()]);
            }
            _ => {}
        }
    }
}
