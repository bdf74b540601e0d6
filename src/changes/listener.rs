//! One listener's place in the ring.
//!
//! A listener that came with a position of its own (from another process, or from a snapshot) may be further in one
//! partition than in another, compared with the ring. Until that has evened out it gets the changes that it lacks,
//! each with the listener's own position. From then on it shares the ring's text with all others.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::filter::Filter;
use super::frame::{write_change, write_id};
use super::hub::{Hub, Place};
use super::position::Position;
use super::ring::{After, Batch};
use crate::change::Change;

/// What a listener receives.
pub enum Heard {
    /// The next changes.
    Batch(Arc<Batch>),
    /// Changes were lost, so the state has to be read again.
    Gap,
    /// The listener fell behind the changes that are kept.
    TooSlow,
}

/// A listener's place in the ring.
pub struct Listener {
    hub: Hub,
    moved: watch::Receiver<()>,
    place: Place,
    /// Its position, while that differs from the ring's positions.
    own: Option<Position>,
    /// Otherwise, its position as an event without data.
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

    /// Waits for what comes next. The future may be dropped without losing anything.
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
                    // The sender lives as long as the hub.
                    let _never_gone = self.moved.changed().await;
                }
            }
        }
    }

    /// The events of a received batch that pass and that the listener does not have yet; may be empty.
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

    /// Its position after what it received last, as an event without data.
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

/// The event of each change that passes, with the position after it. Moves the position past all of them.
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
