//! Apply: sends a plan to the script that merges it and acknowledges, and reads what it did.

mod arguments;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use arguments::Arguments;

use super::changes::Changes;
use super::{Script, Scripts, send};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::fold::Avoided;
use crate::key::Keys;
use crate::op::Plan;
use crate::redis::reply;

/// What an apply call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries that were pending and are acknowledged now.
    pub acknowledged: u64,
    /// Operations that had already expired.
    pub late: u64,
    /// Changes recorded.
    pub changes: Changes,
    /// Dead letters written.
    pub letters: u64,
    /// Old dead letters dropped by the cap.
    pub letters_dropped: u64,
}

/// How an apply call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done.
    Applied(Applied),
    /// These keys hold another type; all else is merged, nothing is acknowledged.
    WrongType(Avoided),
}

/// Merges plans into the state of one partition.
#[derive(Clone, Debug)]
pub struct Applier {
    deployment: Deployment,
    keys: Keys,
    scripts: Scripts,
    epoch: String,
}

impl Applier {
    /// An applier for batches read while `epoch` holds.
    pub fn new(deployment: &Deployment, keys: &Keys, epoch: String) -> Self {
        let scripts = Scripts::new(deployment, keys);
        Self { deployment: deployment.clone(), keys: keys.clone(), scripts, epoch }
    }

    /// The stream's key.
    pub fn stream(&self) -> String {
        self.keys.named(&self.deployment.stream)
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.deployment.group
    }

    /// The partition's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A call of a script under this applier's epoch, up to what it does itself.
    pub fn script_call(&self, script: Script) -> Cmd {
        self.scripts.call(script, &self.epoch)
    }

    /// Merges a plan. `alone` names the entry when it is tried by itself.
    ///
    /// # Errors
    /// If the call failed, or its reply did not come: then nothing is known about it.
    pub async fn apply(
        &self,
        connection: &mut MultiplexedConnection,
        plan: &Plan<'_>,
        alone: Option<EntryId>,
    ) -> Result<Outcome, Error> {
        let call = self.call(plan, alone);
        let value =
            send(connection, Script::Apply, &call).await.map_err(Error::at("applying a batch"))?;
        self.outcome(value)
    }

    /// The call that merges a plan. `alone` names the entry when it is tried by itself.
    pub fn call(&self, plan: &Plan<'_>, alone: Option<EntryId>) -> Cmd {
        let mut call = self.script_call(Script::Apply);
        call.arg(alone.map(|id| id.to_string()).unwrap_or_default());
        Arguments { call: &mut call, keys: &self.keys, deployment: &self.deployment }.add(plan);
        call
    }

    fn outcome(&self, value: Value) -> Result<Outcome, Error> {
        let unexpected = reply::unexpected("applying a batch", &value);
        let Some(values) = reply::array(value) else { return Err(unexpected) };
        if let Some(Value::BulkString(tag)) = values.first()
            && tag == b"WRONGTYPE"
        {
            let keys = values.into_iter().skip(1).filter_map(reply::text);
            return Ok(Outcome::WrongType(self.avoided(keys)));
        }
        applied(values).map(Outcome::Applied).ok_or(unexpected)
    }

    /// Keys of one id, sorted by what they are for.
    fn avoided(&self, keys: impl Iterator<Item = String>) -> Avoided {
        let mut avoided = Avoided::default();
        for key in keys {
            if let Some(user) = key.strip_prefix(&self.keys.activity()) {
                avoided.activity.insert(user.to_owned());
            } else if let Some(doc) = key.strip_prefix(&self.keys.document()) {
                let doc = doc.strip_suffix(":users").or(doc.strip_suffix(":count")).unwrap_or(doc);
                avoided.documents.insert(doc.to_owned());
            } else if let Some(token) = key.strip_prefix(&self.keys.viewed()) {
                avoided.viewed.insert(token.to_owned());
            } else if let Some(sid) = key.strip_prefix(&self.keys.session_data()) {
                avoided.session_data.insert(sid.to_owned());
            }
        }
        avoided
    }
}

fn applied(values: Vec<Value>) -> Option<Applied> {
    let mut values = values.into_iter();
    let mut number = || values.next().and_then(|n| reply::number(&n));
    let (acknowledged, late, changes_dropped) = (number()?, number()?, number()?);
    let (letters, letters_dropped) = (number()?, number()?);
    let changes = Changes::read(values.next()?, changes_dropped)?;
    Some(Applied { acknowledged, late, changes, letters, letters_dropped })
}
