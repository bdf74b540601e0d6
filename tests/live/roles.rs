//! The long-running roles as a person runs them: addresses, pages, settings, exit codes, memory.

pub mod cluster;
mod descriptors;
mod login;
mod mutual_tls;
pub mod tls;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rollcall::private_server::{Options, PrivateServer};

use crate::demo::DEFAULT_PORTS;
use crate::harness::{Deployment, id, is_finished, wait_until};
use crate::process::Worker;
use crate::support::dump;
use crate::support::events::Events;

const SOON: Duration = Duration::from_secs(15);
/// An address where nobody listens.
pub const NOWHERE: &str = "redis://127.0.0.1:1";
const PASSWORD: &str = "s3cr3t-hunter2";

/// A process's pages over HTTP.
pub struct Pages {
    pub address: SocketAddr,
}

impl Pages {
    /// At the address in its log.
    pub fn of(process: &Worker) -> Self {
        let address = || {
            let log = process.log();
            let (_, rest) = log.split_once("http=\"")?;
            rest.split('"').next()?.parse().ok()
        };
        wait_until(SOON, "the log names the HTTP address", || address().is_some());
        Self { address: address().unwrap() }
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // With this version a long body comes in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of a series, labels included in its name; `None` if there is none.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value)
    }
}

pub fn server() -> PrivateServer {
    PrivateServer::start(Options::default()).unwrap()
}

pub fn add_heartbeats(url: &str, count: usize) {
    let mut conn = dump::connect(url);
    for n in 0..count {
        let mut add = redis::cmd("XADD");
        add.arg("rollcall:events")
            .arg("*")
            .arg("type")
            .arg("heartbeat")
            .arg("user")
            .arg(format!("u{n}"));
        add.exec(&mut conn).unwrap();
    }
}

fn presence(conn: &mut redis::Connection) -> u64 {
    redis::cmd("HLEN").arg("presence:users").query(conn).unwrap()
}

#[test]
fn pages_take_the_first_free_default_port_and_an_explicit_one_in_use_is_an_error() {
    let _alone = DEFAULT_PORTS.lock().unwrap();
    let server = server();
    let start = || Worker::start(&server.url(), &["--http", "auto"], &[]);
    let first = start();
    let port = Pages::of(&first).address.port();
    let second = start();
    let other = Pages::of(&second).address.port();
    for port in [port, other] {
        assert!((9464..=9473).contains(&port), "{port}");
    }
    assert!(other != port);
    let taken = format!("127.0.0.1:{port}");
    for role in ["worker", "janitor", "run"] {
        let mut third = Worker::start_as(role, &server.url(), &["--http", &taken], &[]);
        assert_eq!(third.exit_code(SOON), 1);
        let log = third.log();
        let remedy = "choose another --http address, port 0 for any free one, or off";
        assert!(log.contains(&taken) && log.contains(remedy) && log.contains("in use"), "{log}");
    }
    assert!(first.log().contains(&format!("http=\"127.0.0.1:{port}\"")));
}

#[test]
fn pages_are_off_or_anywhere() {
    let server = server();
    let worker = Worker::start(&server.url(), &["--http", "off"], &[]);
    wait_until(SOON, "started", || worker.log().contains("started"));
    assert!(worker.log().contains("http=\"off\""), "{}", worker.log());
    let worker = Worker::start(&server.url(), &["--http", "[::1]:0"], &[]);
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(Pages::of(&worker).address.is_ipv6());
    }
}

#[test]
fn ready_means_connected_and_live_means_getting_on() {
    let mut server = server();
    let url = server.url();
    server.kill();
    let mut process = Worker::start_as("run", &url, &["--http", "127.0.0.1:0"], &[]);
    let pages = Pages::of(&process);
    let (status, body) = pages.get("/readyz");
    assert_eq!(status, 503);
    assert!(
        body.contains("worker of partition 0: ") && body.contains("janitor of partition 0: "),
        "{body}"
    );
    wait_until(SOON, "it says why", || pages.get("/readyz").1.contains("refused"));
    assert_eq!(pages.get("/livez"), (200, "ok\n".to_owned()));
    let (status, contents) = pages.get("/");
    let named = contents.lines().filter_map(|line| line.split(' ').next());
    let named: Vec<_> = named.filter(|word| word.starts_with('/')).collect();
    assert_eq!((status, named.as_slice()), (200, &["/metrics", "/livez", "/readyz"][..]));
    server.restart().unwrap();
    wait_until(SOON, "ready", || pages.get("/readyz") == (200, "ok\n".to_owned()));
    server.kill();
    wait_until(SOON, "no longer ready", || pages.get("/readyz").0 == 503);
    assert_eq!(pages.get("/livez").0, 200);
    assert_eq!(process.terminate(), 0, "stopped while the server is away");
}

#[test]
fn a_unix_socket_will_do() {
    let server = PrivateServer::start(Options { unix_socket: true, ..Options::default() }).unwrap();
    let mut conn = dump::connect(&server.url());
    add_heartbeats(&server.url(), 3);
    for url in [server.unix_url().unwrap(), server.unix_url().unwrap().replace("unix://", "unix:")]
    {
        redis::cmd("DEL").arg("presence:users").exec(&mut conn).unwrap();
        add_heartbeats(&server.url(), 1);
        let mut worker = Worker::start(&url, &[], &[]);
        wait_until(SOON, "it works", || presence(&mut conn) > 0);
        assert_eq!(worker.terminate(), 0, "{}", worker.log());
    }
}

#[test]
fn user_and_password_come_from_anywhere_and_are_never_shown() {
    let server = server();
    let mut conn = dump::connect(&server.url());
    let user = ["SETUSER", "al", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
    redis::cmd("ACL").arg(&user).exec(&mut conn).unwrap();
    let address = server.url().replace("redis://", "");
    let with_password = format!("redis://al:{PASSWORD}@{address}?protocol=resp3");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.to_str().unwrap();
    let loud = ["--log", "trace", "--http", "127.0.0.1:0"];
    let by_file = ["--redis-password-file", file, "--redis-username", "al"];
    let by_env = [("ROLLCALL_REDIS_USERNAME", "al"), ("ROLLCALL_REDIS_PASSWORD", PASSWORD)];
    for (url, args, env) in [
        (with_password.as_str(), &[][..], &[][..]),
        (&server.url(), &by_file, &[]),
        (&server.url(), &[], &by_env),
    ] {
        let mut worker = Worker::start(url, &[&loud, args].concat(), env);
        let clients = |conn: &mut redis::Connection| {
            let list: String = redis::cmd("CLIENT").arg("LIST").query(conn).unwrap();
            let is_ours =
                |client: &&str| ["user=al ", "resp=2"].iter().all(|word| client.contains(word));
            list.lines().filter(is_ours).count()
        };
        // To look, to apply, to read, and for its subscription.
        wait_until(SOON, "it works under its user", || clients(&mut conn) == 4);
        assert_eq!(worker.terminate(), 0);
        assert!(!worker.log().contains(PASSWORD), "{}", worker.log());
    }
    let wrong = format!("redis://al:{PASSWORD}-wrong@{address}");
    refused_login(&wrong, "authentication failed");
    redis::cmd("CONFIG").arg(&["SET", "requirepass", PASSWORD]).exec(&mut conn).unwrap();
    refused_login(&server.url(), "NOAUTH");
}

/// Without the right password a worker says so, with an error kind of its own, and keeps trying.
fn refused_login(url: &str, words: &str) {
    let mut worker = Worker::start(url, &["--log", "trace", "--http", "127.0.0.1:0"], &[]);
    let pages = Pages::of(&worker);
    wait_until(SOON, "it says why it is not ready", || {
        let (status, body) = pages.get("/readyz");
        status == 503 && body.contains(words)
    });
    assert!(worker.log().contains(words), "{}", worker.log());
    assert!(!(worker.log() + &pages.get("/readyz").1).contains(PASSWORD));
    let counted = pages.metric(r#"rollcall_redis_errors_total{kind="auth"}"#);
    assert!(counted >= Some(1.0), "counted as another kind than auth: {counted:?}");
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn settings_come_from_file_environment_and_flags() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let url = server.url();
    let text =
        format!("redis-url = \"{NOWHERE}\"\nviewed-cap = 7\nrecent-cap = 70\nranking-cap = 700\n");
    std::fs::write(&path, text).unwrap();
    let env = [("ROLLCALL_RECENT_CAP", "71"), ("ROLLCALL_RANKING_CAP", "701")];
    let args = ["--config", path.to_str().unwrap(), "--ranking-cap", "702"];
    let mut worker = Worker::start(&url, &args, &env);
    let mut conn = dump::connect(&url);
    let caps = ["viewed-cap", "recent-cap", "ranking-cap"];
    let stored = |conn: &mut redis::Connection| {
        redis::cmd("HMGET")
            .arg("rollcall:meta")
            .arg(&caps)
            .query::<Vec<Option<String>>>(conn)
            .unwrap()
    };
    wait_until(SOON, "it joins", || stored(&mut conn)[0].is_some());
    let expected = ["7", "71", "702"].map(|cap| Some(cap.to_owned()));
    assert_eq!(stored(&mut conn), expected);
    assert_eq!(worker.terminate(), 0);
}

#[test]
fn who_differs_from_the_deployment_is_refused_with_the_remedy() {
    let server = server();
    let mut first = Worker::start(&server.url(), &[], &[]);
    wait_until(SOON, "it joins", || first.log().contains("created the consumer group"));
    for role in ["worker", "janitor", "run"] {
        let mut other = Worker::start_as(role, &server.url(), &["--presence-ttl", "10s"], &[]);
        assert_eq!(other.exit_code(SOON), 1);
        let log = other.log();
        for word in ["rollcall:meta", "presence-ttl = 5m", "10s", "rebuild", "--change-settings"] {
            assert!(log.contains(word), "no {word:?} in {log}");
        }
    }
    assert!(first.runs());
    let mut bad = Worker::start(&server.url(), &["--batch", "0"], &[]);
    assert_eq!(bad.exit_code(SOON), 64);
    for signal in ["TERM", "INT"] {
        let mut worker = Worker::start_as("run", &server.url(), &[], &[]);
        wait_until(SOON, "it listens to signals", || catches_sigterm(&worker));
        worker.signal(signal);
        assert_eq!(worker.exit_code(SOON), 0, "SIG{signal}");
    }
    assert_eq!(first.terminate(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_partitions_with_a_prefix_end_to_end() {
    let flags = [("partitions", "4"), ("prefix", "acme:"), ("thresholds", "3:1")];
    let deployment = Deployment::start(&flags);
    let now = dump::server_now(&mut deployment.connection());
    let mut events = Events::new(3, now);
    events.partitions = 4;
    let mut partitions = vec![Vec::new(); 4];
    for n in 0..400 {
        let (partition, fields) = events.entry();
        let id = id(now - 5_000 + n, n);
        partitions[usize::from(partition)].push(rollcall::entry::Entry::new(id, fields));
    }
    let args = ["--partitions", "4", "--prefix", "acme:", "--thresholds", "3:1"];
    let mut workers: Vec<_> =
        (0..2).map(|_| Worker::start_as("run", &deployment.server.url(), &args, &[])).collect();
    (0..).zip(&partitions).for_each(|(partition, entries)| deployment.add(partition, entries));
    let mut conn = deployment.connection();
    wait_until(SOON, "both have started", || workers.iter().all(catches_sigterm));
    wait_until(SOON, "all is applied", || {
        (0..4).all(|partition| {
            is_finished(&mut conn, &deployment.keys(partition), &deployment.stream(partition))
        })
    });
    workers.iter_mut().for_each(|worker| assert_eq!(worker.terminate(), 0));
    deployment.verify("two processes").await;
    let names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut conn).unwrap();
    assert!(names.iter().all(|name| name.starts_with("acme:{p")), "{names:?}");
}

/// Whether a process has come far enough to handle SIGTERM (15).
fn catches_sigterm(process: &Worker) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0
}

#[test]
fn memory_does_not_grow_with_what_is_waiting() {
    let server = server();
    let mut conn = dump::connect(&server.url());
    for chunk in 0..200 {
        let mut fill = redis::pipe();
        for n in 0..1000 {
            let user = format!("user{}", chunk * 1000 + n);
            let add = fill.cmd("XADD").arg("rollcall:events").arg("*").arg("type").arg("heartbeat");
            add.arg("user").arg(user).arg("ip").arg("10.0.0.1").arg("page").arg("/home").ignore();
        }
        fill.exec(&mut conn).unwrap();
    }
    let worker = Worker::start_as("run", &server.url(), &[], &[]);
    wait_until(Duration::from_secs(30), "a fifth is applied", || presence(&mut conn) > 40_000);
    let (now, most) = (worker.memory("VmRSS"), worker.memory("VmHWM"));
    eprintln!("resident with 200,000 entries waiting: {now} KiB, at most {most} KiB");
    assert!(most < 64 << 10, "{most} KiB");
}
