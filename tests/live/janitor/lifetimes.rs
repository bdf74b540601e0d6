//! Sessions with their own lifetimes: which event decides, when they expire, and what is remembered.

use super::Bench;

const TTLS: &str = "rollcall:sessions:ttl";
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A session's event with a lifetime in seconds.
fn session<'a>(sid: &'a str, ttl: &'a str) -> [(&'static str, &'a str); 4] {
    [("type", "session"), ("sid", sid), ("data", "{}"), ("ttl", ttl)]
}

impl Bench {
    /// How long ago, in ms before the test began, this session's data would have to be touched to expire now.
    fn data_expires_ms(&mut self, sid: &str) -> i64 {
        let expiry: i64 = self.ask(&["PEXPIRETIME", &format!("session:{sid}")]);
        if expiry > 0 { expiry - self.now as i64 } else { expiry }
    }

    fn active(&mut self) -> Vec<String> {
        let mut sids: Vec<String> = self.ask(&["HKEYS", "sessions:active"]);
        sids.sort();
        sids
    }
}

#[tokio::test]
async fn sessions_live_as_long_as_they_were_given_and_others_as_usual() {
    let mut bench = Bench::new(&[]).await;
    let touch = |sid| [("type", "session"), ("sid", sid)];
    let (long, short, other) = (session("long", "7200"), session("short", "60"), touch("other"));
    bench.apply(&[(HOUR, &long), (MINUTE / 2, &short), (MINUTE, &other)]).await;
    assert_eq!(bench.active(), ["long", "other", "short"]);
    assert_eq!(bench.data_expires_ms("long"), 3_600_000);
    assert_eq!(bench.data_expires_ms("short"), 30_000);
    // A touch would be late by the default lifetime, and keeps the data by the session's own.
    bench.apply(&[(50 * MINUTE, &touch("long")), (MINUTE, &touch("short"))]).await;
    assert_eq!(bench.data_expires_ms("long"), 70 * 60_000);
    assert_eq!(bench.data_expires_ms("short"), 30_000, "an older touch");
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "sessions").await, 0);
    bench.check_changes();
}

#[tokio::test]
async fn a_lifetime_that_changes_takes_the_session_and_its_data_along() {
    let mut bench = Bench::new(&[]).await;
    bench.apply(&[(20 * MINUTE, &session("s", "7200"))]).await;
    bench.apply(&[(30 * MINUTE, &session("s", "60"))]).await;
    assert_eq!(bench.data_expires_ms("s"), 100 * 60_000, "what is older decides nothing");
    bench.apply(&[(10 * MINUTE, &session("s", "3600"))]).await;
    assert_eq!(bench.data_expires_ms("s"), 50 * 60_000);
    bench.apply(&[(80 * MINUTE, &session("old", "7200"))]).await;
    assert_eq!(bench.active(), ["old", "s"]);
    bench.clear_changes();
    // An event that is late by its own lifetime ends what lived by another.
    bench.apply(&[(5 * MINUTE, &session("s", "60")), (50 * MINUTE, &session("old", "60"))]).await;
    assert_eq!(bench.exists(&["session:s", "session:old"]), 0);
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "sessions").await, 2);
    let mut changes = bench.changes();
    changes.sort();
    assert_eq!(changes, ["session_expired unknown old", "session_expired unknown s"]);
    bench.check_changes();
}

#[tokio::test]
async fn what_was_said_before_stays_late_when_the_session_itself_is_gone() {
    let mut bench = Bench::new(&[]).await;
    let touch = [("type", "session"), ("sid", "s")];
    bench.apply(&[(10 * MINUTE, &session("s", "60"))]).await;
    assert_eq!(bench.active(), [""; 0], "late by its own lifetime");
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "session_ttls").await, 0, "it is needed still");
    bench
        .apply(&[(11 * MINUTE, &touch), (9 * MINUTE, &touch), (12 * MINUTE, &session("s", "7200"))])
        .await;
    assert_eq!(bench.active(), [""; 0], "not even as it would live as usual");
    let stored: String = bench.ask(&["HGET", TTLS, "s"]);
    let (named, seen) = (bench.now - 10 * MINUTE, bench.now - 9 * MINUTE);
    assert_eq!(stored, format!("{named}:0000060:{seen}"));
    bench.apply(&[(MINUTE / 2, &touch)]).await;
    assert_eq!(bench.active(), ["s"], "a new touch counts by the same lifetime");
    assert_eq!(bench.sweep(&sweeper, "session_ttls").await, 0);
    bench.check_changes();
}

#[tokio::test]
async fn a_lifetime_is_forgotten_with_its_session_and_goes_at_its_end() {
    let mut bench = Bench::new(&[]).await;
    let (old, new, ended) = (session("old", "60"), session("new", "60"), session("ended", "600"));
    bench.apply(&[(29 * MINUTE, &old), (MINUTE / 2, &new), (MINUTE, &ended)]).await;
    assert_eq!(bench.ask::<u64>(&["HLEN", TTLS]), 3);
    bench.apply(&[(1, &[("type", "session"), ("sid", "ended"), ("action", "terminate")])]).await;
    let sweeper = bench.sweeper(|settings, _| settings.session_ttl_ms = 10 * MINUTE);
    assert_eq!(bench.sweep(&sweeper, "session_ttls").await, 1);
    assert_eq!(bench.ask::<Vec<String>>(&["HKEYS", TTLS]), ["new"]);
    bench.apply(&[(MINUTE / 2, &ended)]).await;
    assert_eq!(bench.ask::<Vec<String>>(&["HKEYS", TTLS]), ["new"], "what ended stays ended");
    // Once forgotten, it counts as never set.
    bench.apply(&[(2 * MINUTE, &[("type", "session"), ("sid", "old")])]).await;
    assert_eq!(bench.active(), ["new", "old"]);
    bench.check_changes();
}
