//! Logs: what is logged changes while the process runs.

use std::fs;

use crate::harness::wait_until;
use crate::scene::{SOON, Scene};

#[test]
fn a_hangup_reads_the_log_filter_again() {
    let scene = Scene::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    fs::write(&path, "log = \"error\"\n").unwrap();
    let worker = scene.worker(&["--config", path.to_str().unwrap()]);
    scene.add_random(0, 10);
    scene.wait_finished(SOON, "it projects");
    assert_eq!(worker.log(), "", "nothing but errors");
    let set = |text: &str, said: &str| {
        fs::write(&path, text).unwrap();
        worker.signal("HUP");
        wait_until(SOON, said, || worker.log().contains(said));
    };
    set("log = \"info\"\n", "reloaded the settings filter=\"info\"");
    set(
        "log = \"inof\"\n",
        "the settings are unchanged, because they cannot be reloaded: log = \"inof\" (file ",
    );
    set("log = ", "the settings are unchanged, because they cannot be reloaded: ");
    set("log = \"rollcall=debug\"\nbatch = 3\n", "filter=\"rollcall=debug\"");
    scene.add_random_later(1, 50);
    scene.wait_finished(SOON, "it goes on projecting");
    let log = scene.drain(worker);
    assert!(log.contains("gave the partition up"), "{log}");
    assert_eq!(log.matches("created the consumer group").count(), 0, "that was before: {log}");
}

#[test]
fn what_a_flag_says_stays() {
    let scene = Scene::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    fs::write(&path, "log = \"off\"\n").unwrap();
    let worker = scene.worker(&["--config", path.to_str().unwrap(), "--log", "info"]);
    scene.wait_owned();
    worker.signal("HUP");
    let said = "reloaded the settings filter=\"info\"";
    wait_until(SOON, said, || worker.log().contains(said));
    scene.drain(worker);
}
