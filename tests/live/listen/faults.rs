//! Listeners while everything around them dies: a listener that takes the snapshot and applies the changes has the
//! state, and a listener that moves between processes misses nothing and receives nothing twice.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rollcall::private_server::Options;

use super::{Client, address};
use crate::crowd::crowd;
use crate::harness::wait_until;
use crate::process::Worker;
use crate::replica::Replica;
use crate::scene::{SOON, Scene, Traffic, try_command};
use crate::support::seed;

/// What a listener knows, kept by a thread that reconnects whenever its connection ends.
struct Follower {
    replica: Arc<Mutex<Replica>>,
    gaps: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Heard>,
}

/// The history of a listener.
#[derive(Debug, Default)]
struct Heard {
    changes: usize,
    connections: usize,
    snapshots: usize,
    gaps: usize,
}

impl Follower {
    /// Follows at any of the addresses; cuts its own connections after some changes, if asked to.
    fn start(addresses: Arc<Mutex<Vec<SocketAddr>>>, cuts_after: Option<usize>, seed: u64) -> Self {
        let (replica, stop) = (Arc::<Mutex<Replica>>::default(), Arc::<AtomicBool>::default());
        let (shared, until) = (Arc::clone(&replica), Arc::clone(&stop));
        let gaps = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&gaps);
        let mut rng = Rng::with_seed(seed);
        let follow = move || {
            let (mut heard, mut last_id) = (Heard::default(), String::new());
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(rng.u64(..20)));
                let address = {
                    let addresses = addresses.lock().unwrap();
                    addresses[rng.usize(..addresses.len())]
                };
                let opened = Client::try_open(address, "snapshot=1", &last_id, "");
                let Ok(mut client) = opened else { continue };
                client.set_patience(Duration::from_secs(1));
                heard.connections += 1;
                let mut left = cuts_after.map_or(usize::MAX, |most| rng.usize(..most));
                while left > 0 && !until.load(Ordering::Relaxed) {
                    let Some(event) = client.try_next() else { break };
                    left -= 1;
                    last_id = client.last_id.clone();
                    let mut replica = shared.lock().unwrap();
                    match event.name.as_str() {
                        "snapshot" => {
                            heard.snapshots += 1;
                            *replica = Replica::from_snapshot(&event.json());
                        }
                        "gap" => heard.gaps = counted.fetch_add(1, Ordering::Relaxed) + 1,
                        _ => {
                            heard.changes += 1;
                            replica.apply(&event.json()).unwrap_or_else(|fault| panic!("{fault}"));
                        }
                    }
                }
            }
            heard
        };
        Self { replica, gaps, stop, thread: std::thread::spawn(follow) }
    }

    fn seqs(&self) -> Vec<u64> {
        self.replica.lock().unwrap().seqs()
    }

    fn stop(self) -> (Replica, Heard) {
        self.stop.store(true, Ordering::Relaxed);
        let heard = self.thread.join().unwrap();
        let replica = self.replica.lock().unwrap().clone();
        (replica, heard)
    }
}

/// The last numbers of the changes on the server, and the state that they led to.
fn at_the_end(scene: &Scene) -> (Vec<u64>, Replica) {
    let (mut conn, mut state, mut seqs) = (scene.connection(), Replica::default(), Vec::new());
    for partition in 0..scene.deployment.partitions() {
        let keys = scene.deployment.keys(partition);
        let seq: Option<u64> = try_command(&mut conn, &["GET", &keys.changes_seq()]).unwrap();
        seqs.push(seq.unwrap_or(0));
        state.extend(Replica::of_server(&mut conn, &keys));
    }
    (seqs, state)
}

fn expect_state(scene: &Scene, followers: Vec<Follower>) -> Vec<Heard> {
    let (seqs, state) = at_the_end(scene);
    let all = || followers.iter().map(Follower::seqs).collect::<Vec<_>>();
    let started = Instant::now();
    while all().iter().any(|found| *found != seqs) {
        assert!(
            started.elapsed() < SOON,
            "listeners are at {:?}, not at {seqs:?}, the server at {:?}",
            all(),
            at_the_end(scene).0
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let check = |follower: Follower| {
        let (replica, heard) = follower.stop();
        assert_eq!(replica.differences(&state), [""; 0], "{heard:?}");
        heard
    };
    followers.into_iter().map(check).collect()
}

#[test]
fn whoever_takes_snapshot_and_changes_has_the_state_whatever_is_killed() {
    let flags = [
        ("partitions", "2"),
        ("thresholds", "20:10"),
        ("presence-ttl", "3s"),
        ("session-ttl", "3s"),
        ("document-ttl", "4s"),
    ];
    let extra = ["--appendfsync", "always"].map(str::to_owned).to_vec();
    let options = Options { appendonly: true, extra_args: extra, ..Options::default() };
    let mut scene = Scene::start_with(&flags, options);
    let mut workers = vec![scene.worker(&[]), scene.worker(&[])];
    let janitor = scene.janitor(&[]);
    let mut serving = vec![scene.serve(&[]), scene.serve(&[])];
    let addresses = || Arc::new(Mutex::new(Vec::new()));
    let (known, set) = (addresses(), |known: &Mutex<Vec<_>>, serving: &[Worker]| {
        *known.lock().unwrap() = serving.iter().map(address).collect();
    });
    set(&known, &serving);
    let traffic = Traffic::start_from(&scene, 0, 600, crowd(seed(), 2));
    let followers = vec![
        Follower::start(Arc::clone(&known), None, 1),
        Follower::start(Arc::clone(&known), Some(100), 2),
        Follower::start(Arc::clone(&known), Some(1_000), 3),
    ];
    let (mut rng, started, mut struck) = (Rng::with_seed(seed()), Instant::now(), [0; 3]);
    while started.elapsed() < Duration::from_secs(6) {
        std::thread::sleep(Duration::from_millis(rng.u64(50..400)));
        let fault = rng.usize(..3);
        struck[fault] += 1;
        match fault {
            0 => {
                let which = rng.usize(..2);
                serving[which].kill();
                serving[which] = scene.serve(&[]);
                set(&known, &serving);
            }
            1 => {
                let which = rng.usize(..2);
                workers[which].kill();
                workers[which] = scene.worker(&[]);
            }
            _ => {
                scene.deployment.server.kill();
                scene.deployment.server.restart().unwrap();
            }
        }
    }
    traffic.stop();
    scene.wait_finished(SOON, "the workers finish the stream");
    scene.drain(janitor);
    workers.into_iter().for_each(|worker| drop(scene.drain(worker)));
    let heard = expect_state(&scene, followers);
    eprintln!("struck {struck:?}: {heard:?}");
    assert!(struck.iter().all(|times| *times > 0) && heard.iter().all(|heard| heard.changes > 0));
    assert!(heard.iter().all(|heard| heard.gaps == 0), "AOF always loses nothing: {heard:?}");
}

#[test]
fn a_listener_moves_between_processes_and_misses_nothing_and_hears_nothing_twice() {
    let scene = Scene::start(&[("partitions", "3"), ("session-ttl", "2s")]);
    let (worker, janitor) = (scene.worker(&[]), scene.janitor(&[]));
    let serving = [scene.serve(&[]), scene.serve(&[])];
    let known = Arc::new(Mutex::new(serving.iter().map(address).collect::<Vec<_>>()));
    let followers = (0..4).map(|n| Follower::start(Arc::clone(&known), Some(20), n)).collect();
    let traffic = Traffic::start_from(&scene, 0, 600, crowd(seed(), 3));
    std::thread::sleep(Duration::from_secs(4));
    traffic.stop();
    scene.wait_finished(SOON, "the worker finishes the stream");
    scene.drain(janitor);
    scene.drain(worker);
    let heard = expect_state(&scene, followers);
    eprintln!("{heard:?}");
    for heard in heard {
        assert_eq!((heard.snapshots, heard.gaps), (1, 0), "{heard:?}");
        assert!(heard.connections > 20 && heard.changes > 200, "{heard:?}");
    }
}

#[test]
fn a_server_that_went_back_in_time_gives_every_listener_a_new_snapshot() {
    let options = Options { appendonly: false, ..Options::default() };
    let mut scene = Scene::start_with(&[], options);
    let mut worker = scene.worker(&[]);
    let serve = scene.serve(&[]);
    let known = Arc::new(Mutex::new(vec![address(&serve)]));
    let followers: Vec<_> =
        (0..3).map(|n| Follower::start(Arc::clone(&known), Some(300), n)).collect();
    let traffic = Traffic::start_from(&scene, 0, 600, crowd(seed(), 1));
    std::thread::sleep(Duration::from_millis(500));
    scene.command::<()>(&["SAVE"]);
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        scene.deployment.server.kill();
        scene.deployment.server.restart().unwrap();
        // Two losses between two looks of a listener would be one gap.
        wait_until(SOON, "every listener hears of it", || {
            followers.iter().all(|follower| follower.gaps.load(Ordering::Relaxed) > round)
        });
    }
    std::thread::sleep(Duration::from_millis(700));
    traffic.stop();
    scene.wait_finished(SOON, "the worker finishes the stream");
    worker.terminate();
    let heard = expect_state(&scene, followers);
    eprintln!("{heard:?}");
    assert!(heard.iter().all(|heard| heard.gaps >= 3), "{heard:?}");
}
