//! A listener that returns with a position which the ring does not have reads from the stream, page by page, until it
//! has reached the ring, and then joins it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Live;
use crate::change::Change;
use crate::changes::{Filter, Joined, Listener, Position, Source, TailError, own_text};
use crate::error::Error;
use crate::state::Shared;

/// A page is full after this many changes, whatever the number of partitions.
const PAGE: usize = 1_000;
/// Pause before a ring of another history than the server is checked again, and how many times: either the ring
/// notices by itself, or the position belongs to neither.
const PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSES: u32 = 100;

/// The progress of a listener that catches up.
pub(super) struct Resume {
    position: Position,
    /// The generation of the ring in which the position was verified.
    sure_in: Option<u64>,
    pauses: u32,
    /// Whether the last step found erased changes.
    has_erased: bool,
}

/// The result of one step.
pub(super) enum Step {
    /// Changes that it lacked, as events; may be empty.
    Text(Bytes),
    /// It has caught up.
    Joined(Listener),
    /// The position is no longer kept.
    Gap,
}

impl Resume {
    pub(super) fn new(position: Position) -> Self {
        Self { position, sure_in: None, pauses: 0, has_erased: false }
    }

    /// Its position.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Whether the last step found erased changes.
    pub(super) fn has_erased(&self) -> bool {
        self.has_erased
    }

    /// Takes a step. The future may be dropped without losing anything.
    ///
    /// # Errors
    /// If the server cannot be queried now.
    pub(super) async fn step(
        &mut self,
        live: &Live,
        state: &Shared,
        filter: &Filter,
    ) -> Result<Step, Error> {
        if self.position.0.len() != usize::from(live.hub.partitions()) {
            return Ok(Step::Gap);
        }
        let generation = live.hub.generation().await;
        self.has_erased = false;
        match live.hub.listen_from(&self.position, self.sure_in) {
            Joined::Listener(listener) => return Ok(Step::Joined(listener)),
            Joined::Behind => {}
            Joined::Unsure => {
                // The semaphore is never closed. A permit is for one query, so a slow listener does not keep others
                // waiting.
                let _turn = live.catching_up.acquire().await;
                let is_held = self.holds(state).await?;
                self.sure_in = is_held.then_some(generation);
                return Ok(if is_held { Step::Text(Bytes::new()) } else { Step::Gap });
            }
            Joined::Outdated if self.pauses == MOST_PAUSES => return Ok(Step::Gap),
            Joined::Outdated => {
                sleep(PAUSE).await;
                self.pauses += 1;
                self.sure_in = None;
                return Ok(Step::Text(Bytes::new()));
            }
        }
        let _turn = live.catching_up.acquire().await;
        match self.read(state, filter).await {
            Ok(text) => Ok(Step::Text(text)),
            Err(TailError::Gap { .. }) => Ok(Step::Gap),
            Err(TailError::Server(error)) => Err(error),
        }
    }

    /// Whether the stream has, or had, the last change read of each partition.
    async fn holds(&self, state: &Shared) -> Result<bool, Error> {
        let state = state.wait().await;
        for (mut partition, point) in state.partitions.into_iter().zip(&self.position.0) {
            let source = Source::new(&partition.keys, partition.index);
            match source.check(&mut partition.connection, *point).await {
                Ok(()) => {}
                Err(TailError::Gap { .. }) => return Ok(false),
                Err(TailError::Server(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next page.
    async fn read(&mut self, state: &Shared, filter: &Filter) -> Result<Bytes, TailError> {
        let state = state.wait().await;
        let (mut changes, mut after) = (Vec::new(), 0);
        for (mut partition, point) in state.partitions.into_iter().zip(&self.position.0) {
            let source = Source::new(&partition.keys, partition.index);
            changes.extend(source.after(&mut partition.connection, *point, None).await?);
            after = after.max(point.seq);
            if changes.len() >= PAGE {
                break;
            }
        }
        if changes.is_empty() {
            // The ring has later ones, so there must be some.
            return Err(TailError::Gap { after });
        }
        self.has_erased = changes.iter().any(Change::is_erased);
        Ok(own_text(&changes, &mut self.position, filter))
    }
}
