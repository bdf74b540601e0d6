//! The janitor's use of the cursor and of other groups' positions: tombstones and trimming.

use rollcall::entry::Entry;
use rollcall::private_server::Options;
use rollcall::projection::sweeps;
use rollcall::redis::scripts::sweep::Swept;

use super::Bench;
use crate::harness::{Deployment, read_stream};

/// Ids and fields of the entries of one stream.
type Delivered = Vec<(String, Vec<String>)>;

const STREAM: &str = "rollcall:events";
const HOUR_MS: u64 = 3_600_000;

impl Bench {
    /// A server whose stream has nodes of ten entries, so that trimming is nearly exact.
    async fn with_small_nodes(flags: &[(&str, &str)]) -> Self {
        let nodes = ["--stream-node-max-entries", "10"].map(str::to_owned).to_vec();
        let options = Options { extra_args: nodes, ..Options::default() };
        Self::over(Deployment::start_with(flags, options)).await
    }

    /// Adds heartbeats of these ages to the stream; returns their ids.
    fn add_heartbeats(&mut self, ages_ms: impl Iterator<Item = u64>) -> Vec<Entry> {
        let heartbeat = [("type", "heartbeat"), ("user", "alice")];
        let entries: Vec<_> = ages_ms.map(|age| self.entry(age, &heartbeat)).collect();
        self.deployment.add(0, &entries);
        entries
    }

    /// `XREADGROUP`: up to `count` new entries for a consumer of a group.
    fn read(&mut self, group: &str, consumer: &str, count: usize) -> Vec<String> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(group).arg(consumer).arg("COUNT").arg(count);
        read.arg("STREAMS").arg(STREAM).arg(">");
        let reply: Option<Vec<(String, Delivered)>> = read.query(&mut self.conn).unwrap();
        let entries = reply.into_iter().flatten().flat_map(|(_, entries)| entries);
        entries.map(|(id, _)| id).collect()
    }

    fn acknowledge(&mut self, group: &str, ids: &[String]) {
        for id in ids {
            assert_eq!(self.ask::<u64>(&["XACK", STREAM, group, id]), 1, "{group} {id}");
        }
    }

    /// Another group reads and acknowledges this many.
    fn finish(&mut self, group: &str, count: usize) {
        let read = self.read(group, "c", count);
        assert_eq!(read.len(), count);
        self.acknowledge(group, &read);
    }

    /// The next entries behind the cursor are applied; returns the last one's id.
    async fn apply_next(&mut self, count: usize) -> String {
        let mut script = self.deployment.script(0).await;
        let mut entries = read_stream(&mut self.conn, STREAM);
        entries.retain(|entry| entry.id > script.joined.cursor);
        script.apply(&entries[..count]).await;
        script.joined.cursor.to_string()
    }

    /// How many entries after an id exist.
    fn after(&mut self, id: &str) -> usize {
        self.ask::<Vec<redis::Value>>(&["XRANGE", STREAM, &format!("({id}"), "+"]).len()
    }

    fn create_group(&mut self, group: &str) {
        self.ask::<()>(&["XGROUP", "CREATE", STREAM, group, "0", "MKSTREAM"]);
    }

    /// Sweeps the stream completely; returns the result of the last call.
    async fn trim(&mut self, keep_ms: u64) -> Swept {
        let sweeper = self.sweeper(|_, janitor| janitor.keep_ms = keep_ms);
        loop {
            let swept = self.call(&sweeper, "stream").await.unwrap();
            if !swept.more {
                return swept;
            }
        }
    }

    fn length(&mut self) -> u64 {
        self.ask(&["XLEN", STREAM])
    }
}

/// One per second from two hours ago on, so that half is older than an hour.
fn two_hours() -> impl Iterator<Item = u64> {
    (1..=200_u64).rev().map(|n| n * HOUR_MS / 100)
}

#[tokio::test]
async fn the_stream_keeps_what_is_younger_than_keep_and_goes_below() {
    let mut bench = Bench::with_small_nodes(&[]).await;
    bench.add_heartbeats(two_hours());
    bench.apply_next(200).await;
    let swept = bench.trim(HOUR_MS).await;
    assert_eq!(swept.blocked_by, "");
    assert_eq!(swept.unfinished_age_ms, 0);
    let length = bench.length();
    assert!((100..110).contains(&length), "100 of 200 are younger, {length} are left");
    assert_eq!(bench.trim(3 * HOUR_MS).await, Swept::default(), "nothing is that old");
    assert_eq!(bench.trim(0).await.blocked_by, "");
    let length = bench.length();
    assert!((1..=10).contains(&length), "all is finished; the last entry stays, {length} are left");
}

#[tokio::test]
async fn a_group_that_lags_blocks_trimming_and_is_named() {
    let mut bench = Bench::with_small_nodes(&[]).await;
    bench.add_heartbeats(two_hours());
    bench.apply_next(200).await;
    bench.create_group("other");
    let swept = bench.trim(HOUR_MS).await;
    assert_eq!((swept.blocked_by.as_str(), swept.removed), ("other", 0), "it has read nothing");
    assert_eq!(bench.length(), 200);
    let read = bench.read("other", "c", 60);
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "other", "read is not finished");
    assert_eq!(bench.length(), 200);
    bench.acknowledge("other", &read[..30]);
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "other");
    assert_eq!(bench.length(), 170, "below the first pending entry");
    bench.acknowledge("other", &read[30..]);
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "other");
    assert_eq!(bench.length(), 140, "below the first undelivered entry");
    bench.finish("other", 60);
    let swept = bench.trim(HOUR_MS).await;
    assert_eq!(swept.blocked_by, "", "what it has not read is younger than an hour");
    assert_eq!(bench.length(), 100);
}

#[tokio::test]
async fn what_is_behind_the_cursor_blocks_trimming_and_has_an_age() {
    let mut bench = Bench::with_small_nodes(&[]).await;
    bench.add_heartbeats(two_hours());
    let cursor = bench.apply_next(50).await;
    let swept = bench.trim(HOUR_MS).await;
    assert_eq!(swept.blocked_by, "rollcall");
    let age_ms = HOUR_MS / 100 * 150;
    assert!((age_ms..age_ms + 60_000).contains(&swept.unfinished_age_ms), "{swept:?}");
    assert_eq!(bench.after(&cursor), 150);
    assert_eq!(bench.length(), 160, "the cursor's own entry stays, and its node with it");
    // The group's figures, and what others do to it, do not count.
    bench.ask::<()>(&["XGROUP", "SETID", STREAM, "rollcall", "$"]);
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "rollcall");
    bench.ask::<()>(&["XGROUP", "DESTROY", STREAM, "rollcall"]);
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "rollcall");
    assert_eq!(bench.after(&cursor), 150);
    bench.apply_next(60).await;
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "");
    assert!((100..=110).contains(&bench.length()));
}

/// Entries added before the first worker count.
#[tokio::test]
async fn without_a_cursor_the_stream_is_not_trimmed() {
    let mut bench = Bench::with_small_nodes(&[]).await;
    bench.add_heartbeats(std::iter::once(1_000));
    assert_eq!(bench.trim(HOUR_MS).await.blocked_by, "", "there is nothing to trim yet");
    bench.ask::<()>(&["DEL", STREAM]);
    bench.add_heartbeats(two_hours());
    let swept = bench.trim(HOUR_MS).await;
    assert_eq!((bench.length(), swept.removed), (200, 0), "no worker was there yet: all is unread");
    assert_eq!(swept.blocked_by, "rollcall");
    bench.create_group("other");
    bench.finish("other", 200);
    bench.trim(HOUR_MS).await;
    assert_eq!(bench.length(), 200, "another group has read it, no worker has");
    bench.apply_next(150).await;
    bench.ask::<()>(&["DEL", "rollcall:meta"]);
    bench.trim(HOUR_MS).await;
    assert_eq!(bench.length(), 200, "the cursor is lost, until a worker finds it again");
}

#[tokio::test]
async fn an_entry_under_the_greatest_id_stops_no_sweep() {
    let mut bench = Bench::new(&[]).await;
    let greatest = "18446744073709551615-18446744073709551615";
    bench.ask::<()>(&["XADD", STREAM, greatest, "type", "heartbeat", "user", "alice"]);
    bench.apply_next(1).await;
    let sweeper = bench.sweeper(|_, _| {});
    for what in sweeps().map(|sweep| sweep.name).chain(["stream"]) {
        let swept = bench.call(&sweeper, what).await;
        assert!(swept.is_ok(), "{what}: {swept:?}");
    }
}

#[tokio::test]
async fn endings_are_remembered_within_the_horizon_and_while_an_older_entry_is_unfinished() {
    let mut bench = Bench::new(&[]).await;
    let logout = [("type", "logout"), ("user", "u"), ("token", "t"), ("sid", "s")];
    let mut entries = vec![bench.entry(100_000, &logout)];
    bench.deployment.add(0, &entries);
    entries.extend(bench.add_heartbeats([90_000, 1_000].into_iter()));
    let mut script = bench.deployment.script(0).await;
    script.apply(&entries[..1]).await;
    for (horizon_ms, removed, why) in [
        (200_000, 0, "within the horizon"),
        (50_000, 0, "an entry ten seconds younger is unfinished"),
        (11_000, 0, "still"),
        (9_000, 1, "older than even that entry's horizon"),
    ] {
        let sweeper = bench.sweeper(|_, janitor| janitor.horizon_ms = horizon_ms);
        assert_eq!(bench.sweep(&sweeper, "tokens_ended").await, removed, "{why}");
        assert_eq!(bench.sweep(&sweeper, "sessions_ended").await, removed, "{why}");
    }
    assert_eq!(bench.exists(&["rollcall:tokens:ended", "rollcall:sessions:ended"]), 0);
}

#[tokio::test]
async fn endings_are_forgotten_once_everything_older_is_finished() {
    let mut bench = Bench::new(&[]).await;
    let logout = |token| [("type", "logout"), ("user", "u"), ("token", token), ("sid", token)];
    let (old, new) = (logout("old"), logout("new"));
    let mut entries = vec![bench.entry(100_000, &old), bench.entry(20_000, &new)];
    bench.deployment.add(0, &entries);
    entries.extend(bench.add_heartbeats(std::iter::once(1_000)));
    let mut script = bench.deployment.script(0).await;
    script.apply(&entries).await;
    let sweeper = bench.sweeper(|_, janitor| janitor.horizon_ms = 50_000);
    for what in ["tokens_ended", "sessions_ended"] {
        assert_eq!(bench.sweep(&sweeper, what).await, 1, "{what}");
    }
    assert_eq!(bench.ask::<Vec<String>>(&["ZRANGE", "rollcall:tokens:ended", "0", "-1"]), ["new"]);
    assert_eq!(
        bench.ask::<Vec<String>>(&["ZRANGE", "rollcall:sessions:ended", "0", "-1"]),
        ["new"]
    );
    // An older entry that is not finished holds the rest back.
    bench.ask::<()>(&["HSET", "rollcall:meta", "cursor", &entries[0].id.to_string()]);
    let sweeper = bench.sweeper(|_, janitor| janitor.horizon_ms = 1_000);
    assert_eq!(bench.sweep(&sweeper, "tokens_ended").await, 0);
    // Without a cursor nothing is known about entries to come.
    bench.ask::<()>(&["HDEL", "rollcall:meta", "cursor"]);
    assert_eq!(bench.sweep(&sweeper, "tokens_ended").await, 0);
}
