//! Changes the number of partitions: pausing, moving, switching.

use redis::Cmd;
use redis::aio::ConnectionLike;

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

/// Pauses a partition for a move; returns the move for which it is now paused.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn pause(
    connection: &mut (impl ConnectionLike + Send),
    meta: &str,
    moving: &str,
) -> Result<String, Error> {
    let mut call = REPARTITION.call();
    call.arg(0).arg("pause").arg(meta).arg(moving).arg(fresh());
    let value = send(connection, &call).await?;
    reply::text_of(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}

/// Moves members of a structure called `name`; returns how many were there.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn move_members(
    connection: &mut (impl ConnectionLike + Send),
    kind: Kind,
    (source, name): (&str, &str),
    rows: &[Row],
) -> Result<u64, Error> {
    let mut call = REPARTITION.call();
    call.arg(0).arg("move").arg(kind.name()).arg(source).arg(name);
    for Row { member, target, doc } in rows {
        call.arg(member).arg(target).arg(doc);
    }
    number(send(connection, &call).await?)
}

/// Moves up to `limit` dead letters from one stream to another; returns how many.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn move_letters(
    connection: &mut (impl ConnectionLike + Send),
    (from, to): (&str, &str),
    limit: u64,
) -> Result<u64, Error> {
    let mut call = REPARTITION.call();
    call.arg(0).arg("letters").arg(from).arg(to).arg(limit);
    number(send(connection, &call).await?)
}

/// The new layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// How many partitions.
    pub partitions: u16,
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

/// Switches to a layout.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn switch(
    connection: &mut (impl ConnectionLike + Send),
    layout: &Layout,
) -> Result<(), Error> {
    let mut call = REPARTITION.call();
    call.arg(0).arg("switch").arg(layout.partitions).arg(&layout.forwarded).arg(fresh());
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
    number(send(connection, &call).await?).map(drop)
}

fn fresh() -> String {
    format!("{:016x}", fastrand::u64(..))
}

async fn send(
    connection: &mut (impl ConnectionLike + Send),
    call: &Cmd,
) -> Result<redis::Value, Error> {
    REPARTITION.send(connection, call).await.map_err(Error::at(STEP))
}

fn number(value: redis::Value) -> Result<u64, Error> {
    reply::number(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}
