//! Login tokens, the items that each viewed, and the ranking of items.

use std::collections::BTreeMap;

use super::facts::What;
use super::open::{Open, allow, field_of, score_of};
use super::state::{put_field, put_score, score_text, seconds, whole};
use super::{Fold, State, newest};

/// Tombstones: token → the greatest entry-id milliseconds of an ending, while remembered.
pub(super) fn ended(fold: &Fold<'_>, state: &mut State) {
    for (token, entry_ms) in endings(fold) {
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

/// Each token's last time and its user; at the same time the user with the greater bytes. A token that ended, at any
/// time, is left out.
fn last_users<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, (u64, &'a str)> {
    let mut users = fold.greatest(|fact, what| match what {
        What::TokenUsed { token, user } => Some((token.as_str(), (fact.t, user.as_str()))),
        _ => None,
    });
    let ended = endings(fold);
    users.retain(|token, _| !ended.contains_key(token));
    users
}

/// The greatest entry-id milliseconds of each token's endings.
fn endings<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, u64> {
    fold.greatest(|fact, what| match what {
        What::TokenEnded { token } => Some((token.as_str(), fact.entry_ms)),
        _ => None,
    })
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
    for (item, count) in newest(counts(fold), fold.settings.ranking_cap) {
        put_score(state, fold.keys.viewed(), item, whole(count));
    }
}

fn counts<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    for item in fold.each(|_, what| match what {
        What::ViewCounted { item } => Some(item.as_str()),
        _ => None,
    }) {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

/// With more items than the cap, each may have been evicted after any of its views.
pub(super) fn open_ranking(fold: &Fold<'_>, open: &mut Open) {
    let counts = counts(fold);
    if counts.len() > fold.settings.ranking_cap {
        for (item, count) in counts {
            let values = (1..=count).map(|n| score_text(whole(n)));
            allow(open, score_of(fold.keys.viewed(), item), values);
        }
    }
}

/// What a token's use left behind is open if the token can have been evicted after it, or if the token
/// ended so long ago that the ending may have been forgotten before the use came.
pub(super) fn open_tokens(fold: &Fold<'_>, open: &mut Open) {
    let ended = endings(fold);
    let last = fold.greatest(|fact, what| match what {
        What::TokenUsed { token, .. } => Some((token.as_str(), fact.t)),
        _ => None,
    });
    // Others that can have been there when it was, ended or not, and rank above it.
    let is_kept = |token: &str, t: u64| {
        let above =
            last.iter().filter(|(other, last)| **other != token && (**last, **other) > (t, token));
        above.count() < fold.settings.recent_cap
    };
    let is_open = |token: &str, t: u64| match ended.get(token) {
        Some(entry_ms) => !fold.is_remembered(*entry_ms),
        None => !is_kept(token, t),
    };
    for (fact, what) in fold.each(|fact, what| Some((fact, what))) {
        let score = score_text(seconds(fact.t));
        match what {
            What::TokenUsed { token, user } if is_open(token, last[token.as_str()]) => {
                allow(open, field_of(fold.keys.login(), token), [user.as_str()]);
                allow(open, score_of(fold.keys.recent(), token), [score]);
            }
            What::Viewed { token, item } if is_open(token, fact.t) => {
                let key = format!("{}{token}", fold.keys.viewed());
                allow(open, score_of(key, item), [score]);
            }
            _ => {}
        }
    }
}
