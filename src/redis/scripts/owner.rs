//! Ownership of a partition: looking at it, taking it, keeping it, giving it up.

mod seen;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::Scripts;
use super::layout::STATE_FORMAT;
use super::script::Script;
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::event::Reason;
use crate::key::Keys;
use crate::redis::reply;

pub use self::seen::{Beat, Cause, Joined, Seen, Tenure, fence};

/// One worker's view of the ownership of one partition.
#[derive(Clone, Debug)]
pub struct Ownership {
    scripts: Scripts,
    keys: Keys,
    settings: Vec<(&'static str, String)>,
    stream: String,
    group: String,
    worker: String,
}

impl Ownership {
    /// For a worker of this name, which must be unique to this start of this process.
    pub fn new(deployment: &Deployment, keys: &Keys, worker: String) -> Self {
        Self {
            scripts: Scripts::new(deployment, keys),
            keys: keys.clone(),
            settings: deployment.meta_fields(),
            stream: keys.named(&deployment.stream),
            group: deployment.group.clone(),
            worker,
        }
    }

    /// The worker's name.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The channel to which the owner with this fence subscribes: while it has a subscriber, the owner's process is
    /// alive.
    pub fn channel(&self, fence: &str) -> String {
        self.keys.named(&format!("rollcall:owner:{fence}"))
    }

    /// Checks this process's settings against the deployment's; writes those that are not stored yet.
    ///
    /// # Errors
    /// If the deployment has other settings, or the server refuses.
    pub async fn check_settings(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        const STEP: &str = "agreeing on the deployment's settings";
        let mut call = self.call("check", "");
        self.add_settings(&mut call);
        let texts = self.texts(connection, &call, STEP).await?;
        match texts.first().map(String::as_str) {
            Some("OK") => Ok(()),
            _ => Err(self.refused(STEP, &texts)),
        }
    }

    /// Reads who owns the partition (`HMGET`).
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn look(&self, connection: &mut MultiplexedConnection) -> Result<Seen, Error> {
        let mut ask = redis::cmd("HMGET");
        ask.arg(self.keys.meta());
        ask.arg(&["epoch", "owner", "term", "cursor", "beat", "fence", "heir"]);
        let values: Vec<Value> =
            ask.query_async(connection).await.map_err(Error::at("looking at the partition"))?;
        Ok(Seen::read(&values))
    }

    /// Whether the owner in `seen` holds its subscription (`PUBSUB NUMSUB`); `None` if it has none, or this worker
    /// may not ask.
    ///
    /// # Errors
    /// If the server refuses for another reason, or no reply came.
    pub async fn owner_lives(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &Seen,
    ) -> Result<Option<bool>, Error> {
        if !seen.is_signed() {
            return Ok(None);
        }
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("NUMSUB").arg(self.channel(&seen.fence));
        match ask.query_async::<(String, u64)>(connection).await {
            Ok((_, subscribers)) => Ok(Some(subscribers > 0)),
            Err(error) if error.code() == Some("NOPERM") => Ok(None),
            Err(error) => Err(Error::at("asking for the owner's sign of life")(error)),
        }
    }

    /// Reports that this worker is alive; returns the reports of all workers by name, and what a look sees.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn live(
        &self,
        connection: &mut MultiplexedConnection,
        says: &str,
    ) -> Result<(Vec<(String, String)>, Seen), Error> {
        const STEP: &str = "saying that this worker lives";
        let mut call = self.call("live", "");
        call.arg(says);
        let value =
            self.scripts.send(connection, Script::Owner, &call).await.map_err(Error::at(STEP))?;
        read_living(&value).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    /// Asks the owner for the partition.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn ask(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        self.tell(connection, &self.call("ask", "")).await.map(drop)
    }

    /// Forgets a worker that has reported nothing new since this report.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn bury(
        &self,
        connection: &mut MultiplexedConnection,
        worker: &str,
        said: &str,
    ) -> Result<(), Error> {
        let mut call = self.scripts.call(Script::Owner, "");
        call.arg("bury").arg(worker).arg(said);
        self.tell(connection, &call).await.map(drop)
    }

    /// Forgets this worker.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn leave(&self, connection: &mut MultiplexedConnection) -> Result<(), Error> {
        self.tell(connection, &self.call("leave", "")).await.map(drop)
    }

    /// Withdraws the record that this worker died in one of its terms: it is alive.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn is_innocent(
        &self,
        connection: &mut MultiplexedConnection,
        term: &str,
    ) -> Result<(), Error> {
        let mut call = self.call("innocent", "");
        call.arg(term);
        self.tell(connection, &call).await.map(drop)
    }

    /// Takes the partition if it is still as it was `seen`; `None` otherwise. Creates stream and group if they are
    /// missing.
    ///
    /// # Errors
    /// If the deployment has other settings, or the server refuses.
    pub async fn join(
        &self,
        connection: &mut MultiplexedConnection,
        seen: &Seen,
        fence: &str,
        cause: Cause,
    ) -> Result<Option<Joined>, Error> {
        const STEP: &str = "taking the partition";
        let mut call = self.call("join", "");
        self.add_settings(&mut call);
        call.arg(fence).arg(cause.name());
        call.arg(&[&seen.epoch, &seen.owner, &seen.term, &seen.cursor, &seen.beat]);
        let texts = self.texts(connection, &call, STEP).await?;
        match texts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["OK", epoch, term, cursor, deaths, created_at, other] => {
                let (Ok(cursor), Ok(deaths)) = (cursor.parse(), deaths.parse()) else {
                    return Err(self.refused(STEP, &texts));
                };
                let tenure = Tenure {
                    epoch: epoch.to_owned(),
                    owner: self.worker.clone(),
                    term: term.to_owned(),
                    fence: fence.to_owned(),
                };
                let created_at = (!created_at.is_empty()).then(|| created_at.to_owned());
                let is_other_stream = other == "1";
                Ok(Some(Joined { tenure, cursor, deaths, created_at, is_other_stream }))
            }
            ["CHANGED"] => Ok(None),
            _ => Err(self.refused(STEP, &texts)),
        }
    }

    /// Shows that the owner is alive; repairs the group.
    ///
    /// # Errors
    /// If the partition is no longer ours, the server refuses, or no reply came.
    pub async fn beat(
        &self,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
    ) -> Result<Beat, Error> {
        const STEP: &str = "saying that the owner lives";
        let texts = self.texts(connection, &self.call_as("beat", tenure), STEP).await?;
        match texts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["OK", asked_by, interferences] => Ok(Beat::Kept {
                asked_by: (!asked_by.is_empty()).then(|| asked_by.to_owned()),
                interferences: interferences.parse().unwrap_or(0),
            }),
            ["OTHER"] => Ok(Beat::OtherStream),
            _ => Err(self.refused(STEP, &texts)),
        }
    }

    /// Gives the partition up, for `heir` to take if there is one.
    ///
    /// # Errors
    /// If it is no longer ours, the server refuses, or no reply came.
    pub async fn release(
        &self,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
        heir: &str,
    ) -> Result<(), Error> {
        let mut call = self.call_as("release", tenure);
        call.arg(heir);
        self.tell(connection, &call).await.map(drop)
    }

    /// Names the entry after the cursor as the next one to be tried; `false` if there is none.
    ///
    /// # Errors
    /// If the partition is no longer ours, the server refuses, or no reply came.
    pub async fn name_next(
        &self,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
        cursor: EntryId,
    ) -> Result<bool, Error> {
        let mut call = self.call_as("name", tenure);
        call.arg(cursor.to_string());
        Ok(reply::integer(&self.tell(connection, &call).await?) == Some(1))
    }

    /// Withdraws the naming: the entry did not kill this worker.
    ///
    /// # Errors
    /// If the partition is no longer ours, the server refuses, or no reply came.
    pub async fn unname(
        &self,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
    ) -> Result<(), Error> {
        self.tell(connection, &self.call_as("unname", tenure)).await.map(drop)
    }

    /// Makes the entry after the cursor a dead letter without reading it, if at least this many deaths count against
    /// it; returns its id if it did.
    ///
    /// # Errors
    /// If the partition is no longer ours, the server refuses, or no reply came.
    pub async fn skip_next(
        &self,
        connection: &mut MultiplexedConnection,
        tenure: &Tenure,
        cursor: EntryId,
        (detail, deaths): (&str, u64),
    ) -> Result<Option<EntryId>, Error> {
        let mut call = self.call_as("skip", tenure);
        call.arg(cursor.to_string()).arg(Reason::Poison.name()).arg(detail).arg(deaths);
        Ok(reply::entry_id(self.tell(connection, &call).await?))
    }

    fn call(&self, what: &str, epoch: &str) -> Cmd {
        let mut call = self.scripts.call(Script::Owner, epoch);
        call.arg(what).arg(&self.worker);
        call
    }

    fn call_as(&self, what: &str, tenure: &Tenure) -> Cmd {
        let mut call = self.call(what, &tenure.epoch);
        call.arg(&tenure.term).arg(&tenure.fence);
        call
    }

    fn add_settings(&self, call: &mut Cmd) {
        call.arg(STATE_FORMAT).arg(format!("{:016x}", fastrand::u64(..))).arg(self.settings.len());
        for (setting, value) in &self.settings {
            call.arg(*setting).arg(value);
        }
    }

    async fn tell(
        &self,
        connection: &mut MultiplexedConnection,
        call: &Cmd,
    ) -> Result<Value, Error> {
        let value = self.scripts.send(connection, Script::Owner, call).await;
        value.map_err(Error::at("sharing out the partition"))
    }

    async fn texts(
        &self,
        connection: &mut MultiplexedConnection,
        call: &Cmd,
        step: &'static str,
    ) -> Result<Vec<String>, Error> {
        let value =
            self.scripts.send(connection, Script::Owner, call).await.map_err(Error::at(step))?;
        let texts = reply::elements(&value)
            .and_then(|values| values.iter().map(reply::text_of).collect::<Option<_>>());
        texts.ok_or_else(|| reply::unexpected(step, &value))
    }

    /// The error for a reply that refuses.
    fn refused(&self, step: &'static str, texts: &[String]) -> Error {
        let key = self.keys.meta();
        match texts {
            [tag, setting, stored, own] if tag == "DIFFERS" => match setting.as_str() {
                "partitions" => Error::Partitions { key, stored: stored.clone(), own: own.clone() },
                "format" => Error::Format { key, stored: stored.clone(), own: STATE_FORMAT },
                _ => Error::Settings {
                    key,
                    setting: setting.clone(),
                    stored: stored.clone(),
                    own: own.clone(),
                },
            },
            [tag, moving] if tag == "MOVING" => Error::Moving { key, moving: moving.clone() },
            [tag, entries] if tag == "PENDING" => Error::Pending {
                stream: self.stream.clone(),
                group: self.group.clone(),
                entries: entries.clone(),
            },
            _ => Error::Reply { step, found: reply::beginning(format_args!("{texts:?}")) },
        }
    }
}

/// Reads `[[worker, report, …], seen]`.
fn read_living(value: &Value) -> Option<(Vec<(String, String)>, Seen)> {
    let [workers, seen] = reply::elements(value)? else { return None };
    let text = |[name, says]: &[Value; 2]| Some((reply::text_of(name)?, reply::text_of(says)?));
    let workers = reply::pairs_of(workers)?.iter().filter_map(text).collect();
    Some((workers, Seen::read(reply::elements(seen)?)))
}
