//! A session: from taking the partition until a failure, its loss, or giving it up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::beat::{Beating, Standing};
use super::forward::Forwarder;
use super::project::Projecting;
use super::reader::{BLOCK, FIRST_COUNT, Place, Reader, Source};
use super::sign::Sign;
use super::single::Single;
use super::{PATIENCE, Projector};
use crate::entry::EntryId;
use crate::error::Error;
use crate::redis::connect::{MOST_IDLE, locate};
use crate::redis::feed::parse::Bounds;
use crate::redis::scripts::apply::Applier;
use crate::redis::scripts::erase::blocked;
use crate::redis::scripts::owner::{Cause, Joined, Seen, Tenure, fence};
use crate::telemetry::metrics::Role;

/// How often the session checks whether there is something to forward.
const FORWARD_EVERY: Duration = Duration::from_millis(100);
/// How many bytes of entries are kept of one read.
const REPLY_BYTES: usize = 8 << 20;

/// What a worker remembers of a partition from one session to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The term of the last session, if no other worker has been seen to own the partition since.
    term: Option<String>,
    /// The server's run id in the last session.
    run_id: Option<String>,
    /// The entry that was being applied alone when the outcome became unknown.
    pub(super) trying: Option<EntryId>,
    /// Whether a batch was being applied when the outcome became unknown.
    pub(super) applying: bool,
    /// How often the server restarted while an entry was being applied alone.
    pub(super) fatal: HashMap<EntryId, u32>,
    /// Entries still to be tried alone.
    pub(super) suspicion: usize,
    /// How many entries the next session's first read requests: half as many after a failure, since over a slow link
    /// they may have exceeded the time limit.
    first_count: Option<usize>,
}

impl Projector {
    /// Takes the partition if it is still as it was seen, and works on it.
    pub(super) async fn own(
        &mut self,
        seen: &Seen,
        cause: Cause,
        failures: &mut u32,
    ) -> Result<(), Error> {
        let deadline = self.settings.batch_deadline();
        let mut node = locate(&self.server, &self.keys.meta(), deadline).await?;
        self.shell = self.shell.at(&node.at.info);
        let signed = fence(true);
        let sign = Sign::raise(&node.at, &self.ownership.channel(&signed)).await;
        let fence = if sign.is_some() { signed } else { fence(false) };
        let joined = self.ownership.join(&mut node.connection, seen, &fence, cause).await?;
        let Some(joined) = joined else {
            // Another worker was faster, or the look saw a server that is no longer a master.
            self.worker.nodes.forget();
            return Ok(());
        };
        self.sign = sign;
        // Blocking a user later changes the fence.
        self.blocked = blocked(&mut node.connection, &self.keys).await?;
        self.report_join(&joined, seen, cause);
        self.remember(&mut node.connection, cause).await;
        let place = Place {
            at: node.at.clone(),
            response_timeout: BLOCK + deadline,
            meta: self.keys.meta(),
            fence,
        };
        let stream = self.keys.named(&self.deployment.stream);
        let bounds = Bounds::new(&self.fold.rules.limits, REPLY_BYTES);
        let (quiet, metrics) = (self.worker.quiet.clone(), self.metrics.clone());
        let source = Source::open(place, stream, bounds, quiet, metrics).await?;
        self.memory.term = Some(joined.tenure.term.clone());
        self.metrics.role(Role::Owner);
        let standing = Arc::new(Standing::default());
        let mut beating = Beating::start(self, joined.tenure.clone(), standing.clone());
        let tenure = joined.tenure.clone();
        let mut sign = self.sign.take();
        let work = self.work(source, joined, &mut node.connection, &standing, failures);
        let ended = tokio::select! {
            ended = work => ended,
            error = beating.ended() => Err(error),
            error = Sign::lost(&mut sign) => Err(error),
        };
        drop(beating);
        // It stays until the next session, or until another worker has the partition: this process is alive.
        self.sign = sign;
        self.give_up_if_due(ended, &mut node.connection, &tenure, *failures).await
    }

    /// Gives the partition up in an orderly way, or after too many failures in a row.
    async fn give_up_if_due(
        &mut self,
        ended: Result<Option<String>, Error>,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
        failures: u32,
    ) -> Result<(), Error> {
        let partition = self.fold.partition;
        match ended {
            Ok(heir) => {
                let heir = heir.unwrap_or_default();
                self.ownership.release(connection, tenure, &heir).await?;
                info!(partition, heir, "gave the partition up");
                (self.memory, self.sign) = Default::default();
                Ok(())
            }
            Err(error) => {
                self.memory.first_count =
                    Some((self.memory.first_count.unwrap_or(FIRST_COUNT) / 2).max(1));
                if failures >= PATIENCE
                    && self.peers.lock().await.has_others()
                    && self.ownership.release(connection, tenure, "").await.is_ok()
                {
                    warn!(partition, failures, "gave the partition up so that others can try");
                }
                Err(error)
            }
        }
    }

    /// Works until it is told to stop, or until another worker should have the partition, which it returns.
    async fn work(
        &mut self,
        mut source: Source,
        joined: Joined,
        connection: &mut MultiplexedConnection,
        standing: &Standing,
        failures: &mut u32,
    ) -> Result<Option<String>, Error> {
        let (pulse, mut stop) = (self.pulse.clone(), self.stop.clone());
        let applier = Applier::new(&self.deployment, &self.keys, joined.tenure.clone())
            .with_session_keys(self.worker.session_keys.clone());
        let mut forwarder = Box::pin(Forwarder::load(self)).await?;
        self.fold.rules.moved_from = forwarder.formers();
        Box::pin(forwarder.catch_up(&pulse)).await?;
        let forwards = forwarder.has_streams();
        self.forwarder = Some(forwarder);
        let mut cursor = joined.cursor;
        if self.memory.suspicion > 0 {
            let (tenure, source, applier) = (&joined.tenure, &mut source, &applier);
            let single = Single { projector: self, tenure, standing, source, applier, connection };
            cursor = single.work(cursor, joined.deaths).await?;
            *failures = 0;
        }
        let first_count = self.memory.first_count.unwrap_or(FIRST_COUNT);
        let live = self.live.clone();
        let mut reader = Reader::start(source, cursor, (first_count, live), pulse.clone());
        let quiet = Some(self.worker.quiet.clone());
        let mut projecting = Projecting::new(self, applier, connection, quiet);
        // After a failure, owning the partition is not enough: the loop is ready once it has applied something or
        // found nothing.
        if *failures == 0 {
            pulse.waiting();
        }
        let mut forward_due = Instant::now() + FORWARD_EVERY;
        let mut keep_alive_due = Instant::now() + MOST_IDLE;
        loop {
            if *stop.borrow() {
                return Ok(None);
            }
            if let Some(heir) = projecting.projector.heir(standing).await {
                return Ok(Some(heir));
            }
            let batch = tokio::select! {
                batch = reader.next() => batch.ok_or(Error::ReaderGone)??,
                () = stopped(&mut stop) => return Ok(None),
                () = standing.asked() => continue,
                () = sleep_until(forward_due), if forwards => {
                    Box::pin(projecting.forward()).await?;
                    forward_due = Instant::now() + FORWARD_EVERY;
                    continue;
                }
                () = sleep_until(keep_alive_due) => {
                    projecting.keep_alive().await?;
                    keep_alive_due = Instant::now() + MOST_IDLE;
                    continue;
                }
            };
            pulse.busy();
            standing.begin();
            projecting.project(batch).await?;
            keep_alive_due = Instant::now() + MOST_IDLE;
            standing.end();
            pulse.waiting();
            *failures = 0;
        }
    }

    /// Another worker owns the partition: reports that this one is alive, so that no death is counted against an entry.
    pub(super) async fn step_back(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        if let Some(term) = &self.memory.term {
            self.ownership.is_innocent(connection, term).await?;
        }
        (self.memory.term, self.sign) = (None, None);
        Ok(())
    }

    /// Prepares for the partition's past: entries that may have killed a worker or the server are tried alone.
    async fn remember(&mut self, connection: &mut MultiplexedConnection, cause: Cause) {
        let run_id = run_id(connection).await;
        let has_restarted =
            self.memory.run_id.is_some() && run_id.is_some() && self.memory.run_id != run_id;
        self.memory.run_id = run_id;
        let (trying, applying) =
            (self.memory.trying.take(), std::mem::take(&mut self.memory.applying));
        if let Some(entry) = trying.filter(|_| has_restarted) {
            *self.memory.fatal.entry(entry).or_default() += 1;
        }
        if cause == Cause::Death || has_restarted && (applying || trying.is_some()) {
            self.memory.suspicion = self.live.get().batch * 2;
        }
    }

    fn report_join(&self, joined: &Joined, seen: &Seen, cause: Cause) {
        let partition = self.fold.partition;
        self.metrics.taken_over(cause, &joined.tenure.term);
        if let Some(at) = &joined.created_at {
            info!(partition, group = self.deployment.group, at, "created the consumer group");
        }
        if joined.is_other_stream && !seen.term.is_empty() {
            warn!(
                partition,
                "the stream is not the one from before; reading it from its beginning"
            );
        }
        let (before, term, cursor) = (&seen.owner, &joined.tenure.term, joined.cursor);
        info!(partition, cause = cause.name(), before, term, %cursor, "took the partition");
    }

    /// The worker to which the partition is to be given now, if any.
    async fn heir(&self, standing: &Standing) -> Option<String> {
        let asked_by = standing.asked_by()?;
        if !standing.is_settled() || !self.peers.lock().await.is_first(&asked_by) {
            return None;
        }
        let mut granted = self.worker.granted.lock().await;
        if granted.is_some_and(|granted| granted.elapsed() < super::beat::GRANTS_APART) {
            return None;
        }
        *granted = Some(std::time::Instant::now());
        Some(asked_by)
    }
}

/// Waits until it is told to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // If the sender is gone, that is also the end.
    let _told = stop.wait_for(|stop| *stop).await;
}

/// The server's run id, which changes with a restart; `None` if this user may not ask.
async fn run_id(connection: &mut MultiplexedConnection) -> Option<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await.ok()?;
    info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned)
}
