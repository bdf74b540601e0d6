//! Readers that stop reading the log, standard output, or the supervisor's socket. Work goes on, and the process ends
//! when it is told to.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground;
use crate::roles::{NOWHERE, Pages, tls::free_port};
use crate::scene::{SOON, Scene};
use crate::support::dump;

/// A pipe that is full as long as nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[b'\n'; 64 << 10]).unwrap();
    (reader, writer)
}

/// Pages on a port that is known without the log.
fn pages() -> (String, Pages) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    (address.to_string(), Pages { address })
}

fn wait_until_ready(pages: &Pages) {
    let serves = || std::net::TcpStream::connect(pages.address).is_ok();
    wait_until(SOON, "ready", || serves() && pages.get("/readyz").0 == 200);
}

/// Its exit code, which must come soon after SIGTERM.
fn terminate(child: &mut Child) -> Option<i32> {
    let line = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    ended(child)
}

fn ended(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until(Duration::from_secs(10), "it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

#[test]
fn a_log_that_nobody_reads_stops_no_work() {
    let scene = Scene::start(&[]);
    let (address, pages) = pages();
    let (reader, writer) = full_pipe();
    let flags = ["--http", &address, "--batch", "7", "--log", "trace"];
    let mut process = Worker::start_telling(writer.into(), "run", &scene.url(), &flags, &[]);
    wait_until_ready(&pages);
    scene.add_random(5, 300);
    scene.wait_finished(SOON, "applied without a reader");
    // Each loss of the connection is logged.
    for _ in 0..3 {
        let connects = || pages.metric("rollcall_redis_connects_total{role=\"worker\"}");
        let before = connects();
        scene.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
        wait_until(SOON, "connected again", || connects() > before);
        assert_eq!(pages.get("/livez"), (200, "ok\n".to_owned()));
        scene.add_random(6, 50);
        scene.wait_finished(SOON, "applied again");
    }
    assert_eq!(process.terminate(), 0);
    scene.verify("nobody reads the log");
    drop(reader);
}

#[test]
fn lost_log_lines_are_counted_and_told_when_there_is_room_again() {
    let (address, pages) = pages();
    let (mut reader, writer) = full_pipe();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rollcall.toml");
    // A filter of this length makes long lines.
    let filter = format!("log = \"warn,rollcall=info,{}=info\"\n", "x".repeat(200_000));
    std::fs::write(&file, filter).unwrap();
    let flags = ["--http", &address, "--config", file.to_str().unwrap(), "--log-format", "json"];
    let mut process = Worker::start_telling(writer.into(), "worker", NOWHERE, &flags, &[]);
    wait_until(SOON, "it serves", || std::net::TcpStream::connect(address.as_str()).is_ok());
    let lost = || pages.metric("rollcall_log_lines_lost_total").unwrap();
    wait_until(SOON, "lines are lost", || {
        process.signal("HUP");
        lost() >= 2.0
    });
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(process.terminate(), 0);
    let log = reading.join().unwrap();
    let lines = log.lines().filter(|line| !line.is_empty());
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = lines.iter().filter_map(|line| line["lines"].as_u64());
    assert!(told.sum::<u64>() >= 2, "{} lines", lines.len());
    assert_eq!(lines.last().unwrap()["message"], "stopped", "what came later stands in the log");
}

#[test]
fn a_failure_that_nobody_reads_ends_the_command() {
    let (_reader, writer) = full_pipe();
    let mut query = ground::command(NOWHERE, &["online"]);
    let mut child = query.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    assert_eq!(ended(&mut child), Some(1));
}

#[test]
fn a_watch_that_nobody_reads_ends_when_it_is_told_and_holds_no_connection() {
    let scene = Scene::start(&[]);
    scene.add_heartbeat("alice");
    for format in [&["--json"][..], &[]] {
        let (_reader, writer) = full_pipe();
        let mut conn = dump::connect(&scene.url());
        let received = |conn: &mut redis::Connection| -> u64 {
            let info: String = redis::cmd("INFO").arg("stats").query(conn).unwrap();
            let line =
                |line: &str| line.strip_prefix("total_connections_received:")?.trim().parse().ok();
            info.lines().find_map(line).unwrap()
        };
        let before = received(&mut conn);
        let words = [&["status", "--watch=100ms"], format].concat();
        let mut watch = ground::command(&scene.url(), &words);
        let mut child = watch.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
        wait_until(SOON, "it has looked", || received(&mut conn) > before);
        let clients = |conn: &mut redis::Connection| -> usize {
            redis::cmd("CLIENT").arg("LIST").query::<String>(conn).unwrap().lines().count()
        };
        wait_until(SOON, "its connection is closed", || clients(&mut conn) == 1);
        let looked = received(&mut conn);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            assert_eq!(received(&mut conn), looked, "it looks no further without a reader");
        }
        assert_eq!(terminate(&mut child), Some(0));
    }
}

#[test]
fn a_demo_that_nobody_reads_goes_on_and_ends_when_it_is_told() {
    let (_reader, writer) = full_pipe();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    demo.args(["demo", "--rate", "10"]).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let mut child = demo.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let catches = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap() >> 14 & 1 == 1
    };
    wait_until(SOON, "it listens to signals", catches);
    assert_eq!(terminate(&mut child), Some(0));
}

#[test]
fn a_supervisor_that_does_not_listen_stops_no_work_and_hears_of_the_start_later() {
    let scene = Scene::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    listener.set_read_timeout(Some(SOON)).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X", &path).is_ok() {}
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let mut process = scene.worker_with(&[], &env);
    scene.add_random(7, 100);
    scene.wait_finished(SOON, "applied without a supervisor");
    let hear = || {
        let mut bytes = [0; 64];
        let length = listener.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut heard = String::from("X");
    while heard == "X" {
        heard = hear();
    }
    assert_eq!(heard, "READY=1");
    wait_until(SOON, "it goes on to tell", || hear() == "WATCHDOG=1");
    while filler.send_to(b"X", &path).is_ok() {}
    assert_eq!(process.terminate(), 0, "{}", process.log());
}
