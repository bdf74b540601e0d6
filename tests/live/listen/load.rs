//! Many listeners, many changes, a large state. The default form is small; the long form, with the figures of
//! PERFORMANCE.md, is
//!
//! ```text
//! ROLLCALL_TEST_LOAD=long cargo test --release --test live listen::load -- --nocapture --test-threads 1
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::ground::{Ground, resident};
use super::{Client, Language, Sockets, address};
use crate::scene::{SOON, Scene};

/// Whether the long form is requested; the machine then has nothing else to do.
fn is_long() -> bool {
    std::env::var("ROLLCALL_TEST_LOAD").is_ok_and(|form| form == "long")
}

/// Counted by all listeners of a load test together.
#[derive(Default)]
struct Counts {
    /// Listeners that know where they begin.
    ready: AtomicU64,
    /// Changes that they received.
    heard: AtomicU64,
}

/// Listens for ever; each change must follow the previous one.
async fn listen(at: std::net::SocketAddr, counts: Arc<Counts>, opening: Arc<Semaphore>) {
    let turn = opening.acquire().await.unwrap();
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request = format!("GET /api/v1/changes HTTP/1.0\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::with_capacity(1024, stream);
    let (mut line, mut last, mut is_ready) = (Vec::new(), None, false);
    let mut turn = Some(turn);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if line.starts_with(b"id: ") && !std::mem::replace(&mut is_ready, true) {
            counts.ready.fetch_add(1, Ordering::Relaxed);
            turn = None;
        }
        let text = std::str::from_utf8(&line).unwrap();
        let Some(seq) = text.split("\"seq\":").nth(1) else { continue };
        let seq: u64 = seq.split(',').next().unwrap().parse().unwrap();
        assert!(last.is_none_or(|last| seq == last + 1), "{seq} after {last:?}");
        last = Some(seq);
        counts.heard.fetch_add(1, Ordering::Relaxed);
        drop(turn.take());
    }
}

fn reached(what: &str, counter: &AtomicU64, wanted: u64, within: Duration) {
    let started = Instant::now();
    while counter.load(Ordering::Relaxed) < wanted {
        let found = counter.load(Ordering::Relaxed);
        assert!(started.elapsed() < within, "{what}: {found} of {wanted}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn many_listeners_cost_little_memory_and_hear_every_change() {
    let (listeners, seconds) = if is_long() { (10_000, 20) } else { (300, 2) };
    // The limit of this process, and of the started ones.
    let limit = rustix::process::Resource::Nofile;
    let most = rustix::process::getrlimit(limit).maximum;
    let raised = rustix::process::Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(limit, raised).unwrap();
    let many = ["--max-connections", "20000", "--max-client-connections", "20000"];
    let mut ground = Ground::new(&many);
    let (at, counts) = (address(&ground.serve), Arc::<Counts>::default());
    ground.open("", "").ids(1);
    let before = resident(&ground.serve);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let opening = Arc::new(Semaphore::new(100));
    for _ in 0..listeners {
        runtime.spawn(listen(at, Arc::clone(&counts), Arc::clone(&opening)));
    }
    reached("listeners", &counts.ready, listeners, SOON * 3);
    let each = resident(&ground.serve).saturating_sub(before) / listeners;

    let (mut recorded, started) = (0, Instant::now());
    let used = ground.serve.processor_time();
    while started.elapsed() < Duration::from_secs(seconds) {
        ground.record(1, "");
        recorded += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    reached("changes", &counts.heard, recorded * listeners, SOON);
    let took = started.elapsed().as_secs_f64();
    let cores = (ground.serve.processor_time() - used).as_secs_f64() / took;
    let afterwards = resident(&ground.serve).saturating_sub(before) / listeners;
    eprintln!(
        "{listeners} listeners: {each} bytes each while idle, {afterwards} after {recorded} changes; {:.0} changes/s \
         to all of them take {cores:.2} cores",
        recorded as f64 / took
    );
    runtime.shutdown_background();
    if is_long() {
        assert!(
            each <= 16 << 10 && afterwards <= 16 << 10,
            "{each}, {afterwards} bytes a listener"
        );
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros() as u64
}

/// Prints the quantiles of delays in microseconds.
fn quantiles(what: &str, mut delays: Vec<u64>) {
    delays.sort_unstable();
    let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    let (p50, p99, last) = (at(0.5), at(0.99), at(1.0));
    eprintln!(
        "{what}: {} changes, p50 {p50:.2} ms, p99 {p99:.2} ms, max {last:.2} ms",
        delays.len()
    );
}

#[test]
fn a_change_is_heard_within_milliseconds() {
    let seconds = if is_long() { 10 } else { 1 };
    let mut ground = Ground::new(&[]);
    let mut client = ground.open("", "");
    client.ids(1);
    let mut sockets = Sockets::start(Language::JavaScript);
    sockets.join("reader", address(&ground.serve), &["websocket"], "doc:d");
    let recorder = std::thread::spawn(move || {
        let join = "
            local seq = redis.call('INCR', KEYS[2])
            redis.call('XADD', KEYS[1], '*', 'seq', seq, 'kind', 'document_joined', 'time', '1790000000000',
              'user', ARGV[1], 'doc', 'd', 'count', '1')";
        let (started, mut recorded) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(seconds) {
            let keys = ["rollcall:changes", "rollcall:changes:seq"];
            ground.run::<()>(&["EVAL", join, "2", keys[0], keys[1], &now_us().to_string()]);
            recorded += 1;
            let due = Duration::from_millis(recorded);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        (recorded, ground)
    });
    let mut delays = Vec::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    client.set_patience(Duration::from_secs(1));
    while let Some(event) = client.try_next() {
        let sent: u64 = event.json()["user"].as_str().unwrap().parse().unwrap();
        delays.push(now_us() - sent);
        if Instant::now() > until + SOON {
            break;
        }
    }
    let (recorded, _ground) = recorder.join().unwrap();
    assert_eq!(delays.len() as u64, recorded);
    quantiles("server-sent events", delays);
    let heard = sockets.heard_at(Duration::from_secs(1));
    let updates = heard.iter().filter(|(line, _)| line["event"] == "document:update");
    let delays: Vec<u64> = updates
        .map(|(line, at)| at - line["data"]["user"].as_str().unwrap().parse::<u64>().unwrap())
        .collect();
    assert_eq!(delays.len() as u64, recorded);
    quantiles("Socket.IO, its client included", delays);
}

#[test]
fn a_snapshot_of_a_large_state_holds_the_server_for_short_calls() {
    let entries: u64 = if is_long() { 1_000_000 } else { 20_000 };
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    for first in (0..entries).step_by(1_000) {
        let mut pipe = redis::pipe();
        let set = pipe.cmd("HSET").arg("presence:users");
        for n in first..first + 1_000 {
            let value = json!({
                "lastSeen": 1_790_000_000_000_u64 + n, "user": format!("user{n}"), "ip": "203.0.113.7",
                "ua": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "page": "/documents/recent",
            });
            set.arg(format!("user{n}|203.0.113.7")).arg(value.to_string());
        }
        pipe.query::<()>(&mut conn).unwrap();
    }
    let serve = scene.serve(&[]);
    let at = address(&serve);
    Client::open(at, "", "", "").ids(1);
    scene.command::<()>(&["CONFIG", "RESETSTAT"]);
    let (before, started) = (resident(&serve), Instant::now());
    let mut client = Client::open(at, "snapshot=1", "", "");
    client.set_patience(SOON * 3);
    let event = client.next();
    let took = started.elapsed();
    let found = event.json()["presence"].as_array().unwrap().len() as u64;
    assert_eq!(found, entries);
    let grown = resident(&serve).saturating_sub(before) >> 20;
    let stats: String = scene.command(&["INFO", "latencystats"]);
    let calls: String = scene.command(&["INFO", "commandstats"]);
    let line = |stats: &str| {
        let found = stats.lines().find(|line| line.contains("_hscan:")).unwrap_or_default();
        found.to_owned()
    };
    let (stats, calls) = (line(&stats), line(&calls));
    eprintln!(
        "{entries} entries: {} MiB in {took:.1?}, {grown} MiB of memory; {calls}; {stats}",
        event.data.len() >> 20
    );
    let asked: u64 =
        calls.split("calls=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(asked >= entries / 1_000, "each call asks for part of it: {asked}");
}
