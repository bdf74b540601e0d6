//! Users' latest transitions, read from the changes.

use std::collections::HashMap;

use super::ask::{AskError, range};
use super::{Partition, State};
use crate::change::Change;

/// How many changes are examined in all partitions together.
const LOOKED_AT: usize = 10_000;
/// How many changes are read at once: about a millisecond of the server's time.
const PAGE: usize = 500;

/// Users' latest transitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The newest first.
    pub changes: Vec<Change>,
    /// How far back the changes were examined, epoch milliseconds; `None` if all kept changes were.
    pub since_ms: Option<u64>,
}

/// The latest changes of each of these users, up to a number for each.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn of_users(
    state: &mut State,
    users: &[String],
    most: usize,
) -> Result<History, AskError> {
    let mut left: HashMap<&str, usize> = users.iter().map(|user| (user.as_str(), most)).collect();
    let share = LOOKED_AT.div_ceil(state.partitions.len().max(1));
    let mut history = History::default();
    for partition in &mut state.partitions {
        look_back(partition, share, &mut history, |user| left.contains_key(user)).await?;
    }
    history.changes.sort_unstable_by_key(|change| std::cmp::Reverse(change.id));
    history.changes.retain(|change| {
        let left = change.user.as_deref().and_then(|user| left.get_mut(user));
        left.is_some_and(|left| {
            let is_within = *left > 0;
            *left = left.saturating_sub(1);
            is_within
        })
    });
    Ok(history)
}

/// Adds a partition's newest changes of the wanted users.
async fn look_back(
    Partition { index, connection, keys, .. }: &mut Partition,
    share: usize,
    history: &mut History,
    is_meant: impl Fn(&str) -> bool,
) -> Result<(), AskError> {
    let (key, count) = (keys.changes(), PAGE.min(share).to_string());
    let (mut end, mut seen) = ("+".to_owned(), 0);
    loop {
        let page = range(connection, &["XREVRANGE", &key, &end, "-", "COUNT", &count]).await?;
        let Some(oldest) = page.last().map(|entry| entry.id) else { return Ok(()) };
        let changes = page.iter().filter_map(|entry| Change::read(entry, *index));
        history
            .changes
            .extend(changes.filter(|change| change.user.as_deref().is_some_and(&is_meant)));
        seen += page.len();
        if page.len() < PAGE.min(share) {
            return Ok(());
        }
        if seen >= share {
            history.since_ms = history.since_ms.max(Some(oldest.ms));
            return Ok(());
        }
        end = format!("({oldest}");
    }
}
