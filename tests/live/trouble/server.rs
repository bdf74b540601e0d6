//! The server refuses for a while, stalls, dies and comes back.

use std::time::{Duration, Instant};

use rollcall::private_server::Options;

use super::{begin_slow_script, command, end_slow_script, survives};
use crate::harness::wait_until;
use crate::process::{Worker, is_fault};
use crate::scene::{SOON, Scene, giant, in_parallel, wait_for_page};

/// Runs under traffic: something is wrong for a while, and then no longer.
fn outlasts(what: &str, wrong: impl Fn(&Scene), right: impl Fn(&Scene)) {
    let mut scene = Scene::start(&[]);
    survives(what, &mut scene, 2, |scene, rng| {
        wrong(scene);
        std::thread::sleep(Duration::from_millis(rng.u64(300..700)));
        right(scene);
    });
}

#[test]
fn refusals_of_the_server_lose_nothing() {
    let all: [(&str, &[&str], &[&str]); 4] = [
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        (
            "NOREPLICAS",
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        ("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        (
            "connections",
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "KILL", "TYPE", "normal"],
        ),
    ];
    in_parallel(all, |(what, wrong, right)| {
        outlasts(what, |scene| command(scene, wrong), |scene| command(scene, right))
    });
}

/// A Redis Cluster of one node, with the slots of its keys only.
fn cluster(flags: &[(&str, &str)]) -> Scene {
    // The shortest time for which a node stays down after it lacked slots.
    let extra_args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "500"];
    let extra_args = extra_args.map(str::to_owned).to_vec();
    let scene = Scene::start_with(flags, Options { extra_args, ..Options::default() });
    command(&scene, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_until(SOON, "the cluster is up", || {
        scene.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
    });
    scene
}

#[test]
fn a_cluster_node_that_loses_its_slots_for_a_while_loses_nothing_else() {
    in_parallel(
        [[("prefix", "{acme}:"), ("partitions", "1")], [("prefix", ""), ("partitions", "4")]],
        |flags| {
            let mut scene = cluster(&flags);
            scene.add(&giant());
            survives("CLUSTERDOWN", &mut scene, 1, |scene, rng| {
                command(scene, &["CLUSTER", "DELSLOTSRANGE", "0", "16383"]);
                std::thread::sleep(Duration::from_millis(rng.u64(200..500)));
                command(scene, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            });
        },
    );
}

#[test]
fn a_stall_of_the_server_loses_nothing() {
    let server = |scene: &Scene, signal: &str| {
        let pid = scene.deployment.server.pid().unwrap();
        let kill = format!("kill -{signal} {pid}");
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    in_parallel(["pause", "stop", "busy"], |what| match what {
        // For as long as it takes others to take over.
        "pause" => {
            outlasts(what, |scene| command(scene, &["CLIENT", "PAUSE", "1000", "ALL"]), |_| ())
        }
        "stop" => outlasts(what, |scene| server(scene, "STOP"), |scene| server(scene, "CONT")),
        _ => outlasts(what, begin_slow_script, end_slow_script),
    });
}

#[test]
fn a_server_killed_and_restarted_has_everything() {
    let options = Options {
        appendonly: true,
        extra_args: ["--appendfsync", "always"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let mut scene = Scene::start_with(&[], options);
    survives("SIGKILL of the server", &mut scene, 4, |scene, _| {
        scene.deployment.server.restart().unwrap()
    });
}

/// The server comes back with an earlier state: stream, cursor and state together. What workers still have from the
/// time after that must have no effect.
#[test]
fn a_server_that_lost_its_last_moments_gets_no_effects_of_lost_entries() {
    let mut scene = Scene::start(&[]);
    survives("an older snapshot", &mut scene, 4, |scene, rng| {
        command(scene, &["SAVE"]);
        std::thread::sleep(Duration::from_millis(rng.u64(50..300)));
        scene.deployment.server.restart().unwrap();
    });
}

/// While the server is down, a process keeps trying, quietly and at little cost.
#[test]
fn a_server_that_is_away_costs_few_lines_and_little_time() {
    const AWAY: Duration = Duration::from_secs(4);
    in_parallel([("1", "worker"), ("1", "run"), ("8", "worker"), ("8", "janitor")], |case| {
        let (partitions, role) = case;
        let mut scene = Scene::start(&[("partitions", partitions)]);
        let arguments = ["--partitions", partitions, "--http", "127.0.0.1:0"];
        let mut process = Worker::start_as(role, &scene.url(), &arguments, &[]);
        wait_for_page(&process, "/readyz", |status, _| status == 200);
        let before = process.log().lines().count();
        scene.deployment.server.kill();
        let (start, spent_before) = (Instant::now(), process.processor_time());
        wait_until(SOON, "some seconds pass", || start.elapsed() > AWAY);
        let (away, spent) = (start.elapsed(), process.processor_time() - spent_before);
        // A debug build on a busy machine; spinning would take a whole processor or more.
        assert!(spent < away.mul_f64(0.15), "{case:?}: {spent:?} of processor time in {away:?}");
        let log = process.log();
        let faults = fault_lines(&log).filter(|line| *line > before).count();
        let most = 10 * away.as_secs() as usize;
        assert!((1..=most).contains(&faults), "{case:?}: {faults} lines in {away:?}");
        scene.deployment.server.restart().unwrap();
        wait_for_page(&process, "/readyz", |status, _| status == 200);
        assert!(process.runs());
    });
}

/// The numbers of the lines that report a fault.
fn fault_lines(log: &str) -> impl Iterator<Item = usize> {
    (1..).zip(log.lines()).filter(|(_, line)| is_fault(line)).map(|(n, _)| n)
}

/// Only some of the connections break: none of that has to wait for another worker.
#[test]
fn a_broken_connection_delays_nothing_until_the_takeover_time() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&["--takeover", "60s"]);
    for (round, kind) in ["fcall", "xread", "subscribe", "fcall"].into_iter().enumerate() {
        scene.add_heartbeat(&format!("before{round}"));
        scene.wait_finished(SOON, "works before");
        let clients: String = scene.command(&["CLIENT", "LIST"]);
        // The applying connection is kept alive by EXISTS while it is idle.
        let kinds = if kind == "fcall" { vec![kind, "exists"] } else { vec![kind] };
        let is_broken =
            |line: &&str| kinds.iter().any(|kind| line.contains(&format!("cmd={kind}")));
        let broken = clients.lines().filter(is_broken);
        let ids = broken.filter_map(|line| line.split(' ').find_map(|w| w.strip_prefix("id=")));
        let ids: Vec<_> = ids.collect();
        assert!(!ids.is_empty(), "{kind}: {clients}");
        ids.iter().for_each(|id| command(&scene, &["CLIENT", "KILL", "ID", id]));
        scene.add_heartbeat(&format!("meets{round}"));
        wait_until(SOON, "connects again", || scene.is_present(&format!("meets{round}|")));
        scene.add_heartbeat(&format!("after{round}"));
        let what = format!("{kind}: nothing waits for another worker:\n{}", worker.log());
        wait_until(Duration::from_secs(5), &what, || scene.is_finished());
    }
    scene.verify("CLIENT KILL of some connections");
}
