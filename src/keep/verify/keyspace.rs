//! The place of a shadow in the keyspace: checked to be empty, marked as Rollcall's, and left empty.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;

use super::lease::Lease;
use crate::key::Keys;
use crate::redis::reply;
use crate::state::{AskError, ask, literal, number};

/// How many keys one call removes.
const UNLINKED: usize = 100;

pub(super) fn in_use(keys: &Keys) -> AskError {
    AskError::ShadowInUse { key: keys.base().to_owned() }
}

/// The key that marks a shadow; it is written first and removed last.
fn made(keys: &Keys) -> String {
    keys.named("made")
}

/// Checks that nothing is there, and marks the place. Removes what killed runs left, whatever the name of their
/// shadow.
pub(super) async fn claim(
    connection: &mut MultiplexedConnection,
    live: &Keys,
    keys: &Keys,
) -> Result<(), AskError> {
    let (base, mut names, mut own) = (live.named(Keys::SHADOWS), BTreeSet::new(), None);
    let mut walk = Scan::new(&base);
    while let Some(found) = walk.page(connection).await? {
        for key in found {
            let name = key.strip_prefix(&base).and_then(|rest| rest.split_once(':'));
            names.extend(name.map(|(name, _)| name.to_owned()));
            if key.starts_with(keys.base()) && key != Lease::key(keys) {
                own = Some(key);
            }
        }
    }
    for shadow in names.iter().map(|name| live.shadow(name)) {
        let is_made = exists(connection, &made(&shadow)).await?;
        if shadow == *keys {
            if let Some(key) = own.take().filter(|_| !is_made) {
                return Err(AskError::ShadowTaken { key });
            }
            remove_all(connection, keys).await?;
        } else if is_made && !exists(connection, &Lease::key(&shadow)).await? {
            remove(connection, &shadow).await?;
        }
    }
    ask(connection, &["SET", &made(keys), "rollcall"]).await?;
    Ok(())
}

async fn exists(connection: &mut MultiplexedConnection, key: &str) -> Result<bool, AskError> {
    Ok(number(&ask(connection, &["EXISTS", key]).await?) == Some(1))
}

/// Removes a shadow.
pub(super) async fn remove(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
) -> Result<(), AskError> {
    remove_all(connection, keys).await?;
    ask(connection, &["UNLINK", &made(keys), &Lease::key(keys)]).await?;
    Ok(())
}

/// Removes everything but the marker.
async fn remove_all(connection: &mut MultiplexedConnection, keys: &Keys) -> Result<(), AskError> {
    let (kept, mut walk) = ([made(keys), Lease::key(keys)], Scan::new(keys.base()));
    while let Some(found) = walk.page(connection).await? {
        let taken: Vec<&str> =
            found.iter().filter(|key| !kept.contains(key)).map(String::as_str).collect();
        for some in taken.chunks(UNLINKED) {
            ask(connection, &[&["UNLINK"], some].concat()).await?;
        }
    }
    Ok(())
}

/// A walk over the server's keys with this prefix (`SCAN`).
pub(super) struct Scan {
    pattern: String,
    cursor: Option<String>,
}

impl Scan {
    pub(super) fn new(base: &str) -> Self {
        Self { pattern: format!("{}*", literal(base)), cursor: Some("0".to_owned()) }
    }

    /// The next keys, perhaps with repetitions; `None` at the end.
    pub(super) async fn page(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Vec<String>>, AskError> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let words = ["SCAN", &cursor, "COUNT", "1000", "MATCH", &self.pattern];
        let mut page = reply::array(ask(connection, &words).await?).unwrap_or_default().into_iter();
        self.cursor = page.next().and_then(reply::text).filter(|cursor| cursor != "0");
        let found = page.next().and_then(reply::array).unwrap_or_default();
        Ok(Some(found.into_iter().filter_map(reply::text).collect()))
    }
}
