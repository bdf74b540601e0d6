//! What the server forgets: functions, groups, bookkeeping, everything.

use std::time::Duration;

use fastrand::Rng;
use rollcall::entry::Entry;

use super::{command, survives};
use crate::harness::{Deployment, id};
use crate::scene::{SOON, Scene, Traffic, heartbeat, in_parallel, try_command};
use crate::support::dump;

#[test]
fn lost_functions_are_loaded_again() {
    survives("FUNCTION FLUSH", &mut Scene::start(&[]), 12, |scene, _| {
        command(scene, &["FUNCTION", "FLUSH"])
    });
}

#[test]
fn a_flushed_server_is_begun_anew() {
    let mut scene = Scene::start(&[("thresholds", "2:1")]);
    let _janitor = scene.janitor(&[]);
    survives("FLUSHALL", &mut scene, 8, |scene, _| command(scene, &["FLUSHALL"]));
}

/// A worker that still has a batch in progress when the server comes back with only new entries.
#[tokio::test]
async fn a_batch_from_before_a_flush_is_refused() {
    let deployment = Deployment::start(&[]);
    let now = dump::server_now(&mut deployment.connection());
    let entries = [Entry::new(id(now, 0), heartbeat("u"))];
    deployment.add(0, &entries);
    let mut before = deployment.script(0).await;
    redis::cmd("FLUSHALL").exec(&mut deployment.connection()).unwrap();
    deployment.add(0, &entries);
    let mut after = deployment.script(0).await;
    let refused = before.try_apply(&entries).await.unwrap_err();
    assert!(refused.is_lost_ownership(), "{refused:?}");
    assert!(dump::dump(&mut deployment.connection(), &deployment.keys(0)).is_empty());
    after.apply(&entries).await;
    deployment.verify("who read it after the flush applies it").await;
}

#[test]
fn bookkeeping_that_is_gone_is_made_anew() {
    survives("DEL of the bookkeeping", &mut Scene::start(&[]), 8, |scene, rng| {
        let keys = ["rollcall:meta", "rollcall:workers", "rollcall:janitor"];
        command(scene, &["DEL", rng.choice(keys).unwrap()]);
    });
}

#[test]
fn a_destroyed_group_is_made_anew_where_the_cursor_is() {
    in_parallel([1, 2, 3], |seed| {
        eprintln!("seed {seed}");
        let scene = Scene::start(&[]);
        let (_worker, _janitor) = (scene.worker(&[]), scene.janitor(&[]));
        for round in 0..3 {
            scene.add_random_later(seed * 10 + round, 60);
            scene.wait_finished(SOON, "finishes");
            command(&scene, &["XGROUP", "DESTROY", &scene.deployment.stream(0), "rollcall"]);
        }
        scene.add_random_later(seed, 60);
        scene.wait_finished(SOON, "finishes in the new group");
        scene.verify("XGROUP DESTROY");
    });
}

#[test]
fn a_group_destroyed_under_traffic_repeats_nothing() {
    let mut scene = Scene::start(&[]);
    let _janitor = scene.janitor(&[]);
    survives("XGROUP DESTROY", &mut scene, 8, |scene, _| {
        // There may be none yet.
        let destroy = ["XGROUP", "DESTROY", "rollcall:events", "rollcall"];
        let _any = try_command::<u64>(&mut scene.connection(), &destroy);
    });
}

#[test]
fn a_stream_deleted_under_traffic_does_not_stick() {
    let scene = Scene::start(&[]);
    let (_janitor, _workers) = (scene.janitor(&[]), [scene.worker(&[]), scene.worker(&[])]);
    let traffic = Traffic::start(&scene, 3, 250);
    let mut rng = Rng::with_seed(3);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(rng.u64(50..300)));
        command(&scene, &["DEL", "rollcall:events"]);
    }
    traffic.stop();
    scene.add_heartbeat("after");
    scene.wait_finished(SOON, "finishes in the new stream");
    assert!(scene.is_present("after|"));
    let keys = scene.deployment.keys(0);
    let mut conn = scene.connection();
    let state = dump::dump(&mut conn, &keys);
    dump::check_changes(&dump::changes(&mut conn, &keys), &state, &keys).unwrap();
}
