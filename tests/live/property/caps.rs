//! What holds even where the schedule decides which members stay.

use std::collections::BTreeSet;

use rollcall::config::Deployment;
use rollcall::key::Keys;

use crate::support::model::{State, Value};

/// The caps, and that a token's three structures are there together.
///
/// # Errors
/// What is too much, or there without the rest.
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
