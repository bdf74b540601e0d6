//! The janitor's survey of the server, and its cost.

use redis::Connection;
use rollcall::state::status::survey::survey;

use super::{FAST, SOON};
use crate::harness::{Deployment, wait_until};
use crate::process::Worker;
use crate::roles::Pages;
use crate::support::dump;

const STREAM: &str = "rollcall:events";

fn ask(conn: &mut Connection, words: &[&str]) {
    redis::cmd(words[0]).arg(&words[1..]).exec(conn).unwrap();
}

fn add(conn: &mut Connection, id: &str) {
    ask(conn, &["XADD", STREAM, id, "type", "heartbeat", "user", "u"]);
}

/// A figure of partition 0.
fn figure(pages: &Pages, name: &str, more: &str) -> Option<f64> {
    pages.metric(&format!("rollcall_{name}{{partition=\"0\"{more}}}"))
}

#[test]
fn what_the_server_says_is_shown() {
    let deployment = Deployment::start(&[]);
    let mut conn = deployment.connection();
    let janitor = Worker::start_as("janitor", &deployment.server.url(), &FAST, &[]);
    let pages = Pages::of(&janitor);
    let is = |name: &str, value: f64| {
        wait_until(SOON, name, || figure(&pages, name, "") == Some(value));
    };
    is("group_missing", 1.0);
    assert_eq!(figure(&pages, "undelivered_entries", ""), None, "of no group nothing is known");
    is("redis_eviction_policy_fault", 0.0);
    is("redis_primary", 1.0);
    is("redis_replication_link_up", 1.0);
    assert!(figure(&pages, "redis_used_memory_bytes", "") > Some(100_000.0));

    let now = dump::server_now(&mut conn);
    ask(&mut conn, &["XGROUP", "CREATE", STREAM, "rollcall", "0", "MKSTREAM"]);
    for age_s in [1_200, 1_100, 600, 500] {
        add(&mut conn, &format!("{}-0", now - age_s * 1000));
    }
    let position = format!("{}-0", now - 1_100_000);
    ask(&mut conn, &["XGROUP", "SETID", STREAM, "rollcall", &position, "ENTRIESREAD", "2"]);
    ask(&mut conn, &["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    is("undelivered_entries", 2.0);
    is("group_missing", 0.0);
    is("undelivered_trusted", 1.0);
    is("stream_entries", 4.0);
    is("stream_clock_ahead_seconds", 0.0);
    is("redis_eviction_policy_fault", 1.0);
    is("redis_maxmemory_bytes", f64::from(100 << 20));
    let age = |name: &str| figure(&pages, name, "").unwrap();
    assert!((600.0..700.0).contains(&age("oldest_undelivered_seconds")));
    let letters = ",structure=\"dead_letters\"";
    assert_eq!(figure(&pages, "structure_limit_members", letters), Some(100_000.0));

    // The cursor counts, wherever others move the group.
    let cursor = format!("{}-0", now - 600_000);
    ask(&mut conn, &["HSET", "rollcall:meta", "cursor", &cursor]);
    wait_until(SOON, "by the cursor", || age("oldest_undelivered_seconds") < 600.0);

    // A deletion ahead of the cursor, and an id from the future.
    ask(&mut conn, &["XDEL", STREAM, &format!("{}-0", now - 500_000)]);
    add(&mut conn, &format!("{}-0", now + 3_600_000));
    is("undelivered_trusted", 0.0);
    wait_until(SOON, "the clock ahead is told", || {
        figure(&pages, "stream_clock_ahead_seconds", "") > Some(3_500.0)
    });
}

/// A partition that nobody owns, and one whose owner has shown no sign of life between two surveys.
#[test]
fn a_partition_without_an_owner_that_lives_is_told() {
    let deployment = Deployment::start(&[]);
    let mut conn = deployment.connection();
    let janitor = Worker::start_as("janitor", &deployment.server.url(), &FAST, &[]);
    let pages = Pages::of(&janitor);
    let is = |value: f64, what: &str| {
        wait_until(SOON, what, || figure(&pages, "partition_unowned", "") == Some(value));
    };
    is(1.0, "there is no group");
    ask(&mut conn, &["XGROUP", "CREATE", STREAM, "rollcall", "0", "MKSTREAM"]);
    let mut worker = Worker::start(&deployment.server.url(), &["--http", "off"], &[]);
    is(0.0, "a worker owns it");
    worker.signal("STOP");
    is(1.0, "it stands still");
    worker.signal("CONT");
    is(0.0, "it goes on");
    assert_eq!(worker.terminate(), 0);
    is(1.0, "it gave the partition up");
}

/// One of two janitors publishes its survey; when it stalls, the other one does, and the first publishes nothing.
#[test]
fn one_janitor_surveys_and_who_does_not_shows_nothing() {
    let deployment = Deployment::start(&[]);
    let start = || Worker::start_as("janitor", &deployment.server.url(), &FAST, &[]);
    let shows = |pages: &Pages| figure(pages, "stream_entries", "").is_some();
    let first = start();
    let first_pages = Pages::of(&first);
    wait_until(SOON, "the first surveys", || shows(&first_pages));
    let second = start();
    let second_pages = Pages::of(&second);
    wait_until(SOON, "the second is ready", || second_pages.get("/readyz").0 == 200);
    first.signal("STOP");
    wait_until(SOON, "the second takes over", || shows(&second_pages));
    first.signal("CONT");
    wait_until(SOON, "the first stands back", || !shows(&first_pages) || !shows(&second_pages));
    let success = "sweep_last_success_timestamp_seconds";
    assert!(
        figure(&first_pages, success, "").is_some(),
        "when it last swept, each says for itself"
    );
}

/// With default settings there is a survey every five seconds: half a percent of that is 25 ms of the server's time.
#[tokio::test]
async fn a_survey_costs_the_server_next_to_nothing() {
    const SURVEYS: u32 = 200;
    let deployment = Deployment::start(&[]);
    let mut conn = deployment.connection();
    let mut fill = redis::pipe();
    for n in 0..20_000 {
        fill.cmd("ZADD").arg("recent:").arg(n).arg(n).ignore();
        fill.cmd("HSET").arg("presence:users").arg(n).arg("x").ignore();
        fill.cmd("XADD").arg(STREAM).arg("*").arg(&["type", "heartbeat", "user", "u"]).ignore();
    }
    fill.exec(&mut conn).unwrap();
    ask(&mut conn, &["XGROUP", "CREATE", STREAM, "rollcall", "0"]);
    for worker in 0..50 {
        ask(&mut conn, &["HSET", "rollcall:workers", &format!("w{worker}"), "1 host"]);
    }
    ask(&mut conn, &["HSET", "rollcall:meta", "owner", "w0", "term", "1", "cursor", "1-1"]);
    let asking = deployment.async_connection(0).await;
    let (settings, keys) = (&deployment.config.deployment, deployment.keys(0));
    let cpu = |conn: &mut Connection| -> f64 {
        let info: String = redis::cmd("INFO").arg("cpu").query(conn).unwrap();
        let seconds = |name: &str| -> f64 {
            info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
        };
        seconds("used_cpu_sys:") + seconds("used_cpu_user:")
    };
    let before = cpu(&mut conn);
    for _ in 0..SURVEYS {
        let found = survey(&mut asking.clone().into(), settings, &keys).await.unwrap();
        assert_eq!(found.group.unwrap().undelivered, Some(20_000));
    }
    let each_ms = (cpu(&mut conn) - before) * 1000.0 / f64::from(SURVEYS);
    eprintln!(
        "a survey takes {each_ms:.2} ms of the server's processor: {:.3} % every 5 s",
        each_ms / 50.0
    );
    assert!(each_ms < 25.0, "{each_ms} ms");
}
