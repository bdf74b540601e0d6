//! Who was seen in which minute, when each was last active, and the presence entries.

use super::facts::What;
use super::state::{put, put_field, put_member, put_score, whole};
use super::{Fold, State};

/// A grow-only set per minute; its expiry is a function of the minute.
pub(super) fn online_minutes(fold: &Fold<'_>, state: &mut State) {
    for (fact, user) in fold.each(|fact, what| match what {
        What::SeenInMinute { user } => Some((fact, user)),
        _ => None,
    }) {
        let expiry = fact.expiry(fold.settings).unwrap();
        if !fold.is_gone(expiry) {
            put_member(state, fold.keys.online_minute(fact.minute()), user, Some(expiry));
        }
    }
}

/// The highest time wins; its expiry is a function of the value.
pub(super) fn activity(fold: &Fold<'_>, state: &mut State) {
    let latest = fold.greatest(|fact, what| match what {
        What::Active { user } => Some((user, (fact.t / 1000, fact.expiry(fold.settings).unwrap()))),
        _ => None,
    });
    for (user, (seconds, expiry)) in latest {
        if !fold.is_gone(expiry) {
            let key = format!("{}{user}", fold.keys.activity());
            put(state, key, seconds.to_string(), Some(expiry));
        }
    }
}

/// Last writer wins per entry: by time, then the ending, then the greater bytes. The winner alone
/// stays, as a value or as a tombstone, and either is gone after the same time.
pub(super) fn presence(fold: &Fold<'_>, state: &mut State) {
    let latest = fold.greatest(|fact, what| match what {
        What::Present { field, value } => Some((field, (fact.t, false, value.as_str()))),
        What::Absent { field } => Some((field, (fact.t, true, ""))),
        _ => None,
    });
    for (field, (t, has_ended, value)) in latest {
        if fold.is_gone(t + fold.settings.presence_ttl_ms) {
            continue;
        }
        if has_ended {
            put_score(state, fold.keys.presence_ended(), field, whole(t));
        } else {
            put_field(state, fold.keys.presence(), field, value);
        }
    }
}
