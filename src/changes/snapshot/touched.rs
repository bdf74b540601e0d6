//! What changed while a snapshot was gathered: the last change of each subject determines its state at the end.

use std::collections::HashMap;

use super::super::filter::Parts;
use crate::change::{Change, ChangeKind};
use crate::key;

/// How many subjects may change while one snapshot is gathered.
pub(super) const MOST: usize = 1_000_000;

/// The subjects of changes, with the result of the last change of each.
#[derive(Default)]
pub(super) struct Touched {
    /// Presence fields, `user|ip`: whether the entry exists.
    pub(super) presence: HashMap<String, bool>,
    /// Sessions: the user of the session, if it exists.
    pub(super) sessions: HashMap<String, Option<String>>,
    /// Documents and users: whether the user is in.
    pub(super) members: HashMap<(String, String), bool>,
    /// Documents and thresholds: whether it is reached.
    pub(super) levels: HashMap<(String, u64), bool>,
}

impl Touched {
    /// Records a change, if it is about one of these parts.
    pub(super) fn add(&mut self, change: &Change, parts: Parts) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match change.kind {
            ChangeKind::Online | ChangeKind::Offline if parts.presence => {
                let field = key::join(&[&text(&change.user), &text(&change.ip)]);
                self.presence.insert(field, change.kind == ChangeKind::Online);
            }
            ChangeKind::SessionStarted if parts.sessions => {
                self.sessions.insert(text(&change.sid), Some(text(&change.user)));
            }
            ChangeKind::SessionEnded | ChangeKind::SessionExpired if parts.sessions => {
                self.sessions.insert(text(&change.sid), None);
            }
            ChangeKind::DocumentJoined | ChangeKind::DocumentLeft if parts.documents => {
                let member = (text(&change.doc), text(&change.user));
                self.members.insert(member, change.kind == ChangeKind::DocumentJoined);
            }
            ChangeKind::ThresholdReached | ChangeKind::ThresholdLeft if parts.documents => {
                let level = (text(&change.doc), change.threshold.unwrap_or_default());
                self.levels.insert(level, change.kind == ChangeKind::ThresholdReached);
            }
            _ => {}
        }
    }

    /// How many subjects there are.
    pub(super) fn len(&self) -> usize {
        self.presence.len() + self.sessions.len() + self.members.len() + self.levels.len()
    }
}
