//! Tokens: the recent ones, the items one viewed, and the most viewed items.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::ask::{AskError, ask, float, number, scored};
use super::{Listed, Partition, list, score_ms};
use crate::key::Keys;
use crate::redis::reply;
use crate::state::Link;

/// Members read from a sorted set in one call.
const PAGE: usize = 1000;

/// A recent token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// The token: whoever has it can act as the user.
    pub token: String,
    /// Its user.
    pub user: Option<String>,
    /// When it was last used, epoch milliseconds.
    pub last_seen_ms: u64,
}

impl Token {
    /// The newest first.
    pub fn newest_first(a: &Self, b: &Self) -> Ordering {
        b.last_seen_ms.cmp(&a.last_seen_ms).then_with(|| a.token.cmp(&b.token))
    }
}

/// The recent tokens: how many, and the newest `limit`.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn recent(
    connection: &mut Link,
    keys: &Keys,
    limit: usize,
) -> Result<Listed<Token>, AskError> {
    let (key, login) = (keys.recent(), keys.login());
    let count = number(&ask(connection, &["ZCARD", &key]).await?).unwrap_or(0);
    let mut items: Vec<Token> = Vec::new();
    // Tokens used meanwhile move to the front, so others are returned a second time.
    let mut seen = HashSet::new();
    let mut from = 0;
    while items.len() < limit {
        let wanted = PAGE.min(limit - items.len());
        let page = newest(connection, &key, from, wanted).await?;
        from += page.len();
        let is_last = page.len() < wanted;
        let tokens: Vec<_> =
            page.into_iter().filter(|(token, _)| seen.insert(token.clone())).collect();
        let names: Vec<&str> = tokens.iter().map(|(token, _)| token.as_str()).collect();
        let users = users(connection, &login, &names).await?;
        items.extend(tokens.into_iter().zip(users).map(|((token, score), user)| Token {
            token,
            user,
            last_seen_ms: score_ms(score),
        }));
        if is_last {
            break;
        }
    }
    Ok(Listed { count, items })
}

/// Up to `count` members from rank `from` on, the highest score first.
async fn newest(
    connection: &mut Link,
    key: &str,
    from: usize,
    count: usize,
) -> Result<Vec<(String, f64)>, AskError> {
    let (first, last) = (from.to_string(), (from + count.max(1) - 1).to_string());
    Ok(scored(ask(connection, &["ZRANGE", key, &first, &last, "REV", "WITHSCORES"]).await?))
}

/// The users of the tokens.
pub(super) async fn users(
    connection: &mut Link,
    login: &str,
    tokens: &[&str],
) -> Result<Vec<Option<String>>, AskError> {
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let mut words = vec!["HMGET", login];
    words.extend(tokens);
    Ok(list(ask(connection, &words).await?).into_iter().map(reply::text).collect())
}

/// An item a token viewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Viewed {
    /// The item.
    pub item: String,
    /// When it was last viewed, epoch milliseconds.
    pub viewed_ms: u64,
}

impl Viewed {
    /// The newest first.
    pub fn newest_first(a: &Self, b: &Self) -> Ordering {
        b.viewed_ms.cmp(&a.viewed_ms).then_with(|| a.item.cmp(&b.item))
    }
}

/// The state of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    /// Its user.
    pub user: Option<String>,
    /// When it was last used, epoch milliseconds.
    pub last_seen_ms: Option<u64>,
    /// How many items it viewed, and the newest.
    pub viewed: Listed<Viewed>,
}

/// The items that one token viewed; `None` if there is no such token.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn viewed(
    connection: &mut Link,
    keys: &Keys,
    token: &str,
    limit: usize,
) -> Result<Option<Views>, AskError> {
    let user = reply::text(ask(connection, &["HGET", &keys.login(), token]).await?);
    let seen = float(&ask(connection, &["ZSCORE", &keys.recent(), token]).await?).map(score_ms);
    let key = format!("{}{token}", keys.viewed());
    let count = number(&ask(connection, &["ZCARD", &key]).await?).unwrap_or(0);
    if user.is_none() && seen.is_none() && count == 0 {
        return Ok(None);
    }
    let items = newest(connection, &key, 0, limit.min(PAGE)).await?;
    let items = items
        .into_iter()
        .map(|(item, score)| Viewed { item, viewed_ms: score_ms(score) })
        .collect();
    Ok(Some(Views { user, last_seen_ms: seen, viewed: Listed { count, items } }))
}

/// Combines the answers of several partitions: a token that users of several partitions shared belongs to the latest
/// user.
pub fn merged_views(parts: Vec<Views>, limit: usize) -> Option<Views> {
    let latest = parts.iter().max_by_key(|part| part.last_seen_ms)?.clone();
    let viewed = parts.into_iter().map(|part| part.viewed);
    Some(Views { viewed: Listed::merged(viewed, limit, Viewed::newest_first), ..latest })
}

/// An item in the ranking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ranked {
    /// The item.
    pub item: String,
    /// How many views it has.
    pub views: u64,
}

/// The `limit` items with the most views, over all partitions.
///
/// An item's views are in the partitions of the users who viewed it. The top items of each partition are therefore
/// candidates, and their views in other partitions are added. No other item can have more views than the last
/// candidates of all partitions together (Fagin's threshold algorithm). Once the last wanted item has more, the
/// answer is exact; until then, more candidates are needed. Among items with equal views the last by name comes
/// first, as on the server, so a longer answer begins with a shorter one.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn ranking(partitions: &mut [Partition], limit: usize) -> Result<Vec<Ranked>, AskError> {
    let mut depth = limit.clamp(1, PAGE);
    loop {
        let (mut views, mut others) = (HashMap::new(), 0.0);
        for partition in &mut *partitions {
            let key = partition.keys.viewed();
            let first = newest(&mut partition.connection, &key, 0, depth).await?;
            if first.len() == depth {
                others += first.last().map_or(0.0, |(_, score)| *score);
            }
            views.extend(first);
        }
        if partitions.len() > 1 {
            sum(partitions, &mut views).await?;
        }
        let first = ranked(views, limit);
        let enough =
            first.len() == limit && first.last().is_none_or(|last| last.views as f64 > others);
        if enough || others == 0.0 || partitions.len() == 1 && first.len() == limit {
            return Ok(first);
        }
        depth = depth.saturating_mul(2);
    }
}

/// Replaces the views of each item by the sum over all partitions.
async fn sum(
    partitions: &mut [Partition],
    views: &mut HashMap<String, f64>,
) -> Result<(), AskError> {
    let items: Vec<String> = views.drain().map(|(item, _)| item).collect();
    for partition in partitions {
        let key = partition.keys.viewed();
        for page in items.chunks(PAGE) {
            let mut words = vec!["ZMSCORE", key.as_str()];
            words.extend(page.iter().map(String::as_str));
            let scores = list(ask(&mut partition.connection, &words).await?);
            for (item, score) in page.iter().zip(&scores) {
                *views.entry(item.clone()).or_default() += float(score).unwrap_or(0.0);
            }
        }
    }
    Ok(())
}

fn ranked(views: HashMap<String, f64>, limit: usize) -> Vec<Ranked> {
    let mut items: Vec<_> =
        views.into_iter().map(|(item, views)| Ranked { item, views: views as u64 }).collect();
    items.sort_by(|a, b| (b.views, &b.item).cmp(&(a.views, &a.item)));
    items.truncate(limit);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_two_partitions_belongs_to_the_latest() {
        let part = |user: &str, ms, item: &str| Views {
            user: Some(user.to_owned()),
            last_seen_ms: Some(ms),
            viewed: Listed {
                count: 1,
                items: vec![Viewed { item: item.to_owned(), viewed_ms: ms }],
            },
        };
        let views =
            merged_views(vec![part("a", 1, "x"), part("b", 3, "y"), part("c", 2, "z")], 2).unwrap();
        assert_eq!((views.user.as_deref(), views.last_seen_ms), (Some("b"), Some(3)));
        let items: Vec<_> = views.viewed.items.iter().map(|viewed| viewed.item.as_str()).collect();
        assert_eq!((views.viewed.count, items), (3, vec!["y", "z"]));
        assert_eq!(merged_views(Vec::new(), 2), None);
    }
}
