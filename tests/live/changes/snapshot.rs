//! Snapshots taken while workers apply and janitors sweep: each, with the changes after its position, gives the
//! state.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rollcall::change::Change;
use rollcall::changes::{Filter, Scope, Snapshot, SnapshotError};
use rollcall::key::partition_of;
use rollcall::state::Partition;
use rollcall::state::sessions::Clock;
use serde_json::Value;

use crate::crowd::crowd;
use crate::harness::{Deployment, read_stream};
use crate::replica::Replica;
use crate::scene::{SOON, Scene, Traffic};
use crate::support::events::field;
use crate::support::seed;

fn partitions(deployment: &Deployment) -> Vec<Partition> {
    let one = |index| {
        let connection: MultiplexedConnection = block_on_shared(deployment.async_connection(index));
        Partition { index, keys: deployment.keys(index), connection: connection.into() }
    };
    (0..deployment.partitions()).map(one).collect()
}

fn scope(deployment: &Deployment, filter: &Filter) -> Scope {
    Scope {
        parts: filter.parts(),
        users: filter.users.clone(),
        docs: filter.docs.clone(),
        thresholds: deployment.config.deployment.thresholds.clone(),
        partitions: deployment.partitions(),
        clock: Clock { now_ms: 0, usual_ms: deployment.config.deployment.session_ttl_ms },
    }
}

/// Connections live only as long as the runtime that made them.
fn block_on_shared<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A snapshot's JSON text with the filter applied.
fn json(snapshot: &Arc<Snapshot>, filter: &Filter) -> Value {
    let mut lines = snapshot.lines(Arc::new(filter.clone()));
    let mut text = Vec::new();
    while lines.write(&mut text) {
        text.push(b'\n');
    }
    serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)))
}

/// Every existing change, in the form that listeners receive.
fn changes(deployment: &Deployment) -> Vec<Value> {
    let mut conn = deployment.connection();
    let mut all = Vec::new();
    for partition in 0..deployment.partitions() {
        for entry in read_stream(&mut conn, &deployment.keys(partition).changes()) {
            let change = Change::read(&entry, partition).unwrap();
            all.push(serde_json::to_value(change).unwrap());
        }
    }
    all
}

fn state(deployment: &Deployment) -> Replica {
    let mut conn = deployment.connection();
    let mut state = Replica::default();
    for partition in 0..deployment.partitions() {
        state.extend(Replica::of_server(&mut conn, &deployment.keys(partition)));
    }
    state
}

fn take(deployment: &Deployment, partitions: &mut [Partition], filter: &Filter) -> Arc<Snapshot> {
    let taken = block_on_shared(Snapshot::take(partitions, &scope(deployment, filter)));
    Arc::new(taken.unwrap_or_else(|error| panic!("{}", rollcall::error::chain(&error))))
}

#[test]
fn a_snapshot_and_the_changes_after_it_give_the_state() {
    for partition_count in ["1", "3"] {
        let scene = Scene::start(&[
            ("partitions", partition_count),
            ("thresholds", "20:10,35:30"),
            ("presence-ttl", "1500ms"),
            ("session-ttl", "1500ms"),
            ("document-ttl", "2s"),
        ]);
        let deployment = &scene.deployment;
        let workers = [scene.worker(&[]), scene.worker(&[])];
        let janitor = scene.janitor(&[]);
        let source = crowd(seed(), deployment.partitions());
        let traffic = Traffic::start_from(&scene, 0, 2_000, source);
        let (mut partitions, mut taken) = (partitions(deployment), Vec::new());
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            taken.push(take(deployment, &mut partitions, &Filter::default()));
        }
        traffic.stop();
        scene.wait_finished(SOON, "the workers finish the stream");
        scene.drain(janitor);
        workers.into_iter().for_each(|worker| drop(scene.drain(worker)));
        let (end, changes) = (state(deployment), changes(deployment));
        let mut within = 0;
        for snapshot in &taken {
            let mut replica = Replica::from_snapshot(&json(snapshot, &Filter::default()));
            within = within.max(replica.presence.len());
            let position = &snapshot.position().0;
            for change in &changes {
                let partition = change["partition"].as_u64().unwrap() as usize;
                if change["seq"].as_u64().unwrap() > position[partition].seq {
                    replica.apply(change).unwrap_or_else(|fault| panic!("{fault}"));
                }
            }
            assert_eq!(replica.differences(&end), [""; 0]);
        }
        assert!(taken.len() > 3 && within > 100, "{} snapshots, {within} present", taken.len());
        eprintln!("{} snapshots, up to {within} present, {} changes", taken.len(), changes.len());
    }
}

#[test]
fn a_filtered_snapshot_has_what_the_filter_lets_through() {
    let scene = Scene::start(&[("partitions", "2"), ("thresholds", "2:1")]);
    let worker = scene.worker(&[]);
    let mut conn = scene.connection();
    for (user, doc) in [("ann", "d"), ("bob", "d"), ("bob", "e"), ("cy|d", "e|f")] {
        for (routing, fields) in [
            (user, vec![field("type", "heartbeat"), field("page", "/\"home\"")]),
            (user, vec![field("type", "session"), field("sid", user)]),
            (doc, vec![field("type", "document"), field("action", "join"), field("doc", doc)]),
        ] {
            let fields = [fields, vec![field("user", user), field("ua", "x")]].concat();
            let stream = scene.deployment.stream(partition_of(routing, 2));
            crate::scene::add(&mut conn, &stream, &fields);
        }
    }
    scene.wait_finished(SOON, "all is applied");
    scene.drain(worker);
    let deployment = &scene.deployment;
    let mut partitions = partitions(deployment);
    let names = |names: &[&str]| -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let mut ask = |gather: &Filter, show: &Filter| {
        Replica::from_snapshot(&json(&take(deployment, &mut partitions, gather), show))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let all = ask(&Filter::default(), &Filter::default());
    assert_eq!(all.differences(&state(deployment)), [""; 0]);
    assert_eq!((all.presence.len(), all.sessions.len(), all.members.len()), (3, 3, 4));
    assert_eq!(Vec::from_iter(all.levels), [("d".to_owned(), 2)]);

    // Looked up, and selected from all: the same result.
    let bob = Filter { users: names(&["bob", "cy|d", "nobody"]), ..Filter::default() };
    let found = ask(&Filter::default(), &bob);
    assert_eq!(Vec::from_iter(found.presence.clone()), [pair("bob", ""), pair("cy|d", "")]);
    assert_eq!(Vec::from_iter(found.sessions), ["bob", "cy|d"]);
    let members = [pair("d", "bob"), pair("e", "bob"), pair("e|f", "cy|d")];
    assert_eq!(Vec::from_iter(found.members), members);
    let kinds = HashSet::from([rollcall::change::ChangeKind::Online]);
    let bob = Filter { kinds, ..bob };
    assert_eq!(ask(&bob, &bob).presence, found.presence);
    let d = Filter { docs: names(&["d", "e|f", "none"]), ..Filter::default() };
    let looked_up = ask(&d, &d);
    assert_eq!(looked_up.differences(&ask(&Filter::default(), &d)), [""; 0]);
    assert_eq!(looked_up.members.len(), 3);
    assert!(looked_up.presence.is_empty() && looked_up.levels.len() == 1);
}

#[test]
fn changes_that_are_no_longer_kept_outrun_a_snapshot() {
    let scene = Scene::start(&[("changes-cap", "1")]);
    let deployment = &scene.deployment;
    let worker = scene.worker(&[]);
    let traffic = Traffic::start_from(&scene, 0, 3_000, crowd(1, 1));
    let mut partitions = partitions(deployment);
    let everything = scope(deployment, &Filter::default());
    let started = Instant::now();
    loop {
        match block_on_shared(Snapshot::take(&mut partitions, &everything)) {
            Err(SnapshotError::Outrun) => break,
            Err(error) => panic!("{error}"),
            Ok(_) => assert!(started.elapsed() < SOON, "never outrun"),
        }
    }
    traffic.stop();
    drop(worker);
}

#[test]
fn nothing_there_is_an_empty_snapshot() {
    let deployment = Deployment::start(&[]);
    let mut partitions = partitions(&deployment);
    let nothing = take(&deployment, &mut partitions, &Filter::default());
    let found = json(&nothing, &Filter::default());
    let expected = r#"{"position":"0.0","presence":[],"sessions":[],"documents":[]}"#;
    assert_eq!(found, serde_json::from_str::<Value>(expected).unwrap());
    let d = Filter { docs: HashSet::from(["d".to_owned()]), ..Filter::default() };
    assert_eq!(json(&nothing, &d), serde_json::json!({"position": "0.0", "documents": []}));
}
