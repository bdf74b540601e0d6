//! Repairs differences: members that no entry explains are removed, and the entries that should have won are applied
//! once more, without their views, by the usual script. This is possible because merges are idempotent.
//!
//! The partition's owner does all of it, and the run becomes that owner for some tenths of a second at a time. No
//! batch in progress is applied after that, and each difference is checked once more at a fixed cursor.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::compare::Comparison;
use super::deeds::{Related, deed, related};
use super::finding::{Fault, Finding, Place};
use super::table::Family;
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::op::Plan;
use crate::redis::reply;
use crate::redis::scripts::apply::{Applier, Outcome};
use crate::redis::scripts::look::look;
use crate::redis::scripts::mend::{Deed, mend};
use crate::redis::scripts::owner::{Cause, Ownership, Tenure, fence};
use crate::seal::SessionKeys;
use crate::state::AskError;

/// How many differences one call repairs.
const PART: usize = 32;
/// How long the partition is held at a time.
const HELD: Duration = Duration::from_millis(250);
/// How long others have it in between.
const PAUSE: Duration = Duration::from_millis(50);
/// How many times to try to get it, or to keep it.
const MOST_TRIES: u32 = 50;
/// How many entries one call reads.
const ENTRIES: usize = 8;

/// The partition, while it is held.
pub(super) struct Held {
    ownership: Ownership,
    tenure: Tenure,
    cursor: EntryId,
    /// The owner that gets it back.
    former: String,
    since: Instant,
}

impl Comparison {
    /// Repairs these differences.
    pub(super) async fn mend(
        &mut self,
        findings: &[Finding],
        session_keys: &Option<SessionKeys>,
        mut tell: impl FnMut(u64),
    ) -> Result<(), AskError> {
        let mut done = 0;
        // Those of one entry together, since it may have many events.
        let mut findings = findings.to_vec();
        findings.sort_by_key(Finding::entry);
        for part in findings.chunks(PART) {
            let entries = self.entries_of(part).await?;
            let mut tries = 0;
            loop {
                match self.mend_part(part, &entries, session_keys).await {
                    Err(AskError::Server(error))
                        if error.is_lost_ownership() && tries < MOST_TRIES =>
                    {
                        self.held = None;
                        tries += 1;
                    }
                    // It has removed some of the joined connections, and must be called again.
                    Err(AskError::Server(error)) if is_torn(&error) && tries < MOST_TRIES => {
                        tries += 1;
                    }
                    other => break other?,
                }
            }
            done += part.len() as u64;
            tell(done);
        }
        self.release().await
    }

    /// The entries that should have won.
    async fn entries_of(&mut self, findings: &[Finding]) -> Result<Vec<Entry>, AskError> {
        let is_merged = |finding: &&Finding| finding.fault != Fault::Torn;
        let ids: BTreeSet<EntryId> =
            findings.iter().filter(is_merged).filter_map(Finding::entry).collect();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let stream = self.shadow.live.named(&self.shadow.deployment.stream);
        let mut entries = Vec::new();
        for some in ids.chunks(ENTRIES) {
            let reads: Vec<_> = some.iter().map(|id| vec!["XRANGE", &stream, id, id]).collect();
            let looked =
                look(&mut self.shadow.connection, &self.shadow.live.meta(), &reads).await?;
            entries.extend(looked.replies.iter().filter_map(reply::entries).flatten());
        }
        Ok(entries)
    }

    async fn mend_part(
        &mut self,
        findings: &[Finding],
        entries: &[Entry],
        session_keys: &Option<SessionKeys>,
    ) -> Result<(), AskError> {
        self.hold().await?;
        let known: HashSet<&Place> = findings.iter().map(|found| &found.place).collect();
        let names = related(findings, &self.shadow.live);
        let fresh = self.look_again(&names, |_| true).await?;
        let is_meant =
            |found: &&Finding| found.fault != Fault::Torn && known.contains(&found.place);
        self.do_deeds(fresh.iter().filter(is_meant)).await?;
        self.apply_again(entries, session_keys).await?;
        // Derived values come last.
        let is_derived = |family: Family| {
            matches!(
                family,
                Family::Pair
                    | Family::Document
                    | Family::MinuteKey
                    | Family::Activity
                    | Family::Session
            )
        };
        for _ in 0..2 {
            let torn = self.look_again(&names, is_derived).await?;
            self.do_deeds(torn.iter().filter(|found| found.fault == Fault::Torn)).await?;
        }
        Ok(())
    }

    /// Compares these names at the fixed cursor.
    async fn look_again(
        &mut self,
        names: &Related,
        is_meant: impl Fn(Family) -> bool,
    ) -> Result<Vec<Finding>, AskError> {
        let before = std::mem::take(&mut self.verdicts);
        for (family, names) in names {
            if is_meant(*family) {
                let names: Vec<String> = names.iter().cloned().collect();
                self.compare_now(*family, &names).await?;
            }
        }
        Ok(std::mem::replace(&mut self.verdicts, before).findings)
    }

    async fn do_deeds<'f>(
        &mut self,
        findings: impl Iterator<Item = &'f Finding>,
    ) -> Result<(), AskError> {
        let deeds: Vec<Deed> =
            findings.filter_map(|found| deed(found, &self.shadow.live)).collect();
        let Some(held) = self.held.as_ref().filter(|_| !deeds.is_empty()) else { return Ok(()) };
        let of = (&self.shadow.deployment, &self.shadow.live);
        mend(&mut self.shadow.connection, of, (&held.tenure, held.cursor), &deeds).await?;
        Ok(())
    }

    /// Merges entries once more: nothing is counted, and the cursor stays.
    async fn apply_again(
        &mut self,
        entries: &[Entry],
        session_keys: &Option<SessionKeys>,
    ) -> Result<(), AskError> {
        let Some(held) = self.held.as_ref().filter(|_| !entries.is_empty()) else { return Ok(()) };
        let applier = Applier::new(&self.shadow.deployment, &self.shadow.live, held.tenure.clone())
            .with_session_keys(session_keys.clone());
        for part in self.shadow.parts(entries) {
            let mut plan = Plan { entries: 0, last: None, ..self.shadow.plan(part) };
            plan.views.clear();
            // If a key has another type, everything else is merged.
            let (Outcome::Applied(_) | Outcome::WrongType(_)) =
                applier.apply(&mut self.shadow.connection, &plan, held.cursor).await?;
        }
        Ok(())
    }

    /// Becomes the partition's owner, unless it was just a moment ago.
    async fn hold(&mut self) -> Result<(), AskError> {
        if self.held.as_ref().is_some_and(|held| held.since.elapsed() < HELD) {
            return Ok(());
        }
        self.release().await?;
        // Catches up first, so that others wait less.
        let (_, cursor) = self.shadow.look_live(&[]).await?;
        self.shadow.advance(cursor).await?;
        let name = format!("rebuild-{:08x}", fastrand::u32(..));
        let ownership = Ownership::new(&self.shadow.deployment, &self.shadow.live, name);
        for _ in 0..MOST_TRIES {
            let connection = &mut self.shadow.connection;
            let seen = ownership.look(connection).await?;
            let cause = if seen.owner.is_empty() { Cause::Free } else { Cause::Stall };
            if let Some(joined) = ownership.join(connection, &seen, &fence(false), cause).await? {
                let former = if seen.owner.is_empty() { seen.heir } else { seen.owner };
                let (tenure, cursor) = (joined.tenure, joined.cursor);
                self.held = Some(Held { ownership, tenure, cursor, former, since: Instant::now() });
                return self.shadow.advance(cursor).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(Error::NotOwner.into())
    }

    /// Gives the partition back.
    pub(super) async fn release(&mut self) -> Result<(), AskError> {
        let Some(Held { ownership, tenure, former, .. }) = self.held.take() else { return Ok(()) };
        match ownership.release(&mut self.shadow.connection, &tenure, &former).await {
            Err(error) if !error.is_lost_ownership() => return Err(error.into()),
            // Another worker was faster.
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

fn is_torn(error: &Error) -> bool {
    error.redis().is_some_and(|error| error.code() == Some("TORN"))
}
