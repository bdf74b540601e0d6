//! Single mode: entries are tried one at a time, each named before, so that a worker that dies leaves the culprit's
//! name.
//!
//! After an owner's death, and after the server restarted during a batch, the entries that may have been in progress
//! are tried like this. Nothing else in the process decodes entries meanwhile.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::warn;

use super::Projector;
use super::beat::Standing;
use super::project::Projecting;
use super::reader::Source;
use crate::entry::EntryId;
use crate::error::Error;
use crate::failpoint::Failpoint;
use crate::redis::scripts::apply::Applier;
use crate::redis::scripts::owner::Tenure;

/// How many owners may die on an entry that they had named before it is written off.
const MOST_DEATHS: u64 = 2;
/// How many times the server may restart while an entry is applied alone before it is written off.
const MOST_RESTARTS: u32 = 2;
/// How many entries are tried alone after one was written off: others like it may follow.
const AFTER_WRITE_OFF: usize = 500;

/// The time limit of withdrawing a naming, while everything else in the process waits.
const UNNAME: Duration = Duration::from_secs(1);

/// Tries suspects one by one.
pub(super) struct Single<'s> {
    pub(super) projector: &'s mut Projector,
    pub(super) tenure: &'s Tenure,
    pub(super) standing: &'s Standing,
    pub(super) source: &'s mut Source,
    pub(super) applier: &'s Applier,
    pub(super) connection: &'s mut MultiplexedConnection,
}

impl Single<'_> {
    /// Works from `cursor` on until there are no suspects or no entries left; `deaths` are those on the first entry.
    /// Returns the new cursor.
    pub(super) async fn work(
        mut self,
        mut cursor: EntryId,
        mut deaths: u64,
    ) -> Result<EntryId, Error> {
        while self.projector.memory.suspicion > 0 && !*self.projector.stop.borrow() {
            self.standing.begin();
            self.projector.pulse.busy();
            if deaths >= MOST_DEATHS {
                cursor = self.write_off(cursor, deaths).await?.unwrap_or(cursor);
            } else {
                let Some(id) = self.step(cursor).await? else { break };
                self.projector.memory.suspicion -= 1;
                cursor = id;
            }
            deaths = 0;
            self.standing.end();
            self.projector.pulse.waiting();
        }
        self.projector.memory.suspicion = 0;
        self.standing.end();
        Ok(cursor)
    }

    /// Writes the next entry off, unless an owner that counts as dead reports meanwhile that it is alive.
    async fn write_off(&mut self, cursor: EntryId, deaths: u64) -> Result<Option<EntryId>, Error> {
        let (time, mut stop) = (self.projector.settings.takeover, self.projector.stop.clone());
        if tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await.is_ok() {
            return Ok(None);
        }
        let detail = format!("{deaths} workers did not survive trying it alone");
        self.skip(cursor, &detail, deaths).await
    }

    /// Tries the next entry, if there is one.
    async fn step(&mut self, cursor: EntryId) -> Result<Option<EntryId>, Error> {
        let (ownership, quiet) =
            (self.projector.ownership.clone(), self.projector.worker.quiet.clone());
        let _alone = quiet.alone().await;
        if !ownership.name_next(self.connection, self.tenure, cursor).await? {
            return Ok(None);
        }
        Failpoint::AfterNaming.pass();
        let tried = self.try_next(cursor).await;
        if !matches!(tried, Ok(Some(_))) {
            // If this does not get through, this worker reports it once it sees another one own the partition.
            let unnamed = ownership.unname(self.connection, self.tenure);
            let _failed = tokio::time::timeout(UNNAME, unnamed).await;
        }
        tried
    }

    async fn try_next(&mut self, cursor: EntryId) -> Result<Option<EntryId>, Error> {
        let batch = self.source.read(cursor, 1).await?;
        let Some(id) = batch.entries.last().map(|entry| entry.id) else { return Ok(None) };
        let memory = &mut self.projector.memory;
        if memory.fatal.get(&id).is_some_and(|times| *times >= MOST_RESTARTS) {
            let detail = "the server did not survive applying it alone";
            self.skip(cursor, detail, 0).await?;
        } else {
            memory.trying = Some(id);
            self.projector.metrics.tried_alone();
            let (applier, connection) = (self.applier.clone(), &mut *self.connection);
            Projecting::new(self.projector, applier, connection, None).project(batch).await?;
            self.projector.memory.trying = None;
        }
        self.projector.memory.fatal.remove(&id);
        Ok(Some(id))
    }

    async fn skip(
        &mut self,
        cursor: EntryId,
        detail: &str,
        deaths: u64,
    ) -> Result<Option<EntryId>, Error> {
        let ownership = &self.projector.ownership;
        let off = ownership.skip_next(self.connection, self.tenure, cursor, (detail, deaths));
        let off = off.await?;
        if let Some(id) = off {
            self.projector.written_off(id, detail);
        }
        Ok(off)
    }
}

impl Projector {
    fn written_off(&mut self, id: EntryId, detail: &str) {
        self.metrics.rejected(crate::event::Reason::Poison);
        self.memory.suspicion = self.memory.suspicion.max(AFTER_WRITE_OFF);
        warn!(partition = self.fold.partition, %id, detail, "an entry became a dead letter");
    }
}
