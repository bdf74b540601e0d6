//! Documents: their connections, their users, the number of users, and thresholds.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::key::{escape, join};

use super::facts::{Connection, What};
use super::open::{Open, allow, field_of};
use super::state::{put, put_field, put_member, put_score, whole};
use super::{Fold, State};

/// The last event of each connection, join or leave, until it is too old.
pub(super) fn connections(fold: &Fold<'_>, state: &mut State) {
    for (connection, (t, has_left)) in last_words(fold) {
        let Connection { doc, user, connection } = connection;
        let keys = &fold.keys;
        let key = if has_left { keys.docs_left() } else { keys.docs_joined() };
        put_score(state, key, &join(&[doc, user, connection]), whole(t));
    }
}

/// A user is active while any connection is.
pub(super) fn users(fold: &Fold<'_>, state: &mut State) {
    for (doc, users) in active_users(fold) {
        for (user, connections) in &users {
            put_member(state, fold.keys.document_users(doc), user, None);
            let field = join(&[doc, user]);
            put_field(state, fold.keys.docs_connections(), &field, connections.len().to_string());
        }
        put(state, fold.keys.document_count(doc), users.len().to_string(), None);
    }
}

/// A threshold is reached at `up` users or more, and not at `down` or fewer.
pub(super) fn levels(fold: &Fold<'_>, state: &mut State) {
    for (doc, users) in active_users(fold) {
        let count = users.len() as u64;
        for (up, down) in fold.settings.thresholds.iter().filter(|(up, _)| count >= *up) {
            put_field(state, fold.keys.docs_levels(), &level(*up, *down, doc), "1");
        }
    }
}

/// Strictly between `down` and `up` a level depends on the history of the count.
pub(super) fn open_levels(fold: &Fold<'_>, open: &mut Open) {
    for (doc, users) in active_users(fold) {
        let count = users.len() as u64;
        for (up, down) in &fold.settings.thresholds {
            if count > *down && count < *up {
                let field = level(*up, *down, doc);
                allow(open, field_of(fold.keys.docs_levels(), &field), ["1"]);
            }
        }
    }
}

fn level(up: u64, down: u64, doc: &str) -> String {
    format!("{up}:{down}:{}", escape(doc))
}

/// Each document's active users with their joined connections.
fn active_users<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>> {
    let mut docs: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for (Connection { doc, user, connection }, (_, has_left)) in last_words(fold) {
        if !has_left {
            let users = docs.entry(doc.as_str()).or_default();
            users.entry(user.as_str()).or_default().insert(connection.as_str());
        }
    }
    docs
}

/// Last writer wins per connection: by time; at the same time leaving wins.
fn last_words<'a>(fold: &Fold<'a>) -> BTreeMap<&'a Connection, (u64, bool)> {
    let mut words = fold.greatest(|fact, what| match what {
        What::Joined(connection) => Some((connection, (fact.t, false))),
        What::Left(connection) => Some((connection, (fact.t, true))),
        _ => None,
    });
    words.retain(|_, (t, _)| !fold.is_gone(*t + fold.settings.document_ttl_ms));
    words
}
