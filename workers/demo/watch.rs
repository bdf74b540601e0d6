//! Reads what the demo shows from Redis, as any reader of the state would; nothing is made up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};
use rollcall::config::{Deployment, Server};
use rollcall::entry::{Entry, EntryId};
use rollcall::error::Error;
use rollcall::key::Keys;
use rollcall::redis::connect::connect;
use rollcall::redis::reply::entries;

use super::answers::{Answers, level_document};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How many changes and seconds are kept to be shown.
const KEPT_CHANGES: usize = 64;
const KEPT_SECONDS: usize = 30;
/// How many documents are queried.
const KNOWN_DOCUMENTS: usize = 500;
/// A little less than a second, so that ticks of half a second add up to whole ones.
const SECOND: Duration = Duration::from_millis(950);

/// The state at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// The moment, by the server's clock, in ms since the epoch.
    pub now_ms: u64,
    /// Users who are present, each once; only some of them if there are very many.
    pub present: BTreeSet<String>,
    /// Presence entries, `user|ip`.
    pub presence: i64,
    /// Users seen in the current minute.
    pub this_minute: i64,
    /// Open sessions.
    pub sessions: i64,
    /// Tokens someone is logged in with.
    pub logins: i64,
    /// Recent tokens.
    pub recent: i64,
    /// Items in the ranking.
    pub ranked: i64,
    /// The most viewed items.
    pub items: Vec<(String, i64)>,
    /// Documents with someone in them, their users, and whether the threshold is reached.
    pub documents: Vec<(String, i64, bool)>,
    /// Entries in the stream of dead letters.
    pub dead: i64,
    /// Entries in the stream of events.
    pub stream: i64,
    /// Bytes the server uses.
    pub memory: i64,
    /// Entries applied since the group began.
    pub applied: i64,
    /// Entries not applied yet; `None` if the server cannot tell.
    pub undelivered: Option<i64>,
}

impl Snapshot {
    /// Whether everything that was added is applied.
    pub(super) fn is_drained(&self) -> bool {
        self.undelivered == Some(0)
    }
}

/// A transition, as `rollcall:changes` records it.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// When, in ms since the epoch.
    pub time_ms: u64,
    /// What kind of transition.
    pub kind: String,
    fields: BTreeMap<String, String>,
}

impl Change {
    /// The field `name`, if the change has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn of(entry: Entry) -> Self {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = entry.fields().map(|(name, value)| (lossy(name), lossy(value)));
        let mut fields: BTreeMap<_, _> = fields.collect();
        let time_ms = fields.get("time").and_then(|time| time.parse().ok()).unwrap_or(entry.id.ms);
        Self { time_ms, kind: fields.remove("kind").unwrap_or_default(), fields }
    }
}

/// A reader of the state that remembers what it saw.
pub(super) struct Watch {
    server: Server,
    connection: Option<MultiplexedConnection>,
    deployment: Deployment,
    keys: Keys,
    last_change: EntryId,
    known_documents: BTreeSet<String>,
    /// When the current second began, and what was applied by then.
    second: (Instant, i64),
    /// The latest snapshot.
    pub(super) latest: Snapshot,
    /// The latest changes, newest first.
    pub(super) changes: VecDeque<Change>,
    /// How many changes of each kind there were.
    pub(super) totals: BTreeMap<String, u64>,
    /// Entries applied in each of the last seconds.
    pub(super) rates: VecDeque<f64>,
}

impl Watch {
    /// Watches a deployment of one partition.
    pub(super) fn over(server: Server, deployment: &Deployment) -> Self {
        Self {
            server,
            connection: None,
            keys: Keys::new(&deployment.prefix, 1, 0),
            deployment: deployment.clone(),
            last_change: EntryId { ms: 0, seq: 0 },
            known_documents: BTreeSet::new(),
            second: (Instant::now(), 0),
            latest: Snapshot::default(),
            changes: VecDeque::new(),
            totals: BTreeMap::new(),
            rates: VecDeque::new(),
        }
    }

    /// Entries applied per second, recently.
    pub(super) fn rate(&self) -> f64 {
        let lately = self.rates.iter().rev().take(3);
        let many = lately.len().max(1) as f64;
        lately.fold(0.0, |sum, rate| sum + rate) / many
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If the server does not answer; the previous snapshot stays.
    pub(super) async fn look(&mut self) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.server, &self.keys.meta(), ANSWER_WITHIN).await?,
        };
        let questions = self.questions(now_ms());
        let answers = questions.query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        // Before the first entry there is no stream, and its answers are empty.
        let answers = answers.map_err(Error::at("looking at the state"))?;
        let answers = answers.into_iter().map(|answer| answer.unwrap_or(Value::Nil));
        self.connection = Some(connection);
        self.see(Answers::new(answers.collect()));
        self.count_seconds();
        Ok(())
    }

    /// The requests, in the order in which `see` takes the answers.
    fn questions(&self, now_ms: u64) -> Pipeline {
        let keys = &self.keys;
        let stream = keys.named(&self.deployment.stream);
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        pipe.cmd("TIME");
        pipe.cmd("XINFO").arg("GROUPS").arg(&stream);
        pipe.cmd("HSCAN").arg(keys.presence()).arg(0).arg("COUNT").arg(2_000);
        pipe.cmd("HLEN").arg(keys.presence());
        pipe.cmd("SCARD").arg(keys.online_minute(now_ms / 60_000));
        pipe.cmd("HLEN").arg(keys.sessions());
        pipe.cmd("HLEN").arg(keys.login());
        pipe.cmd("ZCARD").arg(keys.recent());
        pipe.cmd("ZCARD").arg(keys.viewed());
        pipe.cmd("ZREVRANGE").arg(keys.viewed()).arg(0).arg(19).arg("WITHSCORES");
        pipe.cmd("XLEN").arg(keys.dead());
        pipe.cmd("XLEN").arg(&stream);
        pipe.cmd("INFO").arg("memory");
        pipe.cmd("HKEYS").arg(keys.docs_levels());
        let after = format!("({}", self.last_change);
        pipe.cmd("XRANGE").arg(keys.changes()).arg(after).arg("+").arg("COUNT").arg(5_000);
        for document in &self.known_documents {
            pipe.cmd("SCARD").arg(keys.document_users(document));
        }
        pipe
    }

    fn see(&mut self, mut answers: Answers) {
        let mut seen = Snapshot { now_ms: answers.time_ms(), ..Snapshot::default() };
        answers.group(&self.deployment.group, &mut seen);
        seen.present = answers.users(seen.now_ms.saturating_sub(self.deployment.presence_ttl_ms));
        seen.presence = answers.number();
        seen.this_minute = answers.number();
        seen.sessions = answers.number();
        seen.logins = answers.number();
        seen.recent = answers.number();
        seen.ranked = answers.number();
        seen.items = answers.scores();
        seen.dead = answers.number();
        seen.stream = answers.number();
        seen.memory = answers.memory();
        let levels = answers.texts();
        let changes = entries(&answers.next()).unwrap_or_default();
        for document in std::mem::take(&mut self.known_documents) {
            let users = answers.number();
            if users > 0 {
                let reached =
                    levels.iter().any(|level| level_document(level) == Some((&document).into()));
                seen.documents.push((document, users, reached));
            }
        }
        // A document that is empty now is known again from the next join.
        self.known_documents.extend(seen.documents.iter().map(|(document, ..)| document.clone()));
        seen.documents.sort_by_key(|(_, users, _)| std::cmp::Reverse(*users));
        self.latest = seen;
        self.remember(changes);
    }

    /// A document is known from the change that somebody joined it.
    pub(super) fn remember(&mut self, changes: Vec<Entry>) {
        for entry in changes {
            self.last_change = entry.id;
            let change = Change::of(entry);
            *self.totals.entry(change.kind.clone()).or_default() += 1;
            if self.known_documents.len() < KNOWN_DOCUMENTS {
                self.known_documents.extend(change.get("doc").map(str::to_owned));
            }
            self.changes.push_front(change);
        }
        self.changes.truncate(KEPT_CHANGES);
    }

    fn count_seconds(&mut self) {
        let (since, applied_then) = self.second;
        let passed = since.elapsed();
        if passed >= SECOND {
            let applied = self.latest.applied;
            self.rates.push_back((applied - applied_then).max(0) as f64 / passed.as_secs_f64());
            self.second = (Instant::now(), applied);
            if self.rates.len() > KEPT_SECONDS {
                self.rates.pop_front();
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
