//! Servers that end idle connections, and the end of trouble in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, in_parallel, wait_for_page};

use super::{HTTP, command};

/// Ages of the clients' connections by their ids, in seconds, without this test's own.
fn ages(scene: &Scene) -> BTreeMap<String, u64> {
    let clients: String = scene.command(&["CLIENT", "LIST"]);
    let field = |line: &str, name: &str| {
        line.split(' ').find_map(|part| part.strip_prefix(name)).unwrap_or_default().to_owned()
    };
    let ours = clients.lines().filter(|line| !line.contains("cmd=client"));
    ours.map(|line| (field(line, "id="), field(line, "age=").parse().unwrap())).collect()
}

#[test]
fn a_server_that_ends_idle_connections_costs_no_failed_batch() {
    in_parallel([&["--janitor-interval", "6s"][..], &["--janitor-interval", "1s"]], |interval| {
        let scene = Scene::start(&[]);
        command(&scene, &["CONFIG", "SET", "timeout", "2"]);
        let arguments = [&HTTP[..], interval].concat();
        let process = Worker::start_as("run", &scene.url(), &arguments, &[]);
        wait_for_page(&process, "/readyz", |status, _| status == 200);
        let before = ages(&scene);
        let of = "what reads, what applies, what looks, what shows that it lives, the janitor's, serve's";
        assert_eq!(before.len(), 6, "{of}");
        wait_until(SOON, "they outlive the server's patience three times", || {
            let now = ages(&scene);
            assert!(before.keys().all(|id| now.contains_key(id)), "one ended: {}", process.log());
            now.values().all(|age| *age > 6)
        });
        scene.add_heartbeat("late");
        scene.wait_finished(Duration::from_secs(2), "the batch is applied at once");
        assert!(!process.log().contains("WARN"), "{}", process.log());
    });
}

#[test]
fn a_line_says_that_the_trouble_is_over_and_how_long_it_took() {
    let mut scene = Scene::start(&[]);
    let arguments = [&HTTP[..], &["--partitions", "4"]].concat();
    let process = Worker::start_as("run", &scene.url(), &arguments, &[]);
    wait_for_page(&process, "/readyz", |status, _| status == 200);
    wait_until(SOON, "it says so", || {
        process.log().matches("created the consumer group partition=").count() == 4
    });
    let over = "the trouble is over, all loops work again lasted_ms=";
    assert!(!process.log().contains(over), "{}", process.log());
    scene.deployment.server.kill();
    let port = scene.deployment.server.port();
    let refused = format!("connecting to 127.0.0.1:{port} failed: ");
    wait_until(SOON, "it says who refuses", || process.log().contains(&refused));
    scene.deployment.server.restart().unwrap();
    wait_for_page(&process, "/readyz", |status, _| status == 200);
    wait_until(SOON, "it says so", || process.log().contains(over));
    let log = process.log();
    assert_eq!(log.matches(over).count(), 1, "{log}");
    let (_, rest) = log.split_once(over).unwrap();
    let lasted: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    assert!((1..SOON.as_millis() as u64).contains(&lasted), "{log}");
}
