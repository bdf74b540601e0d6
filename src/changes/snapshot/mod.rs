//! A snapshot: exactly the presence entries, sessions and documents that exist at a position of the changes. The
//! snapshot plus the changes after its position gives the state.
//!
//! It is gathered once and may serve any number of listeners; each writes it line by line at its own pace.

mod docs;
mod gather;
mod listing;
mod touched;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use self::docs::Doc;
use self::gather::Gathered;
use self::listing::{Digests, Listing};
use super::filter::{Filter, Parts};
use super::position::Position;
use super::source::TailError;
use crate::change::Change;
use crate::config::Threshold;
use crate::error::Error;
use crate::state::sessions::Clock;
use crate::state::{AskError, Partition};

/// Bytes that one snapshot may take.
const MOST_BYTES: usize = 512 << 20;
/// Bytes after which a line of documents is full.
const LINE: usize = 16 * 1024;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The changes made meanwhile are no longer kept: try again.
    #[error("the changes outran the snapshot; try again, or raise --changes-cap")]
    Outrun,
    /// It would take too much memory.
    #[error("the state is too large for a snapshot; ask for less of it: by kind, user or doc")]
    TooLarge,
    /// The server cannot be queried.
    #[error(transparent)]
    Server(#[from] AskError),
}

impl From<Error> for SnapshotError {
    fn from(error: Error) -> Self {
        Self::Server(error.into())
    }
}

impl From<TailError> for SnapshotError {
    fn from(error: TailError) -> Self {
        match error {
            TailError::Gap { .. } => Self::Outrun,
            TailError::Server(error) => error.into(),
        }
    }
}

/// What to gather.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The parts of the state.
    pub parts: Parts,
    /// Only the presence entries of these users; of all if empty.
    pub users: HashSet<String>,
    /// Only these documents; all if empty.
    pub docs: HashSet<String>,
    /// The deployment's thresholds.
    pub thresholds: Vec<Threshold>,
    /// The number of partitions.
    pub partitions: u16,
    /// The time of the query, and the default lifetime of sessions.
    pub clock: Clock,
}

impl Scope {
    /// Whether a change may be about something in the scope.
    fn is_about(&self, change: &Change) -> bool {
        let among = |names: &HashSet<String>, name: &Option<String>| {
            names.is_empty() || name.as_ref().is_none_or(|name| names.contains(name))
        };
        match change {
            Change { sid: Some(_), .. } => true,
            Change { doc: Some(_), .. } => among(&self.docs, &change.doc),
            _ => among(&self.users, &change.user),
        }
    }
}

/// The state at a position.
pub struct Snapshot {
    started: Instant,
    position: Position,
    thresholds: Vec<Threshold>,
    presence: Listing,
    sessions: Listing,
    docs: Vec<(String, Doc)>,
    digests: Digests,
    /// Its place among the snapshots that may be in memory.
    _place: Option<OwnedSemaphorePermit>,
}

impl Snapshot {
    /// Gathers what the scope asks for, one partition after the other.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn take(partitions: &mut [Partition], scope: &Scope) -> Result<Self, SnapshotError> {
        let mut snapshot = Self {
            started: Instant::now(),
            position: Position(Vec::with_capacity(partitions.len())),
            thresholds: scope.thresholds.clone(),
            presence: Listing::default(),
            sessions: Listing::default(),
            docs: Vec::new(),
            digests: Digests::default(),
            _place: None,
        };
        for partition in partitions {
            let gathered = Gathered::read(partition, scope, &snapshot.digests).await?;
            snapshot.position.0.push(gathered.point);
            snapshot.presence.append(gathered.presence);
            snapshot.sessions.append(gathered.sessions);
            snapshot.docs.extend(gathered.docs);
            if snapshot.presence.bytes() + snapshot.sessions.bytes() > MOST_BYTES {
                return Err(SnapshotError::TooLarge);
            }
        }
        Ok(snapshot)
    }

    /// Holds its place among the snapshots that may be in memory for as long as it lives.
    pub(super) fn in_place(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { _place: place, ..self }
    }

    /// When its gathering began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The position after which changes follow it.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Its JSON text, reduced to what the filter wants.
    pub fn lines(self: &Arc<Self>, filter: Arc<Filter>) -> Lines {
        let digests = filter.users.iter().map(|user| self.digests.of(user));
        let owners = (!filter.users.is_empty()).then(|| digests.collect());
        Lines { snapshot: Arc::clone(self), filter, owners, stage: Stage::Start }
    }
}

/// The JSON text of a snapshot, in lines of some kilobytes. None of them has a line break in it.
pub struct Lines {
    snapshot: Arc<Snapshot>,
    filter: Arc<Filter>,
    owners: Option<HashSet<u64>>,
    stage: Stage,
}

/// The next part. Lists have their position, and whether anything of them was written yet.
#[derive(Clone, Copy)]
enum Stage {
    Start,
    Presence(usize, bool),
    Sessions(usize, bool),
    Documents(usize, bool),
    End,
}

impl Lines {
    /// Writes the next line; `false` after the last.
    pub fn write(&mut self, line: &mut Vec<u8>) -> bool {
        let Parts { presence, sessions, documents } = self.filter.parts();
        self.stage = match self.stage {
            Stage::Start => {
                let position = self.snapshot.position.to_string();
                line.extend_from_slice(format!(r#"{{"position":"{position}""#).as_bytes());
                if presence {
                    line.extend_from_slice(br#","presence":["#);
                }
                Stage::Presence(0, true)
            }
            Stage::Presence(place, mut is_first) => {
                let list = presence.then_some(&self.snapshot.presence);
                if self.write_piece(list, place, &mut is_first, line) {
                    Stage::Presence(place + 1, is_first)
                } else {
                    close(presence, sessions.then_some("sessions"), line);
                    Stage::Sessions(0, true)
                }
            }
            Stage::Sessions(place, mut is_first) => {
                let list = sessions.then_some(&self.snapshot.sessions);
                if self.write_piece(list, place, &mut is_first, line) {
                    Stage::Sessions(place + 1, is_first)
                } else {
                    close(sessions, documents.then_some("documents"), line);
                    Stage::Documents(0, true)
                }
            }
            Stage::Documents(place, is_first) if documents && place < self.snapshot.docs.len() => {
                self.write_documents(place, is_first, line)
            }
            Stage::Documents(..) => {
                close(documents, None, line);
                line.push(b'}');
                Stage::End
            }
            Stage::End => return false,
        };
        true
    }

    fn write_piece(
        &self,
        list: Option<&Listing>,
        place: usize,
        is_first: &mut bool,
        line: &mut Vec<u8>,
    ) -> bool {
        list.and_then(|list| list.write(place, self.owners.as_ref(), is_first, line)).is_some()
    }

    fn write_documents(&self, mut place: usize, mut is_first: bool, line: &mut Vec<u8>) -> Stage {
        let before = line.len();
        while line.len() < before + LINE {
            let Some((name, doc)) = self.snapshot.docs.get(place) else { break };
            place += 1;
            if !self.filter.wants_doc(name) {
                continue;
            }
            let start = line.len();
            if !is_first {
                line.push(b',');
            }
            let bare = line.len();
            docs::write((name, doc), &self.snapshot.thresholds, &self.filter, line);
            if line.len() == bare {
                line.truncate(start);
            } else {
                is_first = false;
            }
        }
        Stage::Documents(place, is_first)
    }
}

/// Ends the previous list, if any, and begins the next, if any.
fn close(was_list: bool, next: Option<&str>, line: &mut Vec<u8>) {
    if was_list {
        line.push(b']');
    }
    if let Some(next) = next {
        line.extend_from_slice(format!(r#","{next}":["#).as_bytes());
    }
}
