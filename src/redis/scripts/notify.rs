//! The position of a notifier's target in the changes, and who notifies it.
//!
//! The position is kept on the server that has the changes, and moves in the call that publishes. Each change is thus
//! published once, whatever dies and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::Scripts;
use super::script::Script;
use crate::entry::EntryId;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

/// How long a notifier has a target to itself after its last sign of life.
pub const LEASE: Duration = Duration::from_secs(5);

/// The last change that was sent to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Random; new if the numbers do not continue those sent before.
    pub epoch: String,
    /// The change's number; 0 before the first.
    pub seq: u64,
    /// The id of its entry.
    pub id: EntryId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.epoch, self.seq, self.id)
    }
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPlace;

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let mut parts = text.split(' ');
        let mut part = || parts.next().ok_or(InvalidPlace);
        let epoch = part()?.to_owned();
        let seq = part()?.parse().map_err(|_| InvalidPlace)?;
        let id = part()?.parse().map_err(|_| InvalidPlace)?;
        parts.next().is_none().then_some(Self { epoch, seq, id }).ok_or(InvalidPlace)
    }
}

/// The first and the last change of a batch, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders {
    /// The epoch of the numbers.
    pub epoch: String,
    /// The number of the first change.
    pub first: u64,
    /// The number of the last change.
    pub last: u64,
}

impl fmt::Display for Borders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.epoch, self.first, self.last)
    }
}

impl Borders {
    /// `None` if the text contains no borders.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let epoch = parts.next()?.to_owned();
        let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { epoch, first, last })
    }
}

/// A publication on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The channel.
    pub channel: String,
    /// What to publish.
    pub payload: Vec<u8>,
}

/// The answer to a request for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The caller has it, from this position on (`None` if it was never sent anything), with the borders of the last
    /// batch that was about to be sent.
    Mine(Option<Place>, Option<Borders>),
    /// Another notifier has it.
    Others(String),
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It is done.
    Done,
    /// Another notifier has taken over; nothing was done.
    Others(String),
    /// The target has another position: the server went back in time, or somebody changed it. Nothing was done.
    Elsewhere(String),
}

/// One target of one partition.
#[derive(Clone, Debug)]
pub struct Post {
    scripts: Scripts,
    target: String,
    me: String,
}

impl Post {
    /// The target of this name, for the notifier `me`.
    pub fn new(keys: &Keys, target: &str, me: &str) -> Self {
        let lease = format!("{}{target}", keys.notifier_lease());
        let scripts = Scripts::over(vec![keys.notifier(), lease, keys.dead()]);
        Self { scripts, target: target.to_owned(), me: me.to_owned() }
    }

    /// Takes the target unless another notifier has it, or keeps it.
    ///
    /// # Errors
    /// If the server refuses, no reply came, or the stored position is malformed.
    pub async fn take(&self, connection: &mut MultiplexedConnection) -> Result<Taken, Error> {
        const STEP: &str = "asking for a target";
        let value = self.send(connection, STEP, &self.call("take")).await?;
        let (what, said, batch) = read(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
        match what {
            0 => Ok(Taken::Others(said)),
            _ if said.is_empty() => Ok(Taken::Mine(None, None)),
            _ => match said.parse() {
                Ok(place) => Ok(Taken::Mine(Some(place), Borders::read(&batch))),
                Err(InvalidPlace) => {
                    Err(Error::Reply { step: STEP, found: reply::beginning(said) })
                }
            },
        }
    }

    /// Publishes step by step, and moves the position after each; all in one call.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn publish(
        &self,
        connection: &mut MultiplexedConnection,
        from: Option<&Place>,
        steps: &[(Place, Vec<Publication>)],
    ) -> Result<Stepped, Error> {
        const STEP: &str = "publishing changes";
        let mut call = self.call("publish");
        call.arg(from.map(ToString::to_string).unwrap_or_default());
        for (place, publications) in steps {
            call.arg(place.to_string()).arg(publications.len());
            for Publication { channel, payload } in publications {
                call.arg(channel).arg(payload);
            }
        }
        self.step(connection, STEP, &call).await
    }

    /// Stores the borders of the batch that is sent next.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn hold(
        &self,
        connection: &mut MultiplexedConnection,
        at: &Place,
        batch: &Borders,
    ) -> Result<Stepped, Error> {
        let mut call = self.call("hold");
        call.arg(at.to_string()).arg(batch.to_string());
        self.step(connection, "keeping the borders of a batch", &call).await
    }

    /// Writes dead letters, each a list of alternating names and values, keeps at most `cap`, and moves the position.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn bury(
        &self,
        connection: &mut MultiplexedConnection,
        from: &Place,
        to: &Place,
        letters: &[Vec<String>],
        cap: u64,
    ) -> Result<Stepped, Error> {
        let mut call = self.call("bury");
        call.arg(from.to_string()).arg(to.to_string()).arg(cap);
        for letter in letters {
            call.arg(letter.len()).arg(letter);
        }
        self.step(connection, "writing dead letters", &call).await
    }

    async fn step(
        &self,
        connection: &mut MultiplexedConnection,
        step: &'static str,
        call: &Cmd,
    ) -> Result<Stepped, Error> {
        let value = self.send(connection, step, call).await?;
        let (what, said, _) = read(&value).ok_or_else(|| reply::unexpected(step, &value))?;
        Ok(match what {
            0 => Stepped::Others(said),
            1 => Stepped::Done,
            _ => Stepped::Elsewhere(said),
        })
    }

    /// Gives the target up, so that another notifier can take it at once.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn release(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        const STEP: &str = "giving up a target";
        self.send(connection, STEP, &self.call("release")).await.map(drop)
    }

    fn call(&self, what: &str) -> Cmd {
        let mut call = self.scripts.call(Script::Notify, "");
        call.arg(what).arg(&self.target).arg(&self.me).arg(LEASE.as_millis() as u64);
        call
    }

    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        step: &'static str,
        call: &Cmd,
    ) -> Result<Value, Error> {
        self.scripts.send(connection, Script::Notify, call).await.map_err(Error::at(step))
    }
}

fn read(value: &Value) -> Option<(i64, String, String)> {
    let mut values = reply::elements(value)?.iter();
    let what = reply::integer(values.next()?)?;
    let mut text = || values.next().and_then(reply::text_of).unwrap_or_default();
    Some((what, text(), text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_text() {
        let id = EntryId { ms: 1_790_000_000_000, seq: 3 };
        let place = Place { epoch: "0af3".to_owned(), seq: 7, id };
        assert_eq!(place.to_string(), "0af3 7 1790000000000-3");
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "a", "a 1", "a x 1-1", "a 1 1", "a 1 1-1 b"] {
            assert_eq!(bad.parse::<Place>(), Err(InvalidPlace), "{bad:?}");
        }
    }
}
