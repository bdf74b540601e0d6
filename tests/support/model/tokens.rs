//! Login tokens, what each viewed, and the ranking of items.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::What;
use super::state::{put_field, put_score, seconds, whole};
use super::{Fold, State, newest};

/// Tombstones: token → the greatest entry-id milliseconds of an ending, while remembered.
pub(super) fn ended(fold: &Fold<'_>, state: &mut State) {
    let endings = fold.greatest(|fact, what| match what {
        What::TokenEnded { token } => Some((token, fact.entry_ms)),
        _ => None,
    });
    for (token, entry_ms) in endings {
        if fold.is_remembered(entry_ms) {
            put_score(state, fold.keys.tokens_ended(), token, whole(entry_ms));
        }
    }
}

/// The newest tokens that have not ended: their users, their times, their viewed items.
pub(super) fn tokens(fold: &Fold<'_>, state: &mut State) {
    let users = last_users(fold);
    let times = users.iter().map(|(token, (t, _))| (*token, *t));
    let mut viewed = viewed(fold);
    for (token, t) in newest(times, fold.settings.recent_cap) {
        let (_, user) = users[token];
        put_field(state, fold.keys.login(), token, user);
        put_score(state, fold.keys.recent(), token, seconds(t));
        let items = viewed.remove(token).unwrap_or_default();
        for (item, t) in newest(items, fold.settings.viewed_cap) {
            put_score(state, format!("{}{token}", fold.keys.viewed()), item, seconds(t));
        }
    }
}

/// Each token's last time and the user of then; at one time the user of the greater bytes. A token
/// that ended, whenever, is not there.
fn last_users<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, (u64, &'a str)> {
    let mut users = fold.greatest(|fact, what| match what {
        What::TokenUsed { token, user } => Some((token.as_str(), (fact.t, user.as_str()))),
        _ => None,
    });
    let ended = ended_tokens(fold);
    users.retain(|token, _| !ended.contains(token));
    users
}

fn ended_tokens<'a>(fold: &Fold<'a>) -> BTreeSet<&'a str> {
    fold.each(|_, what| match what {
        What::TokenEnded { token } => Some(token.as_str()),
        _ => None,
    })
    .collect()
}

/// The items viewed with each token, each with its last time.
fn viewed<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, BTreeMap<&'a str, u64>> {
    let latest = fold.greatest(|fact, what| match what {
        What::Viewed { token, item } => Some(((token.as_str(), item.as_str()), fact.t)),
        _ => None,
    });
    let mut viewed: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for ((token, item), t) in latest {
        viewed.entry(token).or_default().insert(item, t);
    }
    viewed
}

/// How many view events each item had, whatever became of the token; the highest counts stay.
pub(super) fn ranking(fold: &Fold<'_>, state: &mut State) {
    let mut counts = BTreeMap::new();
    for item in fold.each(|_, what| match what {
        What::ViewCounted { item } => Some(item),
        _ => None,
    }) {
        *counts.entry(item).or_insert(0) += 1;
    }
    for (item, count) in newest(counts, fold.settings.ranking_cap) {
        put_score(state, fold.keys.viewed(), item, whole(count));
    }
}
