//! What the janitor that sweeps asks of the server for all to see, and what that costs.

use std::time::Duration;

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
    assert_eq!(figure(&pages, "pending_entries", ""), None, "of no group nothing is known");
    is("redis_eviction_policy_fault", 0.0);
    is("redis_primary", 1.0);
    is("redis_replication_link_up", 1.0);
    assert!(figure(&pages, "redis_used_memory_bytes", "") > Some(100_000.0));

    let now = dump::server_now(&mut conn);
    ask(&mut conn, &["XGROUP", "CREATE", STREAM, "rollcall", "0", "MKSTREAM"]);
    for age_s in [120, 110, 60, 50] {
        add(&mut conn, &format!("{}-0", now - age_s * 1000));
    }
    let read = ["XREADGROUP", "GROUP", "rollcall", "dead", "COUNT", "2", "STREAMS", STREAM, ">"];
    ask(&mut conn, &read);
    ask(&mut conn, &["ZADD", "rollcall:consumers", &(now - 100_000).to_string(), "dead"]);
    ask(&mut conn, &["ZADD", "rollcall:consumers", &now.to_string(), "alive"]);
    ask(&mut conn, &["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]);
    is("pending_entries", 2.0);
    is("group_missing", 0.0);
    is("undelivered_entries", 2.0);
    is("undelivered_trusted", 1.0);
    is("stream_entries", 4.0);
    is("stream_clock_ahead_seconds", 0.0);
    is("redis_eviction_policy_fault", 1.0);
    is("redis_maxmemory_bytes", f64::from(100 << 20));
    let age = |name: &str| figure(&pages, name, "").unwrap();
    assert!((120.0..180.0).contains(&age("oldest_pending_seconds")));
    assert!((60.0..120.0).contains(&age("oldest_undelivered_seconds")));
    assert_eq!(figure(&pages, "consumers", ",state=\"live\""), Some(1.0));
    assert_eq!(figure(&pages, "consumers", ",state=\"dead\""), Some(1.0));
    let letters = ",structure=\"dead_letters\"";
    assert_eq!(figure(&pages, "structure_limit_members", letters), Some(100_000.0));

    // A deletion ahead of the group, and an id from the future.
    ask(&mut conn, &["XDEL", STREAM, &format!("{}-0", now - 60_000)]);
    add(&mut conn, &format!("{}-0", now + 3_600_000));
    is("undelivered_trusted", 0.0);
    wait_until(SOON, "the clock ahead is told", || {
        figure(&pages, "stream_clock_ahead_seconds", "") > Some(3_500.0)
    });
}

/// Of two janitors one shows what it asks; another does when that one stands still, which then shows nothing.
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

/// At default settings a survey comes every five seconds: half a percent of them is 25 ms of the server's time.
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
    for consumer in 0..50 {
        let (consumer, count) = (format!("c{consumer}"), "200");
        ask(
            &mut conn,
            &["XREADGROUP", "GROUP", "rollcall", &consumer, "COUNT", count, "STREAMS", STREAM, ">"],
        );
    }
    let mut asking = deployment.async_connection(0).await;
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
        let found = survey(&mut asking, settings, &keys, Duration::from_secs(60)).await.unwrap();
        assert_eq!(found.group.unwrap().pending, 10_000);
    }
    let each_ms = (cpu(&mut conn) - before) * 1000.0 / f64::from(SURVEYS);
    eprintln!(
        "a survey takes {each_ms:.2} ms of the server's processor: {:.3} % every 5 s",
        each_ms / 50.0
    );
    assert!(each_ms < 25.0, "{each_ms} ms");
}
