//! Which changes a listener wants, and which parts of the state they belong to.

use std::collections::HashSet;

use crate::change::{Change, ChangeKind};

/// What a listener wants. Values of one kind are alternatives; conditions of different kinds must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these kinds of changes; all if empty.
    pub kinds: HashSet<ChangeKind>,
    /// Only changes of these users; of all if empty.
    pub users: HashSet<String>,
    /// Only changes in these documents; if empty, in any document and outside documents.
    pub docs: HashSet<String>,
}

/// The parts of the state that changes belong to, and that make up a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Presence entries.
    pub presence: bool,
    /// Sessions.
    pub sessions: bool,
    /// Documents with their users.
    pub documents: bool,
}

impl Filter {
    /// Whether every change passes.
    pub fn is_open(&self) -> bool {
        self.kinds.is_empty() && self.users.is_empty() && self.docs.is_empty()
    }

    /// Whether a change passes.
    pub fn passes(&self, change: &Change) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&change.kind))
            && holds(&self.users, change.user.as_deref())
            && holds(&self.docs, change.doc.as_deref())
    }

    /// Whether state of this user is wanted.
    pub fn wants_user(&self, user: &str) -> bool {
        self.users.is_empty() || self.users.contains(user)
    }

    /// Whether a document is wanted.
    pub fn wants_doc(&self, doc: &str) -> bool {
        self.docs.is_empty() || self.docs.contains(doc)
    }

    /// The parts of the state that the passing changes belong to.
    pub fn parts(&self) -> Parts {
        use ChangeKind::{
            DocumentJoined, DocumentLeft, Offline, Online, SessionEnded, SessionExpired,
            SessionStarted, ThresholdLeft, ThresholdReached,
        };
        let any = |kinds: &[ChangeKind]| {
            self.kinds.is_empty() || kinds.iter().any(|kind| self.kinds.contains(kind))
        };
        // A filter that names documents excludes everything outside documents.
        let outside = self.docs.is_empty();
        Parts {
            presence: outside && any(&[Online, Offline]),
            sessions: outside && any(&[SessionStarted, SessionEnded, SessionExpired]),
            documents: any(&[DocumentJoined, DocumentLeft, ThresholdReached, ThresholdLeft]),
        }
    }
}

fn holds(wanted: &HashSet<String>, found: Option<&str>) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.contains(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryId};

    fn change(kind: &str, user: &str, doc: &str) -> Change {
        let fields = [("seq", "1"), ("kind", kind), ("time", "1"), ("user", user), ("doc", doc)];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        Change::read(&Entry::new(EntryId { ms: 1, seq: 0 }, given), 0).unwrap()
    }

    fn filter(kinds: &[&str], users: &[&str], docs: &[&str]) -> Filter {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        Filter {
            kinds: kinds.iter().map(|kind| ChangeKind::from_name(kind).unwrap()).collect(),
            users: texts(users),
            docs: texts(docs),
        }
    }

    #[test]
    fn alternatives_of_one_kind_and_all_kinds_together() {
        let joined = change("document_joined", "ann", "d");
        let reached = change("threshold_reached", "", "d");
        for (filter, passed) in [
            (filter(&[], &[], &[]), [true, true]),
            (filter(&["document_joined", "online"], &[], &[]), [true, false]),
            (filter(&[], &["bob", "ann"], &[]), [true, false]),
            (filter(&[], &[], &["d", "e"]), [true, true]),
            (filter(&[], &["ann"], &["e"]), [false, false]),
        ] {
            assert_eq!([filter.passes(&joined), filter.passes(&reached)], passed, "{filter:?}");
        }
    }

    #[test]
    fn a_snapshot_has_the_parts_that_the_changes_are_about() {
        let parts = |filter: Filter| {
            let Parts { presence, sessions, documents } = filter.parts();
            [presence, sessions, documents]
        };
        assert_eq!(parts(filter(&[], &[], &[])), [true; 3]);
        assert_eq!(parts(filter(&[], &["ann"], &[])), [true; 3]);
        assert_eq!(parts(filter(&["offline"], &[], &[])), [true, false, false]);
        assert_eq!(parts(filter(&["session_expired", "login"], &[], &[])), [false, true, false]);
        assert_eq!(parts(filter(&["threshold_left"], &[], &[])), [false, false, true]);
        assert_eq!(parts(filter(&["login"], &[], &[])), [false; 3]);
        assert_eq!(parts(filter(&[], &[], &["d"])), [false, false, true]);
        assert_eq!(parts(filter(&["online"], &[], &["d"])), [false; 3]);
    }
}
