//! The form in which states are compared: every key with its value and its absolute expiry.

use std::collections::{BTreeMap, BTreeSet};

/// Names and values as Redis has them.
pub type Bytes = Vec<u8>;

/// Every key → its value and its expiry (epoch milliseconds).
pub type State = BTreeMap<Bytes, (Value, Option<u64>)>;

/// The content of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Str(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    Set(BTreeSet<Bytes>),
    /// Member → score, as [`score_text`] writes it.
    Zset(BTreeMap<Bytes, String>),
    /// A type that no key of the state may have.
    Other(String),
}

/// The canonical text of a sorted set's score: no exponent, at most three decimals.
pub fn score_text(score: f64) -> String {
    let text = format!("{score:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Sets a string.
pub(super) fn put(state: &mut State, key: String, value: impl Into<Bytes>, expiry: Option<u64>) {
    state.insert(key.into_bytes(), (Value::Str(value.into()), expiry));
}

/// Sets a field of a hash.
pub(super) fn put_field(state: &mut State, key: String, field: &str, value: impl Into<Bytes>) {
    let empty = || (Value::Hash(BTreeMap::new()), None);
    match &mut state.entry(key.into_bytes()).or_insert_with(empty).0 {
        Value::Hash(fields) => fields.insert(field.into(), value.into()),
        other => panic!("not a hash: {other:?}"),
    };
}

/// Adds a member to a set; all members must give the same expiry.
pub(super) fn put_member(state: &mut State, key: String, member: &str, expiry: Option<u64>) {
    let empty = || (Value::Set(BTreeSet::new()), expiry);
    match &mut state.entry(key.into_bytes()).or_insert_with(empty).0 {
        Value::Set(members) => members.insert(member.into()),
        other => panic!("not a set: {other:?}"),
    };
}

/// Sets a member's score in a sorted set.
pub(super) fn put_score(state: &mut State, key: String, member: &str, score: f64) {
    let empty = || (Value::Zset(BTreeMap::new()), None);
    match &mut state.entry(key.into_bytes()).or_insert_with(empty).0 {
        Value::Zset(members) => members.insert(member.into(), score_text(score)),
        other => panic!("not a sorted set: {other:?}"),
    };
}

/// A score that must not lose digits: milliseconds and counts below 2^53; beyond that, rounded like in Redis.
#[allow(clippy::cast_precision_loss)]
pub(super) fn whole(number: u64) -> f64 {
    number as f64
}

/// A time as the score of `recent:` and `viewed:<token>`: seconds with milliseconds.
pub(super) fn seconds(ms: u64) -> f64 {
    whole(ms) / 1000.0
}
