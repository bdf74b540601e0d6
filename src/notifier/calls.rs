//! Calls of a webhook: batches with stored borders, called in order until each is accepted, finally refused, or made
//! a dead letter.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde_json::Value;
use tracing::{info, warn};

use super::told::Missing;
use super::webhook::{Answer, Caller};
use super::{Notifier, place};
use crate::change::Change;
use crate::config::{Sink, Webhook};
use crate::error::Error;
use crate::failpoint::Failpoint;
use crate::redis::scripts::notify::{Borders, Place, Taken};
use crate::telemetry::log::Throttle;

/// When the changes of a call have this many bytes, no more are added.
const BATCH_BYTES: usize = 1 << 20;
/// The first pause before a call is repeated, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a receiver may request.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How often the lease is renewed during a call or a pause.
const SIGN: Duration = Duration::from_secs(1);
/// How often a receiver that does not accept its calls is logged.
const REMINDER: Duration = Duration::from_secs(60);

/// The body of a call.
#[derive(Serialize)]
struct Body<'a> {
    /// `changes`
    kind: &'static str,
    partition: u16,
    first: u64,
    last: u64,
    changes: &'a [&'a Change],
}

/// How a batch ended.
enum Ended {
    Taken,
    Refused(String),
    /// Another notifier has the target, or the process stops.
    Left,
}

impl Notifier {
    /// Sends a page of changes; returns the position after it, or `None` if this notifier has lost the target.
    pub(super) async fn call_page(
        &mut self,
        connection: &mut MultiplexedConnection,
        webhook: &Webhook,
        mut at: Place,
        changes: &[Change],
    ) -> Result<Option<Place>, Error> {
        let mut rest = changes;
        while !rest.is_empty() {
            if *self.stop.borrow() {
                return Ok(None);
            }
            let (batch, count) = self.batch(webhook, &at, rest);
            let (done, after) = rest.split_at(count);
            let Some(last) = done.last() else { break };
            let next = place(at.epoch.clone(), last.into());
            self.waits(Some(done[0].id.ms));
            let moved = self.call_batch(connection, webhook, &at, &next, &batch).await?;
            if !moved {
                return Ok(None);
            }
            self.metrics.told(count as u64);
            (at, rest) = (next, after);
        }
        Ok(Some(at))
    }

    /// The changes of the next call, and how many changes it completes, including those that the filter leaves out.
    fn batch<'c>(
        &self,
        webhook: &Webhook,
        at: &Place,
        changes: &'c [Change],
    ) -> (Vec<&'c Change>, usize) {
        let held = self.held.as_ref();
        let held = held.filter(|held| held.epoch == at.epoch && held.last > at.seq);
        let (mut batch, mut bytes, mut count) = (Vec::new(), 0, 0);
        for change in changes {
            let is_over = match held {
                // The call may have arrived before, so the same id must contain the same changes.
                Some(held) => change.seq > held.last,
                None => batch.len() >= webhook.batch || bytes >= BATCH_BYTES,
            };
            if is_over {
                break;
            }
            count += 1;
            if self.filter.passes(change) {
                bytes += json(change).len();
                batch.push(change);
            }
        }
        (batch, count)
    }

    /// Calls until the batch is done, and moves the position; returns whether this notifier continues.
    async fn call_batch(
        &mut self,
        connection: &mut MultiplexedConnection,
        webhook: &Webhook,
        at: &Place,
        next: &Place,
        batch: &[&Change],
    ) -> Result<bool, Error> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return self.step(connection, Some(at), &[(next.clone(), Vec::new())]).await;
        };
        let (first, last) = (first.seq, last.seq);
        let borders = Borders { epoch: at.epoch.clone(), first, last: next.seq };
        if webhook.batch > 1 && self.held.as_ref() != Some(&borders) {
            let held = self.post.hold(connection, at, &borders).await?;
            if !self.is_done(held) {
                return Ok(false);
            }
            self.held = Some(borders);
        }
        let partition = self.partition;
        let id = format!("{}-{partition}-{first}-{last}", at.epoch);
        let body = Body { kind: "changes", partition, first, last, changes: batch };
        match self.call_until_done(connection, webhook, Some(at), &id, json(&body)).await? {
            Ended::Left => Ok(false),
            Ended::Taken => {
                let steps = [(next.clone(), Vec::new())];
                Failpoint::MidCall.send(self.step(connection, Some(at), &steps)).await
            }
            Ended::Refused(why) => {
                let letters: Vec<_> =
                    batch.iter().map(|change| self.letter(webhook, change, &why)).collect();
                let cap = self.deployment.dead_cap;
                let buried = self.post.bury(connection, at, next, &letters, cap).await?;
                let (target, partition) = (&self.target.name, self.partition);
                warn!(
                    target,
                    partition,
                    first,
                    last,
                    "the receiver refused changes, which became dead letters: {why}"
                );
                if self.is_done(buried) {
                    self.told = Some(next.clone());
                    return Ok(true);
                }
                Ok(false)
            }
        }
    }

    /// Reports a gap to a webhook; returns whether that is done.
    pub(super) async fn call_gap(
        &mut self,
        connection: &mut MultiplexedConnection,
        webhook: &Webhook,
        from: Option<&Place>,
        next: &Place,
        missing: &Missing,
    ) -> Result<bool, Error> {
        let (first, last) = missing.numbers();
        let id = format!("{}-{}-{first}-{last}-gap", next.epoch, self.partition);
        let ended = self.call_until_done(connection, webhook, from, &id, json(missing)).await?;
        if let Ended::Refused(why) = &ended {
            warn!(target = self.target.name, id, "the receiver refused the report of a gap: {why}");
        }
        Ok(!matches!(ended, Ended::Left))
    }

    /// Calls repeatedly, as long as the receiver may still accept.
    async fn call_until_done(
        &mut self,
        connection: &mut MultiplexedConnection,
        webhook: &Webhook,
        at: Option<&Place>,
        id: &str,
        body: Bytes,
    ) -> Result<Ended, Error> {
        // While a call is in flight, the rest of this value is needed to renew the lease.
        let mut caller = self.caller.take().unwrap_or_else(|| Caller::new(webhook));
        let ended = self.attempts(connection, webhook, &mut caller, at, id, &body).await;
        self.caller = Some(caller);
        ended
    }

    async fn attempts(
        &mut self,
        connection: &mut MultiplexedConnection,
        webhook: &Webhook,
        caller: &mut Caller,
        at: Option<&Place>,
        id: &str,
        body: &Bytes,
    ) -> Result<Ended, Error> {
        let (mut refusals, mut pause, mut is_late) = (0, PAUSE, false);
        let mut log = Throttle::new(REMINDER);
        loop {
            let Some(answer) = self.within_lease(connection, at, caller.call(id, body)).await?
            else {
                return Ok(Ended::Left);
            };
            let (why, after) = match answer {
                Answer::Taken => {
                    if is_late {
                        info!(target = self.target.name, id, "accepted after all");
                    }
                    return Ok(Ended::Taken);
                }
                Answer::Refused(why) => {
                    refusals += 1;
                    if refusals >= webhook.attempts {
                        return Ok(Ended::Refused(why));
                    }
                    (why, None)
                }
                Answer::Later(why, after) => (why, after),
            };
            is_late = true;
            self.metrics.not_taken();
            if let Some(times) = log.add(1) {
                warn!(
                    target = self.target.name,
                    id, times, "not accepted, the call will be repeated: {why}"
                );
            }
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            let wait = jittered.max(after.unwrap_or_default().min(LONGEST_RETRY_AFTER));
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut stop = self.stop.clone();
            let stopped = async move { stop.wait_for(|stop| *stop).await.is_ok() };
            let waiting = async { tokio::time::timeout(wait, stopped).await.is_ok() };
            match self.within_lease(connection, at, waiting).await? {
                Some(false) => {}
                _stopped_or_lost => return Ok(Ended::Left),
            }
        }
    }

    /// Keeps the lease during something; `None` if another notifier has it, or the position has changed.
    async fn within_lease<T>(
        &mut self,
        connection: &mut MultiplexedConnection,
        at: Option<&Place>,
        what: impl Future<Output = T>,
    ) -> Result<Option<T>, Error> {
        let mut what = std::pin::pin!(what);
        loop {
            if let Ok(done) = tokio::time::timeout(SIGN, &mut what).await {
                return Ok(Some(done));
            }
            self.pulse.waiting();
            self.waits(self.waits_since);
            match self.post.take(connection).await? {
                Taken::Mine(place, _) if place.as_ref() == at => {}
                _elsewhere => return Ok(None),
            }
        }
    }

    /// A change as a dead letter.
    fn letter(&self, webhook: &Webhook, change: &Change, why: &str) -> Vec<String> {
        let header = [
            ("entry_id", change.id.to_string()),
            ("reason", "refused".to_owned()),
            ("detail", format!("target {}: {why}", self.target.name)),
            ("deliveries", webhook.attempts.to_string()),
            ("index", String::new()),
            ("stream", self.keys.changes()),
        ];
        let header = header.into_iter().map(|(name, value)| (name.to_owned(), value));
        let fields = match serde_json::to_value(change) {
            Ok(Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let fields = fields.into_iter().filter(|(name, _)| name != "partition");
        let fields = fields.map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        });
        header.chain(fields).flat_map(|(name, value)| [name, value]).collect()
    }

    /// The webhook, if the target is one.
    pub(super) fn webhook(&self) -> Option<Webhook> {
        match &self.target.sink {
            Sink::Webhook(webhook) => Some(webhook.clone()),
            _ => None,
        }
    }
}

fn json(told: &impl Serialize) -> Bytes {
    // Texts, numbers and lists can always be serialised.
    serde_json::to_vec(told).unwrap_or_default().into()
}
