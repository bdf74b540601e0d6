//! The consumer group: joining it, saying that one lives, leaving it.

use std::time::Duration;

use redis::Cmd;
use redis::aio::MultiplexedConnection;

use super::{Script, Scripts, send};
use crate::config::{Deployment, Server};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::connect::connect;
use crate::redis::reply;

/// How long a look at another layout may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state format this version reads and writes.
pub const STATE_FORMAT: &str = "1";

/// One consumer of one partition's group.
#[derive(Clone, Debug)]
pub struct Membership {
    scripts: Scripts,
    meta_key: String,
    settings: Vec<(&'static str, String)>,
    consumer: String,
}

/// Looks whether there is state with one partition where this process has several, or the other way
/// round: their keys differ, so joining would not meet it. What hinders the look is no finding.
///
/// # Errors
/// If there is such state.
pub async fn check_layout(
    server: &Server,
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
) -> Result<(), Error> {
    let other = if deployment.partitions == 1 { 2 } else { 1 };
    let key = Keys::new(&deployment.prefix, other, 0).meta();
    let mut ask = redis::cmd("HGET");
    ask.arg(&key).arg("partitions");
    let mut stored = ask.query_async::<Option<String>>(connection).await;
    // On a Cluster the other layout's keys are at another node.
    if stored.as_ref().is_err_and(|error| error.redirect_node().is_some())
        && let Ok(mut elsewhere) = connect(server, &key, LOOK_TIMEOUT).await
    {
        stored = ask.query_async(&mut elsewhere).await;
    }
    match stored {
        Ok(Some(stored)) => {
            Err(Error::Partitions { key, stored, own: deployment.partitions.to_string() })
        }
        _ => Ok(()),
    }
}

/// What joining found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// What batches read from now on must be applied under.
    pub epoch: String,
    /// The id the group was created from, if there was none.
    pub created_from: Option<String>,
}

impl Membership {
    /// A consumer of that name; the name must be unique to this start of this process.
    pub fn new(deployment: &Deployment, keys: &Keys, consumer: String) -> Self {
        Self {
            scripts: Scripts::new(deployment, keys),
            meta_key: keys.meta(),
            settings: deployment.meta_fields(),
            consumer,
        }
    }

    /// The consumer's name.
    pub fn consumer(&self) -> &str {
        &self.consumer
    }

    /// Joins, or says again that it lives. Creates stream and group where they are missing: from the
    /// beginning, or, if the state survived them, from the last id that a janitor saw finished.
    ///
    /// # Errors
    /// If the deployment has other settings, or the server refuses.
    pub async fn join(&self, connection: &mut MultiplexedConnection) -> Result<Joined, Error> {
        self.agree(connection, "join").await
    }

    /// Holds this process to the deployment's settings without joining.
    ///
    /// # Errors
    /// If the deployment has other settings, or the server refuses.
    pub async fn check_settings(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        self.agree(connection, "check").await.map(drop)
    }

    async fn agree(
        &self,
        connection: &mut MultiplexedConnection,
        what: &str,
    ) -> Result<Joined, Error> {
        const STEP: &str = "agreeing on the deployment's settings";
        let mut call = self.call(what);
        call.arg(STATE_FORMAT).arg(format!("{:016x}", fastrand::u64(..))).arg(self.settings.len());
        for (setting, value) in &self.settings {
            call.arg(*setting).arg(value);
        }
        let value = send(connection, Script::Consumer, &call).await.map_err(Error::at(STEP))?;
        let unexpected = reply::unexpected(STEP, &value);
        let texts: Option<Vec<String>> =
            reply::array(value).and_then(|values| values.into_iter().map(reply::text).collect());
        match texts.as_deref() {
            Some([tag, epoch, from]) if tag == "OK" => Ok(Joined {
                epoch: epoch.clone(),
                created_from: Some(from.clone()).filter(|from| !from.is_empty()),
            }),
            Some([tag, setting, stored, own]) if tag == "DIFFERS" => {
                Err(self.differs(setting, stored, own))
            }
            _ => Err(unexpected),
        }
    }

    /// Leaves the group if nothing is pending for this consumer; says whether it did.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn leave(&self, connection: &mut MultiplexedConnection) -> Result<bool, Error> {
        const STEP: &str = "leaving the consumer group";
        let value = send(connection, Script::Consumer, &self.call("leave"))
            .await
            .map_err(Error::at(STEP))?;
        reply::integer(&value).map(|left| left == 1).ok_or_else(|| reply::unexpected(STEP, &value))
    }

    fn call(&self, what: &str) -> Cmd {
        let mut call = self.scripts.call(Script::Consumer, "");
        call.arg(what).arg(&self.consumer);
        call
    }

    fn differs(&self, setting: &str, stored: &str, own: &str) -> Error {
        let key = self.meta_key.clone();
        if setting == "partitions" {
            return Error::Partitions { key, stored: stored.to_owned(), own: own.to_owned() };
        }
        if setting == "format" {
            return Error::Format { key, stored: stored.to_owned(), own: STATE_FORMAT };
        }
        Error::Settings {
            key,
            setting: setting.to_owned(),
            stored: stored.to_owned(),
            own: own.to_owned(),
        }
    }
}
