//! One partition's part of a snapshot.
//!
//! The state is read in pages while it keeps changing, and is then brought up to the position of the changes at the
//! end. For a subject that changed meanwhile the last change decides, whatever a page contained; all other subjects
//! were the same all along.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::docs::{self, Doc, Docs};
use super::listing::{Digests, Listing};
use super::touched::{self, Touched};
use super::{MOST_BYTES, Scope, SnapshotError};
use crate::change::Change;
use crate::changes::position::Point;
use crate::changes::source::{Source, TailError};
use crate::key::{self, Keys};
use crate::state::documents::hash_values;
use crate::state::sessions::{Session, with_lives};
use crate::state::users::Present;
use crate::state::{AskError, Partition, Walk, documents, users};

/// How often the changes are read while the state is being read, so that the cap drops none unread.
const LOOK: Duration = Duration::from_millis(500);
/// Details requested in one call.
const DETAILS: usize = 500;

/// The gathered part of one partition, and its position in the changes.
pub(super) struct Gathered {
    pub(super) point: Point,
    pub(super) presence: Listing,
    pub(super) sessions: Listing,
    pub(super) docs: Docs,
}

impl Gathered {
    /// Gathers what the scope contains.
    pub(super) async fn read(
        partition: &mut Partition,
        scope: &Scope,
        digests: &Digests,
    ) -> Result<Self, SnapshotError> {
        let source = Source::new(&partition.keys, partition.index);
        let start = source.end(&mut partition.connection).await?;
        let gathered = Self {
            point: start,
            presence: Listing::default(),
            sessions: Listing::default(),
            docs: Docs::default(),
        };
        let (touched, docs_bytes, looked) = (Touched::default(), 0, Instant::now());
        Reading { partition, scope, digests, source, gathered, touched, docs_bytes, looked }
            .run()
            .await
    }
}

struct Reading<'a> {
    partition: &'a mut Partition,
    scope: &'a Scope,
    digests: &'a Digests,
    source: Source,
    gathered: Gathered,
    touched: Touched,
    docs_bytes: usize,
    looked: Instant,
}

impl Reading<'_> {
    async fn run(mut self) -> Result<Gathered, SnapshotError> {
        let keys = self.partition.keys.clone();
        let parts = self.scope.parts;
        if parts.presence {
            self.presence(&keys).await?;
        }
        if parts.sessions {
            self.sessions(&keys).await?;
        }
        if parts.documents {
            self.documents(&keys).await?;
        }
        let end = self.source.end(&mut self.partition.connection).await?;
        while self.gathered.point.seq < end.seq {
            self.read_changes().await?;
        }
        self.bring_up(&keys).await?;
        Ok(self.gathered)
    }

    async fn presence(&mut self, keys: &Keys) -> Result<(), SnapshotError> {
        if !self.scope.users.is_empty() && self.presence_by_index(keys).await? {
            return Ok(());
        }
        let key = keys.presence();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut self.partition.connection).await? {
            for (field, json) in page {
                if let Some(present) = Present::read(&json).filter(|_| self.wants_field(&field)) {
                    self.add_present(&field, present);
                }
            }
            self.page_ended().await?;
        }
        Ok(())
    }

    /// The entries of the wanted users; `false` if there is no index to find them by yet.
    async fn presence_by_index(&mut self, keys: &Keys) -> Result<bool, SnapshotError> {
        let wanted = self.wanted(&self.scope.users);
        for some in wanted.chunks(DETAILS) {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            let connection = &mut self.partition.connection;
            let Some(fields) = users::fields_of(connection, keys, &names).await? else {
                return Ok(false);
            };
            for (field, json) in self.details(&keys.presence(), &fields.concat()).await? {
                if let Some(present) = json.and_then(|json| Present::read(&json)) {
                    self.add_present(field, present);
                }
            }
            self.page_ended().await?;
        }
        Ok(true)
    }

    fn wants_field(&self, field: &str) -> bool {
        let user = field.split_once('|').map_or(field, |(user, _)| user);
        self.scope.users.is_empty() || self.scope.users.contains(&*key::unescape(user))
    }

    /// Changes identify an entry by its field, so the snapshot does too, whoever wrote the value.
    fn add_present(&mut self, field: &str, mut present: Present) {
        let (user, ip) = field.split_once('|').unwrap_or((field, ""));
        (present.user, present.ip) =
            (key::unescape(user).into_owned(), key::unescape(ip).into_owned());
        let (subject, owner) = (self.digests.of(field), self.digests.of(&present.user));
        self.gathered.presence.push(subject, owner, &present);
    }

    async fn sessions(&mut self, keys: &Keys) -> Result<(), SnapshotError> {
        let key = keys.sessions();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut self.partition.connection).await? {
            let read = page.iter().filter_map(|(sid, json)| Session::read(sid, json)).collect();
            self.add_sessions(keys, read).await?;
            self.page_ended().await?;
        }
        Ok(())
    }

    async fn add_sessions(&mut self, keys: &Keys, read: Vec<Session>) -> Result<(), AskError> {
        let (connection, clock) = (&mut self.partition.connection, self.scope.clock);
        for session in with_lives(connection, keys, clock, read).await? {
            let (subject, owner) = (self.digests.of(&session.sid), self.digests.of(&session.user));
            self.gathered.sessions.push(subject, owner, &session);
        }
        Ok(())
    }

    async fn documents(&mut self, keys: &Keys) -> Result<(), SnapshotError> {
        if !self.scope.docs.is_empty() {
            for doc in self.wanted(&self.scope.docs) {
                self.document(keys, doc).await?;
            }
            return Ok(());
        }
        let key = keys.docs_connections();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut self.partition.connection).await? {
            for (pair, connections) in page {
                let Some((doc, user)) = pair.split_once('|') else { continue };
                let doc = self.gathered.docs.entry(key::unescape(doc).into_owned()).or_default();
                doc.users.insert(key::unescape(user).into_owned(), connections.parse().ok());
                self.docs_bytes += pair.len() + size_of::<Doc>();
            }
            self.page_ended().await?;
        }
        let key = keys.docs_levels();
        let mut walk = Walk::hash(&key, None);
        while let Some(page) = walk.fields(&mut self.partition.connection).await? {
            for (level, _) in page {
                let mut level = level.splitn(3, ':');
                let (up, doc) = (level.next().and_then(|up| up.parse().ok()), level.nth(1));
                if let (Some(up), Some(doc)) = (up, doc) {
                    // A document whose users all came and went meanwhile may not have been seen.
                    let doc = key::unescape(doc).into_owned();
                    self.gathered.docs.entry(doc).or_default().reached.push(up);
                }
            }
        }
        Ok(())
    }

    async fn document(&mut self, keys: &Keys, name: String) -> Result<(), SnapshotError> {
        let (connection, all) = (&mut self.partition.connection, usize::MAX);
        let thresholds = &self.scope.thresholds;
        let found = documents::document(connection, keys, &name, thresholds, all).await?;
        if let Some(found) = found {
            self.docs_bytes += found.users.items.len() * size_of::<Doc>();
            let members = found.users.items.into_iter();
            let reached = found.levels.iter().filter(|level| level.reached).map(|level| level.up);
            let doc = Doc {
                users: members.map(|member| (member.user, member.connections)).collect(),
                reached: reached.collect(),
            };
            self.gathered.docs.insert(name, doc);
        }
        self.page_ended().await
    }

    /// Those of the names that belong to this partition.
    fn wanted(&self, names: &HashSet<String>) -> Vec<String> {
        let is_here =
            |name: &&String| key::partition_of(name, self.scope.partitions) == self.partition.index;
        names.iter().filter(is_here).cloned().collect()
    }

    /// Keeps up with the changes, and within the limits.
    async fn page_ended(&mut self) -> Result<(), SnapshotError> {
        let Gathered { presence, sessions, .. } = &self.gathered;
        if presence.bytes() + sessions.bytes() + self.docs_bytes > MOST_BYTES {
            return Err(SnapshotError::TooLarge);
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let end = self.source.end(&mut self.partition.connection).await?;
            while self.gathered.point.seq < end.seq {
                self.read_changes().await?;
            }
        }
        Ok(())
    }

    async fn read_changes(&mut self) -> Result<(), SnapshotError> {
        let after = self.gathered.point;
        let changes = self.source.after(&mut self.partition.connection, after, None).await?;
        // An erased change does not say whom it was about, so that user may be in what was read before.
        let last = changes.last().filter(|_| !changes.iter().any(Change::is_erased));
        let Some(last) = last else {
            return Err(TailError::Gap { after: after.seq }.into());
        };
        self.gathered.point = last.into();
        for change in changes.iter().filter(|change| self.scope.is_about(change)) {
            self.touched.add(change, self.scope.parts);
        }
        if self.touched.len() > touched::MOST {
            return Err(SnapshotError::TooLarge);
        }
        Ok(())
    }

    async fn bring_up(&mut self, keys: &Keys) -> Result<(), SnapshotError> {
        let touched = std::mem::take(&mut self.touched);
        let subjects = touched.presence.keys().map(|field| self.digests.of(field)).collect();
        self.gathered.presence.remove(&subjects);
        let there = touched.presence.iter().filter(|(_, is_there)| **is_there);
        let fields: Vec<String> = there.map(|(field, _)| field.clone()).collect();
        for (field, json) in self.details(&keys.presence(), &fields).await? {
            let known = json.and_then(|json| Present::read(&json));
            self.add_present(field, known.unwrap_or_else(Present::unknown));
        }
        let subjects = touched.sessions.keys().map(|sid| self.digests.of(sid)).collect();
        self.gathered.sessions.remove(&subjects);
        let users: HashMap<&String, &String> =
            touched.sessions.iter().filter_map(|(sid, user)| Some((sid, user.as_ref()?))).collect();
        let sids: Vec<String> = users.keys().map(|sid| (*sid).clone()).collect();
        let details = self.details(&keys.sessions(), &sids).await?;
        let read = details.into_iter().map(|(sid, json)| {
            let known = json.and_then(|json| Session::read(sid, &json));
            let user = users.get(sid).map(|user| (*user).clone()).unwrap_or_default();
            known.unwrap_or_else(|| Session::unknown(sid.clone(), user))
        });
        let read: Vec<Session> = read.collect();
        for some in read.chunks(DETAILS) {
            self.add_sessions(keys, some.to_vec()).await?;
        }
        docs::bring_up(&mut self.gathered.docs, touched);
        Ok(())
    }

    /// The current values of these fields in a hash.
    async fn details<'f>(
        &mut self,
        key: &str,
        fields: &'f [String],
    ) -> Result<Vec<(&'f String, Option<String>)>, AskError> {
        let mut all = Vec::with_capacity(fields.len());
        for some in fields.chunks(DETAILS) {
            let connection = &mut self.partition.connection;
            all.extend(some.iter().zip(hash_values(connection, key, some.to_vec()).await?));
        }
        Ok(all)
    }
}
