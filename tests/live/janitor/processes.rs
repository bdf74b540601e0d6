//! Janitors as processes: several at once, against lagging groups, over large structures.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::Connection;

use super::Bench;
use crate::harness::{Deployment, wait_until};
use crate::process::Worker;
use crate::roles::Pages;

const SOON: Duration = Duration::from_secs(15);

/// A janitor of the deployment that was started with `flags`.
fn janitor(deployment: &Deployment, flags: &[(&str, &str)], more: &[&str]) -> Worker {
    let names: Vec<_> = flags.iter().map(|(name, _)| format!("--{name}")).collect();
    let both = names.iter().zip(flags).flat_map(|(name, (_, value))| [name.as_str(), *value]);
    let fast = ["--janitor-interval", "100ms"];
    let args: Vec<&str> = both.chain(fast).chain(more.iter().copied()).collect();
    Worker::start_as("janitor", &deployment.server.url(), &args, &[])
}

fn card(conn: &mut Connection, command: &str, key: &str) -> u64 {
    redis::cmd(command).arg(key).query(conn).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_janitors_at_once_record_each_eviction_once() {
    const USERS: u64 = 150;
    let flags = [
        ("presence-ttl", "3s"),
        ("session-ttl", "3s"),
        ("document-ttl", "3s"),
        ("recent-cap", "20"),
        ("thresholds", "5:2"),
    ];
    let mut bench = Bench::new(&flags).await;
    let entries: Vec<_> = (0..USERS)
        .map(|n| {
            let (user, doc) = (format!("u{n}"), format!("d{}", n % 10));
            let fields = [
                ("type", "heartbeat"),
                ("user", &user),
                ("token", &user),
                ("sid", &user),
                ("doc", &doc),
            ];
            bench.entry(0, &fields)
        })
        .collect();
    let mut script = bench.deployment.script(0).await;
    script.merge(&entries).await;
    assert_eq!(card(&mut bench.conn, "HLEN", "presence:users"), USERS);
    let mut janitors: Vec<_> = (0..3).map(|_| janitor(&bench.deployment, &flags, &[])).collect();
    wait_until(SOON, "everything stale is swept", || {
        let conn = &mut bench.conn;
        let empty = ["presence:users", "sessions:active", "rollcall:docs:joined"];
        redis::cmd("EXISTS").arg(&empty).query::<u64>(conn).unwrap() == 0
            && card(conn, "ZCARD", "recent:") == 20
    });
    for janitor in &mut janitors {
        assert_eq!(janitor.terminate(), 0, "{}", janitor.log());
        assert!(!janitor.log().contains("WARN"), "{}", janitor.log());
    }
    bench.check_changes();
    let mut kinds = BTreeMap::new();
    for change in bench.changes() {
        *kinds.entry(change.split(' ').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    let counted: Vec<_> = kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    let expected = [
        ("document_joined", USERS),
        ("document_left", USERS),
        ("login", USERS),
        ("logout", USERS - 20),
        ("offline", USERS),
        ("online", USERS),
        ("session_expired", USERS),
        ("session_started", USERS),
        ("threshold_left", 10),
        ("threshold_reached", 10),
    ];
    assert_eq!(counted, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_blocks_trimming_is_a_metric_and_a_line_in_the_log() {
    let mut bench = Bench::new(&[]).await;
    let entries: Vec<_> = (0..300)
        .map(|n| bench.entry(7_200_000 - n, &[("type", "heartbeat"), ("user", "u")]))
        .collect();
    bench.deployment.add(0, &entries);
    bench.deployment.script(0).await.apply(&entries).await;
    bench.ask::<()>(&["XGROUP", "CREATE", "rollcall:events", "slow-reports", "0"]);
    let mut janitor = janitor(&bench.deployment, &[], &["--http", "127.0.0.1:0"]);
    let pages = Pages::of(&janitor);
    let blocked = r#"rollcall_trim_blocked{partition="0",by="other_group"}"#;
    let removed = r#"rollcall_sweep_removed_total{sweep="stream"}"#;
    wait_until(SOON, "trimming counts as blocked", || pages.metric(blocked) == Some(1.0));
    assert_eq!(pages.metric(removed), Some(0.0));
    janitor.says("cannot be trimmed");
    let log = janitor.log();
    let line = log.lines().find(|line| line.contains("cannot be trimmed")).unwrap();
    assert!(line.contains("WARN") && line.contains("slow-reports"), "{line}");
    bench.ask::<()>(&["XGROUP", "SETID", "rollcall:events", "slow-reports", "$"]);
    wait_until(SOON, "trimming goes on", || pages.metric(blocked) == Some(0.0));
    wait_until(SOON, "the stream is trimmed", || pages.metric(removed) >= Some(200.0));
    assert!(card(&mut bench.conn, "XLEN", "rollcall:events") <= 100);
    assert_eq!(janitor.terminate(), 0);
    let said = janitor.log().matches("cannot be trimmed").count();
    assert_eq!(said, 1, "once a minute is enough");
}

/// A metric and a log line say when the oldest unfinished entry nears the horizon.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_entry_that_nears_the_horizon_is_told() {
    let mut bench = Bench::new(&[]).await;
    let entry = bench.entry(115 * 60_000, &[("type", "heartbeat"), ("user", "u")]);
    bench.deployment.add(0, &[entry]);
    // Owned, but never applied.
    bench.deployment.script(0).await;
    let args = ["--horizon", "2h", "--keep", "1h", "--http", "127.0.0.1:0"];
    let janitor = janitor(&bench.deployment, &[], &args);
    let pages = Pages::of(&janitor);
    let used = r#"rollcall_horizon_used_ratio{partition="0"}"#;
    wait_until(SOON, "the horizon is a metric", || pages.metric(used) >= Some(115.0 / 120.0));
    let age = r#"rollcall_oldest_undelivered_seconds{partition="0"}"#;
    wait_until(SOON, "the age is a metric", || pages.metric(age) >= Some(115.0 * 60.0));
    wait_until(Duration::from_secs(3), "the log names the horizon", || {
        janitor.log().contains("nears the horizon")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_janitor_names_the_key_of_another_type_and_goes_on_once_it_is_gone() {
    let mut bench = Bench::new(&[]).await;
    bench.ask::<()>(&["SET", "presence:users", "x"]);
    let janitor = janitor(&bench.deployment, &[], &["--http", "127.0.0.1:0"]);
    let pages = Pages::of(&janitor);
    wait_until(SOON, "not ready, and why", || {
        let (status, body) = pages.get("/readyz");
        status == 503 && body.contains("presence:users holds a string")
    });
    assert_eq!(pages.get("/livez").0, 200, "it can still get on");
    bench.ask::<()>(&["DEL", "presence:users"]);
    bench.ask::<()>(&["HSET", "presence:users", "u|", "{\"lastSeen\":1000000000000,"]);
    wait_until(SOON, "ready again", || pages.get("/readyz").0 == 200);
    wait_until(SOON, "swept", || card(&mut bench.conn, "EXISTS", "presence:users") == 0);
}

/// The commands that the server receives from now on (`MONITOR`), one per line.
fn overhear(port: u16) -> impl Iterator<Item = String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_is_emptied_while_it_is_walked_ends_the_walk() {
    let mut bench = Bench::new(&[]).await;
    redis::cmd("EVAL").arg(FILL).arg(0).arg(bench.now).exec(&mut bench.conn).unwrap();
    let mut asked = overhear(bench.deployment.server.port());
    let long = ["--janitor-interval", "60s"];
    let mut janitor = Worker::start_as("janitor", &bench.deployment.server.url(), &long, &[]);
    let mut sizes_asked = |key: &str| {
        let (begun, size) = (Instant::now(), format!(r#""HLEN" "{key}""#));
        asked
            .by_ref()
            .take_while(|_| begun.elapsed() < SOON)
            .any(|line| line.contains(&size) && !line.contains(" lua]"))
    };
    assert!(sizes_asked("presence:users"), "it begins to walk");
    bench.ask::<()>(&["DEL", "presence:users"]);
    assert!(sizes_asked("sessions:active"), "it goes on to the next structure");
    assert_eq!(janitor.terminate(), 0);
}

/// The longest time that another client waited for an answer, until told to stop.
fn longest_ping(mut conn: Connection, stop: &AtomicBool) -> (Duration, u64) {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        redis::cmd("PING").exec(&mut conn).unwrap();
        longest = longest.max(start.elapsed());
        count += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    (longest, count)
}

/// Fills presence with 60,000 entries, half of them stale, and 20,000 tokens.
const FILL: &str = r#"
    local now, stale = tonumber(ARGV[1]), ARGV[1] - 400000
    for n = 0, 59999 do
        local seen = string.format('%.0f', n % 2 == 0 and now or stale)
        local value = '{"lastSeen":' .. seen .. ',"user":"u' .. n .. '","ip":"","ua":"","page":"/"}'
        redis.call('HSET', 'presence:users', 'u' .. n .. '|', value)
    end
    for n = 0, 19999 do
        redis.call('ZADD', 'recent:', now / 1000 + n, 't' .. n)
        redis.call('HSET', 'login:', 't' .. n, 'u' .. n)
    end
"#;

#[tokio::test(flavor = "multi_thread")]
async fn large_structures_are_swept_in_pieces() {
    let flags = [("recent-cap", "10000")];
    let mut bench = Bench::new(&flags).await;
    redis::cmd("EVAL").arg(FILL).arg(0).arg(bench.now).exec(&mut bench.conn).unwrap();
    bench.ask::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    bench.ask::<()>(&["SLOWLOG", "RESET"]);
    let stop = AtomicBool::new(false);
    let ((longest, pings), took, mut janitor) = std::thread::scope(|scope| {
        let other = bench.deployment.connection();
        let pinging = scope.spawn(|| longest_ping(other, &stop));
        let start = Instant::now();
        let janitor =
            janitor(&bench.deployment, &flags, &["--log", "info,rollcall::janitor=debug"]);
        wait_until(Duration::from_secs(30), "all that is stale is swept", || {
            card(&mut bench.conn, "HLEN", "presence:users") == 30_000
                && card(&mut bench.conn, "ZCARD", "recent:") == 10_000
        });
        let took = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        (pinging.join().unwrap(), took, janitor)
    });
    assert_eq!(janitor.terminate(), 0, "{}", janitor.log());
    let slow: Vec<redis::Value> = bench.ask(&["SLOWLOG", "GET", "-1"]);
    eprintln!(
        "40,000 evictions in {took:?}; longest of {pings} PINGs meanwhile: {longest:?}; \
         longest call at the server: {} µs",
        slow.iter().map(server_micros).max().unwrap_or_default()
    );
    assert_eq!(card(&mut bench.conn, "HLEN", "login:"), 10_000);
    assert_eq!(card(&mut bench.conn, "XLEN", "rollcall:changes"), 40_000);
    assert_eq!(bench.ask::<u64>(&["GET", "rollcall:changes:seq"]), 40_000);
    for what in ["presence", "recent"] {
        let most = most_at_once(&janitor.log(), what);
        assert!((1..=300).contains(&most), "{most} of {what} at once");
    }
}

/// How long a slow command took, from a row of `SLOWLOG GET`.
fn server_micros(row: &redis::Value) -> i64 {
    let redis::Value::Array(row) = row else { panic!("{row:?}") };
    rollcall::redis::reply::integer(&row[2]).unwrap()
}

/// The most that one call removed, according to the log.
fn most_at_once(log: &str, what: &str) -> u64 {
    let what = format!("structure=\"{what}\" removed=");
    let removed = log.lines().filter_map(|line| line.split_once(&what));
    removed.map(|(_, count)| count.trim().parse().unwrap()).max().unwrap()
}
