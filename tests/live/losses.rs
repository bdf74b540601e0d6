//! What the server loses is counted exactly, once, by its cause; and nothing else is counted.

mod processes;
mod random;
mod rewinds;

use redis::aio::MultiplexedConnection;
use redis::{Connection, FromRedisValue};
use rollcall::entry::Entry;
use rollcall::private_server::Options;
use rollcall::redis::scripts::losses::{Look, Losses};

use crate::harness::{Deployment, Script, id, read_stream};
use crate::support::dump;
use crate::support::events::field;

const STREAM: &str = "rollcall:events";
const GROUP: &str = "rollcall";

/// A deployment whose stream is examined by hand.
struct Bench {
    deployment: Deployment,
    losses: Losses,
    looking: MultiplexedConnection,
    conn: Connection,
    start_ms: u64,
    added: u64,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let deployment = Deployment::start_with(&[], options);
        let mut conn = deployment.connection();
        Self {
            losses: Losses::new(&deployment.config.deployment, &deployment.keys(0)),
            looking: deployment.async_connection(0).await,
            start_ms: dump::server_now(&mut conn) - 100_000,
            conn,
            deployment,
            added: 0,
        }
    }

    /// Adds entries, one per millisecond.
    fn add(&mut self, count: u64) -> Vec<Entry> {
        let fields = || vec![field("type", "heartbeat"), field("user", "alice")];
        let first = self.added;
        self.added += count;
        let ids = (first..self.added).map(|n| id(self.start_ms + n, 1));
        let entries: Vec<_> = ids.map(|id| Entry::new(id, fields())).collect();
        self.deployment.add(0, &entries);
        entries
    }

    /// Applies these, which come next.
    async fn apply(&mut self, entries: &[Entry]) {
        let mut script: Script = self.deployment.script(0).await;
        script.apply(entries).await;
    }

    /// Applies everything behind the cursor.
    async fn apply_rest(&mut self) {
        let mut script: Script = self.deployment.script(0).await;
        let mut entries = read_stream(&mut self.conn, STREAM);
        entries.retain(|entry| entry.id > script.joined.cursor);
        script.apply(&entries).await;
    }

    fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.conn).unwrap()
    }

    fn command(&mut self, words: &str) {
        let words: Vec<_> = words.split(' ').collect();
        self.ask::<redis::Value>(&words);
    }

    async fn look(&mut self) -> Look {
        self.losses.look(&mut self.looking, None).await.unwrap()
    }

    /// How many were lost since the last look.
    async fn lost(&mut self) -> u64 {
        self.look().await.lost
    }

    async fn nothing_lost(&mut self, what: &str) {
        assert_eq!(self.lost().await, 0, "{what}");
    }
}

#[tokio::test]
async fn what_is_finished_or_still_to_come_is_no_loss() {
    let mut bench = Bench::new().await;
    bench.nothing_lost("no stream").await;
    let old = bench.add(10);
    bench.command("XTRIM rollcall:events MAXLEN 7");
    bench.nothing_lost("no worker yet").await;
    bench.apply(&old[3..]).await;
    bench.nothing_lost("an old stream, begun anew").await;
    bench.command("XTRIM rollcall:events MAXLEN 1");
    bench.nothing_lost("trimmed what is finished").await;
    let new = bench.add(5);
    bench.nothing_lost("behind the cursor").await;
    bench.command("XGROUP CREATE rollcall:events other 0");
    bench.apply(&new[..2]).await;
    bench.nothing_lost("in the middle").await;
    bench.command(&format!("XDEL rollcall:events {}", new[1].id));
    bench.nothing_lost("deleted, but finished").await;
    bench.apply(&new[2..]).await;
    bench.command("XTRIM rollcall:events MAXLEN 0");
    bench.nothing_lost("emptied, and all was finished").await;
    bench.command("XGROUP DESTROY rollcall:events other");
    bench.command("DEL rollcall:events");
    bench.nothing_lost("the stream itself, finished").await;
    let again = bench.add(3);
    bench.apply(&again).await;
    bench.nothing_lost("a stream in its place").await;
    bench.command("DEL rollcall:janitor");
    bench.nothing_lost("the bookkeeping").await;
}

#[tokio::test]
async fn what_is_trimmed_before_it_is_applied_is_counted() {
    let mut bench = Bench::new().await;
    let first = bench.add(4);
    bench.apply(&first).await;
    bench.nothing_lost("begins").await;
    bench.add(20);
    bench.command("XTRIM rollcall:events MAXLEN 13");
    assert_eq!(bench.lost().await, 7);
    bench.nothing_lost("told once").await;
    bench.command("XADD rollcall:events MAXLEN 2 * type heartbeat user bob");
    assert_eq!(bench.lost().await, 12, "by a producer");
    bench.apply_rest().await;
    bench.nothing_lost("the rest is applied").await;
    // Between two looks everything happens: added, trimmed, applied.
    for _ in 0..6 {
        bench.command("XADD rollcall:events * type heartbeat user bob");
    }
    bench.command("XTRIM rollcall:events MAXLEN 2");
    bench.apply_rest().await;
    assert_eq!(bench.lost().await, 4);
}

#[tokio::test]
async fn what_is_deleted_is_counted_wherever_it_stood() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&[]).await;
    bench.nothing_lost("begins").await;
    bench.apply(&entries[..2]).await;
    let more = bench.add(10);
    bench.command(&format!("XDEL rollcall:events {} {}", more[4].id, more[6].id));
    bench.command(&format!("XDEL rollcall:events {}", entries[5].id));
    bench.command(&format!("XDEL rollcall:events {}", entries[1].id));
    bench.nothing_lost("not known before all is applied").await;
    bench.apply_rest().await;
    assert_eq!(bench.lost().await, 3, "but not the one that was finished");
    bench.command(&format!("XDEL rollcall:events {}", more[2].id));
    bench.nothing_lost("finished").await;
}

/// Whatever strangers do to the group does not count.
#[tokio::test]
async fn what_others_do_to_the_group_loses_nothing() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&entries[..4]).await;
    bench.nothing_lost("six are behind the cursor").await;
    for words in [
        format!("XREADGROUP GROUP {GROUP} ghost COUNT 3 STREAMS {STREAM} >"),
        format!("XACK {STREAM} {GROUP} {}", entries[4].id),
        format!("XGROUP DELCONSUMER {STREAM} {GROUP} ghost"),
        format!("XGROUP SETID {STREAM} {GROUP} $"),
        format!("XGROUP SETID {STREAM} {GROUP} 0"),
        format!("XGROUP DESTROY {STREAM} {GROUP}"),
        format!("XGROUP CREATE {STREAM} {GROUP} $"),
    ] {
        bench.command(&words);
        bench.nothing_lost(&words).await;
    }
    bench.apply_rest().await;
    bench.nothing_lost("applied in spite of all").await;
    assert_eq!(bench.ask::<u64>(&["HGET", "rollcall:janitor", "settled"]), 10);
}

#[tokio::test]
async fn a_stream_that_is_deleted_takes_what_was_unfinished_along() {
    let mut bench = Bench::new().await;
    let entries = bench.add(4);
    bench.apply(&entries).await;
    bench.nothing_lost("begins").await;
    bench.add(8);
    bench.nothing_lost("eight are behind the cursor").await;
    bench.command("DEL rollcall:events");
    assert_eq!(bench.lost().await, 8);
    bench.nothing_lost("told once").await;
    let new = bench.add(3);
    bench.apply(&new).await;
    bench.nothing_lost("another stream in its place").await;
}
