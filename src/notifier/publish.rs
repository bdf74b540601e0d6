//! Publishing through the server itself: publications and the position after them in one call.

use redis::aio::MultiplexedConnection;
use tracing::warn;

use super::{Notifier, place, told};
use crate::change::Change;
use crate::changes::details::{Known, look_up};
use crate::changes::rooms::Details;
use crate::error::{Error, chain};
use crate::failpoint::Failpoint;
use crate::redis::scripts::notify::{Place, Publication};
use crate::state::{AskError, Partition};
use crate::telemetry::log::failure_line_due;

/// Publications per call: less than a millisecond of the server's time, with few subscribers.
const CALL_PUBLICATIONS: usize = 400;
/// A call with this many bytes is sent.
const CALL_BYTES: usize = 256 << 10;

impl Notifier {
    /// Publishes a page of changes; returns the position after it, or `None` if this notifier has lost the target.
    pub(super) async fn publish_page(
        &mut self,
        connection: &mut MultiplexedConnection,
        at: Place,
        changes: &[Change],
    ) -> Result<Option<Place>, Error> {
        let mut known = self.details(connection, changes).await?;
        let (mut at, mut call) = (at, Call::default());
        for (i, change) in changes.iter().enumerate() {
            if call.first.is_none() {
                self.waits(Some(change.id.ms));
            }
            // For consecutive erased changes, rooms receive one message.
            let is_repeated = change.is_erased()
                && i > 0
                && changes[i - 1].is_erased()
                && told::wants_details(&self.target.sink);
            let told = if self.filter.passes(change) && !is_repeated {
                let details = known.remove(&(change.partition, change.seq));
                told::change(&self.target.sink, change, details.unwrap_or(Details::Unknown))
            } else {
                Vec::new()
            };
            call.add(place(at.epoch.clone(), change.into()), told);
            if !call.is_full() && i + 1 < changes.len() {
                continue;
            }
            let Call { steps, count, .. } = std::mem::take(&mut call);
            if !Failpoint::MidNotify.send(self.step(connection, Some(&at), &steps)).await? {
                return Ok(None);
            }
            self.metrics.told(count);
            at = place(at.epoch, change.into());
        }
        Ok(Some(at))
    }

    /// What the state knows beyond these changes, if the target's kind needs it.
    async fn details(
        &self,
        connection: &MultiplexedConnection,
        changes: &[Change],
    ) -> Result<Known, Error> {
        let mut known = Known::new();
        if !told::wants_details(&self.target.sink) {
            return Ok(known);
        }
        let (keys, connection) = (self.keys.clone(), connection.clone());
        let mut partition =
            Partition { index: self.partition, keys, connection: connection.into() };
        let wanted: Vec<&Change> = changes.iter().filter(|c| self.filter.passes(c)).collect();
        match look_up(&mut partition, &wanted, &mut known).await {
            Ok(()) => Ok(known),
            Err(AskError::Server(error)) => Err(error),
            // A key of another type: the details are unknown.
            Err(error) => {
                if let Some(times) = failure_line_due() {
                    warn!(times, "changes are published without details: {}", chain(&error));
                }
                Ok(known)
            }
        }
    }
}

/// The steps of one call.
#[derive(Default)]
struct Call {
    steps: Vec<(Place, Vec<Publication>)>,
    /// How many changes they cover, including those without publications.
    count: u64,
    first: Option<u64>,
    publications: usize,
    bytes: usize,
}

impl Call {
    fn add(&mut self, after: Place, told: Vec<Publication>) {
        self.first.get_or_insert(after.seq);
        self.count += 1;
        self.publications += told.len();
        self.bytes +=
            told.iter().map(|told| told.channel.len() + told.payload.len()).sum::<usize>();
        match self.steps.last_mut() {
            // Nothing to publish: the position of the previous step moves on.
            Some((place, _)) if told.is_empty() => *place = after,
            _ => self.steps.push((after, told)),
        }
    }

    fn is_full(&self) -> bool {
        self.publications >= CALL_PUBLICATIONS || self.bytes >= CALL_BYTES
    }
}
