//! Other programs at single keys: expiries set and removed, keys removed; and what is promised about each.
//!
//! An expiry removes nothing, and a document's set and count are restored; after those everything is as before. The
//! content of a shared key that is removed cannot all come back by itself. It is back once every event has come
//! again; until then nothing can be checked about that key, or in the changes about it.

use std::collections::BTreeSet;

use rollcall::redis::scripts::shared_keys;

use super::ledger::{NOTES, notes};
use super::plan::Strike;
use super::schedule::Chaos;
use super::traced;
use crate::scene::{add, try_command};
use crate::support::model::Exempt;
use crate::trouble::command;

/// Longer than the promised 2 s, by as long as servers refuse everything in some of the other faults.
const EXPIRY_S: &str = "6";

impl Chaos {
    /// `EXPIRE` of a shared key, or of a document's.
    pub fn expire(&mut self, strike: &Strike) {
        let keys = [self.shared(strike), self.of_document(strike)].concat();
        let key = &keys[strike.dice as usize % keys.len()];
        command(&self.scene, &["EXPIRE", key, EXPIRY_S]);
    }

    /// `PERSIST` of a shared key, or of a turn.
    pub fn persist(&mut self, strike: &Strike) {
        let keys = self.scene.deployment.keys(strike.partition(&self.scene));
        let turns = vec![keys.janitor_lease(), keys.janitor_survey()];
        let keys = [self.shared(strike), turns.clone(), turns].concat();
        command(&self.scene, &["PERSIST", &keys[strike.dice as usize % keys.len()]]);
    }

    /// `DEL` or `RENAME` of a shared key.
    pub fn take_away(&mut self, how: &str, strike: &Strike) {
        let partition = strike.partition(&self.scene);
        let deployment = &self.scene.deployment;
        let keys = deployment.keys(partition);
        let mut all = shared_keys(&deployment.config.deployment.stream, &keys);
        // Other kinds try what happens to the settings, the counts and the stream.
        let own = [keys.meta(), keys.janitor(), deployment.stream(partition)];
        all.retain(|(key, _)| !own.contains(key));
        let (key, _) = &all[strike.dice as usize / 7 % all.len()];
        let name = key.strip_prefix(keys.base()).unwrap();
        let is_dead = if *key == keys.dead() { "1" } else { "0" };
        let [taken, traces, letters] = notes(partition, ["taken", "traces", "letters"]);
        let (aside, script) = (format!("{NOTES}away"), include_str!("taking.lua"));
        let (joined, present) = (keys.docs_joined(), keys.presence());
        let keys = [key, &aside, &taken, &traces, &letters, &joined, &present];
        let words = ["EVAL", script, "7"].into_iter().chain(keys.map(String::as_str));
        let words: Vec<&str> = words.chain([how, name, is_dead]).collect();
        self.counted += try_command::<u64>(&mut self.scene.connection(), &words).unwrap();
    }

    /// `DEL` of a document's set or count.
    pub fn take_document(&mut self, strike: &Strike) {
        let keys = self.of_document(strike);
        let [taken] = notes(strike.partition(&self.scene), ["taken"]);
        let words = [
            "EVAL",
            "redis.call('SADD', KEYS[2], 'document'); return redis.call('DEL', KEYS[1])",
            "2",
        ];
        let key = &keys[strike.dice as usize % keys.len()];
        let words = [&words[..], &[key, &taken]].concat();
        self.counted += try_command::<u64>(&mut self.scene.connection(), &words).unwrap();
    }

    fn shared(&self, strike: &Strike) -> Vec<String> {
        let deployment = &self.scene.deployment;
        let keys = deployment.keys(strike.partition(&self.scene));
        let all = shared_keys(&deployment.config.deployment.stream, &keys);
        all.into_iter().map(|(key, _)| key).collect()
    }

    fn of_document(&self, strike: &Strike) -> Vec<String> {
        let (deployment, partition) = (&self.scene.deployment, strike.partition(&self.scene));
        let doc = traced::document(deployment.partitions(), partition);
        let keys = deployment.keys(partition);
        vec![keys.document_users(&doc), keys.document_count(&doc)]
    }

    /// If keys were removed, everything that had its effect is sent once more; returns how many entries that are.
    pub fn send_again(&self) -> usize {
        let mut count = 0;
        for partition in 0..self.scene.deployment.partitions() {
            let ledger = self.ledger(partition);
            if !ledger.taken.iter().any(|name| name != "document") {
                continue;
            }
            let stream = self.scene.deployment.stream(partition);
            let mut conn = self.scene.connection();
            for account in ledger.accounts.values().filter(|account| account.has_effect()) {
                let fields: Vec<_> =
                    account.entry.fields().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
                add(&mut conn, &stream, &fields);
                count += 1;
            }
        }
        count
    }
}

/// What need not hold for changes if keys with these names were removed.
pub fn exempt(taken: &BTreeSet<String>) -> Exempt {
    let has = |name: &str| taken.contains(name);
    let mut subjects = Vec::new();
    for (begins, keys) in [
        ("online", &["presence:users"][..]),
        ("login", &["login:"]),
        ("session_started", &["sessions:active"]),
        ("threshold_reached", &["rollcall:docs:levels", "document"]),
    ] {
        if keys.iter().any(|key| has(key)) {
            subjects.push(begins);
        }
    }
    // Users who were removed from a document whose set was removed too left without a change.
    let is_torn = has("rollcall:docs:joined") || has("rollcall:docs:connections");
    if has("document") && is_torn {
        subjects.push("document_joined");
    }
    Exempt {
        subjects,
        counts: has("document"),
        sequence: has("rollcall:changes") && has("rollcall:changes:seq"),
    }
}
