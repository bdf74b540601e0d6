//! Presence by user: the index of addresses matches the entries, whoever removes or writes them, and a logout without
//! an address ends all of them.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use rollcall::key::{escape, join};

use super::Bench;

/// The maximum for one user; more are kept in the sorted set.
const IN_ONE_VALUE: usize = 16;

impl Bench {
    /// The addresses of each user, from the entries and from the index.
    fn addresses(&mut self) -> [BTreeMap<String, BTreeSet<String>>; 2] {
        let (mut entries, mut index): (BTreeMap<_, BTreeSet<_>>, BTreeMap<_, _>) =
            Default::default();
        for field in self.ask::<Vec<String>>(&["HKEYS", "presence:users"]) {
            let (user, address) = field.split_once('|').unwrap();
            entries.entry(user.to_owned()).or_default().insert(address.to_owned());
        }
        let crowds: Vec<String> = self.ask(&["ZRANGE", "rollcall:presence:crowds", "0", "-1"]);
        let stored: BTreeMap<String, String> =
            self.ask(&["HGETALL", "rollcall:presence:addresses"]);
        for (user, value) in stored {
            let user = escape(&user).into_owned();
            let of_user =
                |field: &String| field.strip_prefix(&format!("{user}|")).map(str::to_owned);
            let crowd: Vec<_> = crowds.iter().filter_map(of_user).collect();
            let few: Vec<_> = value.split('|').map(str::to_owned).collect();
            let is_crowd = value == "%";
            assert!(
                is_crowd || (crowd.is_empty() && few.is_sorted()),
                "{user}: {value}, {crowd:?}"
            );
            assert!(!is_crowd || crowd.len() > IN_ONE_VALUE, "{user}: {crowd:?}");
            assert!(few.len() <= IN_ONE_VALUE, "{user}: {value}");
            index.insert(user, BTreeSet::from_iter(if is_crowd { crowd } else { few }));
        }
        [entries, index]
    }

    fn check_addresses(&mut self, what: &str) {
        let [entries, index] = self.addresses();
        assert_eq!(index, entries, "{what}");
    }

    /// Merges a heartbeat of a user at each of these addresses.
    async fn beats(&mut self, user: &str, ips: impl Iterator<Item = u64>) {
        let ips: Vec<_> = ips.map(|n| n.to_string()).collect();
        for some in ips.chunks(200) {
            let beats: Vec<_> = some
                .iter()
                .map(|ip| [("type", "heartbeat"), ("user", user), ("ip", ip.as_str())])
                .collect();
            let beats: Vec<_> = beats.iter().map(|beat| (10_000, &beat[..])).collect();
            self.apply(&beats).await;
        }
    }
}

#[tokio::test]
async fn the_index_follows_a_crowd_of_addresses_as_it_comes_and_goes() {
    let mut bench = Bench::new(&[]).await;
    let (mut rng, users) = (Rng::with_seed(7), ["u", "u|%", ""]);
    let mut most = 0;
    for step in 0..240_u64 {
        let user = users[rng.usize(..2)];
        let ip = ["", "%", "a|b"]
            .get(rng.usize(..12))
            .map_or_else(|| rng.u64(..30).to_string(), |ip| (*ip).to_owned());
        // At first more come than go, then the other way round.
        let comes = rng.u64(..100) < if step < 120 { 85 } else { 15 };
        let kind = if comes { "heartbeat" } else { "logout" };
        let event = [("type", kind), ("user", user), ("ip", ip.as_str())];
        bench.apply(&[(60_000 - step * 100, &event)]).await;
        bench.check_addresses(&format!("step {step}: {event:?}"));
        most = most.max(bench.addresses()[0].values().map(BTreeSet::len).max().unwrap_or(0));
    }
    assert!(most > IN_ONE_VALUE + 2, "{most} addresses at most");
    for user in &users[..2] {
        bench.apply(&[(1, &[("type", "logout"), ("user", user)])]).await;
    }
    let gone = ["presence:users", "rollcall:presence:addresses", "rollcall:presence:crowds"];
    assert_eq!(bench.exists(&gone), 0);
    bench.check_changes();
}

#[tokio::test]
async fn a_logout_without_an_address_ends_every_entry_that_is_no_newer_however_late_it_comes() {
    let mut bench = Bench::new(&[]).await;
    let beat = |user, ip| [("type", "heartbeat"), ("user", user), ("ip", ip)];
    let out = [("type", "logout"), ("user", "a|b")];
    bench.apply(&[(50_000, &beat("a|b", "")), (40_000, &beat("a|b", "x|y"))]).await;
    bench.apply(&[(10_000, &beat("a|b", "newer")), (50_000, &beat("a", "b"))]).await;
    bench.clear_changes();
    bench.apply(&[(30_000, &out)]).await;
    let mut changes = bench.changes();
    changes.sort();
    assert_eq!(changes, ["offline a|b ", "offline a|b x|y"]);
    // Older events arrive after the end, at a known address and at an unknown one.
    bench.apply(&[(31_000, &beat("a|b", "x|y")), (30_000, &beat("a|b", "late"))]).await;
    assert_eq!(bench.changes().len(), 2);
    let mut left: Vec<String> = bench.ask(&["HKEYS", "presence:users"]);
    left.sort();
    assert_eq!(left, ["a%7Cb|newer", "a|b"]);
    bench.apply(&[(29_000, &beat("a|b", "x|y"))]).await;
    assert_eq!(bench.changes()[2..], ["online a|b x|y"]);
    bench.check_addresses("in the end");
    let sweeper = bench.sweeper(|settings, _| settings.presence_ttl_ms = 20_000);
    assert_eq!(bench.sweep(&sweeper, "presence_ended").await, 1, "its tombstone goes in time");
    bench.check_changes();
}

#[tokio::test]
async fn a_logout_ends_thousands_of_entries_in_short_calls() {
    let mut bench = Bench::new(&[]).await;
    bench.beats("guest", 0..2_300).await;
    bench.beats("bob", 0..3).await;
    bench.clear_changes();
    bench.apply(&[(5_000, &[("type", "logout"), ("user", "guest")])]).await;
    assert_eq!(bench.ask::<u64>(&["HLEN", "presence:users"]), 303, "the janitor's to end");
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "presence").await, 300);
    let changes = bench.changes();
    assert_eq!(changes.len(), 2_300);
    assert!(changes.iter().all(|change| change.starts_with("offline guest ")));
    assert_eq!(bench.exists(&["rollcall:presence:crowds"]), 0);
    bench.check_addresses("in the end");
    bench.check_changes();
}

/// As after an upgrade from a version without an index, or with another writer beside Rollcall.
#[tokio::test]
async fn entries_that_are_not_in_the_index_come_into_it_and_end_as_others() {
    let mut bench = Bench::new(&[]).await;
    bench.beats("few", 0..3).await;
    bench.beats("many", 0..40).await;
    for what in [
        &["DEL", "rollcall:presence:addresses"][..],
        &["DEL", "rollcall:presence:crowds"],
        &["DEL", "rollcall:presence:addresses", "rollcall:presence:crowds"],
        &["HSET", "rollcall:presence:addresses", "few", "1", "many", "7"],
    ] {
        bench.ask::<()>(what);
        let sweeper = bench.sweeper(|_, _| {});
        for walk in ["presence", "addresses", "crowds", "presence"] {
            bench.sweep(&sweeper, walk).await;
        }
        bench.check_addresses(&format!("{what:?}"));
    }
    bench.ask::<()>(&["DEL", "rollcall:presence:addresses"]);
    bench.apply(&[(5_000, &[("type", "logout"), ("user", "few")])]).await;
    assert_eq!(bench.ask::<u64>(&["HLEN", "presence:users"]), 43, "nothing is known of them");
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "presence").await, 3, "within a walk of the janitor");
    bench.check_addresses("in the end");
    bench.check_changes();
}

#[tokio::test]
async fn addresses_without_an_entry_leave_the_index_and_are_told_offline() {
    let mut bench = Bench::new(&[]).await;
    bench.beats("few", 0..3).await;
    bench.beats("many", 0..40).await;
    bench.beats("left", 0..1).await;
    for (user, ips) in [("few", 1..3), ("many", 10..40), ("left", 0..1)] {
        let fields: Vec<_> = ips.map(|ip| join(&[user, &ip.to_string()])).collect();
        let words = ["HDEL", "presence:users"].into_iter().chain(fields.iter().map(|f| &**f));
        bench.ask::<()>(&words.collect::<Vec<_>>());
    }
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "addresses").await, 2);
    assert_eq!(bench.sweep(&sweeper, "crowds").await, 30);
    bench.check_addresses("after all walks");
    bench.ask::<()>(&["DEL", "presence:users"]);
    for walk in ["addresses", "crowds", "addresses"] {
        bench.sweep(&sweeper, walk).await;
    }
    assert_eq!(bench.exists(&["rollcall:presence:addresses", "rollcall:presence:crowds"]), 0);
    bench.check_changes();
}

/// Entries of users whose activity is older are written unread, several at a time.
#[tokio::test]
async fn of_entries_written_together_the_new_ones_are_told_and_those_that_had_ended_stay_away() {
    let mut bench = Bench::new(&[]).await;
    let users: Vec<String> = (0..40).map(|n| format!("u|{n}")).collect();
    let beats = |ago: u64, elsewhere: &[(usize, &'static str)]| {
        let at = |n| elsewhere.iter().find(|(user, _)| *user == n).map_or("a", |(_, ip)| *ip);
        let beat = |(n, user)| (ago, [("type", "heartbeat"), ("user", user), ("ip", at(n))]);
        users.iter().map(String::as_str).enumerate().map(beat).collect::<Vec<_>>()
    };
    async fn apply(bench: &mut Bench, events: Vec<(u64, [(&str, &str); 3])>) {
        let events: Vec<_> = events.iter().map(|(ago, fields)| (*ago, &fields[..])).collect();
        bench.apply(&events).await;
    }
    let end = |ago, n: usize, ip| (ago, [("type", "logout"), ("user", &*users[n]), ("ip", ip)]);
    apply(&mut bench, beats(60_000, &[])).await;
    bench.beats("guest", 0..20).await;
    apply(&mut bench, vec![end(6_000, 5, "b")]).await;
    bench.clear_changes();

    let mut events = beats(7_000, &[(3, "b"), (5, "b"), (7, "b")]);
    events.push((7_000, [("type", "heartbeat"), ("user", "guest"), ("ip", "x")]));
    events.push((7_000, [("type", "heartbeat"), ("user", "guest2"), ("ip", "x")]));
    apply(&mut bench, events).await;
    let mut told = bench.changes();
    told.sort();
    let new = ["online guest x", "online guest2 x", "online u|3 b", "online u|7 b"];
    assert_eq!(told, new);
    assert!(!bench.ask::<bool>(&["HEXISTS", "presence:users", "u%7C5|b"]));
    bench.check_addresses("some came");
    bench.check_changes();

    // Without the index, changes may be repeated, but what had ended still stays away.
    bench.ask::<()>(&["DEL", "rollcall:presence:addresses"]);
    apply(&mut bench, vec![end(2_000, 9, "c")]).await;
    apply(&mut bench, beats(4_000, &[(9, "c"), (11, "d")])).await;
    let is_there = |field| ["HEXISTS", "presence:users", field];
    assert!(!bench.ask::<bool>(&is_there("u%7C9|c")));
    assert!(bench.ask::<bool>(&is_there("u%7C11|d")));
}
