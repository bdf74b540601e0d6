//! Apply: sends a plan to the script that merges it and acknowledges, and reads what it did.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};

use super::reply;
use super::script::{Script, Scripts, minute_expiry_ms, send};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::fold::Avoided;
use crate::key::Keys;
use crate::op::{Acks, Ending, Letter, Plan, Register};

/// What an apply call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries that were pending and are acknowledged now.
    pub acknowledged: u64,
    /// Operations that had already expired.
    pub late: u64,
    /// Changes recorded.
    pub changes: u64,
    /// Old changes dropped by the cap.
    pub changes_dropped: u64,
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

    fn call(&self, plan: &Plan<'_>, alone: Option<EntryId>) -> Cmd {
        let mut call = self.script_call(Script::Apply);
        call.arg(alone.map(|id| id.to_string()).unwrap_or_default());
        add_letters(&mut call, &plan.letters);
        self.add_minutes(&mut call, plan);
        add_activity(&mut call, plan);
        add_presence(&mut call, plan);
        add_tokens(&mut call, plan);
        add_sessions(&mut call, plan);
        add_connections(&mut call, plan);
        add_acks(&mut call, &plan.acks);
        call
    }

    fn add_minutes(&self, call: &mut Cmd, plan: &Plan<'_>) {
        call.arg(plan.minutes.len());
        for (minute, users) in &plan.minutes {
            call.arg(self.keys.online_minute(*minute));
            call.arg(minute_expiry_ms(&self.deployment, *minute)).arg(users.len());
            for user in users {
                call.arg(user.as_ref());
            }
        }
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
        let counts: Option<Vec<u64>> =
            values.iter().map(|n| reply::integer(n).and_then(|n| u64::try_from(n).ok())).collect();
        match counts.as_deref() {
            Some(&[acknowledged, late, changes, changes_dropped, letters, letters_dropped]) => {
                Ok(Outcome::Applied(Applied {
                    acknowledged,
                    late,
                    changes,
                    changes_dropped,
                    letters,
                    letters_dropped,
                }))
            }
            _ => Err(unexpected),
        }
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

fn add_letters(call: &mut Cmd, letters: &[Letter<'_>]) {
    call.arg(letters.len());
    for letter in letters {
        call.arg(letter.id.to_string())
            .arg(letter.rejection.reason.name())
            .arg(&letter.rejection.detail);
        call.arg(letter.index.map(|index| index.to_string()).unwrap_or_default());
        call.arg(letter.fields.len());
        for (name, value) in &letter.fields {
            call.arg(*name).arg(*value);
        }
    }
}

fn add_activity(call: &mut Cmd, plan: &Plan<'_>) {
    call.arg(plan.activity.len());
    for (user, seconds) in &plan.activity {
        call.arg(user.as_ref()).arg(*seconds);
    }
}

fn add_presence(call: &mut Cmd, plan: &Plan<'_>) {
    let values = || plan.presence.iter().filter(|(_, r)| matches!(r, Register::Value(..)));
    call.arg(values().count());
    for (field, _) in values() {
        call.arg(field);
    }
    for (_, register) in values() {
        if let Register::Value(_, value) = register {
            call.arg(value);
        }
    }
    call.arg(plan.presence.len() - values().count());
    for (field, register) in &plan.presence {
        if let Register::Ended(time) = register {
            call.arg(field).arg(time.millis());
        }
    }
}

fn add_tokens(call: &mut Cmd, plan: &Plan<'_>) {
    // What ends in this batch has no other effect on its token.
    let live = || plan.tokens.iter().filter(|(_, merge)| merge.ended.is_none());
    let used = || live().filter_map(|(token, merge)| Some((token, merge, merge.used.as_ref()?)));
    call.arg(used().count());
    for (token, _, _) in used() {
        call.arg(token.as_ref());
    }
    for (_, merge, (time, user)) in used() {
        call.arg(user.as_ref()).arg(time.millis()).arg(merge.items.len() * 2);
        for (item, time) in &merge.items {
            call.arg(time.score()).arg(item.as_ref());
        }
    }
    add_endings(
        call,
        plan.tokens.iter().filter_map(|(token, merge)| Some((token.as_ref(), merge.ended?))),
    );
}

fn add_sessions(call: &mut Cmd, plan: &Plan<'_>) {
    let live = || plan.sessions.iter().filter(|(_, merge)| merge.ended.is_none());
    let touched = || live().filter_map(|(sid, merge)| Some((sid, merge.touched.as_ref()?)));
    call.arg(touched().count());
    for (sid, _) in touched() {
        call.arg(sid.as_ref());
    }
    for (_, (_, value)) in touched() {
        call.arg(value);
    }
    let data = || live().filter_map(|(sid, merge)| Some((sid, merge.data.as_ref()?)));
    call.arg(data().count());
    for (sid, _) in data() {
        call.arg(sid.as_ref());
    }
    for (_, (time, data)) in data() {
        call.arg(time.millis()).arg(data.as_ref());
    }
    add_endings(
        call,
        plan.sessions.iter().filter_map(|(sid, merge)| Some((sid.as_ref(), merge.ended?))),
    );
}

fn add_endings<'p>(call: &mut Cmd, endings: impl Iterator<Item = (&'p str, Ending)> + Clone) {
    call.arg(endings.clone().count());
    for (id, ending) in endings {
        call.arg(id).arg(ending.entry_ms).arg(ending.time.millis());
    }
}

fn add_connections(call: &mut Cmd, plan: &Plan<'_>) {
    for left in [false, true] {
        let those = || plan.connections.iter().filter(|(_, last)| last.left == left);
        call.arg(those().count());
        for (connection, last) in those() {
            call.arg(connection.doc.as_ref()).arg(connection.user.as_ref());
            call.arg(connection.id.as_ref()).arg(last.time.millis());
        }
    }
}

fn add_acks(call: &mut Cmd, acks: &Acks<'_>) {
    call.arg(acks.plain.len());
    for id in &acks.plain {
        call.arg(id.to_string());
    }
    call.arg(acks.items.len());
    for (item, ids) in &acks.items {
        call.arg(item.as_ref()).arg(ids.len());
        for id in ids {
            call.arg(id.to_string());
        }
    }
    call.arg(acks.packed.len());
    for (id, items) in &acks.packed {
        call.arg(id.to_string()).arg(items.len());
        for (item, count) in items {
            call.arg(item.as_ref()).arg(*count);
        }
    }
}
