//! What depends on the schedule by its nature: values that are correct besides the ideal one.
//!
//! Each is a limit of the guarantee in ARCHITECTURE.md, and no wider than stated there.

use std::collections::{BTreeMap, BTreeSet};

use super::Bytes;
use super::diff::shown;

/// Parts of a state, by the name that the comparison gives them → the values that they may have. Each may also be
/// absent.
pub type Open = BTreeMap<String, BTreeSet<Bytes>>;

/// Allows these values, and absence.
pub(super) fn allow<V: Into<Bytes>>(
    open: &mut Open,
    part: String,
    values: impl IntoIterator<Item = V>,
) {
    open.entry(part).or_default().extend(values.into_iter().map(Into::into));
}

/// The name of a string.
pub(super) fn string_of(key: impl AsRef<[u8]>) -> String {
    format!("{} string", shown(key.as_ref()))
}

/// The name of a key's expiry; its values are milliseconds in digits.
pub(super) fn expiry_of(key: impl AsRef<[u8]>) -> String {
    format!("{} expiry", shown(key.as_ref()))
}

/// The name of a hash's field.
pub(super) fn field_of(key: impl AsRef<[u8]>, field: impl AsRef<[u8]>) -> String {
    format!("{}[{}]", shown(key.as_ref()), shown(field.as_ref()))
}

/// The name of a set's member.
pub(super) fn member_of(key: impl AsRef<[u8]>, member: impl AsRef<[u8]>) -> String {
    format!("{} member {}", shown(key.as_ref()), shown(member.as_ref()))
}

/// The name of a sorted set's score.
pub(super) fn score_of(key: impl AsRef<[u8]>, member: impl AsRef<[u8]>) -> String {
    format!("{} score of {}", shown(key.as_ref()), shown(member.as_ref()))
}
