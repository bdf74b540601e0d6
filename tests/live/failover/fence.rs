//! Which calls count, and for which stream: everything that a call is compared with before it writes anything.

use redis::Connection;
use rollcall::config::JanitorConfig;
use rollcall::entry::Entry;
use rollcall::op::STREAM;
use rollcall::redis::scripts::sweep::Sweeper;

use crate::harness::{Deployment, Script, id};
use crate::scene::try_command;
use crate::support::dump;
use crate::support::events::field;

const EVENTS: &str = "rollcall:events";
const META: &str = "rollcall:meta";

fn command<T: redis::FromRedisValue>(conn: &mut Connection, words: &str) -> T {
    let words: Vec<&str> = words.split(' ').collect();
    try_command(conn, &words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// A deployment with this many of the views on its stream, all of them, and the owner of its partition.
async fn start(count: u64, added: usize) -> (Deployment, Connection, Vec<Entry>, Script) {
    let deployment = Deployment::start(&[]);
    let mut conn = deployment.connection();
    let entries = views(&mut conn, count);
    deployment.add(0, &entries[..added]);
    let script = deployment.script(0).await;
    (deployment, conn, entries, script)
}

/// Views of one item, a millisecond apart from some seconds ago on.
fn views(conn: &mut Connection, count: u64) -> Vec<Entry> {
    let first = dump::server_now(conn) - 5_000;
    let view = |n: u64| {
        let pairs = [("type", "view"), ("user", "u"), ("token", "t"), ("item", "books")];
        Entry::new(id(first + n, 0), pairs.map(|(name, value)| field(name, value)))
    };
    (0..count).map(view).collect()
}

fn counted(conn: &mut Connection) -> u64 {
    command::<Option<u64>>(conn, "ZSCORE viewed: books").unwrap_or(0)
}

async fn is_refused(script: &mut Script, entries: &[Entry]) -> bool {
    script.try_apply(entries).await.is_err_and(|error| error.is_lost_ownership())
}

/// Each difference alone; nothing is changed then.
#[tokio::test]
async fn a_call_under_another_epoch_owner_term_fence_or_cursor_is_refused() {
    let (deployment, mut conn, entries, mut script) = start(9, 9).await;
    script.apply(&entries[..1]).await;
    let mut left = &entries[1..];
    for part in ["epoch", "owner", "term", "fence", "cursor"] {
        let right: String = command(&mut conn, &format!("HGET {META} {part}"));
        let other = if part == "cursor" { "5-5" } else { "another" };
        command::<()>(&mut conn, &format!("HSET {META} {part} {other}"));
        let before = dump::dump(&mut conn, &deployment.keys(0));
        assert!(is_refused(&mut script, &left[..1]).await, "another {part}");
        assert_eq!(dump::dump(&mut conn, &deployment.keys(0)), before, "{part}: nothing changed");
        command::<()>(&mut conn, &format!("HSET {META} {part} {right}"));
        script.apply(&left[..1]).await;
        left = &left[1..];
    }
    assert_eq!(counted(&mut conn), 6);
}

/// The stream is deleted and begun again, and somebody creates the group: the cursor belongs to another stream. What
/// is read of the new one meanwhile is not applied, or it would be applied again from the beginning.
#[tokio::test]
async fn a_batch_of_another_stream_is_refused_though_somebody_made_its_group() {
    let (deployment, mut conn, entries, mut script) = start(9, 6).await;
    script.apply(&entries[..5]).await;
    command::<()>(&mut conn, &format!("DEL {EVENTS}"));
    command::<String>(&mut conn, &format!("XADD {EVENTS} 1000-1 type nonsense"));
    deployment.add(0, &entries[6..]);
    command::<()>(&mut conn, &format!("XGROUP CREATE {EVENTS} rollcall $"));
    assert!(is_refused(&mut script, &entries[6..]).await);
    assert_eq!(counted(&mut conn), 5);
    // Nothing of it is trimmed either, although its beginning is older than the cursor.
    let janitor = JanitorConfig { keep_ms: 0, ..deployment.config.janitor.clone() };
    let sweeper = Sweeper::new(&deployment.config.deployment, &deployment.keys(0), &janitor);
    let mut connection = deployment.async_connection(0).await;
    sweeper.sweep(&mut connection, STREAM.name, 1_000).await.unwrap();
    assert_eq!(command::<u64>(&mut conn, &format!("XLEN {EVENTS}")), 4);
    let mut script = deployment.script(0).await;
    assert_eq!(script.joined.cursor, id(0, 0), "from its beginning");
    assert!(script.joined.is_other_stream);
    let all = crate::harness::read_stream(&mut conn, EVENTS);
    script.apply(&all).await;
    assert_eq!(counted(&mut conn), 8, "each once");
}

/// Others may have deleted the cursor's own entry; the stream's own figures then identify it.
#[tokio::test]
async fn a_stream_whose_entries_others_delete_is_no_other_one() {
    let (_deployment, mut conn, entries, mut script) = start(9, 9).await;
    for entry in &entries {
        script.apply(std::slice::from_ref(entry)).await;
        command::<u64>(&mut conn, &format!("XDEL {EVENTS} {}", entry.id));
    }
    assert_eq!(counted(&mut conn), 9);
}

/// As if it had been deleted just after: what follows it is read all the same.
#[tokio::test]
async fn what_others_delete_once_it_was_read_has_its_effect() {
    let (_deployment, mut conn, entries, mut script) = start(9, 9).await;
    script.apply(&entries[..2]).await;
    command::<u64>(&mut conn, &format!("XDEL {EVENTS} {} {}", entries[3].id, entries[4].id));
    script.apply(&entries[2..5]).await;
    script.apply(&entries[5..]).await;
    assert_eq!(counted(&mut conn), 9);
    assert_eq!(lag_is_right(&mut conn).map(|lag| lag.unwrap_or(0)), Ok(0));
}

/// Before the first batch no entry shows which stream the cursor is about: the batch itself does.
#[tokio::test]
async fn a_first_batch_of_a_stream_that_is_gone_is_refused() {
    let (deployment, mut conn, entries, mut script) = start(9, 6).await;
    command::<()>(&mut conn, &format!("DEL {EVENTS}"));
    deployment.add(0, &entries[6..]);
    command::<()>(&mut conn, &format!("XGROUP CREATE {EVENTS} rollcall 0"));
    assert!(is_refused(&mut script, &entries[..6]).await);
    assert_eq!(counted(&mut conn), 0);
    script.apply(&entries[6..]).await;
    assert_eq!(counted(&mut conn), 3);
}

/// What the group says: the entries behind the cursor, or that it does not know.
fn lag_is_right(conn: &mut Connection) -> Result<Option<u64>, String> {
    let look = "local g = redis.call('XINFO', 'GROUPS', KEYS[1])[1]
        local info = {} for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
        local cursor = redis.call('HGET', KEYS[2], 'cursor')
        return { tostring(info.lag), tostring(#redis.call('XRANGE', KEYS[1], '(' .. cursor, '+')) }";
    let found: Vec<String> = try_command(conn, &["EVAL", look, "2", EVENTS, META]).unwrap();
    let (lag, behind) = (found[0].parse::<u64>().ok(), found[1].parse::<u64>().unwrap());
    match lag {
        Some(lag) if lag != behind => Err(format!("{lag}, but {behind} are behind the cursor")),
        known => Ok(known),
    }
}

/// At every step, whatever others delete ahead of the cursor and behind it, once the owner has looked.
#[tokio::test]
async fn the_lag_is_right_or_unknown_whatever_others_delete() {
    for seed in 1..=30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut added, mut passed) = (20, 0);
        let (deployment, mut conn, entries, mut script) = start(200, added).await;
        let ownership = deployment.ownership(0, crate::harness::WORKER);
        let mut said = Vec::new();
        for _ in 0..40 {
            match rng.u8(..8) {
                0 | 1 => {
                    let end = (added + rng.usize(1..8)).min(entries.len());
                    deployment.add(0, &entries[added..end]);
                    added = end;
                }
                2..=4 => {
                    let all = crate::harness::read_stream(&mut conn, EVENTS);
                    let next = all.partition_point(|entry| entry.id <= script.joined.cursor);
                    let end = (next + rng.usize(1..8)).min(all.len());
                    if next < end {
                        script.apply(&all[next..end]).await;
                        passed += end - next;
                    }
                }
                5 => {
                    let count = rng.usize(..added);
                    command::<u64>(&mut conn, &format!("XTRIM {EVENTS} MAXLEN {count}"));
                }
                _ => {
                    let entry = &entries[rng.usize(..added)];
                    command::<u64>(&mut conn, &format!("XDEL {EVENTS} {}", entry.id));
                }
            }
            let tenure = script.joined.tenure.clone();
            ownership.beat(&mut script.connection, &tenure).await.unwrap();
            let lag = lag_is_right(&mut conn).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            said.push(lag);
        }
        assert!(passed > 10, "seed {seed}: {passed}");
        // If nothing is behind it, the number is known.
        let all = crate::harness::read_stream(&mut conn, EVENTS);
        let next = all.partition_point(|entry| entry.id <= script.joined.cursor);
        if next < all.len() {
            script.apply(&all[next..]).await;
        }
        let tenure = script.joined.tenure.clone();
        ownership.beat(&mut script.connection, &tenure).await.unwrap();
        let known = said.iter().flatten().count();
        assert!(known > 0, "seed {seed}: {said:?}");
        assert!(lag_is_right(&mut conn).is_ok());
    }
}

/// The janitor only trims what is before the cursor, however far the cursor moved since the owner's last look.
#[tokio::test]
async fn the_lag_stays_known_where_the_janitor_trims_past_the_last_look() {
    let (deployment, mut conn, entries, mut script) = start(900, 900).await;
    let ownership = deployment.ownership(0, crate::harness::WORKER);
    script.apply(&entries[..10]).await;
    let tenure = script.joined.tenure.clone();
    ownership.beat(&mut script.connection, &tenure).await.unwrap();
    script.apply(&entries[10..850]).await;
    let janitor = JanitorConfig { keep_ms: 0, ..deployment.config.janitor.clone() };
    let sweeper = Sweeper::new(&deployment.config.deployment, &deployment.keys(0), &janitor);
    let mut connection = deployment.async_connection(0).await;
    sweeper.sweep(&mut connection, STREAM.name, 1_000).await.unwrap();
    assert!(command::<u64>(&mut conn, &format!("XLEN {EVENTS}")) < 800, "it trimmed");
    command::<u64>(&mut conn, &format!("XGROUP DESTROY {EVENTS} rollcall"));
    ownership.beat(&mut script.connection, &tenure).await.unwrap();
    assert_eq!(lag_is_right(&mut conn), Ok(Some(50)));
}
