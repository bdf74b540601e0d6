//! The janitor's sweeps, one by one: what is stale is removed with everything that belongs to it and one change, what
//! is fresh stays, and what cannot be read stops nothing else.
//!
//! Events are applied under the default lifetimes and swept under shorter ones, so nothing has to be waited for.

mod addresses;
mod lifetimes;
mod processes;
mod stream;

use redis::aio::MultiplexedConnection;
use redis::{Connection, FromRedisValue};
use rollcall::config::{Deployment as Settings, JanitorConfig};
use rollcall::entry::Entry;
use rollcall::error::Error;
use rollcall::op::SweepKind;
use rollcall::projection::sweeps;
use rollcall::redis::scripts::sweep::{Sweeper, Swept};

use crate::harness::{Deployment, id};
use crate::support::dump;

/// One partition, with one connection to look at it and one to sweep it.
struct Bench {
    deployment: Deployment,
    conn: Connection,
    sweeping: MultiplexedConnection,
    /// The server's clock when the test began, ms.
    now: u64,
    seq: u64,
}

impl Bench {
    async fn new(flags: &[(&str, &str)]) -> Self {
        Self::over(Deployment::start(flags)).await
    }

    async fn over(deployment: Deployment) -> Self {
        let sweeping = deployment.async_connection(0).await;
        let mut conn = deployment.connection();
        let now = dump::server_now(&mut conn);
        Self { deployment, conn, sweeping, now, seq: 0 }
    }

    /// An entry with these fields, added `age_ms` before the test began.
    fn entry(&mut self, age_ms: u64, fields: &[(&str, &str)]) -> Entry {
        self.seq += 1;
        Entry::new(id(self.now - age_ms, self.seq), fields.iter().copied())
    }

    /// Merges entries that are in no stream.
    async fn apply(&mut self, entries: &[(u64, &[(&str, &str)])]) {
        let entries: Vec<_> =
            entries.iter().map(|(age_ms, fields)| self.entry(*age_ms, fields)).collect();
        self.deployment.script(0).await.merge(&entries).await;
    }

    /// A sweeper with settings that differ from the deployment's.
    fn sweeper(&self, change: impl FnOnce(&mut Settings, &mut JanitorConfig)) -> Sweeper {
        let (mut settings, mut janitor) =
            (self.deployment.config.deployment.clone(), self.deployment.config.janitor.clone());
        change(&mut settings, &mut janitor);
        Sweeper::new(&settings, &self.deployment.keys(0), &janitor)
    }

    /// One sweep call.
    async fn call(&mut self, sweeper: &Sweeper, what: &str) -> Result<Swept, Error> {
        sweeper.sweep(&mut self.sweeping, what, 200).await
    }

    /// Sweeps until nothing is due; returns how many members were removed.
    async fn sweep(&mut self, sweeper: &Sweeper, what: &str) -> u64 {
        let mut removed = 0;
        loop {
            let swept = self.call(sweeper, what).await.unwrap();
            removed += swept.removed;
            if !swept.more {
                return removed;
            }
        }
    }

    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command
            .arg(&words[1..])
            .query(&mut self.conn)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn exists(&mut self, keys: &[&str]) -> u64 {
        self.ask(&[&["EXISTS"], keys].concat())
    }

    /// Changes as `kind user token sid doc count threshold`, without absent values.
    fn changes(&mut self) -> Vec<String> {
        let changes = dump::changes(&mut self.conn, &self.deployment.keys(0));
        let fields = ["kind", "user", "ip", "token", "sid", "doc", "count", "threshold"];
        let text = |change: &dump::Change| {
            let there = fields.iter().filter_map(|field| change.get(*field));
            let there: Vec<_> = there.map(|value| String::from_utf8_lossy(value)).collect();
            there.join(" ")
        };
        changes.iter().map(text).collect()
    }

    /// Removes the changes so far, but not their numbers.
    fn clear_changes(&mut self) {
        self.ask::<()>(&["XTRIM", "rollcall:changes", "MAXLEN", "0"]);
    }

    /// Checks all changes against each other and the state.
    fn check_changes(&mut self) {
        let keys = self.deployment.keys(0);
        let state = dump::dump(&mut self.conn, &keys);
        dump::check_changes(&dump::changes(&mut self.conn, &keys), &state, &keys).unwrap();
    }
}

#[tokio::test]
async fn stale_presence_goes_with_one_change_and_fresh_presence_stays() {
    let mut bench = Bench::new(&[]).await;
    let heartbeat = |user, ip| [("type", "heartbeat"), ("user", user), ("ip", ip)];
    let (alice, odd, bob) =
        (heartbeat("alice", "ip"), heartbeat("a|b", "c|d"), heartbeat("bob", ""));
    bench.apply(&[(100_000, &alice), (100_000, &odd), (10_000, &bob)]).await;
    bench.clear_changes();
    let early = bench.sweeper(|settings, _| settings.presence_ttl_ms = 200_000);
    assert_eq!(bench.sweep(&early, "presence").await, 0);
    let sweeper = bench.sweeper(|settings, _| settings.presence_ttl_ms = 50_000);
    assert_eq!(bench.sweep(&sweeper, "presence").await, 2);
    assert_eq!(bench.sweep(&sweeper, "presence").await, 0, "once is enough");
    assert_eq!(bench.ask::<Vec<String>>(&["HKEYS", "presence:users"]), ["bob|"]);
    let mut gone = bench.changes();
    gone.sort();
    assert_eq!(gone, ["offline alice ip", "offline a|b c|d"]);
    bench.apply(&[(0, &alice)]).await;
    assert_eq!(bench.sweep(&sweeper, "presence").await, 0, "back and fresh");
    assert_eq!(bench.changes().last().unwrap(), "online alice ip");
    bench.check_changes();
}

#[tokio::test]
async fn what_rollcall_never_wrote_into_a_hash_goes_too() {
    let mut bench = Bench::new(&[]).await;
    for (key, value) in [("presence:users", "{\"user\":"), ("sessions:active", "{\"sid\":\"x\"}")] {
        bench.ask::<()>(&["HSET", key, "odd", value]);
        bench.ask::<()>(&["HSET", key, "", ""]);
    }
    let sweeper = bench.sweeper(|_, _| {});
    assert_eq!(bench.sweep(&sweeper, "presence").await, 2);
    assert_eq!(bench.sweep(&sweeper, "sessions").await, 2);
    let mut changes = bench.changes();
    changes.sort();
    assert_eq!(changes, ["offline  ", "offline odd ", "session_expired  ", "session_expired  odd"]);
}

#[tokio::test]
async fn a_session_expires_with_a_change_and_the_version_of_its_data_goes_after_the_data() {
    let mut bench = Bench::new(&[]).await;
    let session = |sid| [("type", "session"), ("sid", sid), ("user", "ü|"), ("data", "{}")];
    let (old, new) = (session("old"), session("new"));
    bench.apply(&[(100_000, &old), (10_000, &new)]).await;
    bench.clear_changes();
    let sweeper = bench.sweeper(|settings, _| settings.session_ttl_ms = 50_000);
    assert_eq!(bench.sweep(&sweeper, "sessions").await, 1);
    assert_eq!(bench.changes(), ["session_expired ü| old"]);
    assert_eq!(bench.ask::<Vec<String>>(&["HKEYS", "sessions:active"]), ["new"]);
    assert_eq!(bench.sweep(&sweeper, "session_data").await, 0, "both keys are there");
    bench.ask::<()>(&["DEL", "session:old"]); // in place of its own expiry
    assert_eq!(bench.sweep(&sweeper, "session_data").await, 1);
    assert_eq!(bench.ask::<Vec<String>>(&["HKEYS", "rollcall:sessions:data"]), ["new"]);
    bench.apply(&[(0, &old)]).await;
    assert_eq!(bench.changes().last().unwrap(), "session_started ü| old", "expired is no ending");
    assert_eq!(bench.exists(&["session:old"]), 1);
    bench.check_changes();
}

#[tokio::test]
async fn silent_users_leave_their_document_and_the_last_takes_set_and_count_along() {
    let mut bench = Bench::new(&[("thresholds", "3:2,2:0")]).await;
    let join = |user, connection| {
        [
            ("type", "document"),
            ("doc", "d|1"),
            ("user", user),
            ("connection", connection),
            ("action", "join"),
        ]
    };
    let (a, b, c1, c2) = (join("a|b", "x"), join("b", ""), join("c", "1"), join("c", "2"));
    bench.apply(&[(100_000, &a), (10_000, &b), (100_000, &c1), (10_000, &c2)]).await;
    bench.clear_changes();
    let (users, count) = ("sessions:doc:d|1:users", "sessions:doc:d|1:count");
    let sweeper = bench.sweeper(|settings, _| settings.document_ttl_ms = 50_000);
    assert_eq!(bench.sweep(&sweeper, "documents").await, 2, "the connections a|b:x and c:1");
    let mut left: Vec<String> = bench.ask(&["SMEMBERS", users]);
    left.sort();
    assert_eq!(left, ["b", "c"], "c is still there by another connection");
    assert_eq!(bench.ask::<String>(&["GET", count]), "2");
    assert_eq!(bench.changes(), ["document_left a|b d|1 2", "threshold_left d|1 2 3"]);
    bench.clear_changes();
    let sweeper = bench.sweeper(|settings, _| settings.document_ttl_ms = 5_000);
    assert_eq!(bench.sweep(&sweeper, "documents").await, 2);
    let mut changes = bench.changes();
    changes[..2].sort();
    assert_eq!(
        changes,
        ["document_left b d|1 0", "document_left c d|1 0", "threshold_left d|1 0 2"]
    );
    let gone =
        [users, count, "rollcall:docs:joined", "rollcall:docs:connections", "rollcall:docs:levels"];
    assert_eq!(bench.exists(&gone), 0);
    bench.check_changes();
}

#[tokio::test]
async fn tokens_over_the_cap_go_oldest_first_with_login_and_viewed_items() {
    let mut bench = Bench::new(&[]).await;
    let view = |token, user| [("type", "view"), ("user", user), ("token", token), ("item", "i")];
    let views =
        [view("t1", "u1"), view("t2", "u2"), view("t3", "u3"), view("t4", "u4"), view("t5", "u5")];
    for (age_ms, view) in [50_000, 40_000, 30_000, 20_000, 10_000].into_iter().zip(&views) {
        bench.apply(&[(age_ms, view)]).await;
    }
    bench.clear_changes();
    let sweeper = bench.sweeper(|settings, _| settings.recent_cap = 3);
    assert_eq!(bench.sweep(&sweeper, "recent").await, 2);
    assert_eq!(bench.changes(), ["logout u1 t1", "logout u2 t2"]);
    assert_eq!(bench.ask::<Vec<String>>(&["ZRANGE", "recent:", "0", "-1"]), ["t3", "t4", "t5"]);
    let mut holders: Vec<String> = bench.ask(&["HKEYS", "login:"]);
    holders.sort();
    assert_eq!(holders, ["t3", "t4", "t5"]);
    assert_eq!(bench.exists(&["viewed:t1", "viewed:t2"]), 0);
    assert_eq!(bench.exists(&["viewed:t3", "viewed:t4", "viewed:t5"]), 3);
    // An eviction is not an ending: the token may come back, and what was just refreshed is not the oldest.
    bench.apply(&[(0, &views[2]), (1, &views[0])]).await;
    assert_eq!(bench.sweep(&sweeper, "recent").await, 1);
    assert_eq!(bench.ask::<Vec<String>>(&["ZRANGE", "recent:", "0", "-1"]), ["t5", "t1", "t3"]);
    assert_eq!(bench.changes()[2..], ["login u1 t1", "logout u4 t4"]);
    bench.check_changes();
    // A key of that name that is not ours stays.
    bench.ask::<()>(&["SET", "viewed:t5", "mine"]);
    let sweeper = bench.sweeper(|settings, _| settings.recent_cap = 1);
    bench.ask::<()>(&["DEL", "viewed:t1"]);
    assert_eq!(bench.sweep(&sweeper, "recent").await, 2);
    assert_eq!(bench.ask::<String>(&["GET", "viewed:t5"]), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_never_hits_a_token_that_was_just_refreshed() {
    let mut bench = Bench::new(&[("recent-cap", "5")]).await;
    let sweeper = bench.sweeper(|_, _| {});
    let entries: Vec<Entry> = (0..400_u64)
        .map(|n| {
            let token = if n % 2 == 0 { "hot".to_owned() } else { format!("t{n}") };
            bench.entry(60_000 - n * 100, &[("type", "login"), ("user", "u"), ("token", &token)])
        })
        .collect();
    let mut script = bench.deployment.script(0).await;
    let apply = tokio::spawn(async move {
        for entry in &entries {
            script.merge(std::slice::from_ref(entry)).await;
        }
    });
    let mut evicted = 0;
    while !apply.is_finished() {
        evicted += bench.sweep(&sweeper, "recent").await;
    }
    apply.await.unwrap();
    evicted += bench.sweep(&sweeper, "recent").await;
    assert_eq!(evicted, 201 - 5, "each token but the last ones, once");
    assert_eq!(bench.ask::<Option<String>>(&["HGET", "login:", "hot"]).as_deref(), Some("u"));
    assert!(!bench.changes().contains(&"logout u hot".to_owned()));
    bench.check_changes();
}

#[tokio::test]
async fn the_ranking_keeps_its_top() {
    let mut bench = Bench::new(&[]).await;
    for (item, count) in [("i1", "1"), ("i3", "3"), ("i2", "2"), ("i9", "9"), ("i4", "4")] {
        bench.ask::<()>(&["ZADD", "viewed:", count, item]);
    }
    let sweeper = bench.sweeper(|settings, _| settings.ranking_cap = 2);
    assert_eq!(bench.sweep(&sweeper, "ranking").await, 3);
    assert_eq!(bench.ask::<Vec<String>>(&["ZRANGE", "viewed:", "0", "-1"]), ["i4", "i9"]);
    assert_eq!(bench.sweep(&sweeper, "ranking").await, 0);
}

#[tokio::test]
async fn tombstones_of_presence_and_documents_go_with_the_lifetime_of_what_they_ended() {
    let mut bench = Bench::new(&[]).await;
    let logout = |user| [("type", "logout"), ("user", user)];
    let leave = |user| [("type", "document"), ("doc", "d"), ("user", user), ("action", "leave")];
    let (old_logout, new_logout, old_leave, new_leave) =
        (logout("old"), logout("new"), leave("old"), leave("new"));
    bench
        .apply(&[
            (100_000, &old_logout),
            (10_000, &new_logout),
            (100_000, &old_leave),
            (10_000, &new_leave),
        ])
        .await;
    let under = |ttl_ms| {
        move |settings: &mut Settings, _: &mut JanitorConfig| {
            (settings.presence_ttl_ms, settings.document_ttl_ms) = (ttl_ms, ttl_ms);
        }
    };
    for (ttl_ms, removed) in [(200_000, 0), (50_000, 1), (50_000, 0), (5_000, 1)] {
        let sweeper = bench.sweeper(under(ttl_ms));
        assert_eq!(bench.sweep(&sweeper, "presence_ended").await, removed, "presence, {ttl_ms} ms");
        assert_eq!(
            bench.sweep(&sweeper, "documents_left").await,
            removed,
            "documents, {ttl_ms} ms"
        );
    }
    assert_eq!(bench.exists(&["rollcall:presence:ended", "rollcall:docs:left"]), 0);
    assert_eq!(bench.changes(), [""; 0], "nothing was there to end");
}

#[tokio::test]
async fn an_empty_server_is_swept_without_a_trace() {
    let mut bench = Bench::new(&[]).await;
    let sweeper = bench.sweeper(|_, _| {});
    for what in sweeps().map(|sweep| sweep.name).chain(["stream"]) {
        let swept = bench.call(&sweeper, what).await.unwrap();
        assert_eq!(swept, Swept::default(), "{what}");
    }
    let walks = sweeps().filter(|sweep| sweep.kind == SweepKind::Walk);
    for structure in walks.map(|sweep| sweep.name) {
        assert_eq!(sweeper.size(&mut bench.sweeping, structure).await.unwrap(), 0);
    }
    assert_eq!(bench.ask::<Vec<String>>(&["KEYS", "*"]), ["rollcall:janitor"]);
    let mut fields: Vec<String> = bench.ask(&["HKEYS", "rollcall:janitor"]);
    fields.sort();
    assert_eq!(fields, ["kept", "last_run"]);
}

#[tokio::test]
async fn a_shared_key_of_another_type_stops_a_sweep_before_it_takes_anything() {
    let mut bench = Bench::new(&[]).await;
    let heartbeat =
        [("type", "heartbeat"), ("user", "alice"), ("sid", "s"), ("doc", "d"), ("token", "t")];
    bench.apply(&[(100_000, &heartbeat)]).await;
    let sweeper = bench.sweeper(|settings, _| {
        (settings.presence_ttl_ms, settings.session_ttl_ms, settings.document_ttl_ms) =
            (1_000, 1_000, 1_000);
        settings.recent_cap = 0;
    });
    let keys = bench.deployment.keys(0);
    for key in [keys.docs_levels(), keys.dead(), keys.tokens_ended(), keys.workers()] {
        bench.ask::<()>(&["SET", &key, "x"]);
        for what in sweeps().map(|sweep| sweep.name) {
            let error = bench.call(&sweeper, what).await;
            let error = error.err().unwrap_or_else(|| panic!("{what} with {key} as a string"));
            assert_eq!(error.kind(), "wrong_key", "{error:?}");
            let text = rollcall::error::chain(&error);
            assert!(text.contains(&format!("{key} holds a string")), "{text}");
        }
        bench.ask::<()>(&["DEL", &key]);
    }
    let kept = ["presence:users", "sessions:active", "recent:", "sessions:doc:d:users"];
    assert_eq!(bench.exists(&kept), 4);
    for what in ["presence", "sessions", "documents", "recent"] {
        assert_eq!(bench.sweep(&sweeper, what).await, 1, "{what}, once all is well again");
    }
}

/// Regression: the sweep died in the middle, and the changes of all other documents in the call were lost.
#[tokio::test]
async fn a_document_s_key_of_another_type_costs_its_neighbours_nothing() {
    let mut bench = Bench::new(&[]).await;
    let join = |doc, user| [("type", "document"), ("doc", doc), ("user", user), ("action", "join")];
    let (a, b, c) = (join("a", "ua"), join("bad", "ub"), join("c", "uc"));
    let stays = join("c", "stays");
    bench.apply(&[(103_000, &a), (102_000, &b), (101_000, &c), (10_000, &stays)]).await;
    bench.clear_changes();
    bench.ask::<()>(&["DEL", "sessions:doc:bad:users"]);
    bench.ask::<()>(&["SET", "sessions:doc:bad:users", "not ours"]);
    let sweeper = bench.sweeper(|settings, _| settings.document_ttl_ms = 50_000);
    let first = bench.call(&sweeper, "documents").await;
    let second = bench.call(&sweeper, "documents").await;
    let mut changes = bench.changes();
    changes.retain(|change| !change.contains("bad"));
    changes.sort();
    let count: Option<String> = bench.ask(&["GET", "sessions:doc:c:count"]);
    assert_eq!(changes, ["document_left ua a 0", "document_left uc c 1"], "{first:?} {second:?}");
    assert_eq!(count.as_deref(), Some("1"));
    assert_eq!(bench.exists(&["sessions:doc:a:users", "sessions:doc:a:count"]), 0);
    assert_eq!(bench.ask::<String>(&["GET", "sessions:doc:bad:users"]), "not ours");
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
}
