//! Documents: the users of a document, and the documents with the most users.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde::Serialize;

use super::ask::{AskError, Walk, ask, number};
use super::{Listed, list};
use crate::config::Threshold;
use crate::key::{self, Keys};
use crate::redis::reply;
use crate::state::Link;

/// A document and its number of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The document.
    pub doc: String,
    /// Users active in it.
    pub users: u64,
}

impl Document {
    /// The one with the most users first.
    pub fn fullest_first(a: &Self, b: &Self) -> Ordering {
        b.users.cmp(&a.users).then_with(|| a.doc.cmp(&b.doc))
    }
}

/// The documents with users: how many, and the `limit` with the most users.
///
/// Read page by page from Rollcall's own hash of connections, where each user in a document is one field. To find the
/// documents' keys, all keys of the server would have to be scanned.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn documents(
    connection: &mut Link,
    keys: &Keys,
    limit: usize,
) -> Result<Listed<Document>, AskError> {
    let key = keys.docs_connections();
    let mut walk = Walk::hash(&key, None);
    let mut users: HashMap<String, u64> = HashMap::new();
    while let Some(page) = walk.fields(connection).await? {
        for (pair, _) in page {
            if let Some((doc, _)) = pair.split_once('|') {
                *users.entry(key::unescape(doc).into_owned()).or_default() += 1;
            }
        }
    }
    let mut listed = Listed::default();
    for (doc, users) in users {
        listed.push(Document { doc, users }, limit, Document::fullest_first);
    }
    listed.cut(limit, Document::fullest_first);
    Ok(listed)
}

/// A user in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The user.
    pub user: String,
    /// How many connections they have; `None` if another writer added them.
    pub connections: Option<u64>,
}

/// A threshold and whether it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Level {
    /// Reached when at least this many users are active.
    pub up: u64,
    /// Left when at most this many are.
    pub down: u64,
    /// Whether it is reached.
    pub reached: bool,
}

/// The state of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The number in `sessions:doc:<doc>:count`, and the first users by name.
    pub users: Listed<Member>,
    /// The deployment's thresholds.
    pub levels: Vec<Level>,
}

/// The users in a document; `None` if there are none.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn document(
    connection: &mut Link,
    keys: &Keys,
    doc: &str,
    thresholds: &[Threshold],
    limit: usize,
) -> Result<Option<Members>, AskError> {
    let key = keys.document_users(doc);
    let (mut walk, mut users) = (Walk::set(&key), Listed::default());
    while let Some(page) = walk.members(connection).await? {
        for user in page {
            users.push(user, limit, String::cmp);
        }
    }
    users.cut(limit, String::cmp);
    let stored = number(&ask(connection, &["GET", &keys.document_count(doc)]).await?);
    if users.count == 0 && stored.is_none() {
        return Ok(None);
    }
    let items = members(connection, keys, doc, users.items).await?;
    let levels = levels(connection, keys, doc, thresholds).await?;
    Ok(Some(Members { users: Listed { count: stored.unwrap_or(users.count), items }, levels }))
}

/// The number of users active in a document, from `sessions:doc:<doc>:count`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn count(connection: &mut Link, keys: &Keys, doc: &str) -> Result<u64, AskError> {
    Ok(number(&ask(connection, &["GET", &keys.document_count(doc)]).await?).unwrap_or(0))
}

/// Users of a document with their connections.
pub(super) async fn members(
    connection: &mut Link,
    keys: &Keys,
    doc: &str,
    users: Vec<String>,
) -> Result<Vec<Member>, AskError> {
    const PAGE: usize = 1000;
    let mut members = Vec::with_capacity(users.len());
    for page in users.chunks(PAGE) {
        let pairs = page.iter().map(|user| key::join(&[doc, user]));
        let counts = hash_values(connection, &keys.docs_connections(), pairs.collect()).await?;
        members.extend(page.iter().zip(counts).map(|(user, count)| Member {
            user: user.clone(),
            connections: count.and_then(|count| count.parse().ok()),
        }));
    }
    Ok(members)
}

/// The deployment's thresholds, and whether a document has reached them.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn levels(
    connection: &mut Link,
    keys: &Keys,
    doc: &str,
    thresholds: &[Threshold],
) -> Result<Vec<Level>, AskError> {
    let doc = key::escape(doc);
    let names = thresholds.iter().map(|t| format!("{}:{}:{doc}", t.up, t.down)).collect();
    let flags = hash_values(connection, &keys.docs_levels(), names).await?;
    let level = |(t, flag): (&Threshold, Option<String>)| Level {
        up: t.up,
        down: t.down,
        reached: flag.is_some(),
    };
    Ok(thresholds.iter().zip(flags).map(level).collect())
}

/// The values of these fields in a hash.
pub(crate) async fn hash_values(
    connection: &mut Link,
    key: &str,
    fields: Vec<String>,
) -> Result<Vec<Option<String>>, AskError> {
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    let mut words = vec!["HMGET", key];
    words.extend(fields.iter().map(String::as_str));
    Ok(list(ask(connection, &words).await?).into_iter().map(reply::text).collect())
}
