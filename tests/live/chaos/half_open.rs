//! Connections that say nothing any more, and nothing about that: a worker gives them up by itself.

use std::time::{Duration, Instant};

use super::proxy::{Mode, Proxy};
use crate::harness::wait_until;
use crate::scene::{SOON, Scene, in_parallel};

/// What a worker may take to give up a silent connection: a read waits for a second and the batch deadline, is
/// let finish for two seconds more, and the next try comes five seconds later at most.
const GIVES_UP: Duration = Duration::from_millis(1_000 + 500 + 2_000 + 5_000);

/// Only connections that were open fall silent: new ones are fine.
#[test]
fn a_worker_gives_up_a_silent_connection_in_time() {
    in_parallel([true, false], |under_traffic| {
        let scene = Scene::start(&[]);
        let proxy = Proxy::start(scene.deployment.server.port());
        let mut worker = scene.worker_at(&proxy.url(), &[], &[]);
        scene.add_heartbeat("before");
        scene.wait_finished(SOON, "works before");
        proxy.set(Mode::Silent);
        if under_traffic {
            scene.add_heartbeat("meets");
        }
        // Its reads end every second, so that by then every connection has met the silence.
        wait_until(SOON, "the worker notices", || worker.log().contains("kind=\"timeout\""));
        proxy.set(Mode::Pass);
        let start = Instant::now();
        scene.add_heartbeat("after");
        wait_until(GIVES_UP, "it works on a new connection", || scene.is_finished());
        eprintln!("recovered {:?} after the first timeout", start.elapsed());
        assert!(worker.runs());
        scene.verify("silent connections");
    });
}

/// For a while new connections are accepted, and never answered.
#[test]
fn a_worker_gives_up_a_connection_that_is_never_answered() {
    let scene = Scene::start(&[]);
    let proxy = Proxy::start(scene.deployment.server.port());
    proxy.set(Mode::Silent);
    let mut worker = scene.worker_at(&proxy.url(), &[], &[]);
    wait_until(SOON, "the worker gives up connecting", || worker.log().contains("not projecting"));
    proxy.set(Mode::Pass);
    scene.add_heartbeat("after");
    // It may have begun to connect again before: five seconds, and as many until the next try.
    wait_until(Duration::from_secs(5 + 5 + 2), "it connects", || scene.is_finished());
    assert!(worker.runs());
    scene.verify("connections that were never answered");
}
