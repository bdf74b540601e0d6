//! `rollcall rebuild`: what differs is put right, under traffic, whenever it is killed; settings are changed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::damage::damage;
use super::{assert_no_shadow, verify};
use crate::harness::wait_until;
use crate::query::ground::{ask_at, command};
use crate::scene::{SOON, Scene, Traffic};

/// What `rollcall rebuild --json` says, and its exit status.
fn rebuild(scene: &Scene, flags: &[&str]) -> (i32, Value) {
    let partitions = scene.deployment.partitions().to_string();
    let words = [&["rebuild", "--json", "--partitions", &partitions], flags].concat();
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert!(!out.is_empty(), "{error}");
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn every_damage_is_put_right_and_the_state_is_what_the_entries_say() {
    for partitions in ["1", "4"] {
        let scene =
            Scene::start(&[("partitions", partitions), ("thresholds", "2:1"), ("max-skew", "1s")]);
        let _worker = scene.worker(&[]);
        let expected = damage(&scene).len();
        let traffic = Traffic::start(&scene, 3, 300);
        let (code, report) = rebuild(&scene, &["--dry-run"]);
        assert_eq!((code, report["mended"].as_u64()), (0, Some(0)), "{report:#}");
        assert_eq!(report["differences"].as_array().unwrap().len(), expected);
        let (code, report) = rebuild(&scene, &["--yes"]);
        assert_eq!((code, &report["left"]), (0, &json!([])), "{report:#}");
        assert_eq!(report["mended"].as_u64(), Some(expected as u64));
        let (code, report) = verify(&scene, &[]);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
        traffic.stop();
        scene.wait_finished(SOON, "all is applied");
        scene.verify(&format!("{partitions} partitions, rebuilt"));
        assert_no_shadow(&scene);
    }
}
