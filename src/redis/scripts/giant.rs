//! Dead letters: what the apply script does not write itself, and how they are read back.

use std::collections::HashSet;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use super::Script;
use super::apply::Applier;
use crate::entry::{Entry, EntryId, Field};
use crate::error::Error;
use crate::event::Reason;
use crate::failpoint::Failpoint;
use crate::key::Keys;
use crate::redis::reply;

/// The pairs that stand before the original ones, in order.
pub const HEADER: [&str; 6] = ["entry_id", "reason", "detail", "deliveries", "index", "stream"];

/// Fields beyond which an entry cannot be passed on by a script: Lua unpacks at most 7,999 values.
const GIANT_FIELDS: usize = 3_900;

/// Whether the entry has too many fields for the apply script; it is a dead letter in any case.
pub fn is_giant(entry: &Entry) -> bool {
    entry.fields().len() > GIANT_FIELDS
}

/// Writes a giant entry's dead letter and acknowledges it, in one transaction; `false` if it was no
/// longer pending. The `XADD` stands outside of the script, which takes it back if it must.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn write_giant(
    connection: &mut MultiplexedConnection,
    applier: &Applier,
    entry: &Entry,
) -> Result<bool, Error> {
    const STEP: &str = "writing off an entry with very many fields";
    let (id, fields) = (entry.id.to_string(), entry.fields().len());
    let deliveries = deliveries(connection, applier, &id).await.map_err(Error::at(STEP))?;
    let detail = format!("the entry has {fields} fields; send fewer");
    let header = [
        &id,
        Reason::TooManyFields.name(),
        &detail,
        &deliveries.to_string(),
        "",
        &applier.stream(),
    ];

    let mut transaction = redis::pipe();
    transaction.atomic();
    let add = transaction.cmd("XADD").arg(applier.keys().dead()).arg("*");
    for (name, value) in HEADER.iter().zip(header) {
        add.arg(*name).arg(value);
    }
    for (name, value) in entry.fields() {
        add.arg(name).arg(value);
    }
    let mut settle = applier.script_call(Script::Giant);
    settle.arg(&id);
    transaction.add_command(settle);
    super::ensure_loaded(connection, Script::Giant).await.map_err(Error::at(STEP))?;
    let call = transaction.query_async(connection);
    let value: Value = Failpoint::InGiant.send(call).await.map_err(Error::at(STEP))?;
    let unexpected = reply::unexpected(STEP, &value);
    let kept = reply::array(value).and_then(|values| reply::integer(values.get(1)?));
    kept.map(|kept| kept == 1).ok_or(unexpected)
}

async fn deliveries(
    connection: &mut MultiplexedConnection,
    applier: &Applier,
    id: &str,
) -> RedisResult<i64> {
    let mut ask = redis::cmd("XPENDING");
    ask.arg(applier.stream()).arg(applier.group()).arg(id).arg(id).arg(1);
    let rows = reply::array(ask.query_async(connection).await?).unwrap_or_default();
    let count =
        rows.into_iter().next().and_then(reply::array).and_then(|row| reply::integer(row.get(3)?));
    Ok(count.unwrap_or(0))
}

/// Counts that a worker tries the entry alone, before it does: should that kill it, the next one knows.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn count_trial(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    id: EntryId,
) -> Result<u64, Error> {
    let mut count = redis::cmd("HINCRBY");
    count.arg(keys.suspects()).arg(id.to_string()).arg(1);
    count.query_async(connection).await.map_err(Error::at("counting a trial"))
}

/// Takes back the trials of entries that the server's troubles, not the entries, kept from being applied.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn take_back_trials(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    tried: &mut HashSet<EntryId>,
) -> Result<(), Error> {
    if tried.is_empty() {
        return Ok(());
    }
    let mut take_back = redis::cmd("HDEL");
    take_back.arg(keys.suspects());
    for id in &*tried {
        take_back.arg(id.to_string());
    }
    take_back.exec_async(connection).await.map_err(Error::at("taking back trials"))?;
    tried.clear();
    Ok(())
}

/// A dead letter as it stands in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its own id.
    pub id: EntryId,
    /// The values of [`HEADER`], in order.
    pub header: [String; 6],
    /// The original pairs.
    pub fields: Vec<Field>,
}

impl DeadLetter {
    /// Reads an entry of the stream of dead letters; `None` if it is not one.
    pub fn read(entry: &Entry) -> Option<Self> {
        let mut fields = entry.fields();
        let mut header: [String; 6] = Default::default();
        for (name, text) in HEADER.iter().zip(&mut header) {
            let (_, value) = fields.next().filter(|field| field.0 == name.as_bytes())?;
            *text = String::from_utf8_lossy(value).into_owned();
        }
        let fields = fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Some(Self { id: entry.id, header, fields })
    }
}
