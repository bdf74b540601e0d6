//! One listener's place in the ring.
//!
//! A listener that came with a position of its own (from another process, or from a snapshot) may have more of one
//! partition than of another, seen from the ring. Until that has evened out it gets what it lacks, each change with
//! the listener's own position; from then on it shares the ring's text with all others.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::filter::Filter;
use super::frame::{write_change, write_id};
use super::hub::{Hub, Place};
use super::position::Position;
use super::ring::{After, Batch};
use crate::change::Change;

/// What a listener hears.
pub enum Heard {
    /// The next changes.
    Batch(Arc<Batch>),
    /// Changes were lost: the state has to be looked at anew.
    Gap,
    /// The listener fell behind what is kept.
    TooSlow,
}

/// A listener's place in the ring.
pub struct Listener {
    hub: Hub,
    moved: watch::Receiver<()>,
    place: Place,
    /// Where it is, as long as the ring's positions are not its own.
    own: Option<Position>,
    /// Where it is otherwise, as an event without data.
    id: Bytes,
}

impl Listener {
    pub(super) fn new(
        hub: Hub,
        moved: watch::Receiver<()>,
        place: Place,
        own: Option<Position>,
        id: Bytes,
    ) -> Self {
        Self { hub, moved, place, own, id }
    }

    pub(super) fn generation(&self) -> u64 {
        self.place.generation
    }

    /// Waits for what comes next. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> Heard {
        loop {
            self.moved.mark_unchanged();
            match self.hub.after(self.place) {
                None => return Heard::Gap,
                Some(After::TooFar) => return Heard::TooSlow,
                Some(After::Batch(batch)) => {
                    self.place.next += 1;
                    return Heard::Batch(batch);
                }
                Some(After::Nothing) => {
                    // The sender lives as long as the hub does.
                    let _never_gone = self.moved.changed().await;
                }
            }
        }
    }

    /// The events of a batch just heard that pass and that the listener does not have; may be empty.
    pub fn text(&mut self, batch: &Batch, filter: &Filter) -> Bytes {
        let Some(own) = &mut self.own else {
            self.id = batch.id();
            return batch.passing(filter);
        };
        let mut text = Vec::new();
        for change in &batch.changes {
            let point = own.0.get(usize::from(change.partition));
            if point.is_some_and(|point| change.seq > point.seq) {
                own.advance(change);
                if filter.passes(change) {
                    write_change(&mut text, change, own);
                }
            }
        }
        if let Some((place, id)) = self.hub.end_at(own, self.place.generation) {
            (self.own, self.place, self.id) = (None, place, id);
        }
        text.into()
    }

    /// Its position after what it heard last, as an event without data.
    pub fn id(&self) -> Bytes {
        self.own.as_ref().map_or_else(|| self.id.clone(), own_id)
    }
}

/// A position as an event without data.
pub fn own_id(position: &Position) -> Bytes {
    let mut text = Vec::new();
    write_id(&mut text, position);
    text.into()
}

/// The event of each change that passes, with the position after it; moves the position over all of them.
pub fn own_text(changes: &[Change], position: &mut Position, filter: &Filter) -> Bytes {
    let mut text = Vec::new();
    for change in changes {
        position.advance(change);
        if filter.passes(change) {
            write_change(&mut text, change, position);
        }
    }
    text.into()
}
