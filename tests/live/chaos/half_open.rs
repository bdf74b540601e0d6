//! Connections that fall silent without being closed: a worker gives them up by itself.

use std::time::{Duration, Instant};

use super::proxy::{Mode, Proxy};
use crate::harness::wait_until;
use crate::scene::{SOON, Scene, Traffic, in_parallel};

/// How long a connection may take to be answered.
const CONNECTS: Duration = Duration::from_secs(5);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a worker may take to work again after silence: a read waits for a second plus the batch deadline (half of
/// the claim time of a second here), may finish for two more seconds, and is followed by a pause.
const GIVES_UP: Duration = Duration::from_millis(1_000 + 500 + 2_000 + 5_000);

/// All its connections fall silent at once; new ones are fine.
#[test]
fn a_worker_gives_up_silent_connections_in_time() {
    in_parallel(["idle", "under traffic"], |state| {
        let scene = Scene::start(&[]);
        let proxy = Proxy::start(scene.deployment.server.port());
        let mut worker = scene.worker_at(&proxy.url(), &[], &[]);
        scene.add_heartbeat("before");
        scene.wait_finished(SOON, "works before");
        let traffic = (state == "under traffic").then(|| Traffic::start(&scene, 1, 50));
        proxy.silence();
        let start = Instant::now();
        let meets = scene.add_heartbeat("meets");
        wait_until(GIVES_UP, "it works on new connections", || scene.is_present("meets|"));
        eprintln!("{state}: {meets} applied {:?} after the silence began", start.elapsed());
        drop(traffic.map(Traffic::stop));
        scene.wait_finished(SOON, "all is applied");
        assert!(worker.runs());
        scene.verify(state);
    });
}

/// For a while new connections are accepted but never answered.
#[test]
fn a_worker_gives_up_a_connection_that_is_never_answered() {
    let scene = Scene::start(&[]);
    let proxy = Proxy::start(scene.deployment.server.port());
    proxy.set(Mode::Silent);
    let mut worker = scene.worker_at(&proxy.url(), &[], &[]);
    wait_until(CONNECTS * 2, "it gives up connecting", || worker.log().contains("not projecting"));
    proxy.set(Mode::Pass);
    scene.add_heartbeat("after");
    // It may be in another attempt that is not answered, or about to begin one.
    wait_until(CONNECTS + PAUSE, "it connects", || scene.is_finished());
    assert!(worker.runs());
    scene.verify("connections that were never answered");
}
