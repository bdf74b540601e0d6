//! Projecting a batch: fold, apply and move the cursor, in parts that keep the server's calls short; and finding the
//! one entry that makes a batch fail.

use std::time::Instant;

use redis::aio::MultiplexedConnection;
use tracing::{Level, debug, warn};

use super::Projector;
use super::quiet::Quiet;
use super::reader::Batch;
use crate::config::Shell;
use crate::entry::{Entry, EntryId};
use crate::error::{self, Error, Verdict, chain};
use crate::event::{Reason, Rejection};
use crate::failpoint::{self, Failpoint};
use crate::fold::{Avoided, Counts, FoldSettings, Planner, unknown_members};
use crate::op::Plan;
use crate::redis::connect::keep_alive;
use crate::redis::scripts::apply::{Applied, Applier, Outcome};
use crate::telemetry::log::{letters_line_due, unknown_members_line_due};
use crate::telemetry::metrics;
use crate::telemetry::trace::Span;

/// Bytes of entries applied in one call, unless one entry alone has more: about a thousand events, so that no call
/// keeps other clients waiting for long.
const PART_BYTES: usize = 128 << 10;

/// What projecting needs during a session.
pub(super) struct Projecting<'p> {
    pub(super) projector: &'p mut Projector,
    applier: Applier,
    connection: &'p mut MultiplexedConnection,
    /// The lock to wait for before decoding entries; `None` if the caller holds it already.
    quiet: Option<Quiet>,
}

impl<'p> Projecting<'p> {
    pub(super) fn new(
        projector: &'p mut Projector,
        applier: Applier,
        connection: &'p mut MultiplexedConnection,
        quiet: Option<Quiet>,
    ) -> Self {
        Self { projector, applier, connection, quiet }
    }

    /// Uses the connection, so that no server or proxy considers it idle.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Error> {
        keep_alive(self.connection, &self.projector.keys.meta()).await
    }

    /// Forwards entries that producers sent to earlier layouts.
    pub(super) async fn forward(&mut self) -> Result<(), Error> {
        if let Some(forwarder) = &mut self.projector.forwarder {
            forwarder.step().await?;
        }
        Ok(())
    }

    /// Applies a batch, as a trace of its own.
    pub(super) async fn project(&mut self, batch: Batch) -> Result<(), Error> {
        Failpoint::AfterRead.pass();
        let span = self.projector.batches.begin(batch.read, &batch.entries);
        self.projector.in_hand = span.clone();
        self.projector.memory.applying = true;
        span.around(self.apply_batch(batch)).await?;
        self.projector.memory.applying = false;
        self.projector.in_hand = Span::default();
        Ok(())
    }

    /// Applies entries in parts. A part that fails is halved, in order, until the culprit is alone.
    async fn apply_batch(&mut self, batch: Batch) -> Result<(), Error> {
        let Batch { entries, mut after, since, .. } = batch;
        let mut waiting: Vec<&[Entry]> = parts(&entries).collect();
        waiting.reverse();
        while let Some(part) = waiting.pop() {
            self.check_deadline(since)?;
            let Some(last) = part.last() else { continue };
            match self.apply_part(part, after).await {
                Err(error) if error.verdict() == Verdict::Poison => {
                    metrics::redis_error(error::SCRIPT);
                    let (first, second) = part.split_at(part.len() / 2);
                    if !first.is_empty() {
                        waiting.extend([second, first]);
                        continue;
                    }
                    self.write_off(last, after, Reason::ApplyFailed, &chain(&error)).await?;
                }
                other => other?,
            }
            after = last.id;
        }
        Ok(())
    }

    /// Makes a dead letter of an entry that cannot be applied.
    async fn write_off(
        &mut self,
        entry: &Entry,
        after: EntryId,
        reason: Reason,
        detail: &str,
    ) -> Result<(), Error> {
        let mut planner = Planner::new(&self.projector.fold);
        planner.reject(entry, Rejection::new(reason, detail));
        let plan = planner.finish(&Avoided::default());
        self.apply_plan(&plan, std::slice::from_ref(entry), after).await?;
        Ok(())
    }

    /// Folds and applies; if a key of another type is in the way, again without what would write it.
    async fn apply_part(&mut self, entries: &[Entry], after: EntryId) -> Result<(), Error> {
        let mut avoided = Avoided::default();
        loop {
            let working = match &self.quiet {
                Some(quiet) => Some(quiet.work().await),
                None => None,
            };
            let started = Instant::now();
            let fold = self.projector.batches.fold();
            let planner = Planner::with_capacity(&self.projector.fold, entries.len());
            let mut planner = planner.refusing(&self.projector.blocked);
            for entry in entries {
                failpoint::look_into(entry);
                planner.add(entry, &avoided);
            }
            let (counts, moved) = (planner.counts().clone(), planner.moved());
            let plan = planner.finish(&avoided);
            drop(fold);
            drop(working);
            self.projector.metrics.folded(&counts, started.elapsed());
            Failpoint::AfterFold.pass();
            if moved > 0
                && let Some(forwarder) = &self.projector.forwarder
            {
                Box::pin(forwarder.moved(entries)).await?;
            }
            let Some(more) = self.apply_plan(&plan, entries, after).await? else {
                self.projector.metrics.events_applied(&counts);
                tell_of_unknown_members(&counts, entries, &self.projector.fold);
                return Ok(());
            };
            avoided.add(more);
        }
    }

    async fn apply_plan(
        &mut self,
        plan: &Plan<'_>,
        entries: &[Entry],
        after: EntryId,
    ) -> Result<Option<Avoided>, Error> {
        Failpoint::BeforeSend.pass();
        let started = Instant::now();
        let call = self.applier.apply(self.connection, plan, after);
        let span = self.projector.batches.apply();
        let outcome = Failpoint::AfterSend.send(span.around(call)).await?;
        Failpoint::AfterReply.pass();
        match outcome {
            Outcome::WrongType(keys) => Ok(Some(keys)),
            Outcome::Applied(applied) => {
                self.projector.metrics.applied(plan, entries, &applied, started.elapsed());
                report_letters(&self.projector.shell, plan, &applied);
                Ok(None)
            }
        }
    }

    fn check_deadline(&self, since: Instant) -> Result<(), Error> {
        let deadline = self.projector.settings.batch_deadline();
        if since.elapsed() < deadline {
            return Ok(());
        }
        Err(Error::Deadline { deadline_ms: deadline.as_millis() })
    }
}

/// Logs the dead letters of a plan, if they were written.
fn report_letters(shell: &Shell, plan: &Plan<'_>, applied: &Applied) {
    if applied.letters == 0 {
        return;
    }
    if let Some(letter) = plan.letters.last()
        && let Some(count) = letters_line_due(applied.letters)
    {
        let (last_id, rejection) = (letter.id, &letter.rejection);
        let (reason, detail) = (rejection.reason.name(), &rejection.detail);
        let see = shell.rollcall(&["dead", "list"]);
        warn!(count, %last_id, reason, detail, "entries became dead letters; see: {see}");
    }
}

/// At level debug, logs the names of unknown members.
fn tell_of_unknown_members(counts: &Counts, entries: &[Entry], settings: &FoldSettings) {
    const MOST_NAMES: usize = 20;
    let count = counts.unknown_members.iter().sum();
    if count == 0 || !tracing::enabled!(Level::DEBUG) {
        return;
    }
    if let Some(count) = unknown_members_line_due(count) {
        let found = unknown_members(entries, settings, MOST_NAMES).into_iter();
        let names: Vec<_> = found.map(|(kind, name)| format!("{kind} {name}")).collect();
        debug!(count, members = names.join(", "), "ignored members that no event type has");
    }
}

/// Entries split into parts of [`PART_BYTES`]; a larger entry is a part of its own.
fn parts(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut bytes = 0;
    entries.chunk_by(move |before, after| {
        bytes += before.size();
        let fits = bytes + after.size() <= PART_BYTES;
        bytes = if fits { bytes } else { 0 };
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bounded_by_bytes_and_lose_nothing() {
        let entry = |ms, bytes| Entry::new(EntryId { ms, seq: 0 }, [(Vec::new(), vec![0; bytes])]);
        let sizes = [PART_BYTES / 2, PART_BYTES / 2, 1, PART_BYTES * 3, 5, 5];
        let entries: Vec<Entry> =
            sizes.iter().zip(0..).map(|(bytes, ms)| entry(ms, *bytes)).collect();
        let lengths: Vec<usize> = parts(&entries).map(<[Entry]>::len).collect();
        assert_eq!(lengths, [2, 1, 1, 2]);
    }
}
