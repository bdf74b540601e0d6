//! What the server loses is counted to the entry, once, by its cause; and nothing is counted that is no loss.

mod processes;
mod random;
mod rewinds;

use redis::aio::MultiplexedConnection;
use redis::{Connection, FromRedisValue};
use rollcall::entry::Entry;
use rollcall::private_server::Options;
use rollcall::redis::scripts::losses::{Look, Losses};

use crate::harness::{CONSUMER, Deployment, Script, id};
use crate::support::dump;
use crate::support::events::field;

const STREAM: &str = "rollcall:events";
const GROUP: &str = "rollcall";

/// A deployment whose stream is looked at by hand.
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

    /// Adds entries, one a millisecond.
    fn add(&mut self, count: u64) -> Vec<Entry> {
        let fields = || vec![field("type", "heartbeat"), field("user", "alice")];
        let first = self.added;
        self.added += count;
        let ids = (first..self.added).map(|n| id(self.start_ms + n, 1));
        let entries: Vec<_> = ids.map(|id| Entry::new(id, fields())).collect();
        self.deployment.add(0, &entries);
        entries
    }

    /// Delivers all there is and applies these.
    async fn apply(&mut self, entries: &[Entry]) {
        let mut script: Script = self.deployment.script(0).await;
        script.apply(entries).await;
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

    /// How many were lost since the last look, and whether they were deleted.
    async fn lost(&mut self) -> (u64, bool) {
        let look = self.look().await;
        (look.lost, look.deleted)
    }

    async fn nothing_lost(&mut self, what: &str) {
        assert_eq!(self.lost().await, (0, false), "{what}");
    }
}

const DELETED: bool = true;
const DROPPED: bool = false;

#[tokio::test]
async fn what_is_finished_or_still_to_come_is_no_loss() {
    let mut bench = Bench::new().await;
    bench.nothing_lost("no stream").await;
    let old = bench.add(10);
    bench.command("XTRIM rollcall:events MAXLEN 7");
    bench.nothing_lost("no group").await;
    bench.apply(&old[3..]).await;
    bench.nothing_lost("an old stream, begun anew").await;
    bench.command("XTRIM rollcall:events MAXLEN 1");
    bench.nothing_lost("trimmed what is finished").await;
    let new = bench.add(5);
    bench.nothing_lost("undelivered").await;
    bench.command("XGROUP CREATE rollcall:events other 0");
    bench.apply(&new[..2]).await;
    bench.nothing_lost("pending").await;
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
async fn what_is_trimmed_before_it_is_delivered_is_counted() {
    let mut bench = Bench::new().await;
    let first = bench.add(4);
    bench.apply(&first).await;
    bench.nothing_lost("begins").await;
    bench.add(20);
    bench.command("XTRIM rollcall:events MAXLEN 13");
    assert_eq!(bench.lost().await, (7, DELETED));
    bench.nothing_lost("told once").await;
    bench.command("XADD rollcall:events MAXLEN 2 * type heartbeat user bob");
    assert_eq!(bench.lost().await, (12, DELETED), "by a producer");
    bench.add(0);
    bench.deployment.script(0).await;
    bench.nothing_lost("the rest is delivered").await;
    // Between two looks all is over: added, trimmed, delivered.
    for _ in 0..6 {
        bench.command("XADD rollcall:events * type heartbeat user bob");
    }
    bench.command("XTRIM rollcall:events MAXLEN 2");
    bench.deployment.script(0).await;
    // Two of those that were trimmed are pending; they are lost once nobody has them.
    assert_eq!(bench.lost().await, (4, DELETED));
}

#[tokio::test]
async fn what_is_deleted_is_counted_wherever_it_stood() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&entries[..2]).await;
    bench.nothing_lost("eight are pending").await;
    let more = bench.add(10);
    bench.command(&format!("XDEL rollcall:events {} {}", more[4].id, more[6].id));
    bench.nothing_lost("not known before all is delivered").await;
    bench.deployment.script(0).await;
    assert_eq!(bench.lost().await, (2, DELETED), "undelivered, in the middle");
    bench.command(&format!("XDEL rollcall:events {}", entries[5].id));
    bench.nothing_lost("pending: someone may have it in hand").await;
    bench.command(&format!("XACK rollcall:events rollcall {}", entries[5].id));
    assert_eq!(bench.lost().await, (1, DELETED), "as a worker does with what it finds gone");
    bench.apply(&entries[2..]).await;
    bench.apply(&more).await;
    bench.nothing_lost("the rest is finished").await;
}

#[tokio::test]
async fn what_is_dropped_from_the_pending_ones_is_counted() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&entries[..4]).await;
    bench.nothing_lost("six are pending").await;
    bench.command(&format!("XGROUP DELCONSUMER {STREAM} {GROUP} {CONSUMER}"));
    assert_eq!(bench.lost().await, (6, DROPPED));
    let more = bench.add(5);
    bench.command(&format!("XGROUP SETID {STREAM} {GROUP} {}", more[2].id));
    bench.deployment.script(0).await;
    assert_eq!(bench.lost().await, (3, DROPPED), "passed over");
    bench.command(&format!("XACK {STREAM} {GROUP} {}", more[4].id));
    assert_eq!(bench.lost().await, (1, DROPPED), "acknowledged by another hand");
    bench.command(&format!("XGROUP SETID {STREAM} {GROUP} 0"));
    bench.apply(&entries).await;
    bench.apply(&more).await;
    bench.nothing_lost("delivered a second time").await;
    bench.add(3);
    bench.deployment.script(0).await;
    bench.nothing_lost("pending").await;
    bench.command(&format!("XGROUP DELCONSUMER {STREAM} {GROUP} {CONSUMER}"));
    assert_eq!(bench.lost().await, (3, DROPPED), "and counted from there");
}

#[tokio::test]
async fn a_group_that_is_destroyed_loses_only_what_it_passes_over() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&entries[..4]).await;
    bench.nothing_lost("six are pending").await;
    bench.command("HSET rollcall:janitor finished:rollcall 0-0");
    bench.command(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    bench.nothing_lost("no group").await;
    bench.apply(&entries).await;
    bench.nothing_lost("a worker made it anew, where the old one had finished").await;
    bench.add(5);
    bench.command(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    bench.command(&format!("XGROUP CREATE {STREAM} {GROUP} $"));
    assert_eq!(bench.lost().await, (5, DROPPED), "made anew at the end");
}

#[tokio::test]
async fn a_stream_that_is_deleted_takes_what_was_unfinished_along() {
    let mut bench = Bench::new().await;
    let entries = bench.add(10);
    bench.apply(&entries[..4]).await;
    bench.nothing_lost("six are pending").await;
    bench.add(2);
    bench.nothing_lost("two are undelivered").await;
    bench.command("DEL rollcall:events");
    bench.nothing_lost("nobody reads there now").await;
    let new = bench.add(3);
    bench.apply(&new).await;
    assert_eq!(bench.lost().await, (8, DELETED));
    bench.nothing_lost("told once").await;
}
