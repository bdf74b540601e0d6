//! Health as a load balancer and a supervisor see it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rollcall::projector::{self, Projector};
use rollcall::telemetry::health::Health;
use tokio::sync::watch;

use super::{HTTP, SOON};
use crate::harness::{Deployment, wait_until};
use crate::process::Worker;
use crate::roles::{NOWHERE, Pages, server};
use crate::support::dump;

/// Sends a signal to a process.
fn signal(name: &str, pid: u32) {
    let kill = format!("kill -{name} {pid}");
    let status = std::process::Command::new("sh").arg("-c").arg(&kill).status().unwrap();
    assert!(status.success(), "{kill}");
}

/// A worker that finds nothing to do is live; one whose read does not return is not, until it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_is_not_live() {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deployment = Deployment::start(&[]);
    let server = deployment.server.pid().unwrap();
    let (stop, stopped) = watch::channel(false);
    let health = Health::default();
    let pulse = health.add("w".to_owned(), PATIENCE);
    let worker = projector::Worker::new(&deployment.config, "w".to_owned());
    let projector = Projector::new(&deployment.config, 0, &worker, pulse, stopped);
    let working = tokio::spawn(projector.run());
    let watching = health.clone();
    tokio::task::spawn_blocking(move || {
        wait_until(SOON, "ready", || watching.unready().is_empty());
        let begun = std::time::Instant::now();
        while begun.elapsed() < PATIENCE * 2 {
            assert_eq!(watching.stuck(), [""; 0], "nothing to do");
            std::thread::sleep(Duration::from_millis(20));
        }
        signal("STOP", server);
        wait_until(SOON, "not live", || !watching.stuck().is_empty());
        let words = watching.stuck();
        signal("CONT", server);
        assert!(words[0].contains("w has waited without asking for work for "), "{words:?}");
        wait_until(SOON, "live again", || watching.stuck().is_empty());
    })
    .await
    .unwrap();
    stop.send_replace(true);
    working.await.unwrap().unwrap();
}

/// The process is ready only when entries can be applied, and says until then what to do: whether taking the
/// partition is refused, or only a later step.
#[test]
fn a_worker_that_can_read_but_not_apply_is_not_ready() {
    for key in ["presence:users", "rollcall:changes:seq"] {
        let server = server();
        let mut conn = dump::connect(&server.url());
        let worker = Worker::start(&server.url(), &HTTP, &[]);
        let pages = Pages::of(&worker);
        wait_until(SOON, "ready", || pages.get("/readyz").0 == 200);
        redis::cmd("SET").arg(&[key, "theirs"]).exec(&mut conn).unwrap();
        let add = ["rollcall:events", "*", "type", "heartbeat", "user", "u"];
        redis::cmd("XADD").arg(&add).exec(&mut conn).unwrap();
        let remedy = "rename or delete that key";
        wait_until(SOON, "not ready, and why", || {
            let (status, body) = pages.get("/readyz");
            status == 503 && body.contains(key) && body.contains(remedy)
        });
        let tries = || pages.metric("rollcall_redis_errors_total{kind=\"wrong_key\"}").unwrap();
        let before = tries();
        wait_until(SOON, "tried again and again", || {
            assert_eq!(pages.get("/readyz").0, 503, "{key}: to connect is not enough");
            tries() > before + 2.0
        });
        assert_eq!(pages.get("/livez").0, 200);
        redis::cmd("DEL").arg(key).exec(&mut conn).unwrap();
        wait_until(SOON, "ready again", || pages.get("/readyz").0 == 200);
    }
}

#[test]
fn a_supervisor_hears_of_start_progress_and_stop() {
    let server = server();
    for url in [server.url().as_str(), NOWHERE] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(SOON)).unwrap();
        let hear = || {
            let mut bytes = [0; 64];
            let length = listener.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
        let mut process = Worker::start_as("run", url, &[], &env);
        assert_eq!(hear(), "READY=1");
        for _ in 0..3 {
            assert_eq!(hear(), "WATCHDOG=1", "whether there is a server or not");
        }
        process.signal("TERM");
        wait_until(SOON, "it says that it stops", || hear() == "STOPPING=1");
        assert_eq!(process.exit_code(SOON), 0);
    }
}

#[test]
fn a_watchdog_meant_for_another_process_hears_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let listener = UnixDatagram::bind(&path).unwrap();
    let env = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "100000"),
        ("WATCHDOG_PID", "1"),
    ];
    let mut process = Worker::start_as("worker", NOWHERE, &[], &env);
    wait_until(SOON, "started", || process.log().contains("not projecting"));
    assert_eq!(process.terminate(), 0);
    listener.set_nonblocking(true).unwrap();
    let mut bytes = [0; 64];
    let heard: Vec<_> =
        std::iter::from_fn(|| listener.recv(&mut bytes).ok().map(|n| bytes[..n].to_vec()))
            .collect();
    assert_eq!(heard, [b"READY=1".to_vec(), b"STOPPING=1".to_vec()]);
}

#[test]
fn a_supervisor_that_cannot_be_told_is_an_error_with_the_remedy() {
    let env = [("NOTIFY_SOCKET", &*"x".repeat(200))];
    let mut process = Worker::start_as("worker", NOWHERE, &[], &env);
    assert_eq!(process.exit_code(SOON), 1);
    assert!(process.log().contains("unset it, or use Type=simple"), "{}", process.log());
}
