//! The reader: what it reads while a batch is being applied.

use std::collections::HashMap;

use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::wait_until;
use crate::scene::{SOON, Scene};

/// Calls of scripts that the server has answered.
fn calls(scene: &Scene) -> u64 {
    let stats: String = scene.command(&["INFO", "commandstats"]);
    let stats: HashMap<_, _> = stats.lines().filter_map(|line| line.split_once(':')).collect();
    let calls = stats["cmdstat_evalsha"].strip_prefix("calls=").unwrap();
    calls.split_once(',').unwrap().0.parse().unwrap()
}

#[test]
fn what_is_read_while_a_batch_is_applied_goes_with_one_call() {
    let scene = Scene::start(&[]);
    let proxy = Proxy::start(scene.deployment.server.port());
    let worker = scene.worker_at(&proxy.url(), &["--batch", "4", "--claim-idle", "10m"], &[]);
    scene.add_heartbeat("first");
    scene.wait_finished(SOON, "it works");
    let before = calls(&scene);
    proxy.set(Mode::HoldCalls);
    // One is in hand and four wait; the reader asks for no more than that.
    for (user, delivered) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 5)] {
        scene.add_heartbeat(user);
        wait_until(SOON, "delivered", || scene.pending(None) == delivered);
    }
    proxy.set(Mode::Pass);
    scene.wait_finished(SOON, "all is applied");
    assert_eq!(calls(&scene) - before, 3, "for a, for b to e, for f:\n{}", worker.log());
    scene.verify("calls were held up");
}
