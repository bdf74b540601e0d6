//! The last release beside this version, in both orders. `tests/upgrade` builds the release and runs this with it;
//! without one, this version takes over from itself.

use std::path::PathBuf;
use std::time::Duration;

use crate::process::Worker;
use crate::scene::{SOON, Scene, Traffic};
use crate::support::seed;

/// The release's binary, if there is one.
fn released() -> PathBuf {
    let path = std::env::var_os("ROLLCALL_TEST_RELEASED");
    path.unwrap_or_else(|| env!("CARGO_BIN_EXE_rollcall").into()).into()
}

/// A worker and a janitor of the release, or of this version.
fn start(scene: &Scene, is_released: bool, partitions: &str) -> Vec<Worker> {
    let roles: [(&str, &[&str]); 2] = [
        ("worker", &["--batch", "7", "--takeover", "1s", "--partitions", partitions]),
        ("janitor", &["--janitor-interval", "100ms", "--partitions", partitions]),
    ];
    let of = |(role, arguments): (&str, &[&str])| match is_released {
        true => Worker::start_program(&released(), role, &scene.url(), arguments),
        false => Worker::start_as(role, &scene.url(), arguments, &[]),
    };
    roles.into_iter().map(of).collect()
}

/// Each version takes over from the other, after a clean stop and after a kill, while events arrive.
#[test]
fn the_last_release_and_this_version_work_side_by_side_in_both_orders() {
    for partitions in ["1", "4"] {
        for released_first in [true, false] {
            let what = format!("partitions {partitions}, the release first: {released_first}");
            let scene = Scene::start(&[("partitions", partitions)]);
            let mut rng = fastrand::Rng::with_seed(seed());
            let mut running = start(&scene, released_first, partitions);
            let traffic = Traffic::start(&scene, seed(), 400);
            for turn in 0..4 {
                std::thread::sleep(Duration::from_millis(rng.u64(100..300)));
                let is_released = released_first == (turn % 2 == 1);
                let next = start(&scene, is_released, partitions);
                std::thread::sleep(Duration::from_millis(rng.u64(100..300)));
                for mut process in std::mem::replace(&mut running, next) {
                    if rng.bool() {
                        process.kill();
                    } else {
                        assert_eq!(process.terminate(), 0, "{what}\n{}", process.log());
                    }
                }
            }
            traffic.stop();
            scene.wait_finished(SOON * 2, &what);
            drop(running);
            scene.verify_after_kills(&what, 12);
        }
    }
}
