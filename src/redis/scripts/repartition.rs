//! Changes the number of partitions: pausing, moving, switching.

use std::collections::BTreeMap;

use redis::aio::ConnectionLike;
use redis::{Cmd, Value};

use super::script::REPARTITION;
use crate::error::Error;
use crate::redis::reply;

const STEP: &str = "repartitioning";

/// How members of a structure are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fields of a hash.
    Field,
    /// Members of a sorted set; the greatest score counts.
    Score,
    /// The same, copied to every partition.
    Copy,
    /// Members of a sorted set; scores are added up.
    Count,
    /// Members of a set with an expiry.
    Member,
    /// Keys that hold a text.
    Text,
    /// Keys that hold a set.
    Set,
    /// Tokens with everything that belongs to them.
    Token,
    /// Versions of session data, and the data.
    Data,
    /// Connections to documents, and the documents' users.
    Joined,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Score => "score",
            Self::Copy => "copy",
            Self::Count => "count",
            Self::Member => "member",
            Self::Text => "text",
            Self::Set => "set",
            Self::Token => "token",
            Self::Data => "data",
            Self::Joined => "joined",
        }
    }
}

/// A member that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The member.
    pub member: String,
    /// The beginning of the keys of its partition.
    pub target: String,
    /// Its document, if the kind has one.
    pub doc: String,
}

impl Row {
    /// A member without a document.
    pub fn new(member: String, target: String) -> Self {
        Self { member, target, doc: String::new() }
    }
}

/// A move from one number of partitions to another, for which they are paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move(String);

impl Move {
    /// The move between these numbers.
    pub fn new(from: u16, to: u16) -> Self {
        Self(format!("{from}:{to}"))
    }

    /// The move that `rollcall:meta` names.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The number of partitions that it began with.
    pub fn from(&self) -> &str {
        self.numbers().0
    }

    /// The number of partitions that it ends with.
    pub fn to(&self) -> &str {
        self.numbers().1
    }

    fn numbers(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or_default()
    }

    /// Pauses a partition for the move; returns the move for which it is now paused, or `None` if the deployment has
    /// another number of partitions.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn pause(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        source: &str,
    ) -> Result<Option<Self>, Error> {
        let mut call = self.call("pause", source);
        call.arg(fresh());
        let value = send(connection, &call).await?;
        match reply::text_of(&value) {
            None if value != Value::Nil => Err(reply::unexpected(STEP, &value)),
            stands => Ok(stands.map(Self::stored)),
        }
    }

    /// Moves members of a structure called `name`; returns how many were there, or `None` if the move is over.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn members(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        kind: Kind,
        (source, name): (&str, &str),
        rows: &[Row],
    ) -> Result<Option<u64>, Error> {
        let mut call = self.call("move", source);
        call.arg(kind.name()).arg(name);
        for Row { member, target, doc } in rows {
            call.arg(member).arg(target).arg(doc);
        }
        counted(send(connection, &call).await?)
    }

    /// Moves up to `limit` dead letters from one partition to another; returns how many, or `None` if the move is
    /// over.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn letters(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        (source, target): (&str, &str),
        limit: u64,
    ) -> Result<Option<u64>, Error> {
        let mut call = self.call("letters", source);
        call.arg(target).arg(limit);
        counted(send(connection, &call).await?)
    }

    /// Switches from the layout of `source` to another; returns how many changes were not sent to targets of
    /// notifiers, or `None` if the move is over.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn switch(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        source: &str,
        layout: &Layout,
    ) -> Result<Option<BTreeMap<String, u64>>, Error> {
        let mut call = self.call("switch", source);
        call.arg(&layout.forwarded).arg(fresh());
        call.arg(layout.settings.len());
        for (setting, value) in &layout.settings {
            call.arg(setting).arg(value);
        }
        for bases in [&layout.new, &layout.stay, &layout.go] {
            call.arg(bases.len());
            for base in bases {
                call.arg(base);
            }
        }
        let value = send(connection, &call).await?;
        if value == Value::Nil {
            return Ok(None);
        }
        let pairs = reply::pairs_of(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
        let pair =
            |[name, count]: &[Value; 2]| Some((reply::text_of(name)?, reply::number(count)?));
        Ok(Some(pairs.iter().filter_map(pair).collect()))
    }

    fn call(&self, what: &str, source: &str) -> Cmd {
        let mut call = REPARTITION.call();
        call.arg(0).arg(what).arg(&self.0).arg(source);
        call
    }
}

/// The new layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The layouts from which entries are forwarded, and until when.
    pub forwarded: String,
    /// The settings of the deployment, and the format.
    pub settings: Vec<(String, String)>,
    /// The beginnings of the keys of new partitions.
    pub new: Vec<String>,
    /// The same for partitions that stay.
    pub stay: Vec<String>,
    /// The same for partitions that no longer exist, now or earlier: their meta says where the state is.
    pub go: Vec<String>,
}

fn fresh() -> String {
    format!("{:016x}", fastrand::u64(..))
}

async fn send(connection: &mut (impl ConnectionLike + Send), call: &Cmd) -> Result<Value, Error> {
    REPARTITION.send(connection, call).await.map_err(Error::at(STEP))
}

fn counted(value: Value) -> Result<Option<u64>, Error> {
    match reply::number(&value) {
        None if value != Value::Nil => Err(reply::unexpected(STEP, &value)),
        count => Ok(count),
    }
}
