//! The shadow: what the entries in the stream make of an empty state, with the same fold and the same apply script,
//! up to exactly the entry that the live state is at.
//!
//! It is kept under `rollcall:shadow:`, where no reader looks, in the slot of its partition. Its stream has only the
//! ids of the last entries, since the script checks no others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

use super::keyspace::{claim, in_use, remove};
use super::lease::Lease;
use crate::blocked::Blocked;
use crate::config::Deployment;
use crate::entry::{Entry, EntryId};
use crate::error::Error;
use crate::event::{Reason, Rejection};
use crate::fold::{Avoided, FoldSettings, Planner};
use crate::key::Keys;
use crate::op::Plan;
use crate::projection::Projection;
use crate::redis::reply;
use crate::redis::scripts::apply::{Applier, Outcome};
use crate::redis::scripts::erase::blocked;
use crate::redis::scripts::look::{Looked, look};
use crate::redis::scripts::owner::{Cause, Ownership, Seen, fence};
use crate::seal::SessionKeys;
use crate::state::dead::DeadLetter;

use crate::state::{AskError, ask, range, server_time};

/// The maximum number of entries read at once, and the target for their bytes.
const PAGE: usize = 200;
const PAGE_BYTES: usize = 256 << 10;
/// The maximum number of entries applied by one call, and the target for their bytes: about two milliseconds of the
/// server.
const PART: usize = 64;
const PART_BYTES: usize = 16 << 10;
/// How many letters are read at once; each may contain a mebibyte.
const LETTERS: usize = 16;
/// How many pages there are between two checks of the server's memory, and how much of it may be used, in percent.
const PAGES: u64 = 16;
const MOST_MEMORY: u64 = 90;
/// The maximum pause between two calls.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How a worker wrote an entry off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WrittenOff {
    /// As a whole: it has no effect.
    Whole,
    /// It met a key of another type: its views are not counted.
    InPart,
}

/// The shadow of one partition, and its progress.
pub(super) struct Shadow {
    pub(super) connection: MultiplexedConnection,
    /// The names of the live state.
    pub(super) live: Keys,
    /// Its own names.
    pub(super) keys: Keys,
    pub(super) deployment: Deployment,
    /// From this entry on, it has all entries that ever existed.
    pub(super) since: EntryId,
    /// How many entries it was made of.
    pub(super) entries: u64,
    stream: String,
    /// The live state's epoch.
    epoch: String,
    fold: FoldSettings,
    without_views: FoldSettings,
    /// The users whose events are refused.
    blocked: Blocked,
    applier: Applier,
    /// The last entry that was applied.
    applied: EntryId,
    /// Up to where the stream was read.
    at: EntryId,
    written_off: HashMap<EntryId, WrittenOff>,
    letters_read: Option<EntryId>,
    page: usize,
    pages: u64,
    lease: Lease,
}

impl Shadow {
    /// Creates an empty one, after removing what a killed run left there; `None` if nobody has ever worked on the
    /// partition.
    ///
    /// # Errors
    /// If another process uses the name, the server refuses, or no reply came.
    pub(super) async fn begin(
        mut connection: MultiplexedConnection,
        (deployment, live, partition): (&Deployment, &Keys, u16),
        name: &str,
        session_keys: Option<SessionKeys>,
    ) -> Result<Option<Self>, AskError> {
        let looked = look(&mut connection, &live.meta(), &[]).await?;
        if looked.cursor.is_none() {
            return Ok(None);
        }
        let (keys, blocked) = (live.shadow(name), blocked(&mut connection, live).await?);
        let lease = Lease::take(connection.clone(), &keys).await?;
        claim(&mut connection, live, &keys).await?;
        let ownership = Ownership::new(deployment, &keys, name.to_owned());
        let joined =
            ownership.join(&mut connection, &Seen::default(), &fence(false), Cause::Free).await;
        let Ok(Some(joined)) = joined else {
            remove(&mut connection, &keys).await?;
            return Err(joined.err().map_or_else(|| in_use(&keys), AskError::from));
        };
        let applier =
            Applier::new(deployment, &keys, joined.tenure).with_session_keys(session_keys);
        let (rules, projections) = (deployment.rules(), deployment.projections);
        let fold = FoldSettings { rules, projections, partition };
        let without_views =
            FoldSettings { projections: projections.without(Projection::Ranking), ..fold.clone() };
        let start = EntryId { ms: 0, seq: 0 };
        Ok(Some(Self {
            stream: live.named(&deployment.stream),
            epoch: looked.epoch,
            connection,
            live: live.clone(),
            keys,
            deployment: deployment.clone(),
            since: start,
            entries: 0,
            fold,
            without_views,
            blocked,
            applier,
            applied: start,
            at: start,
            written_off: HashMap::new(),
            letters_read: None,
            page: LETTERS,
            pages: 0,
            lease,
        }))
    }

    /// Reads the live state at one instant.
    ///
    /// # Errors
    /// If it was begun again, the server refuses, or no reply came.
    pub(super) async fn look_live(
        &mut self,
        reads: &[Vec<&str>],
    ) -> Result<(Looked, EntryId), AskError> {
        let looked = look(&mut self.connection, &self.live.meta(), reads).await?;
        match looked.cursor {
            Some(cursor) if looked.epoch == self.epoch && cursor >= self.at => Ok((looked, cursor)),
            _ => Err(AskError::BegunAgain { key: self.live.meta() }),
        }
    }

    /// Reads the shadow.
    ///
    /// # Errors
    /// If it was changed by others, the server refuses, or no reply came.
    pub(super) async fn look(&mut self, reads: &[Vec<&str>]) -> Result<Looked, AskError> {
        let looked = look(&mut self.connection, &self.keys.meta(), reads).await?;
        let start = EntryId { ms: 0, seq: 0 };
        if looked.cursor.unwrap_or(start) != self.applied {
            return Err(in_use(&self.keys));
        }
        Ok(looked)
    }

    /// Applies entries up to this one, a page at a time; returns whether there may be more.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(super) async fn step(&mut self, to: EntryId) -> Result<bool, AskError> {
        if self.at >= to {
            return Ok(false);
        }
        if self.pages.is_multiple_of(PAGES) {
            self.check_memory().await?;
        }
        self.pages += 1;
        let entries = self.read(self.at, to).await?;
        let Some(last) = entries.last().map(|entry| entry.id) else {
            // Others deleted the rest.
            self.at = to;
            return Ok(false);
        };
        self.read_letters(entries[0].id).await?;
        for part in self.parts(&entries) {
            let begun = Instant::now();
            self.apply(part).await?;
            // Other clients get their turn.
            tokio::time::sleep(begun.elapsed().min(LONGEST_PAUSE)).await;
        }
        self.entries += entries.len() as u64;
        self.at = last;
        Ok(true)
    }

    /// Checks that the server has memory left: at full memory workers would have to wait.
    async fn check_memory(&mut self) -> Result<(), AskError> {
        let info = match ask(&mut self.connection, &["INFO", "memory"]).await {
            Err(error) if error.is_unavailable() => return Ok(()),
            info => reply::text(info?).unwrap_or_default(),
        };
        let field = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let (used, most) = (field("used_memory"), field("maxmemory"));
        if most > 0 && used / MOST_MEMORY > most / 100 {
            return Err(AskError::NearlyFull);
        }
        Ok(())
    }

    /// Applies all entries up to this one.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(super) async fn advance(&mut self, to: EntryId) -> Result<(), AskError> {
        while self.step(to).await? {}
        Ok(())
    }

    /// The first entries after one id, up to another.
    pub(super) async fn read(
        &mut self,
        after: EntryId,
        to: EntryId,
    ) -> Result<Vec<Entry>, AskError> {
        let (start, end) = (format!("({after}"), to.to_string());
        let count = self.page.to_string();
        let words = ["XRANGE", &self.stream, &start, &end, "COUNT", &count];
        let entries = range(&mut self.connection, &words).await?;
        let bytes: usize = entries.iter().map(Entry::size).sum();
        if let Some(first) = entries.first() {
            self.page = (entries.len() * PAGE_BYTES / bytes.max(1)).clamp(1, PAGE);
            // If the entry before still exists, nothing between the two was trimmed meanwhile.
            let before = after.to_string();
            let words = ["XRANGE", &self.stream, &before, &before];
            if after == self.at && range(&mut self.connection, &words).await?.is_empty() {
                self.since = self.since.max(first.id);
            }
        }
        Ok(entries)
    }

    /// Entries in parts that fit into short calls.
    pub(super) fn parts<'e>(&self, entries: &'e [Entry]) -> Vec<&'e [Entry]> {
        parts(entries, &self.written_off)
    }

    /// The plan of entries.
    pub(super) fn plan<'e>(&self, entries: &'e [Entry]) -> Plan<'e> {
        let is_in_part =
            |entry: &Entry| self.written_off.get(&entry.id) == Some(&WrittenOff::InPart);
        let settings =
            if entries.iter().any(is_in_part) { &self.without_views } else { &self.fold };
        let planner = Planner::with_capacity(settings, entries.len());
        let mut planner = planner.refusing(&self.blocked);
        for entry in entries {
            match self.written_off.get(&entry.id) {
                Some(WrittenOff::Whole) => {
                    planner.reject(entry, Rejection::new(Reason::Poison, ""))
                }
                _ => planner.add(entry, &Avoided::default()),
            }
        }
        let mut plan = planner.finish(&Avoided::default());
        plan.letters.clear();
        plan
    }

    async fn apply(&mut self, entries: &[Entry]) -> Result<(), AskError> {
        const STEP: &str = "adding to the shadow";
        let Some(last) = entries.last() else { return Ok(()) };
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.named(&self.deployment.stream)).arg(&["MAXLEN", "2"]);
        add.arg(last.id.to_string()).arg(&["", ""]);
        add.exec_async(&mut self.connection).await.map_err(Error::at(STEP))?;
        let plan = self.plan(entries);
        match self.applier.apply(&mut self.connection, &plan, self.applied).await? {
            Outcome::Applied(_) => self.applied = last.id,
            Outcome::WrongType(_) => return Err(in_use(&self.keys)),
        }
        Ok(())
    }

    /// Reads which entries workers wrote off.
    async fn read_letters(&mut self, first: EntryId) -> Result<(), AskError> {
        loop {
            let after = self.letters_read.unwrap_or(EntryId { ms: first.ms, seq: 0 }.before());
            let (key, start) = (self.live.dead(), format!("({after}"));
            let words = ["XRANGE", &key, &start, "+", "COUNT", &LETTERS.to_string()];
            let letters = range(&mut self.connection, &words).await?;
            for letter in letters.iter().filter_map(DeadLetter::read) {
                let (entry, reason) = (letter.header[0].parse(), letter.header[1].as_str());
                let how = match reason {
                    _ if !letter.header[4].is_empty() => continue,
                    _ if reason == Reason::WrongType.name() => WrittenOff::InPart,
                    _ if reason == Reason::Poison.name() => WrittenOff::Whole,
                    _ if reason == Reason::ApplyFailed.name() => WrittenOff::Whole,
                    _ => continue,
                };
                if let Ok(entry) = entry {
                    self.written_off.insert(entry, how);
                }
            }
            self.letters_read = letters.last().map(|letter| letter.id).or(Some(after));
            if letters.len() < LETTERS {
                return Ok(());
            }
        }
    }

    /// The newest entry that was ever deleted rather than trimmed.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(super) async fn deleted(&mut self) -> Result<Option<EntryId>, AskError> {
        let info = match ask(&mut self.connection, &["XINFO", "STREAM", &self.stream]).await {
            Ok(info) => info,
            // There is no stream, and so no entry.
            Err(AskError::Server(error))
                if error.redis().is_some_and(|e| e.code() == Some("ERR")) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut fields = reply::pairs(info).unwrap_or_default().into_iter();
        let found = fields.find_map(|(name, id)| {
            reply::text(name).filter(|name| name == "max-deleted-entry-id")?;
            reply::entry_id(id)
        });
        Ok(found)
    }

    /// The server's time.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(super) async fn now_ms(&mut self) -> Result<u64, AskError> {
        server_time(&mut self.connection).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(super) async fn end(mut self) -> Result<(), AskError> {
        drop(self.lease);
        remove(&mut self.connection, &self.keys).await
    }
}

/// Entries split into parts that fit into short calls. Those that met a key of another type are alone.
fn parts<'e>(entries: &'e [Entry], written_off: &HashMap<EntryId, WrittenOff>) -> Vec<&'e [Entry]> {
    let is_in_part = |entry: &Entry| written_off.get(&entry.id) == Some(&WrittenOff::InPart);
    let (mut bytes, mut count) = (0, 0);
    let mut fits = |before: &Entry, after: &Entry| {
        (bytes, count) = (bytes + before.size(), count + 1);
        let fits = bytes + after.size() <= PART_BYTES
            && count < PART
            && !is_in_part(before)
            && !is_in_part(after);
        if !fits {
            (bytes, count) = (0, 0);
        }
        fits
    };
    entries.chunk_by(|before, after| fits(before, after)).collect()
}
