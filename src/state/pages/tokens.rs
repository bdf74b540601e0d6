//! Recent tokens and items in the order of their scores, so a page continues where the previous one ended, whatever
//! is added before it meanwhile.

use super::scan::PageError;
use super::{Cursor, MOST, Page};
use crate::state::State;
use crate::state::ask::{AskError, ask, scored};
use crate::state::score_ms;
use crate::state::tokens::{Ranked, Token, Viewed, ranking, users};

/// A member with its score, in milliseconds, and its partition.
struct Scored {
    partition: u16,
    member: String,
    ms: u64,
}

/// Members of one sorted set of each partition from `score_ms` downwards, the highest first: the first `count` of all
/// of them. For equal scores, lower partitions come first, and within each the server's own order applies.
async fn downwards(
    state: &mut State,
    key: impl Fn(&crate::key::Keys) -> String,
    score_ms_from: Option<u64>,
    count: usize,
) -> Result<Vec<Scored>, AskError> {
    // Scores are seconds with milliseconds.
    let from = match score_ms_from {
        Some(ms) => format!("{}.{:03}", ms / 1000, ms % 1000),
        None => "+inf".to_owned(),
    };
    let count_text = count.to_string();
    let mut all = Vec::new();
    for partition in &mut state.partitions {
        let key = key(&partition.keys);
        let words = [
            "ZRANGE",
            &key,
            &from,
            "-inf",
            "BYSCORE",
            "REV",
            "LIMIT",
            "0",
            &count_text,
            "WITHSCORES",
        ];
        let members = scored(ask(&mut partition.connection, &words).await?);
        let index = partition.index;
        all.extend(members.into_iter().map(|(member, score)| Scored {
            partition: index,
            member,
            ms: score_ms(score),
        }));
    }
    all.sort_by_key(|scored| std::cmp::Reverse(scored.ms));
    all.truncate(count);
    Ok(all)
}

/// A page of what [`downwards`] gives.
async fn page(
    state: &mut State,
    key: impl Fn(&crate::key::Keys) -> String,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Scored>, Option<Cursor>), PageError> {
    let limit = limit.clamp(1, MOST);
    let (from, given) = match Cursor::order(cursor)? {
        Some((score, given)) => (Some(score), usize::try_from(given).unwrap_or(usize::MAX)),
        None => (None, 0),
    };
    // With too many of one score, they cannot all be told apart.
    let given = given.min(10 * MOST);
    let mut found = downwards(state, key, from, given + limit + 1).await?;
    let same = found.iter().take(given).take_while(|scored| Some(scored.ms) == from).count();
    found.drain(..same);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|last| {
        let of_last = found.iter().rev().take_while(|scored| scored.ms == last.ms).count();
        let before = if of_last == found.len() && from == Some(last.ms) { same } else { 0 };
        Cursor::Order { score: last.ms, given: (of_last + before) as u64 }
    });
    Ok((found, next))
}

/// A page of the recent tokens, the last used first.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn recent(
    state: &mut State,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Token>, PageError> {
    let (found, cursor) = page(state, crate::key::Keys::recent, cursor, limit).await?;
    let mut users_of = vec![None; found.len()];
    for partition in &mut state.partitions {
        let places: Vec<usize> =
            (0..found.len()).filter(|n| found[*n].partition == partition.index).collect();
        let tokens: Vec<&str> = places.iter().map(|n| found[*n].member.as_str()).collect();
        let login = partition.keys.login();
        let users = users(&mut partition.connection, &login, &tokens).await?;
        places.into_iter().zip(users).for_each(|(place, user)| users_of[place] = user);
    }
    let items = found.into_iter().zip(users_of).map(|(scored, user)| {
        let Scored { member: token, ms: last_seen_ms, .. } = scored;
        Token { token, user, last_seen_ms }
    });
    Ok(Page { items: items.collect(), cursor })
}

/// A page of the items that a token viewed, the last viewed first.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn viewed(
    state: &mut State,
    token: &str,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Viewed>, PageError> {
    let key = |keys: &crate::key::Keys| format!("{}{token}", keys.viewed());
    let (found, cursor) = page(state, key, cursor, limit).await?;
    let items =
        found.into_iter().map(|scored| Viewed { item: scored.member, viewed_ms: scored.ms });
    Ok(Page { items: items.collect(), cursor })
}

/// A page of the items with the most views, over all partitions.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn most_viewed(
    state: &mut State,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Ranked>, PageError> {
    let limit = limit.clamp(1, MOST);
    let given = Cursor::order(cursor)?.map_or(0, |(_, given)| given);
    // The ranking is short, because its cap is enforced.
    let given = usize::try_from(given).unwrap_or(usize::MAX).min(1_000 * MOST);
    let mut items = ranking(&mut state.partitions, given + limit + 1).await?;
    items.drain(..given.min(items.len()));
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = Cursor::Order { score: 0, given: (given + limit) as u64 };
    Ok(Page { items, cursor: has_more.then_some(next) })
}
