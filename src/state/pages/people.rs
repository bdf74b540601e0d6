//! People: who is online, who was seen, and what is known about given users.
//!
//! Users are found by the index of addresses, so a query costs per requested user, not per user online.

use std::collections::HashMap;

use serde::Serialize;

use super::scan::{Listing, PageError, Row, Source, page};
use super::{Cursor, MOST, Page};
use crate::key;
use crate::redis::reply;
use crate::state::ask::{AskError, ask, number};
use crate::state::users::{Present, fields_of};
use crate::state::{Partition, State, list};

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The user.
    pub user: String,
    /// Whether the user has a presence entry now.
    pub online: bool,
    /// When the user was last seen, epoch milliseconds; `None` if that is longer ago than is kept.
    pub last_seen_ms: Option<u64>,
    /// Where the user is, the last seen first.
    pub addresses: Vec<Address>,
}

/// Where a user is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The address, empty if the event had none.
    pub ip: String,
    /// The page, empty if the event had none.
    pub page: String,
    /// The user agent, empty if the event had none.
    pub ua: String,
    /// The last sign of life there, epoch milliseconds.
    pub last_seen_ms: u64,
}

impl Person {
    fn of(user: String, last_activity_s: Option<u64>, mut present: Vec<Present>) -> Self {
        present.sort_by(Present::newest_first);
        let newest = present.first().map(|present| present.last_seen_ms);
        // Activity has whole seconds; a presence entry of the same second is more precise.
        let activity = last_activity_s.map(|seconds| seconds.saturating_mul(1000));
        let address = |present: Present| {
            let Present { ip, page, ua, last_seen_ms, .. } = present;
            Address { ip, page, ua, last_seen_ms }
        };
        Self {
            user,
            online: !present.is_empty(),
            last_seen_ms: newest.max(activity),
            addresses: present.into_iter().map(address).collect(),
        }
    }
}

/// What is known about users, in the order of the request.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn people(state: &mut State, users: &[String]) -> Result<Vec<Person>, AskError> {
    let since_ms = state.now_ms.saturating_sub(state.deployment.presence_ttl_ms);
    let partitions = state.deployment.partitions;
    let mut known: HashMap<&str, Person> = HashMap::with_capacity(users.len());
    for partition in &mut state.partitions {
        let own = |user: &&String| key::partition_of(user, partitions) == partition.index;
        let mut users: Vec<&str> = users.iter().filter(own).map(String::as_str).collect();
        // What is found is taken once.
        users.sort_unstable();
        users.dedup();
        for page in users.chunks(MOST) {
            let found = in_partition(partition, page, since_ms).await?;
            known.extend(page.iter().copied().zip(found));
        }
    }
    let nobody = |user: &String| Person::of(user.clone(), None, Vec::new());
    Ok(users
        .iter()
        .map(|user| known.get(user.as_str()).cloned().unwrap_or_else(|| nobody(user)))
        .collect())
}

/// What a partition knows about its own users.
async fn in_partition(
    partition: &mut Partition,
    users: &[&str],
    since_ms: u64,
) -> Result<Vec<Person>, AskError> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let activity: Vec<String> =
        users.iter().map(|user| format!("{}{user}", partition.keys.activity())).collect();
    let words: Vec<&str> =
        ["MGET"].into_iter().chain(activity.iter().map(String::as_str)).collect();
    let seen = list(ask(&mut partition.connection, &words).await?);
    let mut present = present_of(partition, users, since_ms).await?;
    let seen = seen.iter().map(number).chain(std::iter::repeat(None));
    let people = users.iter().zip(seen);
    Ok(people
        .map(|(user, seen)| {
            Person::of((*user).to_owned(), seen, present.remove(*user).unwrap_or_default())
        })
        .collect())
}

/// The presence entries of a partition's own users.
async fn present_of<'u>(
    partition: &mut Partition,
    users: &[&'u str],
    since_ms: u64,
) -> Result<HashMap<&'u str, Vec<Present>>, AskError> {
    let mut fields: Vec<(&'u str, String)> = Vec::new();
    let (connection, keys) = (&mut partition.connection, &partition.keys);
    let found = fields_of(connection, keys, users).await?.unwrap_or_default();
    for (user, found) in users.iter().zip(found) {
        fields.extend(found.into_iter().map(|field| (*user, field)));
    }
    let (key, mut present) = (keys.presence(), HashMap::<_, Vec<Present>>::new());
    for page in fields.chunks(MOST) {
        let words = ["HMGET", key.as_str()].into_iter().chain(page.iter().map(|(_, f)| f.as_str()));
        let values = list(ask(connection, &words.collect::<Vec<_>>()).await?);
        for ((user, _), value) in page.iter().zip(values) {
            let entry = reply::text(value).and_then(|json| Present::read(&json));
            if let Some(entry) = entry.filter(|entry| entry.last_seen_ms > since_ms) {
                present.entry(*user).or_default().push(entry);
            }
        }
    }
    Ok(present)
}

/// Users who have a presence entry now, unordered.
struct Online {
    since_ms: u64,
}

impl Listing for Online {
    type Item = Person;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        (step == 0).then(|| Source::hash(partition.keys.presence_addresses()))
    }

    async fn read(
        &self,
        partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Person)>, AskError> {
        let users: Vec<&str> = rows.iter().map(|(user, _)| user.as_str()).collect();
        let people = in_partition(partition, &users, self.since_ms).await?;
        Ok(people.into_iter().enumerate().filter(|(_, person)| person.online).collect())
    }
}

/// A page of the users who have a presence entry now, unordered.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn online(
    state: &mut State,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Person>, PageError> {
    let since_ms = state.now_ms.saturating_sub(state.deployment.presence_ttl_ms);
    page(state, &Online { since_ms }, cursor, limit).await
}

/// Users seen in one of the last minutes: a set for each, the oldest first. Users who are seen again while the list is
/// walked are then in a set that comes later.
struct Seen {
    now_minute: u64,
    minutes: u64,
}

impl Seen {
    fn oldest(&self) -> u64 {
        self.now_minute.saturating_sub(self.minutes - 1)
    }

    /// The minute of a step. Steps are the last 16 bits of minutes, so that a cursor means the same set in the next
    /// minute; `None` after the current one.
    fn minute(&self, step: u16) -> Option<u64> {
        let back = (self.now_minute as u16).wrapping_sub(step);
        (back < 1 << 15).then(|| self.now_minute.saturating_sub(u64::from(back)))
    }
}

impl Listing for Seen {
    type Item = String;

    fn first_step(&self) -> u16 {
        self.oldest() as u16
    }

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        self.minute(step).map(|minute| Source::set(partition.keys.online_minute(minute)))
    }

    /// Users who were seen before are in the set of an earlier minute, and were returned with it.
    async fn read(
        &self,
        partition: &mut Partition,
        step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, String)>, AskError> {
        let mut users: Vec<(usize, String)> =
            rows.into_iter().enumerate().map(|(row, (user, _))| (row, user)).collect();
        for earlier in self.oldest()..self.minute(step).unwrap_or(0) {
            if users.is_empty() {
                break;
            }
            let key = partition.keys.online_minute(earlier);
            let words = ["SMISMEMBER", key.as_str()];
            let words = words.into_iter().chain(users.iter().map(|(_, user)| user.as_str()));
            let before = list(ask(&mut partition.connection, &words.collect::<Vec<_>>()).await?);
            let mut before = before.iter().map(|value| number(value) == Some(1));
            users.retain(|_| !before.next().unwrap_or(false));
        }
        Ok(users)
    }
}

/// A page of the users seen in the last `minutes`, including the current one, unordered. Each user appears once as
/// long as the minute stays the same.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn seen(
    state: &mut State,
    minutes: u64,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<String>, PageError> {
    let now_minute = state.now_ms / 60_000;
    page(state, &Seen { now_minute, minutes }, cursor, limit).await
}
