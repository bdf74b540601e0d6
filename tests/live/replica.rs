//! The state of a client that took a snapshot and strictly applied the changes after it: a change that does not fit
//! the state is an error.

use std::collections::{BTreeMap, BTreeSet};

use redis::Connection;
use rollcall::changes::Position;
use rollcall::key::{self, Keys};
use serde_json::Value;

use crate::scene::try_command;

/// Who is present, which sessions exist, who is in which document, and which thresholds are reached.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    pub presence: BTreeSet<(String, String)>,
    pub sessions: BTreeSet<String>,
    pub members: BTreeSet<(String, String)>,
    pub levels: BTreeSet<(String, u64)>,
    /// The next number of each partition's changes, once one was seen.
    next: BTreeMap<u64, u64>,
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}")).to_owned()
}

impl Replica {
    /// The state in a snapshot.
    pub fn from_snapshot(snapshot: &Value) -> Self {
        let list = |name: &str| snapshot[name].as_array().cloned().unwrap_or_default();
        let mut replica = Self::default();
        let position: Position = snapshot["position"].as_str().unwrap().parse().unwrap();
        replica.next = (0..).zip(position.0.iter().map(|point| point.seq + 1)).collect();
        for item in list("presence") {
            let is_new = replica.presence.insert((text(&item, "user"), text(&item, "ip")));
            assert!(is_new, "present twice: {item}");
        }
        for item in list("sessions") {
            assert!(replica.sessions.insert(text(&item, "sid")), "there twice: {item}");
        }
        for item in list("documents") {
            let (doc, members) = (text(&item, "doc"), item["members"].as_array().unwrap());
            assert!(!members.is_empty() && item["users"].as_u64() >= Some(members.len() as u64));
            for member in members {
                let is_new = replica.members.insert((doc.clone(), text(member, "user")));
                assert!(is_new, "in it twice: {item}");
            }
            for level in item["thresholds"].as_array().unwrap() {
                if level["reached"].as_bool().unwrap() {
                    replica.levels.insert((doc.clone(), level["up"].as_u64().unwrap()));
                }
            }
        }
        replica
    }

    /// Applies a change in the form that listeners receive.
    ///
    /// # Errors
    /// If it does not follow the previous one, or does not fit the state.
    pub fn apply(&mut self, change: &Value) -> Result<(), String> {
        let (partition, seq) = (change["partition"].as_u64().unwrap(), change["seq"].as_u64());
        let seq = seq.unwrap();
        if let Some(expected) = self.next.insert(partition, seq + 1).filter(|next| *next != seq) {
            return Err(format!("{change} came in place of number {expected}"));
        }
        self.apply_some(change)
    }

    /// The same if a filter leaves out changes in between.
    pub fn apply_some(&mut self, change: &Value) -> Result<(), String> {
        let kind = change["kind"].as_str().unwrap();
        let fits = match kind {
            "online" => self.presence.insert((text(change, "user"), text(change, "ip"))),
            "offline" => self.presence.remove(&(text(change, "user"), text(change, "ip"))),
            "session_started" => self.sessions.insert(text(change, "sid")),
            "session_ended" | "session_expired" => self.sessions.remove(&text(change, "sid")),
            "document_joined" => self.members.insert((text(change, "doc"), text(change, "user"))),
            "document_left" => self.members.remove(&(text(change, "doc"), text(change, "user"))),
            "threshold_reached" => self.levels.insert(level(change)),
            "threshold_left" => self.levels.remove(&level(change)),
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("{change} changes nothing")) }
    }

    /// The server's state of one partition.
    pub fn of_server(conn: &mut Connection, keys: &Keys) -> Self {
        let mut fields =
            |key: String| -> Vec<String> { try_command(conn, &["HKEYS", &key]).unwrap() };
        let parts = |name: String| -> Vec<String> {
            name.split('|').map(|part| key::unescape(part).into_owned()).collect()
        };
        let pair = |name: String| {
            let parts = parts(name);
            (parts[0].clone(), parts[1].clone())
        };
        let level = |name: String| {
            let mut parts = name.splitn(3, ':');
            let up = parts.next().unwrap().parse().unwrap();
            (key::unescape(parts.nth(1).unwrap()).into_owned(), up)
        };
        Self {
            presence: fields(keys.presence()).into_iter().map(pair).collect(),
            sessions: fields(keys.sessions()).into_iter().collect(),
            members: fields(keys.docs_connections()).into_iter().map(pair).collect(),
            levels: fields(keys.docs_levels()).into_iter().map(level).collect(),
            next: BTreeMap::new(),
        }
    }

    /// Adds another partition's part.
    pub fn extend(&mut self, other: Self) {
        self.presence.extend(other.presence);
        self.sessions.extend(other.sessions);
        self.members.extend(other.members);
        self.levels.extend(other.levels);
    }

    /// The number of its last change of each partition.
    pub fn seqs(&self) -> Vec<u64> {
        self.next.values().map(|next| next - 1).collect()
    }

    /// The differences from another replica; empty if there are none.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        fn differ<T: Ord + std::fmt::Debug>(
            name: &str,
            a: &BTreeSet<T>,
            b: &BTreeSet<T>,
        ) -> Vec<String> {
            let (only_a, only_b) = (a.difference(b), b.difference(a));
            let here = only_a.map(|item| format!("{name}: only here {item:?}"));
            here.chain(only_b.map(|item| format!("{name}: only there {item:?}"))).collect()
        }
        [
            differ("presence", &self.presence, &other.presence),
            differ("sessions", &self.sessions, &other.sessions),
            differ("members", &self.members, &other.members),
            differ("levels", &self.levels, &other.levels),
        ]
        .concat()
    }
}

fn level(change: &Value) -> (String, u64) {
    (text(change, "doc"), change["threshold"].as_u64().unwrap())
}
