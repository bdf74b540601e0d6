//! `rollcall verify`: the state is held to what the entries say, under traffic, and every damage is named.

mod damage;

use rollcall::entry::Entry;
use serde_json::{Value, json};

use crate::harness::id;
use crate::query::ground::ask_at;
use crate::scene::{SOON, Scene, Traffic, heartbeat, in_parallel};

/// What `rollcall verify --json` says, and its exit status.
pub fn verify(scene: &Scene, flags: &[&str]) -> (i32, Value) {
    let partitions = scene.deployment.partitions().to_string();
    let words = [&["verify", "--json", "--partitions", &partitions], flags].concat();
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert!(!out.is_empty(), "{error}");
    (code, serde_json::from_str(&out).unwrap())
}

/// Nothing of a shadow is left.
pub fn assert_no_shadow(scene: &Scene) {
    let left: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:*"]);
    let left: Vec<_> = left.iter().filter(|key| !key.ends_with(":lease")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Small caps and lives, so that all that takes things away does so all the time.
const TIGHT: [(&str, &str); 8] = [
    ("presence-ttl", "2s"),
    ("session-ttl", "2s"),
    ("document-ttl", "2s"),
    ("recent-cap", "7"),
    ("viewed-cap", "2"),
    ("ranking-cap", "3"),
    ("thresholds", "2:1"),
    ("max-skew", "1s"),
];

#[test]
fn the_same_state_gives_no_difference_under_traffic() {
    let seed = std::env::var("ROLLCALL_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    let rounds = std::env::var("ROLLCALL_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    for seed in seed..seed + rounds {
        let wide = [("thresholds", "2:1"), ("max-skew", "1s")];
        let cases = [("1", &wide[..]), ("4", &wide), ("1", &TIGHT), ("2", &TIGHT)];
        in_parallel(cases, |(partitions, settings)| {
            let scene = Scene::start(&[&[("partitions", partitions)], settings].concat());
            // From here on all is held that can count.
            (0..scene.deployment.partitions()).for_each(|partition| {
                let first = id(scene.now() - 1_000_000, 0);
                scene.deployment.add(partition, &[Entry::new(first, heartbeat("first"))]);
            });
            scene.add_random(seed, 3_000);
            let _workers = [scene.worker(&[]), scene.janitor(&[])];
            scene.wait_finished(SOON, "what was there is applied");
            let traffic = Traffic::start(&scene, seed + 1, 300);
            for _ in 0..3 {
                let (code, report) = verify(&scene, &[]);
                assert_eq!(
                    (code, &report["differences"]),
                    (0, &json!([])),
                    "seed {seed}: {report:#}"
                );
                assert!(report["checked"].as_u64() > Some(100), "{report}");
                assert_no_shadow(&scene);
            }
            traffic.stop();
        });
    }
}
