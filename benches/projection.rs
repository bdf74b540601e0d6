//! What projecting costs the server, against the floor: reading and acknowledging the same entries and
//! nothing else, in the same run, round by round.
//!
//! `cargo bench --bench projection [-- --events 200000 --rounds 5 --batch 500]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use redis::Connection;
use rollcall::config::{Config, Gathered};
use rollcall::key::Keys;
use rollcall::projector::Projector;
use rollcall::redis::connect::connect;
use rollcall::redis::private_server::{Options, PrivateServer};
use rollcall::redis::stream::StreamReader;
use rollcall::telemetry::health::Health;
use tokio::sync::watch;

/// One round of one way.
#[derive(Clone, Copy)]
struct Cost {
    events_per_s: f64,
    server_us: f64,
    client_us: f64,
}

fn main() {
    let option = |name: &str, default: u64| {
        let mut args = std::env::args().skip_while(|arg| arg != name);
        args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (events, rounds, batch) =
        (option("--events", 200_000), option("--rounds", 5), option("--batch", 500));
    let users = option("--users", 100_000);
    let server = PrivateServer::start(Options::default()).unwrap();
    pin(server.pid().unwrap(), 0);
    pin(std::process::id(), 1);
    let mut conn = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    println!(
        "standard mix, flat entries: {events} events, {users} users, batch {batch}, {rounds} rounds; server {} on core 0, client on core 1",
        info(&mut conn, "redis_version").unwrap_or_default()
    );
    let (mut floor, mut projected) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floor.push(measure(&mut conn, events, users, || read_and_acknowledge(&server, batch)));
        projected.push(measure(&mut conn, events, users, || project(&server, batch)));
    }
    println!(
        "{:<24}{:>12}{:>18}{:>18}{:>9}",
        "", "events/s", "server µs/event", "client µs/event", "× floor"
    );
    let base = median(&floor, |c| c.server_us);
    for (name, costs) in [("floor: read + ack", &floor), ("rollcall, everything on", &projected)] {
        let server_us = median(costs, |c| c.server_us);
        println!(
            "{name:<24}{:>12.0}{server_us:>18.2}{:>18.2}{:>9.2}",
            median(costs, |c| c.events_per_s),
            median(costs, |c| c.client_us),
            server_us / base
        );
    }
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Lets `run` work off a minute of events, to have the state of a service that has been running, and then
/// a second one; sees what the second took.
fn measure(conn: &mut Connection, events: u64, users: u64, run: impl Fn()) -> Cost {
    redis::cmd("FLUSHALL").exec(conn).unwrap();
    fill(conn, events, users, 2);
    run();
    fill(conn, events, users, 1);
    let (server, client, start) = (server_cpu(conn), own_cpu(), Instant::now());
    run();
    let elapsed = start.elapsed().as_secs_f64();
    let per_event = |seconds: f64| seconds * 1e6 / events as f64;
    Cost {
        events_per_s: events as f64 / elapsed,
        server_us: per_event(server_cpu(conn) - server),
        client_us: per_event(own_cpu() - client),
    }
}

/// 80 % heartbeats, 10 % views, 5 % logins, 5 % session updates with data, users uniform, over one
/// minute: about one heartbeat per user in 30 s at 100,000 users.
fn fill(conn: &mut Connection, events: u64, users: u64, minutes_ago: u64) {
    let mut rng = fastrand::Rng::with_seed(minutes_ago);
    let (seconds, _): (u64, u64) = redis::cmd("TIME").query(conn).unwrap();
    let start_ms = (seconds - 60 * minutes_ago) * 1000;
    for first in (0..events).step_by(1000) {
        let mut pipe = redis::pipe();
        for n in first..(first + 1000).min(events) {
            let user = rng.u64(..users);
            let add = pipe
                .cmd("XADD")
                .arg("rollcall:events")
                .arg(format!("{}-{n}", start_ms + n * 60_000 / events));
            let (ip, ua) = (
                format!("10.0.{}.{}", user / 256 % 256, user % 256),
                "Mozilla/5.0 (X11; Linux x86_64)",
            );
            let user_name = format!("user{user}");
            match rng.u32(..20) {
                0..16 => add
                    .arg("type")
                    .arg("heartbeat")
                    .arg("user")
                    .arg(user_name)
                    .arg("ip")
                    .arg(ip)
                    .arg("ua")
                    .arg(ua)
                    .arg("page")
                    .arg("/home"),
                16 | 17 => add
                    .arg("type")
                    .arg("view")
                    .arg("user")
                    .arg(user_name)
                    .arg("token")
                    .arg(format!("token{user}"))
                    .arg("item")
                    .arg(format!("item{}", rng.u32(..5000))),
                18 => add
                    .arg("type")
                    .arg("login")
                    .arg("user")
                    .arg(user_name)
                    .arg("token")
                    .arg(format!("token{user}"))
                    .arg("ip")
                    .arg(ip)
                    .arg("ua")
                    .arg(ua),
                _ => add
                    .arg("type")
                    .arg("session")
                    .arg("sid")
                    .arg(format!("sid{user}"))
                    .arg("user")
                    .arg(user_name)
                    .arg("ip")
                    .arg(ip)
                    .arg("ua")
                    .arg(ua)
                    .arg("data")
                    .arg("{\"cart\":[1,2,3],\"theme\":\"dark\"}"),
            };
        }
        pipe.exec(conn).unwrap();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn read_and_acknowledge(server: &PrivateServer, batch: u64) {
    let info = redis::IntoConnectionInfo::into_connection_info(server.url()).unwrap();
    let mut connection = connect(&info, "rollcall:events", Duration::from_secs(10)).await.unwrap();
    let create = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg("rollcall:events")
        .arg("rollcall")
        .arg("0")
        .to_owned();
    // The second time the group is there.
    let _exists = create.exec_async(&mut connection).await;
    let reader = StreamReader {
        stream: "rollcall:events".into(),
        group: "rollcall".into(),
        consumer: "floor".into(),
    };
    loop {
        let delivered = reader
            .read_new(&mut connection, batch as usize, Duration::from_millis(1))
            .await
            .unwrap();
        if delivered.entries.is_empty() {
            return;
        }
        let mut ack = redis::cmd("XACK");
        ack.arg("rollcall:events").arg("rollcall");
        for entry in &delivered.entries {
            ack.arg(entry.id.to_string());
        }
        ack.exec_async(&mut connection).await.unwrap();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn project(server: &PrivateServer, batch: u64) {
    let (url, batch) = (server.url(), batch.to_string());
    let config =
        Config::resolve(&Gathered::from_flags([("redis-url", &url), ("batch", &batch)]).unwrap())
            .unwrap();
    let (stop, stopped) = watch::channel(false);
    let pulse = Health::new(Duration::from_secs(60)).add("bench".to_owned());
    let projector =
        tokio::spawn(Projector::new(&config, 0, "bench".to_owned(), pulse, stopped).run());
    let mut connection = connect(
        &config.redis.connection_info(),
        &Keys::new("", 1, 0).meta(),
        Duration::from_secs(10),
    )
    .await
    .unwrap();
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let groups: Vec<std::collections::HashMap<String, redis::Value>> = redis::cmd("XINFO")
            .arg("GROUPS")
            .arg("rollcall:events")
            .query_async(&mut connection)
            .await
            .unwrap();
        let Some(group) = groups.first() else { continue };
        let zero = |name: &str| group.get(name) == Some(&redis::Value::Int(0));
        if zero("lag") && zero("pending") {
            break;
        }
    }
    stop.send_replace(true);
    projector.abort();
}

fn info(conn: &mut Connection, name: &str) -> Option<String> {
    let text: String = redis::cmd("INFO").arg("everything").query(conn).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
}

/// Seconds of CPU the server has used, by its own account.
fn server_cpu(conn: &mut Connection) -> f64 {
    ["used_cpu_user", "used_cpu_sys"]
        .iter()
        .map(|name| info(conn, name).unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Seconds of CPU this process has used; the kernel counts in hundredths.
fn own_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Keeps a process on one core, where `taskset` can.
fn pin(pid: u32, core: u32) {
    let pinned = std::process::Command::new("taskset")
        .args(["-acp", &core.to_string(), &pid.to_string()])
        .output();
    if !pinned.is_ok_and(|output| output.status.success()) {
        println!("not pinned: no taskset here");
    }
}
