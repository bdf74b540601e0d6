//! Changes the number of partitions of a deployment, in place and with its state.
//!
//! The existing partitions pause: nobody applies, sweeps or owns them any more, while producers keep adding. Then
//! everything that belongs to another partition moves there in small atomic calls. A member is always in exactly one
//! place, so after a kill another run continues with the rest. Finally one call switches all partitions to the new
//! layout. The new owners forward what is still in the old streams, and what producers add to them later.

mod structures;

use std::collections::BTreeMap;
use std::time::Duration;

use self::structures::{STRUCTURES, Structure};
use crate::decode::Former;
use crate::key::{Keys, partition_of};
use crate::redis::reply;
use crate::redis::scripts::layout::{STATE_FORMAT, forwarded_layouts};
use crate::redis::scripts::repartition::{Kind, Layout, Move, Row};
use crate::state::{AskError, Link, Partition, State, Walk, ask, literal, number};

/// The maximum number of members that one call moves: about a millisecond of the server's time.
const PAGE: usize = 200;
/// The maximum number of dead letters that one call moves; each may contain a mebibyte.
const LETTERS: u64 = 8;
/// How many keys one call examines.
const KEYS: &str = "1000";
/// Pause between calls, so that other clients get their turn.
const PAUSE: Duration = Duration::from_millis(1);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The new number of partitions.
    pub to: u16,
    /// For how long entries that are sent to the old layout are forwarded.
    pub forward_for: Duration,
    /// Whether nothing is changed.
    pub dry_run: bool,
}

/// The progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// About how many members there were to examine at the start.
    pub members: u64,
    /// Members that were examined.
    pub looked_at: u64,
    /// Members that moved; in a dry run, those that would.
    pub moved: u64,
    /// Dead letters that moved.
    pub letters: u64,
    /// Targets of notifiers, with how many changes of partitions that no longer exist were not sent to them.
    pub unsent: BTreeMap<String, u64>,
}

/// Why it cannot be done on a Cluster.
const CLUSTER: &str = "the number of partitions cannot be changed on a Redis Cluster: repartition while all of them \
                       are on one server, then move the keys to the Cluster";

/// Why it cannot be done without a deployment: its settings would be those of the command.
const NOTHING: &str = "there is no deployment yet: no worker or janitor has started here; start them with the number \
                       of partitions that you want";

/// Moves the deployment to another number of partitions, and reports the progress.
///
/// # Errors
/// If the server refuses, or no reply came (another run continues), or if it cannot be done here at all.
pub async fn repartition(
    state: &mut State,
    order: &Order,
    mut tell: impl FnMut(&Tally),
) -> Result<Tally, AskError> {
    let from = state.deployment.partitions;
    let mut connection = one_server(state).await?;
    if !state.found {
        return Err(AskError::Refused(NOTHING.to_owned()));
    }
    let this = Move::new(from, order.to);
    if !order.dry_run {
        pause_all(state, &mut connection, &this).await?;
    }
    let prefix = state.deployment.prefix.clone();
    let mut mover = Mover {
        this,
        from: (0..from).map(|index| Keys::new(&prefix, from, index)).collect(),
        to: (0..order.to).map(|index| Keys::new(&prefix, order.to, index)).collect(),
        connection,
        dry_run: order.dry_run,
        tally: Tally::default(),
    };
    mover.count().await?;
    for index in 0..mover.from.len() {
        for structure in &STRUCTURES {
            mover.structure(index, structure, &mut tell).await?;
        }
    }
    mover.keys(&prefix, &mut tell).await?;
    if !order.dry_run {
        mover.letters(&mut tell).await?;
        mover.switch(state, order).await?;
    }
    Ok(mover.tally)
}

/// The connection to the one server with all partitions.
async fn one_server(state: &mut State) -> Result<Link, AskError> {
    let Some(partition) = state.reachable() else {
        return Err(AskError::Refused(CLUSTER.to_owned()));
    };
    let mut connection = partition.connection.clone();
    let info = ask(&mut connection, &["INFO", "cluster"]).await?;
    let is_cluster = reply::text(info).is_some_and(|info| info.contains("cluster_enabled:1"));
    if is_cluster { Err(AskError::Refused(CLUSTER.to_owned())) } else { Ok(connection) }
}

async fn pause_all(state: &State, connection: &mut Link, this: &Move) -> Result<(), AskError> {
    for Partition { keys, .. } in &state.partitions {
        match this.pause(connection, keys.base()).await? {
            None => return Err(is_over(connection, keys).await),
            Some(stands) if stands != *this => {
                let to = stands.to();
                return Err(AskError::Refused(format!(
                    "the deployment is being moved to {to} partitions; finish that first: --to {to}"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Another run of the command has completed the move: the deployment has another number of partitions.
async fn is_over(connection: &mut Link, keys: &Keys) -> AskError {
    let key = keys.meta();
    match ask(connection, &["HGET", &key, "partitions"]).await {
        Ok(stored) => AskError::Partitions { key, stored: reply::text(stored).unwrap_or_default() },
        Err(error) => error,
    }
}

/// Moves members from the old partitions to the new ones.
struct Mover {
    this: Move,
    from: Vec<Keys>,
    to: Vec<Keys>,
    connection: Link,
    dry_run: bool,
    tally: Tally,
}

impl Mover {
    fn target(&self, id: &str) -> &str {
        self.to[usize::from(partition_of(id, self.to.len() as u16))].base()
    }

    /// Counts the members, for the progress.
    async fn count(&mut self) -> Result<(), AskError> {
        for keys in &self.from {
            for structure in &STRUCTURES {
                let command = if structure.is_sorted { "ZCARD" } else { "HLEN" };
                let size = ask(&mut self.connection, &[command, &(structure.key)(keys)]).await?;
                self.tally.members += number(&size).unwrap_or(0);
            }
        }
        Ok(())
    }

    /// Moves the members of one structure that belong elsewhere, until none is left.
    async fn structure(
        &mut self,
        index: usize,
        Structure { kind, is_sorted, key, id }: &Structure,
        tell: &mut impl FnMut(&Tally),
    ) -> Result<(), AskError> {
        let keys = self.from[index].clone();
        let key = key(&keys);
        let name = &key[keys.base().len()..];
        loop {
            let mut walk =
                if *is_sorted { Walk::scores(&key, None) } else { Walk::hash(&key, None) };
            let mut found = 0;
            while let Some(page) = walk.fields(&mut self.connection).await? {
                self.tally.looked_at += page.len() as u64;
                let mut rows = Vec::new();
                for (member, value) in page {
                    let id = id(&member, &value);
                    if *kind == Kind::Copy {
                        let all = self.to.iter().map(|to| to.base().to_owned());
                        let others = all.filter(|base| base != keys.base());
                        rows.extend(others.map(|target| Row::new(member.clone(), target)));
                        continue;
                    }
                    let target = self.target(&id).to_owned();
                    if target != keys.base() {
                        let doc =
                            if *kind == Kind::Joined { id.into_owned() } else { String::new() };
                        rows.push(Row { member, target, doc });
                    }
                }
                found += self.rows(*kind, (keys.base(), name), &rows).await?;
                tell(&self.tally);
            }
            // A walk over a structure that shrinks may miss some members.
            if found == 0 || self.dry_run || *kind == Kind::Copy {
                return Ok(());
            }
        }
    }

    async fn rows(
        &mut self,
        kind: Kind,
        source: (&str, &str),
        rows: &[Row],
    ) -> Result<u64, AskError> {
        let mut moved = 0;
        for rows in rows.chunks(PAGE) {
            moved += match self.dry_run {
                true => rows.len() as u64,
                false => {
                    tokio::time::sleep(PAUSE).await;
                    let connection = &mut self.connection;
                    match self.this.members(connection, kind, source, rows).await? {
                        Some(moved) => moved,
                        None => return Err(is_over(&mut self.connection, &self.from[0]).await),
                    }
                }
            };
        }
        self.tally.moved += moved;
        Ok(moved)
    }

    /// Moves what has its own keys: activities, and the sets of minutes.
    async fn keys(&mut self, prefix: &str, tell: &mut impl FnMut(&Tally)) -> Result<(), AskError> {
        let (pattern, mut cursor) = (format!("{}*", literal(prefix)), "0".to_owned());
        let mut minutes = Vec::new();
        loop {
            let words = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", KEYS];
            let found = reply::array(ask(&mut self.connection, &words).await?).unwrap_or_default();
            let mut found = found.into_iter();
            cursor = found.next().and_then(reply::text).unwrap_or_else(|| "0".to_owned());
            let keys = found.next().and_then(reply::array).unwrap_or_default();
            let keys: Vec<String> = keys.into_iter().filter_map(reply::text).collect();
            self.activities(&keys).await?;
            self.erasures(&keys).await?;
            minutes.extend(keys.into_iter().filter(|key| self.minute(key).is_some()));
            tell(&self.tally);
            if cursor == "0" {
                break;
            }
        }
        minutes.sort_unstable();
        minutes.dedup();
        for key in minutes {
            self.minute_set(&key, tell).await?;
        }
        Ok(())
    }

    async fn activities(&mut self, keys: &[String]) -> Result<(), AskError> {
        for index in 0..self.from.len() {
            let source = self.from[index].clone();
            let beginning = source.activity();
            let users = keys.iter().filter_map(|key| key.strip_prefix(&beginning));
            let rows: Vec<Row> = users
                .map(|user| (user, self.target(user)))
                .filter(|(_, target)| *target != source.base())
                .map(|(user, target)| Row::new(user.to_owned(), target.to_owned()))
                .collect();
            self.tally.looked_at += rows.len() as u64;
            let name = &beginning[source.base().len()..];
            self.rows(Kind::Text, (source.base(), name), &rows).await?;
        }
        Ok(())
    }

    /// What an interrupted erasure recorded moves along, to any partition: another run reads it in all of them.
    async fn erasures(&mut self, keys: &[String]) -> Result<(), AskError> {
        for index in 0..self.from.len() {
            let source = self.from[index].clone();
            if self.stays(&source) {
                continue;
            }
            let (beginning, target) = (source.erasing(), self.to[index % self.to.len()].base());
            let digests = keys.iter().filter_map(|key| key.strip_prefix(&beginning));
            let rows: Vec<Row> =
                digests.map(|digest| Row::new(digest.to_owned(), target.to_owned())).collect();
            let name = &beginning[source.base().len()..];
            self.rows(Kind::Set, (source.base(), name), &rows).await?;
        }
        Ok(())
    }

    /// The partition to whose minute sets a key belongs.
    fn minute(&self, key: &str) -> Option<usize> {
        let is_minute = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        self.from.iter().position(|keys| key.strip_prefix(&keys.online()).is_some_and(is_minute))
    }

    async fn minute_set(
        &mut self,
        key: &str,
        tell: &mut impl FnMut(&Tally),
    ) -> Result<(), AskError> {
        let Some(index) = self.minute(key) else { return Ok(()) };
        let base = self.from[index].base().to_owned();
        loop {
            let (mut walk, mut found) = (Walk::set(key), 0);
            while let Some(page) = walk.members(&mut self.connection).await? {
                self.tally.looked_at += page.len() as u64;
                let rows: Vec<Row> = page
                    .into_iter()
                    .map(|user| (self.target(&user).to_owned(), user))
                    .filter(|(target, _)| *target != base)
                    .map(|(target, member)| Row::new(member, target))
                    .collect();
                found += self.rows(Kind::Member, (&base, &key[base.len()..]), &rows).await?;
                tell(&self.tally);
            }
            if found == 0 || self.dry_run {
                return Ok(());
            }
        }
    }

    /// Moves the dead letters of partitions that are dropped.
    async fn letters(&mut self, tell: &mut impl FnMut(&Tally)) -> Result<(), AskError> {
        for index in 0..self.from.len() {
            if self.stays(&self.from[index]) {
                continue;
            }
            let (from, to) = (self.from[index].clone(), self.to[index % self.to.len()].clone());
            loop {
                tokio::time::sleep(PAUSE).await;
                let (connection, places) = (&mut self.connection, (from.base(), to.base()));
                let moved = self.this.letters(connection, places, LETTERS).await?;
                let Some(moved) = moved else {
                    return Err(is_over(&mut self.connection, &self.from[0]).await);
                };
                self.tally.letters += moved;
                tell(&self.tally);
                if moved == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// All at once.
    async fn switch(&mut self, state: &State, order: &Order) -> Result<(), AskError> {
        let layout = self.layout(state, order).await?;
        let source = self.from[0].base();
        match self.this.switch(&mut self.connection, source, &layout).await? {
            Some(unsent) => self.tally.unsent = unsent,
            None => return Err(is_over(&mut self.connection, &self.from[0]).await),
        }
        Ok(())
    }

    /// Whether an old partition is also a new one.
    fn stays(&self, keys: &Keys) -> bool {
        self.to.iter().any(|to| to.base() == keys.base())
    }

    /// The new layout of the deployment.
    async fn layout(&mut self, state: &State, order: &Order) -> Result<Layout, AskError> {
        let from = state.deployment.partitions;
        let (now_ms, meta) =
            (crate::state::server_time(&mut self.connection).await?, self.from[0].meta());
        let stored = reply::text(ask(&mut self.connection, &["HGET", &meta, "forwarded"]).await?);
        let until = now_ms + order.forward_for.as_millis() as u64;
        let mut formers = forwarded_layouts(&stored.unwrap_or_default());
        formers.retain(|former| {
            former.until_ms > now_ms && former.partitions != order.to && former.partitions != from
        });
        formers.push(Former::new(from, until));
        let forwarded =
            formers.iter().map(|former| format!("{}:{}", former.partitions, former.until_ms));
        let settings = state.deployment.meta_fields().into_iter();
        let settings = settings.map(|(name, text)| (name.to_owned(), text));
        let base = |keys: &Keys| keys.base().to_owned();
        let before: Vec<String> = self.from.iter().map(base).collect();
        let after: Vec<String> = self.to.iter().map(base).collect();
        let (stay, mut go): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|base| after.contains(base));
        // A process that starts with the number of any earlier layout must be told of this one.
        for former in formers.iter().map(|former| former.partitions).chain([1, 2]) {
            let base = |index| Keys::new(&state.deployment.prefix, former, index).base().to_owned();
            go.extend((0..former).map(base).filter(|base| !after.contains(base)));
        }
        go.sort_unstable();
        go.dedup();
        Ok(Layout {
            forwarded: forwarded.collect::<Vec<_>>().join(" "),
            settings: settings.chain([("format".to_owned(), STATE_FORMAT.to_owned())]).collect(),
            new: after.into_iter().filter(|base| !before.contains(base)).collect(),
            stay,
            go,
        })
    }
}
