//! The difference between two states, in lines short enough to read.

use std::collections::{BTreeMap, BTreeSet};

use super::open::{Open, expiry_of, field_of, member_of, score_of, string_of};
use super::{Bytes, State, Value};

/// The maximum number of lines of a difference.
const MAX_LINES: usize = 20;
/// The maximum number of characters of a value.
const MAX_SHOWN: usize = 160;

/// How `found` differs from `expected` and from everything else that is right; empty if it does not.
pub fn diff(expected: &State, open: &Open, found: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for name in union(expected, found) {
        let key = shown(name);
        let values = match (expected.get(name), found.get(name)) {
            (Some(expected), Some(found)) => {
                let digits = found.1.unwrap_or(0).to_string().into_bytes();
                let is_open = open.get(&expiry_of(name)).is_some_and(|all| all.contains(&digits));
                if expected.1 != found.1 && !is_open {
                    let [expected, found] = [expected.1, found.1].map(instant);
                    lines.push(format!("{key}: expected {expected}, found {found}"));
                }
                (parts(name, &expected.0), parts(name, &found.0))
            }
            (Some(expected), None) => (parts(name, &expected.0), BTreeMap::new()),
            (None, Some(found)) => (BTreeMap::new(), parts(name, &found.0)),
            (None, None) => continue,
        };
        lines.extend(diff_parts(&values.0, open, &values.1));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - (MAX_LINES - 1);
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("… and {more} more"));
    }
    lines
}

/// A value split into parts by name, so that any two values can be compared.
fn parts(key: &Bytes, value: &Value) -> BTreeMap<String, Bytes> {
    match value {
        Value::Str(text) => BTreeMap::from([(string_of(key), text.clone())]),
        Value::Hash(fields) => fields.iter().map(|(n, v)| (field_of(key, n), v.clone())).collect(),
        Value::Set(members) => {
            members.iter().map(|m| (member_of(key, m), b"there".to_vec())).collect()
        }
        Value::Zset(members) => {
            members.iter().map(|(m, s)| (score_of(key, m), s.clone().into())).collect()
        }
        Value::Other(kind) => {
            BTreeMap::from([(format!("{} type", shown(key)), kind.clone().into())])
        }
    }
}

fn diff_parts<'a>(
    expected: &'a BTreeMap<String, Bytes>,
    open: &'a Open,
    found: &'a BTreeMap<String, Bytes>,
) -> impl Iterator<Item = String> + 'a {
    let differ = |name: &&String| {
        let found = found.get(*name);
        expected.get(*name) != found
            && !open.get(*name).is_some_and(|allowed| found.is_none_or(|f| allowed.contains(f)))
    };
    let describe = |value: Option<&Bytes>| value.map_or("nothing".to_owned(), |value| shown(value));
    union(expected, found).into_iter().filter(differ).map(move |name| {
        let (expected, found) = (describe(expected.get(name)), describe(found.get(name)));
        format!("{name}: expected {expected}, found {found}")
    })
}

fn union<'a, K: Ord, V>(a: &'a BTreeMap<K, V>, b: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    a.keys().chain(b.keys()).collect()
}

fn instant(expiry: Option<u64>) -> String {
    expiry.map_or("no expiry".to_owned(), |expiry| format!("expiry {expiry}"))
}

/// Bytes as text: control characters and bad UTF-8 are escaped, and long texts are cut.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text,
    }
}
