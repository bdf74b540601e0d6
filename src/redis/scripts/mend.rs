//! Mending: repairs of single members of the state by the partition's owner, and changes of a deployment's settings.

use redis::Value;
use redis::aio::ConnectionLike;

use super::Scripts;
use super::owner::Tenure;
use super::script::{MEND, SETTINGS};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::reply;

/// A repair of one member: a name that the script knows, and its arguments.
pub type Deed = (&'static str, Vec<Vec<u8>>);

/// Makes these repairs if the owner and the cursor are still the same.
///
/// # Errors
/// If they are not, the server refuses, or no reply came.
pub async fn mend(
    connection: &mut (impl ConnectionLike + Send),
    (deployment, keys): (&Deployment, &Keys),
    (tenure, cursor): (&Tenure, EntryId),
    deeds: &[Deed],
) -> Result<u64, Error> {
    const STEP: &str = "mending the state";
    let scripts = Scripts::new(deployment, keys);
    let mut call = MEND.call();
    call.arg(scripts.keys.len()).arg(&scripts.keys).arg(&tenure.epoch).arg(&scripts.settings);
    call.arg(&tenure.owner).arg(&tenure.term).arg(&tenure.fence).arg(cursor.to_string());
    for (name, words) in deeds {
        call.arg(*name).arg(words.len()).arg(words);
    }
    let value = MEND.send(connection, &call).await.map_err(Error::at(STEP))?;
    reply::number(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}

/// Makes these the settings of a partition; returns the names of those that were different, with their old values.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn change_settings(
    connection: &mut (impl ConnectionLike + Send),
    keys: &Keys,
    settings: &[(&'static str, String)],
) -> Result<Vec<(String, String)>, Error> {
    const STEP: &str = "changing the deployment's settings";
    let mut call = SETTINGS.call();
    call.arg(1).arg(keys.meta()).arg(format!("{:016x}", fastrand::u64(..)));
    for (name, value) in settings {
        call.arg(*name).arg(value);
    }
    let value = SETTINGS.send(connection, &call).await.map_err(Error::at(STEP))?;
    let pairs = reply::pairs_of(&value).ok_or_else(|| reply::unexpected(STEP, &value))?;
    let pair = |[name, before]: &[Value; 2]| Some((reply::text_of(name)?, reply::text_of(before)?));
    Ok(pairs.iter().filter_map(pair).collect())
}
