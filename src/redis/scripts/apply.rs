//! Apply: sends a plan to the script that merges it and moves the cursor, and reads the result.

mod arguments;
mod packed;
mod sealed;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use arguments::Arguments;
use packed::Packed;
use sealed::{Sealed, tied};

use super::Scripts;
use super::changes::Changes;
use super::owner::Tenure;
use super::script::Script;
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::fold::Avoided;
use crate::key::Keys;
use crate::op::Plan;
use crate::redis::reply;
use crate::seal::SessionKeys;

const STEP: &str = "applying a batch";
/// About how many bytes of a plan a user takes.
const USER_BYTES: usize = 192;
/// How often a call is made while session data of the same time has to be compared: each round reports up to two
/// thousand sessions.
const MOST_ROUNDS: u32 = 16;

/// The result of an apply call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
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
    /// All of it is done, and the cursor has moved.
    Applied(Applied),
    /// These keys have another type. Everything else is merged, and the cursor stays.
    WrongType(Avoided),
}

/// Merges plans into the state of one partition.
#[derive(Clone, Debug)]
pub struct Applier {
    deployment: Deployment,
    keys: Keys,
    scripts: Scripts,
    tenure: Tenure,
    session_keys: Option<SessionKeys>,
}

impl Applier {
    /// An applier for the owner of the partition.
    pub fn new(deployment: &Deployment, keys: &Keys, tenure: Tenure) -> Self {
        let (scripts, keys) = (Scripts::new(deployment, keys), keys.clone());
        Self { deployment: deployment.clone(), keys, scripts, tenure, session_keys: None }
    }

    /// The same; session data is encrypted if there are keys.
    pub fn with_session_keys(self, session_keys: Option<SessionKeys>) -> Self {
        Self { session_keys, ..self }
    }

    /// Merges the plan of the entries that follow `after`, and moves the cursor to the last of them.
    ///
    /// # Errors
    /// If the call failed, or its reply did not come; in that case nothing is known about it.
    pub async fn apply(
        &self,
        connection: &mut MultiplexedConnection,
        plan: &Plan<'_>,
        after: EntryId,
    ) -> Result<Outcome, Error> {
        if let Some(keys) = &self.session_keys {
            let sealed = Sealed::new(keys.get());
            return Box::pin(self.apply_sealed(connection, plan, after, sealed)).await;
        }
        let call = self.call_with(plan, after, None);
        let value =
            self.scripts.send(connection, Script::Apply, &call).await.map_err(Error::at(STEP))?;
        self.outcome(value)
    }

    /// The same with encrypted session data: repeats the call if data of the same time has to be compared.
    async fn apply_sealed(
        &self,
        connection: &mut MultiplexedConnection,
        plan: &Plan<'_>,
        after: EntryId,
        mut sealed: Sealed,
    ) -> Result<Outcome, Error> {
        for _ in 0..MOST_ROUNDS {
            let call = self.call_with(plan, after, Some(&sealed));
            let value = self
                .scripts
                .send(connection, Script::Apply, &call)
                .await
                .map_err(Error::at(STEP))?;
            let Some(tied) = tied(&value) else { return self.outcome(value) };
            sealed.decide(connection, &self.keys, &plan.sessions, tied).await?;
        }
        Err(reply::unexpected(STEP, &Value::SimpleString("TIED again and again".to_owned())))
    }

    /// The call that merges the plan of the entries that follow `after`.
    pub fn call(&self, plan: &Plan<'_>, after: EntryId) -> Cmd {
        let sealed = self.session_keys.as_ref().map(|keys| Sealed::new(keys.get()));
        self.call_with(plan, after, sealed.as_ref())
    }

    fn call_with(&self, plan: &Plan<'_>, after: EntryId, sealed: Option<&Sealed>) -> Cmd {
        let Tenure { epoch, owner, term, fence } = &self.tenure;
        let mut call = self.scripts.call(Script::Apply, epoch);
        call.arg(owner).arg(term).arg(fence);
        call.arg(after.to_string()).arg(plan.last.unwrap_or(after).to_string()).arg(plan.entries);
        let (keys, deployment) = (&self.keys, &self.deployment);
        let packed = Packed::with_capacity(plan.activity.len() * USER_BYTES);
        Arguments { packed, keys, deployment, sealed }.add(plan, &mut call);
        call
    }

    fn outcome(&self, value: Value) -> Result<Outcome, Error> {
        let Value::Array(values) = value else { return Err(reply::unexpected(STEP, &value)) };
        if let Some(Value::BulkString(tag)) = values.first()
            && tag == b"WRONGTYPE"
        {
            let keys = values.into_iter().skip(1).filter_map(reply::text);
            return Ok(Outcome::WrongType(self.avoided(keys)));
        }
        match applied(&values) {
            Some(applied) => Ok(Outcome::Applied(applied)),
            None => Err(reply::unexpected(STEP, &Value::Array(values))),
        }
    }

    /// Keys of one id, sorted by their kind.
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

fn applied(values: &[Value]) -> Option<Applied> {
    let mut values = values.iter();
    let mut number = || values.next().and_then(reply::number);
    let (late, changes_dropped) = (number()?, number()?);
    let (letters, letters_dropped) = (number()?, number()?);
    let changes = Changes::read(values.next()?, changes_dropped)?;
    Some(Applied { late, changes, letters, letters_dropped })
}
