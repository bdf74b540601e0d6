//! What holds even where the schedule decides which members stay, and how many changes there are.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::config::Deployment;
use rollcall::key::{Keys, unescape};

use crate::support::model::{Change, State, Value};

/// Checks the caps, and that a token's three structures contain it together.
///
/// # Errors
/// What exceeds a cap, or is there without the rest.
pub fn check_caps(state: &State, keys: &Keys, deployment: &Deployment) -> Result<(), String> {
    let members = |key: &str| match state.get(key.as_bytes()) {
        Some((Value::Hash(fields), _)) => fields.keys().cloned().collect(),
        Some((Value::Zset(members), _)) => members.keys().cloned().collect(),
        _ => BTreeSet::new(),
    };
    let (login, recent) = (members(&keys.login()), members(&keys.recent()));
    if login != recent || recent.len() as u64 > deployment.recent_cap {
        return Err(format!("login: has {login:?}, recent: {recent:?}"));
    }
    if members(&keys.viewed()).len() as u64 > deployment.ranking_cap {
        return Err("the ranking is over its cap".to_owned());
    }
    for key in state.keys() {
        let viewed = keys.viewed();
        let Some(token) = key.strip_prefix(viewed.as_bytes()).filter(|token| !token.is_empty())
        else {
            continue;
        };
        let items = members(std::str::from_utf8(key).unwrap());
        if !recent.contains(token) || items.len() as u64 > deployment.viewed_cap {
            return Err(format!("{key:?} has {items:?}, recent: {recent:?}"));
        }
    }
    Ok(())
}

/// Checks that the index names exactly the addresses of the existing presence entries, and that no entry is older
/// than what ended it: after every call, not only after a sweep.
///
/// # Errors
/// What is too much or missing.
pub fn check_presence(state: &State, keys: &Keys) -> Result<(), String> {
    let hash = |key: String| match state.get(key.as_bytes()) {
        Some((Value::Hash(fields), _)) => fields.clone(),
        _ => BTreeMap::new(),
    };
    let ended = match state.get(keys.presence_ended().as_bytes()) {
        Some((Value::Zset(members), _)) => members.clone(),
        _ => BTreeMap::new(),
    };
    let mut expected: BTreeMap<Vec<u8>, BTreeSet<String>> = BTreeMap::new();
    for (field, value) in hash(keys.presence()) {
        let field = String::from_utf8(field).unwrap();
        let (user, address) = field.split_once('|').unwrap();
        let last_seen = std::str::from_utf8(&value[12..25]).unwrap();
        for name in [&*field, user] {
            if ended.get(name.as_bytes()).is_some_and(|ended| ended.as_str() >= last_seen) {
                return Err(format!("{field} of {last_seen} has ended: {ended:?}"));
            }
        }
        let user = unescape(user).into_owned().into_bytes();
        expected.entry(user).or_default().insert(address.to_owned());
    }
    let of = |value: Vec<u8>| {
        String::from_utf8(value).unwrap().split('|').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let found: BTreeMap<_, _> = hash(keys.presence_addresses())
        .into_iter()
        .map(|(user, addresses)| (user, of(addresses)))
        .collect();
    if found == expected { Ok(()) } else { Err(format!("the index {found:?}, not {expected:?}")) }
}

/// Checks that nothing begins that was late when the case began at `base` ms, and that a threshold is left at its
/// lower end. No session has a lifetime of its own longer than `longest_ttl_ms`.
///
/// # Errors
/// The impossible change.
pub fn check_change(
    change: &Change,
    deployment: &Deployment,
    longest_ttl_ms: u64,
    base: u64,
) -> Result<(), String> {
    let text = |name: &str| std::str::from_utf8(&change[name]).unwrap();
    let number = |name: &str| text(name).parse::<u64>().unwrap();
    let is_alive = |ttl_ms: u64| number("time") + ttl_ms > base;
    let is_right = match text("kind") {
        "online" => is_alive(deployment.presence_ttl_ms),
        "session_started" => is_alive(deployment.session_ttl_ms.max(longest_ttl_ms)),
        "document_joined" => is_alive(deployment.document_ttl_ms),
        "threshold_left" => {
            let (up, count) = (number("threshold"), number("count"));
            deployment.thresholds.iter().any(|level| level.up == up && count <= level.down)
        }
        _ => true,
    };
    if is_right { Ok(()) } else { Err(format!("a change that must not be: {change:?}")) }
}
