//! What must hold, at any instant and in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use rollcall::entry::EntryId;

use super::ledger::{Account, Fate, Ledger, NOTES};
use super::taking::exempt;
use super::traced;
use crate::scene::{Added, Scene, block_on};
use crate::support::dump;
use crate::support::model::{Dead, Model, Open, State, Value, diff};

/// The name of the ranking.
const RANKING: &str = "viewed:";

/// Entries that a server which came back with less, or nothing, may have lost: those added between two
/// instants, in milliseconds.
pub type Losses = Vec<RangeInclusive<u64>>;

impl Account {
    /// How often it was acknowledged; not one number where a worker had it in hand when it was taken away.
    fn times(&self) -> RangeInclusive<u32> {
        let before = self.before.unwrap_or(0);
        match self.fate {
            Fate::Acknowledged => before + 1..=before + 1,
            Fate::Undelivered | Fate::Dropped => before..=before,
            // What counts is counted in the call that leaves the trace.
            Fate::Pending if self.applied == Some(false) => before..=before,
            Fate::Pending => before..=before + 1,
        }
    }

    /// Whether it was applied; without an acknowledgement the trace alone tells.
    pub fn has_effect(&self) -> bool {
        let (from, to) = self.times().into_inner();
        self.applied.unwrap_or(from > 0 || to > 0)
    }

    /// Whether the effect and the acknowledgement come together, as they must: what is acknowledged was
    /// applied or became a dead letter, and what is not has no trace in the state. Not known of an entry
    /// that a destroyed group had delivered or a deleted consumer had in hand: it may have been applied
    /// without an acknowledgement.
    ///
    /// A batch with an entry whose key is taken is applied but for that key first, and acknowledged in a second
    /// call: `in_two_calls`, while such an entry is pending.
    fn is_whole(&self, in_two_calls: bool) -> bool {
        let lettered = !self.letters.is_empty();
        match self.fate {
            Fate::Acknowledged => self.applied.unwrap_or(lettered),
            _ if self.before.is_some() || self.fate == Fate::Dropped => true,
            Fate::Pending if self.is_gone => true,
            Fate::Pending if in_two_calls => !lettered,
            Fate::Undelivered | Fate::Pending | Fate::Dropped => {
                self.applied != Some(true) && !lettered
            }
        }
    }
}

/// Entries added = done ⊎ pending ⊎ undelivered, and done means that the effect is there: at this instant.
pub fn check_instant(
    ledger: &Ledger,
    partition: u16,
    added: &[Added],
    losses: &Losses,
    what: &str,
) {
    let mut sets: BTreeMap<&str, usize> = BTreeMap::new();
    let is_held = |account: &Account| {
        account.fate == Fate::Pending && traced::taken_user(&account.entry).is_some()
    };
    let in_two_calls = ledger.accounts.values().any(is_held);
    for (id, account) in &ledger.accounts {
        let Account { fate, is_gone, before, applied, letters, .. } = account;
        assert!(
            account.is_whole(in_two_calls),
            "{what}: {id} is {fate:?}, gone: {is_gone}, acknowledged before: {before:?}, \
             applied: {applied:?}, letters: {letters:?}"
        );
        let set = match fate {
            _ if *is_gone => "gone",
            Fate::Acknowledged => "done",
            Fate::Dropped => "dropped",
            Fate::Pending => "pending",
            Fate::Undelivered => "undelivered",
        };
        *sets.entry(set).or_default() += 1;
    }
    let unknown: Vec<_> = ledger.pending.difference(&ids(ledger)).copied().collect();
    assert!(unknown.is_empty(), "{what}: pending, but nowhere: {unknown:?}; {sets:?}");
    assert!(ledger.strangers.is_empty(), "{what}: letters of nobody: {:?}", ledger.strangers);
    let is_lost = |id: &EntryId| losses.iter().any(|loss| loss.contains(&id.ms));
    let of_ours = added.iter().filter(|(of, _)| *of == partition).map(|(_, id)| id);
    let missing: Vec<_> =
        of_ours.filter(|id| !ledger.accounts.contains_key(id) && !is_lost(id)).collect();
    assert!(missing.is_empty(), "{what}: added, but nowhere: {missing:?}; {sets:?}");
}

fn ids(ledger: &Ledger) -> BTreeSet<EntryId> {
    ledger.accounts.keys().copied().collect()
}

/// Everything is finished: state, changes and dead letters are what the entries that were applied say.
pub fn check_end(scene: &Scene, partition: u16, ledger: &Ledger, what: &str) {
    let deployment = &scene.deployment;
    let keys = deployment.keys(partition);
    block_on(deployment.sweep(partition));
    let mut conn = scene.connection();
    let now = dump::server_now(&mut conn);
    let expected = Expected::of(ledger, || deployment.model(partition), now);
    let mut found = dump::dump(&mut conn, &keys);
    found.retain(|name, _| !name.starts_with(NOTES.as_bytes()));
    let seen = dump::changes(&mut conn, &keys);
    dump::check_changes_but(&exempt(&ledger.taken), &seen, &found, &keys)
        .unwrap_or_else(|fault| panic!("{what}: {fault}"));
    expected.check_letters(ledger, what);
    expected.check_state(found, &keys.viewed(), what);
}

/// What the state must be; where a worker had in hand what was taken away, at least and at most.
struct Expected {
    least: State,
    most: State,
    /// What else is right where the schedule decides.
    open: Open,
    letters: [Vec<Dead>; 2],
    /// Keys of which nothing can be said.
    unknown: BTreeSet<Vec<u8>>,
}

impl Expected {
    fn of(ledger: &Ledger, model: impl Fn() -> Model, now: u64) -> Self {
        let (mut least, mut most) = (model(), model());
        let (mut written_off, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for account in ledger.accounts.values() {
            let (from, to) = account.times().into_inner();
            if !account.has_effect() {
                continue;
            }
            // Where others took the ranking, nobody knows how many of its counts are left.
            let from = if ledger.taken.contains(RANKING) { 0 } else { from };
            let refused =
                account.letters.iter().filter(|dead| dead.1 == "wrong_type").count() as u32;
            if let Some(user) = traced::taken_user(&account.entry) {
                let key = format!("{}{user}", model().keys().activity()).into_bytes();
                match to {
                    0 => drop(unknown.insert(key)),
                    _ if refused == from && refused == to => drop(written_off.insert(key)),
                    _ if from != to => drop(unknown.insert(key)),
                    _ => {}
                }
            }
            least.apply_counting(&account.entry, now, from);
            most.apply_counting(&account.entry, now, to);
        }
        let letters = [least.dead(), most.dead()];
        let open = least.open(now);
        let without = |mut state: State| {
            state.retain(|key, _| !written_off.contains(key) && !unknown.contains(key));
            state
        };
        Self {
            least: without(least.state(now)),
            most: without(most.state(now)),
            open,
            letters,
            unknown,
        }
    }

    /// The whole state is equal, but for counts of views that lie between two numbers.
    fn check_state(mut self, mut found: State, ranking: &str, what: &str) {
        found.retain(|key, _| !self.unknown.contains(key));
        let ranking = ranking.as_bytes();
        let of = |state: &State| scores(state.get(ranking).map(|(value, _)| value));
        let (least, most, counted) = (of(&self.least), of(&self.most), of(&found));
        for item in most.keys().chain(counted.keys()) {
            let count = |of: &BTreeMap<_, u64>| of.get(item).copied().unwrap_or(0);
            assert!(
                (count(&least)..=count(&most)).contains(&count(&counted)),
                "{what}: {} was viewed {} to {} times, but counted {}",
                String::from_utf8_lossy(item),
                count(&least),
                count(&most),
                count(&counted)
            );
        }
        for state in [&mut self.least, &mut found] {
            state.remove(ranking);
        }
        let differences = diff(&self.least, &self.open, &found);
        assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
    }

    /// Each dead letter is there as often as its entry was acknowledged, and no other is. An entry that met
    /// a key of another type has one for that instead of its effect on that key.
    fn check_letters(&self, ledger: &Ledger, what: &str) {
        let all = || ledger.accounts.values().flat_map(|account| &account.letters);
        let found = count(all().filter(|dead| dead.1 != "wrong_type"));
        let [least, most] = [count(&self.letters[0]), count(&self.letters[1])];
        for letter in most.keys().chain(found.keys()) {
            let of = |counts: &BTreeMap<&Dead, u32>| counts.get(letter).copied().unwrap_or(0);
            let range = of(&least)..=of(&most);
            assert!(
                range.contains(&of(&found)),
                "{what}: {letter:?} {} times, not {range:?}",
                of(&found)
            );
        }
        for (dead, times) in count(all().filter(|dead| dead.1 == "wrong_type")) {
            let account = &ledger.accounts[&dead.0];
            let is_fair =
                traced::taken_user(&account.entry).is_some() && times <= *account.times().end();
            assert!(is_fair, "{what}: {dead:?} {times} times");
        }
    }
}

fn count<'a>(letters: impl IntoIterator<Item = &'a Dead>) -> BTreeMap<&'a Dead, u32> {
    let mut counts = BTreeMap::new();
    letters.into_iter().for_each(|letter| *counts.entry(letter).or_default() += 1);
    counts
}

fn scores(ranking: Option<&Value>) -> BTreeMap<Vec<u8>, u64> {
    let Some(Value::Zset(members)) = ranking else { return BTreeMap::new() };
    members.iter().map(|(item, count)| (item.clone(), count.parse().unwrap())).collect()
}
