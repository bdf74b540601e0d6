//! Who was seen in which minute, when each was last active, and the presence entries.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::key::unescape;

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

/// Addresses of a user that stand in one value; more of them stand in a sorted set.
const ADDRESSES: usize = 16;

/// Last writer wins per entry: by time, then the greater bytes. It is there if it is newer than what ended
/// it, or all entries of its user. Both are gone after the same time.
pub(super) fn presence(fold: &Fold<'_>, state: &mut State) {
    for (name, t) in endings(fold) {
        put_score(state, fold.keys.presence_ended(), name, whole(t));
    }
    for (field, value) in present(fold) {
        put_field(state, fold.keys.presence(), field, value);
    }
}

/// By user, the addresses of their entries in order.
pub(super) fn addresses(fold: &Fold<'_>, state: &mut State) {
    let mut addresses: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for field in present(fold).into_keys() {
        let (user, address) = field.split_once('|').unwrap();
        addresses.entry(user).or_default().insert(address);
    }
    for (user, addresses) in addresses {
        let few = addresses.len() <= ADDRESSES;
        let joined = addresses.iter().copied().collect::<Vec<_>>().join("|");
        let value = if few { joined.as_str() } else { "%" };
        put_field(state, fold.keys.presence_addresses(), &unescape(user), value);
        for address in addresses.iter().filter(|_| !few) {
            put_score(state, fold.keys.presence_crowds(), &format!("{user}|{address}"), whole(0));
        }
    }
}

fn present<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, &'a str> {
    let latest = fold.greatest(|fact, what| match what {
        What::Present { field, value } => Some((field.as_str(), (fact.t, value.as_str()))),
        _ => None,
    });
    let ended = endings(fold);
    let is_there = |field: &str, t: u64| {
        let user = field.split('|').next().unwrap();
        let last = [field, user].into_iter().filter_map(|name| ended.get(name)).max();
        last.is_none_or(|ended| t > *ended) && !fold.is_gone(t + fold.settings.presence_ttl_ms)
    };
    let there = latest.into_iter().filter(|(field, (t, _))| is_there(field, *t));
    there.map(|(field, (_, value))| (field, value)).collect()
}

/// The last endings, of entries and of users.
fn endings<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, u64> {
    let mut latest = fold.greatest(|fact, what| match what {
        What::Absent { field: name } | What::UserAbsent { user: name } => {
            Some((name.as_str(), fact.t))
        }
        _ => None,
    });
    latest.retain(|_, t| !fold.is_gone(*t + fold.settings.presence_ttl_ms));
    latest
}
