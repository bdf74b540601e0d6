//! What the server forgets: scripts, groups, consumers, bookkeeping, everything.

use std::time::Duration;

use fastrand::Rng;
use rollcall::entry::Entry;

use super::{command, survives, wait_until_recorded};
use crate::harness::{Deployment, id, wait_until};
use crate::scene::{SOON, Scene, Traffic, heartbeat, in_parallel};
use crate::support::dump;

#[test]
fn lost_scripts_are_loaded_again() {
    survives("SCRIPT FLUSH", &mut Scene::start(&[]), 12, |scene, _| {
        command(scene, &["SCRIPT", "FLUSH"])
    });
}

#[test]
fn a_flushed_server_is_begun_anew() {
    let mut scene = Scene::start(&[("thresholds", "2:1")]);
    let _janitor = scene.janitor(&[]);
    survives("FLUSHALL", &mut scene, 8, |scene, _| command(scene, &["FLUSHALL"]));
}

/// A worker that still has a batch in hand when the server comes back with a new group.
#[tokio::test]
async fn a_batch_from_before_the_group_was_made_anew_is_refused() {
    let deployment = Deployment::start(&[]);
    let now = dump::server_now(&mut deployment.connection());
    let entries = [Entry::new(id(now, 0), heartbeat("u"))];
    deployment.add(0, &entries);
    let mut before = deployment.script(0).await;
    redis::cmd("FLUSHALL").exec(&mut deployment.connection()).unwrap();
    deployment.add(0, &entries);
    let mut after = deployment.script(0).await;
    let refused = before.try_apply(&entries).await.unwrap_err();
    assert_eq!(refused.kind(), "stale_epoch");
    assert!(dump::dump(&mut deployment.connection(), &deployment.keys(0)).is_empty());
    assert_eq!(after.apply(&entries).await.acknowledged, 1);
    deployment.verify("who read it under the new group applies it").await;
}

#[test]
fn bookkeeping_that_is_gone_is_made_anew() {
    survives("DEL of the bookkeeping", &mut Scene::start(&[]), 8, |scene, rng| {
        let keys = ["rollcall:meta", "rollcall:consumers", "rollcall:suspects", "rollcall:janitor"];
        command(scene, &["DEL", rng.choice(keys).unwrap()]);
    });
}

#[test]
fn a_removed_consumer_goes_on_reading() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    wait_until(SOON, "the worker joins", || scene.consumers().len() == 1);
    command(
        &scene,
        &["XGROUP", "DELCONSUMER", &scene.deployment.stream(0), "rollcall", &scene.consumers()[0]],
    );
    scene.add_random(1, 50);
    scene.wait_finished(SOON, "reads on");
    scene.verify("XGROUP DELCONSUMER");
    scene.drain(worker);
    assert_eq!(scene.consumers(), Vec::<String>::new());
}

#[test]
fn a_destroyed_group_is_made_anew_where_the_old_one_had_finished() {
    in_parallel([1, 2, 3], |seed| {
        eprintln!("seed {seed}");
        let scene = Scene::start(&[]);
        let (_worker, _janitor) = (scene.worker(&[]), scene.janitor(&[]));
        for round in 0..3 {
            scene.add_random_later(seed * 10 + round, 60);
            scene.wait_finished(SOON, "finishes");
            wait_until_recorded(&scene);
            command(&scene, &["XGROUP", "DESTROY", &scene.deployment.stream(0), "rollcall"]);
        }
        scene.add_random_later(seed, 60);
        scene.wait_finished(SOON, "finishes in the new group");
        scene.verify("XGROUP DESTROY");
    });
}

#[test]
fn a_group_destroyed_or_a_stream_deleted_under_traffic_does_not_stick() {
    in_parallel(
        [&["XGROUP", "DESTROY", "rollcall:events", "rollcall"][..], &["DEL", "rollcall:events"]],
        |blow| {
            let scene = Scene::start(&[]);
            let (_janitor, _workers) = (scene.janitor(&[]), [scene.worker(&[]), scene.worker(&[])]);
            let traffic = Traffic::start(&scene, 3, 250);
            let mut rng = Rng::with_seed(3);
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(rng.u64(50..300)));
                command(&scene, blow);
            }
            traffic.stop();
            scene.add_heartbeat("after");
            scene.wait_finished(SOON, "finishes in the new group");
            assert!(scene.is_present("after|"));
            let keys = scene.deployment.keys(0);
            let mut conn = scene.connection();
            let state = dump::dump(&mut conn, &keys);
            dump::check_changes(&dump::changes(&mut conn, &keys), &state, &keys).unwrap();
        },
    );
}
