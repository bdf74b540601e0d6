//! SIGHUP: settings that can change in a running process do so at once; the others are named with the remedy.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use redis::Commands as _;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{id, wait_until};
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::{SOON, Scene};
use crate::serve::client::Client;
use crate::support::dump;

/// A TOML file of settings.
struct Settings(TempDir);

impl Settings {
    fn new(text: &str) -> Self {
        let settings = Self(tempfile::tempdir().unwrap());
        settings.write(text);
        settings
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("rollcall.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    /// Reloads these settings, and waits for the log line.
    fn reload(&self, process: &Worker, text: &str, said: &str) {
        self.write(text);
        process.signal("HUP");
        wait_until(SOON, said, || process.log().contains(said));
    }
}

fn start(scene: &Scene, role: &str, settings: &Settings, flags: &[&str]) -> Worker {
    let path = settings.path().display().to_string();
    let flags = [&["--config", &path, "--http", "127.0.0.1:0"], flags].concat();
    Worker::start_as(role, &scene.url(), &flags, &[])
}

#[test]
fn a_worker_takes_over_the_batch_and_names_what_has_to_wait() {
    let scene = Scene::start(&[]);
    let settings = Settings::new("batch = 4\n");
    let mut worker = start(&scene, "worker", &settings, &[]);
    scene.wait_owned();
    let pages = Pages::of(&worker);
    let batches = || pages.metric("rollcall_batch_entries_count").unwrap_or_default();
    let apply = |seed| {
        let before = batches();
        scene.add_random_later(seed, 200);
        scene.wait_finished(SOON, "applied");
        batches() - before
    };
    assert!(apply(1) >= 50.0);
    let text = "batch = 200\ntakeover = \"9s\"\nthresholds = [{ up = 3, down = 1 }]\n";
    settings.reload(&worker, text, "reloaded the settings filter=\"info\" changed=\"batch\"");
    let said = "settings=\"thresholds, takeover\" of_all=\"thresholds\"";
    wait_until(SOON, "what waits is named", || worker.log().contains(said));
    let log = worker.log();
    assert!(log.contains("rollcall rebuild --change-settings"), "{log}");
    scene.add_random_later(2, 10);
    scene.wait_finished(SOON, "what was read before");
    assert_eq!(scene.command::<String>(&["HGET", "rollcall:meta", "thresholds"]), "none");
    // Unknown and invalid settings change nothing.
    settings.reload(
        &worker,
        "batch = 0\n",
        "the settings are unchanged, because they cannot be reloaded: batch",
    );
    settings.reload(
        &worker,
        "keep = \"30h\"\n",
        "the settings are unchanged, because they cannot be reloaded: keep",
    );
    settings.reload(&worker, "batch = 200\n", "changed=\"\"");
    assert_eq!(worker.terminate(), 0, "{}", worker.log());
}

#[test]
fn a_janitor_takes_over_how_long_it_keeps_and_how_often_it_sweeps() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    let settings = Settings::new("janitor-interval = \"100ms\"\nkeep = \"10h\"\n");
    let janitor = start(&scene, "janitor", &settings, &[]);
    let old = dump::server_now(&mut scene.connection()) - 7_200_000;
    let entries = (0..400).map(|n| rollcall::entry::Entry::new(id(old, n), [("type", "x")]));
    scene.deployment.add(0, &entries.collect::<Vec<_>>());
    scene.wait_finished(SOON, "all is finished");
    scene.wait_for_round();
    assert_eq!(scene.command::<u64>(&["XLEN", "rollcall:events"]), 400);
    let text = "janitor-interval = \"100ms\"\nkeep = \"1h\"\n";
    settings.reload(&janitor, text, "changed=\"keep\"");
    // By whole nodes of the stream.
    wait_until(SOON, "what is older goes", || {
        scene.command::<u64>(&["XLEN", "rollcall:events"]) < 200
    });
    // To an hour and back to less than a second, without waiting for the hour.
    let swept = || scene.connection().hget::<_, _, u64>("rollcall:janitor", "last_run").unwrap();
    settings.reload(
        &janitor,
        "janitor-interval = \"1h\"\nkeep = \"1h\"\n",
        "changed=\"janitor-interval\"",
    );
    let left = || scene.command::<i64>(&["PTTL", "rollcall:janitor:lease"]);
    wait_until(SOON, "its turn is as long", || left() > 1_000_000);
    let before = swept();
    settings.reload(&janitor, "janitor-interval = \"200ms\"\n", "changed=\"janitor-interval\"");
    wait_until(SOON, "it sweeps again", || swept() > before + 500);
    drop(worker);
}

#[test]
fn serve_takes_over_how_much_a_client_may_do() {
    let scene = Scene::start(&[]);
    let settings = Settings::new("");
    let serve = start(&scene, "serve", &settings, &["--listen", "127.0.0.1:0"]);
    let mut address = String::new();
    wait_until(SOON, "it listens", || {
        let log = serve.log();
        let found = log.split("serve=").nth(1).and_then(|rest| rest.split([' ', '\n']).next());
        address = found.unwrap_or_default().trim_matches('"').to_owned();
        !address.is_empty()
    });
    let client = Client::new(&address);
    wait_until(SOON, "Redis is there", || !client.is_away());
    let send = || {
        let event = json!({"type": "heartbeat", "user": "a"}).to_string();
        client.post("/api/v1/events", &event).status
    };
    (0..5).for_each(|_| assert_eq!(send(), 202));
    settings.reload(&serve, "rate-limit = \"1:1\"\n", "changed=\"rate-limit\"");
    let limited = (0..5).map(|_| send()).filter(|status| *status == 429).count();
    assert!(limited >= 3, "{limited}");
    settings.reload(&serve, "", "changed=\"rate-limit\"");
    wait_until(Duration::from_secs(5), "it may again", || (0..5).all(|_| send() == 202));
}
