//! Servers whose clock steps, and failovers to servers whose clock is behind: nothing that was stored under the old
//! clock delays anything, and what cannot be known for a while is reported as such.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use redis::Connection;
use rollcall::private_server::{Options, PrivateServer, find_server};
use tempfile::TempDir;

use crate::doctor::examine;
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::roles::Pages;
use crate::scene::{SOON, Scene, try_command};
use crate::support::dump;
use crate::trouble::command;

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
const LEASE: &str = "rollcall:janitor:lease";
const SURVEY: &str = "rollcall:janitor:survey";
/// Shorter than the presence time, so that nobody is removed.
const STEP_MS: i64 = 280_000;
/// How long a janitor may take after a step: less than any of its waits.
const PROMPTLY: Duration = Duration::from_secs(5);

/// The wall clock of one server.
pub struct Clock {
    folder: TempDir,
}

impl Clock {
    /// A clock that is right.
    pub fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.set(0);
        let server = find_server(None).unwrap();
        let script = format!(
            "#!/bin/sh\nLD_PRELOAD='{}' CLOCK_OFFSET_FILE='{}' exec '{}' \"$@\"\n",
            shim().display(),
            clock.file().display(),
            server.display()
        );
        fs::write(clock.script(), script).unwrap();
        fs::set_permissions(clock.script(), fs::Permissions::from_mode(0o700)).unwrap();
        clock
    }

    /// Sets it this many milliseconds ahead of this machine's, or behind.
    pub fn set(&self, offset_ms: i64) {
        // In place, since the server has it mapped.
        let mut file =
            fs::File::options().create(true).write(true).truncate(false).open(self.file()).unwrap();
        std::io::Write::write_all(&mut file, &offset_ms.to_ne_bytes()).unwrap();
    }

    /// Options for a server with this clock.
    pub fn options(&self, options: Options) -> Options {
        Options { binary: Some(self.script()), ..options }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("server")
    }
}

/// Compiles the library between a server and the clock.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (built, new) =
            (folder.join("clock.so"), folder.join(format!("clock-{}.so", std::process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/clock/shim.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        let status = compile.arg(&new).arg(source).status().expect("cc compiles the clock");
        assert!(status.success(), "cc: {status}");
        fs::rename(new, &built).unwrap();
        built
    })
}

fn ask<T: redis::FromRedisValue>(conn: &mut Connection, words: &[&str]) -> T {
    try_command(conn, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// How far ahead of the clock the last sweep is dated, in milliseconds.
fn swept_ahead_ms(conn: &mut Connection) -> i64 {
    let last: Option<i64> = ask(conn, &["HGET", "rollcall:janitor", "last_run"]);
    last.unwrap_or_default() - dump::server_now(conn) as i64
}

fn start(clock: &Clock) -> Scene {
    Scene::start_with(&[("thresholds", "3:1")], clock.options(Options::default()))
}

#[test]
fn a_janitor_and_a_worker_go_on_when_the_clock_goes_back() {
    let clock = Clock::new();
    let scene = start(&clock);
    let mut conn = scene.connection();
    let (worker, janitor) = (scene.worker(&HTTP), scene.janitor(&HTTP));
    let pages = Pages::of(&janitor);
    scene.add_heartbeat("before");
    scene.wait_finished(SOON, "before");
    clock.set(STEP_MS);
    let real_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!(dump::server_now(&mut conn) > real_ms + 200_000, "the server has this clock");
    scene.add_heartbeat("meanwhile");
    wait_until(SOON, "it sweeps by the clock that is ahead", || swept_ahead_ms(&mut conn) > -1_000);
    // Turns that begin because of it.
    command(&scene, &["SET", LEASE, "700 another", "PX", "700"]);
    command(&scene, &["SET", SURVEY, "5000 another", "PX", "5000"]);
    clock.set(0);
    wait_until(PROMPTLY, "it sweeps by the clock as it is", || swept_ahead_ms(&mut conn) < 0);
    for key in [LEASE, SURVEY] {
        wait_until(PROMPTLY, "no turn lasts", || ask::<i64>(&mut conn, &["PTTL", key]) < 10_000);
    }
    let repairs =
        |what: &str| pages.metric(&format!("rollcall_repairs_total{{repair=\"{what}\"}}"));
    wait_until(SOON, "it is counted", || repairs("clock") >= Some(1.0));
    janitor.says("the server's clock went back");
    scene.add_heartbeat("after");
    wait_until(PROMPTLY, "the worker has it", || scene.is_present("after|"));
    scene.verify("after the clock went back");
    drop((worker, janitor));
}

/// A replica has its master's leases, which end by the master's clock.
#[test]
fn a_failover_to_a_server_whose_clock_is_behind_holds_no_janitor_up() {
    let clock = Clock::new();
    clock.set(STEP_MS);
    let mut scene = start(&clock);
    let behind = PrivateServer::start(Options {
        extra_args: ["--replicaof", "127.0.0.1", &scene.deployment.server.port().to_string()]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    })
    .unwrap();
    scene.add_heartbeat("al");
    let (worker, janitor) = (scene.worker(&[]), scene.janitor(&["--janitor-interval", "10s"]));
    scene.wait_finished(SOON, "applied");
    let mut conn = dump::connect(&behind.url());
    // Its master is killed during both turns.
    wait_until(SOON, "replicated", || {
        [LEASE, SURVEY].iter().all(|key| ask::<i64>(&mut conn, &["PTTL", key]) > 200_000)
    });
    scene.deployment.server.kill();
    drop((worker, janitor));
    ask::<()>(&mut conn, &["REPLICAOF", "NO", "ONE"]);
    drop(scene.deployment.move_to(behind));
    let janitor = scene.janitor(&HTTP);
    wait_until(PROMPTLY, "it sweeps", || swept_ahead_ms(&mut conn) < 0);
    let pages = Pages::of(&janitor);
    wait_until(PROMPTLY, "it surveys", || {
        pages.metric("rollcall_stream_clock_ahead_seconds{partition=\"0\"}") > Some(200.0)
    });
    let _worker = scene.worker(&[]);
    scene.add_heartbeat("bo");
    wait_until(SOON, "a worker works", || scene.is_present("bo|"));
    scene.verify("on a server whose clock is behind");
}

/// What nobody corrects is reported by the doctor, the status and the metrics.
#[test]
fn what_is_ahead_of_the_clock_is_told_as_that() {
    let clock = Clock::new();
    clock.set(STEP_MS);
    let scene = start(&clock);
    let mut conn = scene.connection();
    let run = Worker::start_as("run", &scene.url(), &["--thresholds", "3:1"], &[]);
    scene.add_heartbeat("al");
    scene.wait_finished(SOON, "applied");
    wait_until(SOON, "swept", || swept_ahead_ms(&mut conn) > -10_000);
    drop(run);
    command(&scene, &["XADD", "rollcall:events", "*", "type", "heartbeat", "user", "bo"]);
    clock.set(0);
    let (_, report) = examine(&scene.url(), &[]);
    let says = |check: &str, words: &str| {
        let findings = report["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check).unwrap();
        assert!(finding["found"].as_str().unwrap().contains(words), "{finding}");
        assert_eq!(finding["level"], "failure", "{finding}");
    };
    says(
        "janitor",
        "ahead of the server's clock: the clock went back, and no janitor has swept since",
    );
    says("owner", "is gone, and no worker has taken over");
    says("ids", "s ahead of the server's clock");
    let (_, page, _) = ask_at(&scene.url(), &["status"]);
    for words in [
        "WARNING: the newest entry's id is 4 min ahead of the server's clock",
        "waiting (oldest 4 min ahead of the server's clock)",
        "ran 4 min ahead of the server's clock",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let (_, json, _) = ask_at(&scene.url(), &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    let age_s = status["total"]["oldest_undelivered_age_s"].as_f64().unwrap();
    assert!((-280.0..-240.0).contains(&age_s), "{age_s}");
}
