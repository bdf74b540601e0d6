//! Single mode: entries one at a time, each named before it is tried, so that a worker that dies tells on what.
//!
//! After an owner's death, and where the server restarted under a batch, the entries that may have been in hand are
//! tried like this. Nothing else of the process looks into entries meanwhile.

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
use crate::redis::scripts::owner::Joined;

/// Owners that may die on an entry they had named before it is written off.
const MOST_DEATHS: u64 = 2;
/// Server restarts under an entry that is applied alone before it is written off.
const MOST_RESTARTS: u32 = 2;
/// Entries that are tried alone after one was written off: others like it may follow.
const AFTER_WRITE_OFF: usize = 500;

/// One by one through what is under suspicion.
pub(super) struct Single<'s> {
    pub(super) projector: &'s mut Projector,
    pub(super) joined: &'s Joined,
    pub(super) standing: &'s Standing,
}

impl Single<'_> {
    /// Works until nothing is under suspicion any more, or nothing is left; returns where the cursor is then.
    pub(super) async fn work(
        self,
        source: &mut Source,
        applier: &Applier,
        connection: &mut MultiplexedConnection,
    ) -> Result<EntryId, Error> {
        let Self { projector, joined, standing } = self;
        let (ownership, quiet) = (projector.ownership.clone(), projector.worker.quiet.clone());
        let mut cursor = joined.cursor;
        let mut deaths = joined.deaths;
        while projector.memory.suspicion > 0 && !*projector.stop.borrow() {
            standing.begin();
            projector.pulse.busy();
            let alone = quiet.alone().await;
            if deaths >= MOST_DEATHS {
                let detail = format!("{deaths} workers did not survive trying it alone");
                let off = (detail.as_str(), deaths);
                deaths = 0;
                let Some(id) = ownership.skip_next(connection, &joined.tenure, cursor, off).await?
                else {
                    break;
                };
                projector.written_off(id, &detail);
                cursor = id;
                continue;
            }
            if !ownership.name_next(connection, &joined.tenure, cursor).await? {
                break;
            }
            Failpoint::AfterNaming.pass();
            let batch = source.read(cursor, 1).await?;
            let Some(id) = batch.entries.last().map(|entry| entry.id) else { break };
            if projector.memory.fatal.get(&id).is_some_and(|times| *times >= MOST_RESTARTS) {
                let detail = "the server did not survive applying it alone";
                let off = (detail, u64::from(MOST_RESTARTS));
                ownership.skip_next(connection, &joined.tenure, cursor, off).await?;
                projector.written_off(id, detail);
            } else {
                projector.memory.trying = Some(id);
                projector.metrics.tried_alone();
                Projecting::new(projector, applier.clone(), connection, None)
                    .project(batch)
                    .await?;
                projector.memory.trying = None;
            }
            drop(alone);
            projector.memory.fatal.remove(&id);
            projector.memory.suspicion -= 1;
            (cursor, deaths) = (id, 0);
            standing.end();
            projector.pulse.waiting();
        }
        projector.memory.suspicion = 0;
        standing.end();
        Ok(cursor)
    }
}

impl Projector {
    fn written_off(&mut self, id: EntryId, detail: &str) {
        self.metrics.rejected(crate::event::Reason::Poison);
        self.memory.suspicion = self.memory.suspicion.max(AFTER_WRITE_OFF);
        warn!(partition = self.fold.partition, %id, detail, "an entry became a dead letter");
    }
}
