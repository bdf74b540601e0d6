//! The documents of a snapshot: the users in each, and the thresholds that are reached.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::super::filter::Filter;
use super::touched::Touched;
use crate::config::Threshold;
use crate::state::documents::{Level, Member};

/// A document: its users with the number of their connections, and the thresholds it has reached.
#[derive(Default)]
pub(super) struct Doc {
    pub(super) users: BTreeMap<String, Option<u64>>,
    pub(super) reached: Vec<u64>,
}

/// The documents of one partition.
pub(super) type Docs = HashMap<String, Doc>;

/// Applies what changed meanwhile. The `connections` of users who joined are not part of their changes.
pub(super) fn bring_up(docs: &mut Docs, touched: Touched) {
    for ((doc, user), is_in) in touched.members {
        if is_in {
            docs.entry(doc).or_default().users.entry(user).or_default();
        } else if let Some(doc) = docs.get_mut(&doc) {
            doc.users.remove(&user);
        }
    }
    for ((doc, up), is_reached) in touched.levels {
        let Doc { reached, .. } = docs.entry(doc).or_default();
        reached.retain(|other| *other != up);
        if is_reached {
            reached.push(up);
        }
    }
    docs.retain(|_, doc| !doc.users.is_empty());
}

/// A document as the interface shows it.
#[derive(Serialize)]
struct Shown<'a> {
    doc: &'a str,
    users: usize,
    members: Vec<Member>,
    thresholds: Vec<Level>,
}

/// Writes a document; nothing if none of the wanted users is in it.
pub(super) fn write(
    (name, doc): (&str, &Doc),
    thresholds: &[Threshold],
    filter: &Filter,
    line: &mut Vec<u8>,
) {
    let wanted = doc.users.iter().filter(|(user, _)| filter.wants_user(user));
    let members: Vec<Member> = wanted
        .map(|(user, connections)| Member { user: user.clone(), connections: *connections })
        .collect();
    if members.is_empty() {
        return;
    }
    let level =
        |t: &Threshold| Level { up: t.up, down: t.down, reached: doc.reached.contains(&t.up) };
    let thresholds = thresholds.iter().map(level).collect();
    let shown = Shown { doc: name, users: doc.users.len(), members, thresholds };
    // Writing to memory cannot fail.
    let _written = serde_json::to_writer(line, &shown);
}
