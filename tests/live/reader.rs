//! The reader: when it reads, and how much.

use std::time::Duration;

use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::wait_until;
use crate::scene::{SOON, Scene, metric};
use crate::support::events::field;

/// How many batches were applied: each moves the group's position once.
fn applies(scene: &Scene) -> u64 {
    scene.calls("xgroup|setid")
}

#[test]
fn what_comes_while_a_batch_is_applied_goes_with_one_call() {
    let scene = Scene::start(&[]);
    let proxy = Proxy::start(scene.deployment.server.port());
    let arguments = ["--batch", "4", "--takeover", "10m", "--http", "127.0.0.1:0"];
    let worker = scene.worker_at(&proxy.url(), &arguments, &[]);
    scene.add_heartbeat("first");
    scene.wait_finished(SOON, "it works");
    let before = applies(&scene);
    proxy.set(Mode::HoldCalls);
    scene.add_heartbeat("a");
    wait_until(SOON, "it is in hand", || metric(&worker, "rollcall_entries_read_total") == 2.0);
    for user in ["b", "c", "d", "e"] {
        scene.add_heartbeat(user);
    }
    proxy.set(Mode::Pass);
    scene.wait_finished(SOON, "all is applied");
    assert_eq!(applies(&scene) - before, 2, "for a, and for b to e:\n{}", worker.log());
    scene.verify("calls were held up");
}

/// The number of entries that a worker requests at first takes longer than it waits for a reply.
#[test]
fn what_is_too_much_for_a_slow_link_comes_in_smaller_pieces() {
    let scene = Scene::start(&[]);
    let event =
        format!(r#"[{{"type":"heartbeat","user":"u","padding":"{}"}}]"#, "x".repeat(220_000));
    for _ in 0..24 {
        scene.add(&[field("data", &event)]);
    }
    let proxy = Proxy::start(scene.deployment.server.port());
    // 16 KiB each time: less than a megabyte a second.
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    let worker = scene.worker_at(&proxy.url(), &["--batch", "64"], &[]);
    wait_until(SOON, "too much", || worker.log().contains("reading new entries failed: timed out"));
    scene.wait_finished(SOON * 2, "all is applied");
    scene.verify("a slow link");
}
