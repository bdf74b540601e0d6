//! Erase: calls of the script that removes one user, a piece per call.
//!
//! Every call can be repeated: what it does not find any more counts as nothing.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ToRedisArgs, Value};
use sha2::{Digest as _, Sha256};

use super::Scripts;
use super::owner::fence;
use super::script::Script;
use crate::blocked::{Blocked, Digest};
use crate::config::Deployment;
use crate::entry::{EntryId, Field};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

const STEP: &str = "erasing a user";

/// An entry or a letter to remove, and what replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The id of an entry.
    pub id: EntryId,
    /// The fields of the entries that replace it.
    pub by: Vec<Vec<Field>>,
}

impl Replaced {
    /// Bytes sent for it.
    pub fn bytes(&self) -> usize {
        self.by.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// Removes one user from one partition.
#[derive(Clone, Debug)]
pub struct Eraser {
    scripts: Scripts,
    keys: Keys,
    user: String,
    dry_run: bool,
}

impl Eraser {
    /// For a partition of a deployment; with `dry_run` it only counts.
    pub fn new(deployment: &Deployment, keys: &Keys, user: &str, dry_run: bool) -> Self {
        let (scripts, keys) = (Scripts::new(deployment, keys), keys.clone());
        Self { scripts, keys, user: user.to_owned(), dry_run }
    }

    /// Refuses the user's events in entries up to a millisecond. No batch in progress is applied after that.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn block(
        &self,
        connection: &mut MultiplexedConnection,
        until_ms: u64,
    ) -> Result<(), Error> {
        let mut call = self.call("block");
        call.arg(hex(digest(&self.user))).arg(until_ms);
        self.counts::<1>(connection, &call).await.map(drop)
    }

    /// Records tokens and sessions as the user's before what names them is removed, for a later run to continue.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn note(
        &self,
        connection: &mut MultiplexedConnection,
        names: &[String],
    ) -> Result<(), Error> {
        let mut call = self.call("note");
        call.arg(self.noted_key()).arg(names);
        self.counts::<1>(connection, &call).await.map(drop)
    }

    /// Forgets what was recorded.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn forget(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        let mut call = self.call("forget");
        call.arg(self.noted_key());
        self.counts::<1>(connection, &call).await.map(drop)
    }

    /// The set of what was recorded.
    pub fn noted_key(&self) -> String {
        format!("{}{}", self.keys.erasing(), hex(digest(&self.user)))
    }

    /// Removes entries from the stream; returns how many were removed as a whole and how many were replaced.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn entries(
        &self,
        connection: &mut MultiplexedConnection,
        entries: &[Replaced],
    ) -> Result<[u64; 2], Error> {
        let mut call = self.call("entries");
        for Replaced { id, by } in entries {
            call.arg(id.to_string()).arg(by.len());
            by.iter().for_each(|fields| add_fields(&mut call, fields));
        }
        self.counts(connection, &call).await
    }

    /// The same for dead letters, each of which is replaced by one at most.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn letters(
        &self,
        connection: &mut MultiplexedConnection,
        letters: &[Replaced],
    ) -> Result<[u64; 2], Error> {
        let mut call = self.call("letters");
        for Replaced { id, by } in letters {
            call.arg(id.to_string());
            add_fields(&mut call, by.first().map_or(&[], Vec::as_slice));
        }
        self.counts(connection, &call).await
    }

    /// Removes members from the structure of a step of the script; returns its counts.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn members<const N: usize>(
        &self,
        connection: &mut MultiplexedConnection,
        step: Step,
        members: &[impl ToRedisArgs],
    ) -> Result<[u64; N], Error> {
        let mut call = self.call(step.name());
        call.arg(members);
        self.counts(connection, &call).await
    }

    /// Removes the user from the sets of these minutes, and the keys found by the name alone; returns how many sets,
    /// and whether there were an activity and an index of addresses.
    ///
    /// # Errors
    /// As of [`block`](Self::block).
    pub async fn user(
        &self,
        connection: &mut MultiplexedConnection,
        minutes: std::ops::RangeInclusive<u64>,
    ) -> Result<[u64; 3], Error> {
        let mut call = self.call("user");
        call.arg(self.keys.online());
        minutes.for_each(|minute| {
            call.arg(minute);
        });
        self.counts(connection, &call).await
    }

    fn call(&self, what: &str) -> Cmd {
        let mut call = self.scripts.call(Script::Erase, "");
        call.arg(what).arg(&self.user).arg(u8::from(self.dry_run)).arg(fence(false));
        call
    }

    async fn counts<const N: usize>(
        &self,
        connection: &mut MultiplexedConnection,
        call: &Cmd,
    ) -> Result<[u64; N], Error> {
        let value =
            self.scripts.send(connection, Script::Erase, call).await.map_err(Error::at(STEP))?;
        let counts: Option<Vec<u64>> =
            reply::elements(&value).and_then(|values| values.iter().map(reply::number).collect());
        counts
            .and_then(|counts| counts.try_into().ok())
            .ok_or_else(|| reply::unexpected(STEP, &value))
    }
}

/// Steps of the script that take members and count those that existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Presence fields. Counts entries.
    Presence,
    /// Sessions. Counts entries, and those with data.
    Sessions,
    /// Tokens. Counts tokens, and the items they viewed.
    Tokens,
    /// Tokens, an empty text, sessions. Counts endings.
    Ended,
    /// Connections to documents. Counts those that are joined, and those that left.
    Documents,
    /// A document and the user. Counts records of connections.
    Pairs,
    /// Endings that name the user. Counts them.
    Names,
    /// Ids of changes. Counts them.
    Changes,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Sessions => "sessions",
            Self::Tokens => "tokens",
            Self::Ended => "ended",
            Self::Documents => "documents",
            Self::Pairs => "pairs",
            Self::Names => "names",
            Self::Changes => "changes",
        }
    }
}

fn add_fields(call: &mut Cmd, fields: &[Field]) {
    call.arg(fields.len());
    for (name, value) in fields {
        call.arg(name).arg(value);
    }
}

/// The users of a partition whose events are refused (`ZRANGE`).
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn blocked(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<Blocked, Error> {
    const STEP: &str = "asking who is blocked";
    let mut ask = redis::cmd("ZRANGE");
    ask.arg(keys.blocked()).arg(0).arg(-1).arg("WITHSCORES");
    let value: Value = ask.query_async(connection).await.map_err(Error::at(STEP))?;
    let pairs = reply::pairs_of(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
    let read =
        |[digits, until]: &[Value; 2]| Some((unhex(&reply::text_of(digits)?)?, whole(until)?));
    Ok(Blocked::new(pairs.iter().filter_map(read), digest))
}

/// A score without fraction, in any form of the protocol.
fn whole(score: &Value) -> Option<u64> {
    match score {
        Value::Double(score) => Some(*score as u64),
        score => reply::number(score),
    }
}

/// The digest that stands for a user who must not be named.
pub fn digest(user: &str) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"rollcall blocked user\0");
    hash.update(user.as_bytes());
    hash.finalize().into()
}

fn hex(digest: Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Digest> {
    let bytes = digits.as_bytes().chunks(2);
    let bytes = bytes.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_text_and_nothing_else_is_one() {
        assert_eq!(unhex(&hex(digest("ann"))), Some(digest("ann")));
        assert_ne!(digest("ann"), digest("anna"));
        for bad in ["", "00", "zz", &"0".repeat(65), &"é".repeat(32)] {
            assert_eq!(unhex(bad), None, "{bad:?}");
        }
    }
}
