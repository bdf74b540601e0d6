//! What must hold, at any instant and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use redis::Connection;
use rollcall::entry::EntryId;

use super::fleet::BATCH;
use super::ledger::{Account, Fate, Ledger, NOTES};
use super::taking::exempt;
use super::traced;
use crate::harness::Layout;
use crate::scene::{Added, block_on};
use crate::support::dump;
use crate::support::model::{Dead, Model, Open, State, Value, diff};

/// The name of the ranking.
const RANKING: &str = "viewed:";
/// The key that says which sessions' data is Rollcall's own; without it data stays until its expiry.
const DATA_VERSIONS: &str = "rollcall:sessions:data";

/// Entries that a server which came back with less data, or none, may have lost: those added between two instants, in
/// milliseconds.
pub type Losses = Vec<RangeInclusive<u64>>;

impl Ledger {
    /// Which of the entries that were added are nowhere.
    pub fn missing(&self, partition: u16, added: &[Added]) -> Vec<EntryId> {
        let of_ours = added.iter().filter(|(of, _)| *of == partition).map(|(_, id)| *id);
        of_ours.filter(|id| !self.accounts.contains_key(id)).collect()
    }

    /// Whether the group says how many entries are behind the cursor; where the server may not know, it says nothing.
    pub fn lag_is_right(&self, may_be_unknown: bool) -> bool {
        self.group.as_ref().is_some_and(|group| {
            let is_there = group.at == self.cursor && group.pending == 0;
            is_there && group.lag.map_or(may_be_unknown, |lag| lag == self.behind())
        })
    }

    /// The group's figure, and the true one.
    pub fn lag(&self) -> String {
        let said = self.group.as_ref().map(|group| {
            format!("{} pending, lag {:?}, at {}", group.pending, group.lag, group.at)
        });
        format!(
            "{} behind the cursor at {}; the group: {said:?}, added {}, settled {}",
            self.behind(),
            self.cursor,
            self.added,
            self.settled
        )
    }

    /// Whether an entry behind the cursor may have been applied: it is in the current batch, which met a key of
    /// another type and is sent again without what would write that key.
    fn may_be_half_applied(&self, id: EntryId) -> bool {
        let behind = self.accounts.values().filter(|account| account.fate == Fate::Behind);
        let in_hand: Vec<_> = behind.filter(|account| !account.is_gone).take(BATCH).collect();
        in_hand.iter().any(|account| account.entry.id == id)
            && in_hand.iter().any(|account| traced::taken_user(&account.entry).is_some())
    }

    /// Whether effect and cursor agree, as they must: every entry that the cursor has passed was applied or became a
    /// dead letter, and none behind it has a trace in the state. Unknown for an entry that was removed from behind
    /// the cursor, since a worker may have been applying it.
    fn is_whole(&self, account: &Account) -> bool {
        match account.fate {
            Fate::Passed if account.is_written_off() => account.applied != Some(true),
            Fate::Passed => account.has_effect(),
            Fate::Behind if account.is_gone => true,
            Fate::Behind if self.may_be_half_applied(account.entry.id) => {
                account.letters.is_empty()
            }
            Fate::Behind => account.applied != Some(true) && account.letters.is_empty(),
        }
    }
}

/// Entries added = passed by the cursor ⊎ behind it ⊎ lost, by Rollcall's own count; and passed means that the effect
/// is there: at this instant.
pub fn check_instant(ledger: &Ledger, what: &str) {
    for (id, account) in &ledger.accounts {
        let Account { fate, is_gone, applied, letters, .. } = account;
        assert!(
            ledger.is_whole(account),
            "{what}: {id} is {fate:?}, gone: {is_gone}, applied: {applied:?}, letters: {letters:?}; {}",
            ledger.lag()
        );
    }
    assert!(ledger.strangers.is_empty(), "{what}: letters of nobody: {:?}", ledger.strangers);
    let taken = ledger
        .accounts
        .values()
        .filter(|account| account.is_gone && account.fate == Fate::Behind && !account.has_effect());
    let sum = ledger.settled + ledger.behind() as i64 + taken.count() as i64;
    assert_eq!(ledger.added, sum, "{what}: added = passed + behind + lost; {}", ledger.lag());
}

/// What the server said that it took is there, or was, unless it may have lost it.
pub fn check_missing(
    ledger: &Ledger,
    partition: u16,
    added: &[Added],
    losses: &Losses,
    what: &str,
) {
    let is_lost = |id: &EntryId| losses.iter().any(|loss| loss.contains(&id.ms));
    let missing: Vec<_> =
        ledger.missing(partition, added).into_iter().filter(|id| !is_lost(id)).collect();
    assert!(missing.is_empty(), "{what}: added, but nowhere: {missing:?}");
}

/// Everything is finished: state, changes and dead letters are what the entries that were applied say. Keys that end
/// may do so up to `late_ms` later.
pub fn check_end(
    layout: &Layout,
    conn: &mut Connection,
    partition: u16,
    ledger: &Ledger,
    late_ms: u64,
    what: &str,
) {
    let keys = layout.keys(partition);
    // As if enough time had passed since shared keys were kept last.
    redis::cmd("HDEL").arg(keys.janitor()).arg("kept").exec(conn).unwrap();
    block_on(layout.sweep(partition));
    let now = dump::server_now(conn);
    let mut expected = Expected::of(ledger, layout.model(partition), now);
    let mut found = dump::dump(conn, &keys);
    found.retain(|name, _| !name.starts_with(NOTES.as_bytes()));
    let seen = dump::changes(conn, &keys);
    dump::check_changes_but(&exempt(&ledger.taken), &seen, &found, &keys)
        .unwrap_or_else(|fault| panic!("{what}: {fault}"));
    expected.check_letters(ledger, what);
    if ledger.taken.contains(RANKING) {
        expected.check_what_is_left_of_counts(&mut found, keys.viewed().as_bytes(), what);
    }
    if ledger.taken.contains(DATA_VERSIONS) {
        let data = keys.session_data();
        found
            .retain(|key, _| expected.state.contains_key(key) || !key.starts_with(data.as_bytes()));
    }
    found.retain(|key, _| !expected.unknown.contains(key));
    expected.allow_late(&mut found, late_ms);
    let differences = diff(&expected.state, &expected.open, &found);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}

/// The expected state.
struct Expected {
    state: State,
    /// What else is correct where the schedule decides.
    open: Open,
    letters: Vec<Dead>,
    /// Keys that cannot be checked.
    unknown: BTreeSet<Vec<u8>>,
}

impl Expected {
    fn of(ledger: &Ledger, mut model: Model, now: u64) -> Self {
        let (mut written_off, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for account in ledger.accounts.values() {
            if let Some(user) = traced::taken_user(&account.entry) {
                let key = format!("{}{user}", model.keys().activity()).into_bytes();
                if account.letters.iter().any(|letter| letter.1 == "wrong_type") {
                    written_off.insert(key);
                } else if account.fate == Fate::Behind {
                    unknown.insert(key);
                }
            }
            if account.has_effect() && !account.is_written_off() {
                model.apply_entry(&account.entry, now);
            }
        }
        let mut state = model.state(now);
        state.retain(|key, _| !written_off.contains(key) && !unknown.contains(key));
        Self { state, open: model.open(now), letters: model.dead(), unknown }
    }

    /// Sets ends right that are a little late.
    fn allow_late(&self, found: &mut State, late_ms: u64) {
        for (key, (_, expiry)) in found {
            let Some((_, Some(right))) = self.state.get(key) else { continue };
            if expiry.is_some_and(|found| (*right..=right + late_ms).contains(&found)) {
                *expiry = Some(*right);
            }
        }
    }

    /// Where others took the ranking, nobody knows how many of its counts are left.
    fn check_what_is_left_of_counts(&mut self, found: &mut State, ranking: &[u8], what: &str) {
        let counts = |value: Option<(Value, Option<u64>)>| match value {
            Some((Value::Zset(members), _)) => members,
            _ => Default::default(),
        };
        let (most, left) = (counts(self.state.remove(ranking)), counts(found.remove(ranking)));
        let number = |text: &str| text.parse::<u64>().unwrap();
        for (item, count) in left {
            let item_s_most = most.get(&item).map_or(0, |count| number(count));
            assert!(number(&count) <= item_s_most, "{what}: {item:?} counted {count}");
        }
    }

    /// Each dead letter exists once, and there are no others, except those of entries that met a key of another type
    /// or were written off because workers were killed while applying them.
    fn check_letters(&self, ledger: &Ledger, what: &str) {
        let is_of_its_own = |letter: &&Dead| !matches!(letter.1.as_str(), "wrong_type" | "poison");
        let all = || ledger.accounts.values().flat_map(|account| &account.letters);
        let (found, expected) = (count(all().filter(is_of_its_own)), count(&self.letters));
        assert_eq!(found, expected, "{what}: dead letters");
        let others = count(all().filter(|letter| !is_of_its_own(letter)));
        for (letter, times) in others {
            let entry = &ledger.accounts[&letter.0].entry;
            let is_fair = letter.1 == "poison" || traced::taken_user(entry).is_some();
            assert!(is_fair && times == 1, "{what}: {letter:?} {times} times");
        }
    }
}

fn count<'a>(letters: impl IntoIterator<Item = &'a Dead>) -> BTreeMap<&'a Dead, u32> {
    let mut counts = BTreeMap::new();
    letters.into_iter().for_each(|letter| *counts.entry(letter).or_default() += 1);
    counts
}
