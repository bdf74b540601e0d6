//! The state of some names of one family, read at one instant: one row for each name.

use redis::Value;

use crate::config::Deployment;
use crate::key::{Keys, escape, unescape};
use crate::redis::reply;
use crate::redis::scripts::look::is_wrong;

/// Things of one kind, which are read and judged together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    /// The expiry of a minute's set; named by the minute.
    MinuteKey,
    /// Users in the set of a minute.
    Minute(u64),
    /// Users.
    Activity,
    /// Presence fields.
    Presence,
    /// Presence fields, and beginnings of users' fields.
    Departure,
    /// Tokens.
    Token,
    /// Items.
    Item,
    /// Session ids.
    Session,
    /// `doc|user|connection`.
    Connection,
    /// `doc|user`.
    Pair,
    /// Documents.
    Document,
}

/// The content of one place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Nothing.
    Empty,
    /// Another type.
    Wrong,
    /// A text or a number.
    Text(Vec<u8>),
    /// Members and scores.
    Scores(Vec<(String, f64)>),
}

impl Cell {
    fn read(value: Value) -> Self {
        if is_wrong(&value) {
            return Self::Wrong;
        }
        match value {
            Value::Nil => Self::Empty,
            Value::Int(n) => Self::Text(n.to_string().into_bytes()),
            value @ Value::Array(_) => {
                let pairs = reply::pairs(value).unwrap_or_default().into_iter();
                let pair = |(member, score): (Value, Value)| {
                    Some((reply::text(member)?, reply::text(score)?.parse().ok()?))
                };
                Self::Scores(pairs.filter_map(pair).collect())
            }
            value => reply::bytes(value).map_or(Self::Empty, Self::Text),
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        std::str::from_utf8(self.bytes()?).ok()?.parse().ok()
    }

    /// A non-negative whole number.
    pub(super) fn whole(&self) -> Option<u64> {
        self.number().filter(|n| *n >= 0.0).map(|n| n as u64)
    }

    /// Milliseconds of a score in seconds.
    pub(super) fn score_ms(&self) -> Option<u64> {
        self.number().map(score_ms)
    }

    pub(super) fn scores(&self) -> &[(String, f64)] {
        match self {
            Self::Scores(scores) => scores,
            _ => &[],
        }
    }
}

/// Three decimals survive, as current scores have 21 bits for fractions of a second.
pub(super) fn score_ms(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

/// A column: one read for all names, or one for each.
enum Column {
    /// The command, the key, and the member for each name.
    All(&'static str, String, Vec<String>),
    /// The words for each name.
    Each(Vec<Vec<String>>),
}

/// The two parts of `user|ip` or `doc|user`; for other names one is empty.
pub(super) fn parts(name: &str) -> (String, String) {
    let (first, second) = name.split_once('|').unwrap_or((name, ""));
    (unescape(first).into_owned(), unescape(second).into_owned())
}

/// The beginning of the presence fields of a user.
pub(super) fn user_of(field: &str) -> &str {
    field.split_once('|').map_or(field, |(user, _)| user)
}

/// The reads for these names.
pub(super) struct Reads {
    columns: Vec<Column>,
    names: usize,
}

impl Reads {
    pub(super) fn new(
        family: Family,
        keys: &Keys,
        deployment: &Deployment,
        names: &[String],
    ) -> Self {
        let all = |command, key| Column::All(command, key, names.to_vec());
        let each = |words: &dyn Fn(&String) -> Vec<String>| {
            Column::Each(names.iter().map(words).collect())
        };
        let two = |command: &str, key: String| vec![command.to_owned(), key];
        let expiry = |base: String| each(&|name| two("PEXPIRETIME", format!("{base}{name}")));
        let columns = match family {
            Family::MinuteKey => vec![expiry(keys.online())],
            Family::Minute(minute) => vec![all("SMISMEMBER", keys.online_minute(minute))],
            Family::Activity => {
                let get = |name: &String| two("GET", format!("{}{name}", keys.activity()));
                vec![each(&get), expiry(keys.activity())]
            }
            Family::Presence => {
                let users = names.iter().map(|field| user_of(field).to_owned()).collect();
                vec![
                    all("HMGET", keys.presence()),
                    all("ZMSCORE", keys.presence_ended()),
                    Column::All("ZMSCORE", keys.presence_ended(), users),
                ]
            }
            Family::Departure => vec![all("ZMSCORE", keys.presence_ended())],
            Family::Token => {
                let items = |name: &String| {
                    let words =
                        ["ZRANGE", &format!("{}{name}", keys.viewed()), "0", "-1", "WITHSCORES"];
                    words.map(str::to_owned).to_vec()
                };
                vec![
                    all("HMGET", keys.login()),
                    all("ZMSCORE", keys.recent()),
                    all("ZMSCORE", keys.tokens_ended()),
                    each(&items),
                ]
            }
            Family::Item => vec![all("ZMSCORE", keys.viewed())],
            Family::Session => {
                let get = |name: &String| two("GET", format!("{}{name}", keys.session_data()));
                vec![
                    all("HMGET", keys.sessions()),
                    all("ZMSCORE", keys.sessions_ended()),
                    all("HMGET", keys.session_ttls()),
                    all("HMGET", keys.session_data_versions()),
                    each(&get),
                    expiry(keys.session_data()),
                ]
            }
            Family::Connection => {
                vec![all("ZMSCORE", keys.docs_joined()), all("ZMSCORE", keys.docs_left())]
            }
            Family::Pair => {
                let is_in = |name: &String| {
                    let (doc, user) = parts(name);
                    vec!["SISMEMBER".to_owned(), keys.document_users(&doc), user]
                };
                vec![all("HMGET", keys.docs_connections()), each(&is_in)]
            }
            Family::Document => {
                let mut columns = vec![
                    each(&|doc| two("SCARD", keys.document_users(doc))),
                    each(&|doc| two("GET", keys.document_count(doc))),
                ];
                for threshold in &deployment.thresholds {
                    let level = |doc: &String| level(threshold.up, threshold.down, doc);
                    let levels = names.iter().map(level).collect();
                    columns.push(Column::All("HMGET", keys.docs_levels(), levels));
                }
                columns
            }
        };
        Self { columns, names: names.len() }
    }

    /// The words of all reads.
    pub(super) fn words(&self) -> Vec<Vec<&str>> {
        let mut all: Vec<Vec<&str>> = Vec::new();
        for column in &self.columns {
            match column {
                Column::All(command, key, names) => {
                    let words = [*command, key].into_iter();
                    all.push(words.chain(names.iter().map(String::as_str)).collect());
                }
                Column::Each(words) => {
                    all.extend(words.iter().map(|w| w.iter().map(String::as_str).collect()));
                }
            }
        }
        all
    }

    /// Makes a row for each name from the replies.
    pub(super) fn rows(&self, replies: Vec<Value>) -> Vec<Vec<Cell>> {
        let mut replies = replies.into_iter();
        let mut rows = vec![Vec::with_capacity(self.columns.len()); self.names];
        for column in &self.columns {
            let cells: Vec<Cell> = match column {
                Column::Each(_) => replies.by_ref().take(self.names).map(Cell::read).collect(),
                Column::All(..) => match replies.next() {
                    Some(Value::Array(values)) => values.into_iter().map(Cell::read).collect(),
                    Some(value) if is_wrong(&value) => vec![Cell::Wrong; self.names],
                    _ => Vec::new(),
                },
            };
            let cells = cells.into_iter().chain(std::iter::repeat(Cell::Empty));
            for (row, cell) in rows.iter_mut().zip(cells) {
                row.push(cell);
            }
        }
        rows
    }
}

/// The field of a document's threshold level.
pub(super) fn level(up: impl std::fmt::Display, down: impl std::fmt::Display, doc: &str) -> String {
    format!("{up}:{down}:{}", escape(doc))
}
