//! Entries of another layout, added to a partition's stream: each once, whoever forwards it, and how often.

use redis::aio::MultiplexedConnection;

use super::script::FORWARD;
use crate::config::Deployment;
use crate::entry::{EntryId, Field};
use crate::error::Error;
use crate::forward::Place;
use crate::key::Keys;
use crate::op::Letter;
use crate::redis::reply;

/// What one source entry is for one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share<'a> {
    /// The fields of entries to add.
    pub entries: Vec<Vec<Field>>,
    /// Dead letters to write.
    pub letters: Vec<Letter<'a>>,
}

/// Adds what source entries, in order, are for the partition with these keys; returns how many were new to it.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn add(
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
    keys: &Keys,
    (from, stream): (Place, &str),
    shares: &[(EntryId, Share<'_>)],
) -> Result<u64, Error> {
    const STEP: &str = "forwarding entries of another layout";
    let mut call = FORWARD.call();
    call.arg(3).arg(keys.named(&deployment.stream)).arg(keys.meta()).arg(keys.dead());
    call.arg(format!("{}:{}", from.partitions, from.index)).arg(stream).arg(deployment.dead_cap);
    for (id, Share { entries, letters }) in shares {
        call.arg(id.to_string()).arg(entries.len());
        for fields in entries {
            call.arg(fields.len() * 2);
            for (name, value) in fields {
                call.arg(name).arg(value);
            }
        }
        call.arg(letters.len());
        for letter in letters {
            let index = letter.index.map(|index| index.to_string()).unwrap_or_default();
            call.arg(letter.rejection.reason.name()).arg(&letter.rejection.detail).arg(index);
            call.arg(letter.fields.len() * 2);
            for (name, value) in &letter.fields {
                call.arg(*name).arg(*value);
            }
        }
    }
    let value = FORWARD.send(connection, &call).await.map_err(Error::at(STEP))?;
    reply::number(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}
