//! What is promised of the changes: one gapless sequence; the changes of each subject alternate, and the last agrees
//! with the state.
//!
//! Their number depends on the schedule, so there is no list of expected ones.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::key::{Keys, unescape};

use super::diff::shown;
use super::{Bytes, State, Value};

/// One change: its fields.
pub type Change = BTreeMap<String, Bytes>;

/// The subject of a change: the kind that begins it, and its names.
type Subject = (&'static str, Vec<Bytes>);

/// Every kind, with the kind that begins its subject and the fields that name the subject.
const KINDS: [(&str, &str, &[&str]); 11] = [
    ("online", "online", &["user", "ip"]),
    ("offline", "online", &["user", "ip"]),
    ("login", "login", &["token"]),
    ("logout", "login", &["token"]),
    ("session_started", "session_started", &["sid"]),
    ("session_ended", "session_started", &["sid"]),
    ("session_expired", "session_started", &["sid"]),
    ("document_joined", "document_joined", &["doc", "user"]),
    ("document_left", "document_joined", &["doc", "user"]),
    ("threshold_reached", "threshold_reached", &["doc", "threshold"]),
    ("threshold_left", "threshold_reached", &["doc", "threshold"]),
];

/// What cannot be checked because another program removed keys.
#[derive(Clone, Debug, Default)]
pub struct Exempt {
    /// Whether changes alternate and agree with the state, by the kind that begins their subject.
    pub subjects: Vec<&'static str>,
    /// Documents' counts.
    pub counts: bool,
    /// The numbers.
    pub sequence: bool,
}

/// Checks all changes of a partition against each other and against the resulting state. If the cap dropped the first
/// ones, the rest is checked.
///
/// # Errors
/// The first broken promise.
pub fn check_changes(changes: &[Change], state: &State, keys: &Keys) -> Result<(), String> {
    check_changes_but(&Exempt::default(), changes, state, keys)
}

/// The same, except for what is exempt.
///
/// # Errors
/// The first broken promise.
pub fn check_changes_but(
    exempt: &Exempt,
    changes: &[Change],
    state: &State,
    keys: &Keys,
) -> Result<(), String> {
    if exempt.sequence {
        return Ok(());
    }
    let first_seq = changes.first().map_or(Ok(1), |change| number(change, "seq"))?;
    let is_complete = first_seq == 1;
    let mut last: BTreeMap<Subject, bool> = BTreeMap::new();
    for (change, seq) in changes.iter().zip(first_seq..) {
        check_fields(change, seq)?;
        let (subject, begins) = subject(change)?;
        if exempt.subjects.contains(&subject.0) {
            continue;
        }
        let before = last.insert(subject, begins);
        if before == Some(begins) || (before.is_none() && is_complete && !begins) {
            return Err(format!("does not alternate: {}", described(change)));
        }
    }
    if !exempt.counts {
        check_counts(changes, state, keys)?;
    }
    let mut present = present(state, keys);
    present.retain(|(begins, _)| !exempt.subjects.contains(begins));
    check_last(&last, &present, is_complete)
}

/// The sequence number is the next one, the time is a time, and a level agrees with its count.
fn check_fields(change: &Change, seq: u64) -> Result<(), String> {
    if number(change, "seq")? != seq {
        return Err(format!("seq is not {seq}: {}", described(change)));
    }
    number(change, "time")?;
    let is_reached = match text(change, "kind")?.as_str() {
        "threshold_reached" => true,
        "threshold_left" => false,
        _ => return Ok(()),
    };
    if (number(change, "count")? >= number(change, "threshold")?) == is_reached {
        return Ok(());
    }
    Err(format!("the count does not fit: {}", described(change)))
}

/// The last change of a document's users has the current count, if it has one.
fn check_counts(changes: &[Change], state: &State, keys: &Keys) -> Result<(), String> {
    let mut counts = BTreeMap::new();
    for change in changes.iter().filter(|change| change.contains_key("count")) {
        if text(change, "kind")?.starts_with("document_") {
            counts.insert(text(change, "doc")?, change);
        }
    }
    for (doc, change) in counts {
        let now = match state.get(keys.document_count(&doc).as_bytes()) {
            Some((Value::Str(count), _)) => count.clone(),
            _ => b"0".to_vec(),
        };
        if change["count"] != now {
            return Err(format!("the count is {} now: {}", shown(&now), described(change)));
        }
    }
    Ok(())
}

/// The last change of each subject agrees with the state.
fn check_last(
    last: &BTreeMap<Subject, bool>,
    present: &BTreeSet<Subject>,
    is_complete: bool,
) -> Result<(), String> {
    for subject in last.keys().chain(present) {
        let (said, is) = (last.get(subject), present.contains(subject));
        if said.map_or(is && is_complete, |said| *said != is) {
            let subject = named(subject);
            return Err(format!(
                "the last change of {subject} begins it: {said:?}; in the state: {is}"
            ));
        }
    }
    Ok(())
}

/// Checks that the changes of one call are the difference between the state before and after it.
///
/// # Errors
/// The first change without a difference, or difference without a change.
pub fn check_transitions(
    before: &State,
    after: &State,
    changes: &[Change],
    keys: &Keys,
) -> Result<(), String> {
    let (before, after) = (present(before, keys), present(after, keys));
    let mut silent: BTreeSet<_> = before.symmetric_difference(&after).cloned().collect();
    for change in changes {
        let (subject, begins) = subject(change)?;
        if !silent.remove(&subject) || after.contains(&subject) != begins {
            return Err(format!("no transition: {}", described(change)));
        }
    }
    match silent.first() {
        Some(subject) => Err(format!("a transition without its change: {}", named(subject))),
        None => Ok(()),
    }
}

fn named((kind, names): &Subject) -> String {
    let names: Vec<_> = names.iter().map(|name| shown(name)).collect();
    format!("{kind} {}", names.join(", "))
}

/// The subjects that exist in the state.
fn present(state: &State, keys: &Keys) -> BTreeSet<Subject> {
    let mut present = BTreeSet::new();
    let fields = |key: String| match state.get(key.as_bytes()) {
        Some((Value::Hash(fields), _)) => fields.clone(),
        _ => BTreeMap::new(),
    };
    for field in fields(keys.presence()).into_keys() {
        present.insert(("online", split(&field)));
    }
    for token in fields(keys.login()).into_keys() {
        present.insert(("login", vec![token]));
    }
    for sid in fields(keys.sessions()).into_keys() {
        present.insert(("session_started", vec![sid]));
    }
    for (doc, users) in documents(state, keys) {
        for user in users {
            present.insert(("document_joined", vec![doc.clone(), user]));
        }
    }
    for field in fields(keys.docs_levels()).into_keys() {
        let field = String::from_utf8(field).unwrap();
        let [up, _, doc]: [&str; 3] = field.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let names = vec![unescape(doc).as_bytes().to_vec(), up.as_bytes().to_vec()];
        present.insert(("threshold_reached", names));
    }
    present
}

/// Each document with its users.
fn documents(state: &State, keys: &Keys) -> Vec<(Bytes, BTreeSet<Bytes>)> {
    let beginning = keys.document();
    let users = |(name, (value, _)): (&Bytes, &(Value, _))| {
        let doc = name.strip_prefix(beginning.as_bytes())?.strip_suffix(b":users")?;
        let Value::Set(users) = value else { return None };
        Some((doc.to_vec(), users.clone()))
    };
    state.iter().filter_map(users).collect()
}

/// The parts of a joined name.
fn split(field: &[u8]) -> Vec<Bytes> {
    let field = std::str::from_utf8(field).unwrap();
    field.split('|').map(|part| unescape(part).as_bytes().to_vec()).collect()
}

/// The subject of a change, and whether the change begins it. A missing name is empty.
fn subject(change: &Change) -> Result<(Subject, bool), String> {
    let kind = text(change, "kind")?;
    let known = KINDS.iter().find(|(name, ..)| *name == kind);
    let (_, begins_with, names) = known.ok_or(format!("unknown kind: {}", described(change)))?;
    let names = names.iter().map(|name| change.get(*name).cloned().unwrap_or_default()).collect();
    Ok(((begins_with, names), kind == *begins_with))
}

fn text(change: &Change, field: &str) -> Result<String, String> {
    let value = change.get(field).ok_or(format!("no {field}: {}", described(change)))?;
    String::from_utf8(value.clone())
        .map_err(|_| format!("{field} is not UTF-8: {}", described(change)))
}

fn number(change: &Change, field: &str) -> Result<u64, String> {
    text(change, field)?.parse().map_err(|_| format!("{field} is no number: {}", described(change)))
}

fn described(change: &Change) -> String {
    let fields = change.iter().map(|(name, value)| format!("{name}={}", shown(value)));
    fields.collect::<Vec<_>>().join(" ")
}
