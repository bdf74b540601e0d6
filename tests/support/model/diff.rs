//! How two states differ, in lines short enough to read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bytes, EITHER, State, Value};

/// Lines a difference has at most.
const MAX_LINES: usize = 20;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 160;

/// How `found` differs from `expected`; empty if it does not. A level of [`EITHER`] may be there or
/// not.
pub fn diff(expected: &State, found: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for name in union(expected, found) {
        let key = shown(name);
        let values = match (expected.get(name), found.get(name)) {
            (Some(expected), Some(found)) => {
                if expected.1 != found.1 {
                    let [expected, found] = [expected.1, found.1].map(instant);
                    lines.push(format!("{key}: expected {expected}, found {found}"));
                }
                (parts(&expected.0), parts(&found.0))
            }
            (Some(expected), None) => (parts(&expected.0), BTreeMap::new()),
            (None, Some(found)) => (BTreeMap::new(), parts(&found.0)),
            (None, None) => continue,
        };
        lines.extend(diff_parts(&values.0, &values.1).map(|line| format!("{key}{line}")));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - (MAX_LINES - 1);
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("… and {more} more"));
    }
    lines
}

/// A value as its parts by name, so that any two values can be compared.
fn parts(value: &Value) -> BTreeMap<String, Bytes> {
    let field = |name: &Bytes| format!("[{}]", shown(name));
    match value {
        Value::Str(text) => BTreeMap::from([(" string".to_owned(), text.clone())]),
        Value::Hash(fields) => fields.iter().map(|(n, v)| (field(n), v.clone())).collect(),
        Value::Set(members) => {
            members.iter().map(|m| (format!(" member {}", shown(m)), b"there".to_vec())).collect()
        }
        Value::Zset(members) => {
            let score =
                |(m, s): (&Bytes, &String)| (format!(" score of {}", shown(m)), s.clone().into());
            members.iter().map(score).collect()
        }
        Value::Other(kind) => BTreeMap::from([(" type".to_owned(), kind.clone().into())]),
    }
}

fn diff_parts<'a>(
    expected: &'a BTreeMap<String, Bytes>,
    found: &'a BTreeMap<String, Bytes>,
) -> impl Iterator<Item = String> + 'a {
    let differ = |name: &&String| match (expected.get(*name), found.get(*name)) {
        (Some(expected), None) => expected != EITHER,
        (Some(expected), Some(found)) if expected == EITHER => found != b"1" && found != EITHER,
        (expected, found) => expected != found,
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

/// Bytes as text: control characters and what is not UTF-8 escaped, the end of long ones cut.
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
