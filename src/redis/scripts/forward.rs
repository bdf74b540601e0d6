//! Adds entries of earlier layouts to the streams where they belong: each once, however often and by whomever it is
//! forwarded.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;

use super::script::FORWARD;
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::forward::Forwarded;
use crate::key::Keys;
use crate::redis::reply;

/// Where entries come from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'o> {
    /// Its keys.
    pub keys: &'o Keys,
    /// Its stream.
    pub stream: &'o str,
    /// If the stream no longer exists in this layout: the cursor that the entries follow.
    pub after: Option<EntryId>,
}

/// Adds source entries, in order, to the partitions where they belong; returns how many were new, or `None` if
/// another process was faster. Letters go to the partition `own`, which forwards.
///
/// # Errors
/// If the deployment has another number of partitions by now, the server refuses, or no reply came.
pub async fn add(
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
    own: u16,
    origin: Origin<'_>,
    entries: &[(EntryId, Forwarded<'_>)],
) -> Result<Option<u64>, Error> {
    const STEP: &str = "forwarding entries of another layout";
    let partitions = deployment.partitions;
    let keys = |index| Keys::new(&deployment.prefix, partitions, index);
    let mut places = BTreeMap::from([(own, 1)]);
    for partition in entries.iter().flat_map(|(_, forwarded)| forwarded.entries.keys()) {
        let next = places.len() + 1;
        places.entry(*partition).or_insert(next);
    }
    let mut targets: Vec<_> = places.iter().map(|(index, place)| (*place, *index)).collect();
    targets.sort_unstable();
    let mut call = FORWARD.call();
    call.arg(2 + 2 * targets.len()).arg(origin.keys.meta()).arg(keys(own).meta());
    for (_, index) in targets {
        call.arg(keys(index).named(&deployment.stream)).arg(keys(index).dead());
    }
    let after = origin.after.map(|after| after.to_string()).unwrap_or_default();
    call.arg(partitions).arg(origin.stream).arg(u8::from(origin.after.is_some())).arg(after);
    call.arg(deployment.dead_cap);
    for (id, Forwarded { entries, letters }) in entries {
        let others = entries.iter().filter(|(partition, _)| **partition != own);
        call.arg(id.to_string()).arg(1 + others.clone().count());
        let nothing = Vec::new();
        let of_own = (1, entries.get(&own).unwrap_or(&nothing), letters.as_slice());
        let others = others.map(|(partition, entries)| (places[partition], entries, [].as_slice()));
        for (place, entries, letters) in std::iter::once(of_own).chain(others) {
            call.arg(place).arg(entries.len());
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
    }
    let value = FORWARD.send(connection, &call).await.map_err(Error::at(STEP))?;
    match reply::integer(&value) {
        Some(-1) => Ok(None),
        Some(new) => Ok(Some(new.unsigned_abs())),
        None => Err(reply::unexpected(STEP, &value)),
    }
}
