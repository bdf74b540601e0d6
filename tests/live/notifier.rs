//! The notifier: each target receives every change, in order, whatever dies and when.

mod example;
mod rooms;
mod webhook;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, metric, page};
use crate::support::dump;

/// A target of kind `pubsub`, in a settings file of its own.
const PLAIN: &str = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n";

/// A scene with a worker and a settings file.
pub struct Stage {
    pub scene: Scene,
    _worker: Worker,
    folder: TempDir,
}

impl Stage {
    pub fn start(flags: &[(&str, &str)], file: &str) -> Self {
        let scene = Scene::start(flags);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("settings.toml"), file).unwrap();
        let worker = scene.worker(&["--batch", "500"]);
        Self { scene, _worker: worker, folder }
    }

    pub fn notifier(&self, env: &[(&str, &str)]) -> Worker {
        let file = self.folder.path().join("settings.toml").display().to_string();
        self.scene.notifier(&["--config", &file, "--http", "127.0.0.1:0"], env)
    }

    /// The same for this many partitions.
    pub fn notifier_for(&self, partitions: u16) -> Worker {
        let file = self.folder.path().join("settings.toml").display().to_string();
        let count = partitions.to_string();
        self.scene.notifier(&["--config", &file, "--partitions", &count], &[])
    }

    /// A notifier that knows the first position of each of these targets.
    pub fn notifier_of(&self, targets: &[&str]) -> Worker {
        let notifier = self.notifier(&[]);
        for target in targets {
            self.wait_begun(target);
        }
        notifier
    }

    pub fn wait_begun(&self, target: &str) {
        wait_until(SOON, "the target has a position", || self.position(target).is_some());
    }

    /// The number of the last change that was sent to the target of partition 0.
    pub fn position(&self, target: &str) -> Option<u64> {
        let text: Option<String> = self.scene.command(&["HGET", "rollcall:notifier", target]);
        text.map(|text| text.split(' ').nth(1).unwrap().parse().unwrap())
    }

    /// As if the lease of a notifier that died had expired.
    fn expire(&self, target: &str) {
        self.scene.command::<u64>(&["DEL", &format!("rollcall:notifier:lease:{target}")]);
    }

    /// This many users come, in packed entries.
    pub fn come(&self, users: std::ops::Range<u32>) {
        let users: Vec<u32> = users.collect();
        for some in users.chunks(500) {
            let event = |user: &u32| json!({"type": "heartbeat", "user": format!("u{user:05}")});
            let events: Vec<Value> = some.iter().map(event).collect();
            let data = serde_json::to_string(&events).unwrap();
            self.scene.command::<String>(&["XADD", "rollcall:events", "*", "data", &data]);
        }
        self.scene.wait_finished(SOON, "all who came are there");
    }

    /// Waits until everything was sent to the target.
    pub fn wait_told(&self, target: &str) {
        wait_until(SOON, "the target was told all", || {
            let newest: Option<u64> = self.scene.command(&["GET", "rollcall:changes:seq"]);
            self.position(target) == newest
        });
    }
}

/// The publications on a channel.
pub struct Heard(Arc<Mutex<Vec<Value>>>);

impl Heard {
    pub fn on(stage: &Stage, channel: &str) -> Self {
        let heard = Self(Arc::default());
        let mut conn: Connection = dump::connect(&stage.scene.url());
        let (kept, channel) = (heard.0.clone(), channel.to_owned());
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut subscription = conn.as_pubsub();
            subscription.subscribe(&channel).unwrap();
            ready.send(()).unwrap();
            while let Ok(message) = subscription.get_message() {
                let value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
                kept.lock().unwrap().push(value);
            }
        });
        is_ready.recv().unwrap();
        heard
    }

    pub fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    fn seqs(&self) -> Vec<u64> {
        self.all().iter().filter_map(|value| value["seq"].as_u64()).collect()
    }

    pub fn wait_for(&self, count: usize) {
        wait_until(SOON, "all is heard", || self.all().len() >= count);
    }
}

#[test]
fn killed_with_a_call_in_flight_each_change_is_published_once_and_in_order() {
    let stage = Stage::start(&[], PLAIN);
    let heard = Heard::on(&stage, "news");
    assert_eq!(stage.notifier_of(&["plain"]).terminate(), 0);
    stage.come(0..4_000);
    for pass in 1..=4 {
        let failpoint = format!("mid-notify:{pass}");
        let mut doomed = stage.notifier(&[("ROLLCALL_TEST_FAILPOINT", &failpoint)]);
        doomed.wait(SOON);
        stage.expire("plain");
    }
    let mut last = stage.notifier(&[]);
    stage.wait_told("plain");
    heard.wait_for(4_000);
    assert_eq!(last.terminate(), 0);
    assert_eq!(heard.seqs(), (1..=4_000).collect::<Vec<_>>());
    assert_eq!(heard.all()[0]["kind"], "online");
}

#[test]
fn killed_under_traffic_and_with_others_standing_by_nothing_is_missing_or_told_twice() {
    let stage = Stage::start(&[("partitions", "1")], PLAIN);
    let heard = Heard::on(&stage, "news");
    let mut first = stage.notifier_of(&["plain"]);
    let mut second = stage.notifier(&[]);
    for round in 0..6 {
        stage.come(round * 100..(round + 1) * 100);
        if round == 2 {
            // The other one continues once the lease has expired.
            first.kill();
        }
    }
    stage.wait_told("plain");
    heard.wait_for(600);
    assert_eq!(heard.seqs(), (1..=600).collect::<Vec<_>>());
    assert_eq!(second.terminate(), 0);
    let lease: Option<String> = stage.scene.command(&["GET", "rollcall:notifier:lease:plain"]);
    assert_eq!(lease, None, "who stops in good order leaves at once");
}

#[test]
fn who_was_away_too_long_is_told_of_the_gap_and_then_all_that_is_kept() {
    let stage = Stage::start(&[("changes-cap", "100")], PLAIN);
    let heard = Heard::on(&stage, "news");
    assert_eq!(stage.notifier_of(&["plain"]).terminate(), 0);
    stage.come(0..500);
    let notifier = stage.notifier(&[]);
    heard.wait_for(101);
    let gap = json!({"kind": "gap", "partition": 0, "after": 0, "next": 401});
    assert_eq!(heard.all()[0], gap);
    assert_eq!(heard.seqs(), (401..=500).collect::<Vec<_>>());
    assert_eq!(metric(&notifier, "rollcall_notifier_gaps_total"), 1.0);
    // If somebody removes the positions, the notifier that had the target notices.
    stage.scene.command::<u64>(&["DEL", "rollcall:notifier"]);
    heard.wait_for(202);
    assert_eq!(heard.all()[101], json!({"kind": "gap", "partition": 0, "after": 500, "next": 401}));
    assert_eq!(heard.seqs()[100..], (401..=500).collect::<Vec<_>>());
}

#[test]
fn a_filter_leaves_out_and_the_position_moves_on_all_the_same() {
    let file = format!("{PLAIN}kinds = [\"online\"]\nusers = [\"u00003\", \"u00007\"]\n");
    let stage = Stage::start(&[("partitions", "1")], &file);
    let heard = Heard::on(&stage, "news");
    let notifier = stage.notifier_of(&["plain"]);
    stage.come(0..50);
    stage.wait_told("plain");
    heard.wait_for(2);
    let users: Vec<_> = heard.all().iter().map(|change| change["user"].clone()).collect();
    assert_eq!(users, ["u00003", "u00007"]);
    wait_until(SOON, "all are counted", || {
        metric(&notifier, "rollcall_notifier_changes_total") == 50.0
    });
    let (_, text) = page(&notifier, "/metrics");
    let lag = r#"rollcall_notifier_lag_seconds{target="plain",partition="0"} "#;
    assert!(text.contains(lag), "{text}");
}

#[test]
fn each_partition_has_a_position_of_its_own() {
    let stage = Stage::start(&[("partitions", "4")], PLAIN);
    let heard = Heard::on(&stage, "news");
    let _notifier = stage.notifier(&[]);
    for partition in 0..4 {
        let key = stage.scene.deployment.keys(partition).notifier();
        wait_until(SOON, "it has a position", || {
            stage.scene.command::<bool>(&["HEXISTS", &key, "plain"])
        });
    }
    stage.scene.add_random(7, 300);
    stage.scene.wait_finished(SOON, "all is applied");
    let newest = |partition: u16| {
        let key = stage.scene.deployment.keys(partition).changes_seq();
        stage.scene.command::<Option<u64>>(&["GET", &key]).unwrap_or(0)
    };
    let expected: BTreeMap<u64, Vec<u64>> =
        (0..4).map(|partition| (u64::from(partition), (1..=newest(partition)).collect())).collect();
    heard.wait_for(expected.values().map(Vec::len).sum());
    let mut found: BTreeMap<u64, Vec<u64>> = (0..4).map(|n| (n, Vec::new())).collect();
    for change in heard.all() {
        let of = found.get_mut(&change["partition"].as_u64().unwrap()).unwrap();
        of.push(change["seq"].as_u64().unwrap());
    }
    assert_eq!(found, expected);
}

#[test]
fn without_a_target_there_is_no_notifier() {
    let scene = Scene::start(&[]);
    let mut notifier = scene.notifier(&[], &[]);
    assert_eq!(notifier.exit_code(Duration::from_secs(10)), 64);
    assert!(notifier.log().contains("add a [[notify]] table"), "{}", notifier.log());
}
