//! One name that leads to two servers which both consider themselves the master, as during a failover that not
//! everyone has noticed. What is read from one is never applied on the other.

use std::time::{Duration, Instant};

use rollcall::private_server::PrivateServer;

use super::replica_of;
use crate::chaos::proxy::Proxy;
use crate::harness::wait_until;
use crate::scene::{Scene, try_command};
use crate::support::dump;

const EVENTS: &str = "rollcall:events";
const META: &str = "rollcall:meta";
/// Each connection of a session leads to either of the two.
const SOON: Duration = Duration::from_secs(60);

fn ask<T: redis::FromRedisValue>(server: &PrivateServer, words: &[&str]) -> T {
    try_command(&mut dump::connect(&server.url()), words).unwrap()
}

/// With ids that the other server also has, for other users.
fn add(server: &PrivateServer, whose: &str, first_ms: u64) {
    for n in 0..200 {
        let (id, user) = (format!("{}-0", first_ms + n), format!("{whose}-{n}"));
        ask::<String>(server, &["XADD", EVENTS, &id, "type", "heartbeat", "user", &user]);
    }
}

fn users(server: &PrivateServer) -> Vec<String> {
    ask(server, &["HKEYS", "presence:users"])
}

#[test]
fn what_is_read_from_one_server_is_never_applied_at_another() {
    let scene = Scene::start(&[]);
    let mut worker = scene.worker(&[]);
    scene.add_heartbeat("before");
    scene.wait_finished(SOON, "it works");
    assert_eq!(worker.terminate(), 0);
    let first = &scene.deployment.server;
    let second = replica_of(first.port());
    wait_until(SOON, "the replica has all", || users(&second).len() == 1);
    ask::<()>(&second, &["REPLICAOF", "NO", "ONE"]);
    let first_ms = dump::server_now(&mut scene.connection());
    add(first, "first", first_ms);
    add(&second, "second", first_ms);
    let proxy = Proxy::between(&[first.port(), second.port()]);
    let workers: Vec<_> = (0..4).map(|_| scene.worker_at(&proxy.url(), &[], &[])).collect();
    let last = format!("{}-0", first_ms + 199);
    let is_finished = |server| ask::<String>(server, &["HGET", META, "cursor"]) == last;
    let mut settled = Instant::now();
    let is_mixed = || workers.iter().any(|worker| worker.log().contains("applied to another"));
    wait_until(SOON, "both have applied all, and one session met both servers", || {
        // Those that have settled on one of them look again.
        if settled.elapsed() > Duration::from_millis(500) {
            proxy.cut();
            settled = Instant::now();
        }
        is_finished(first) && is_finished(&second) && is_mixed()
    });
    for (server, own, others) in [(first, "first-", "second-"), (&second, "second-", "first-")] {
        let users = users(server);
        assert_eq!(users.iter().filter(|user| user.starts_with(own)).count(), 200);
        let strange = users.iter().find(|user| user.starts_with(others));
        assert_eq!(strange, None, "an entry of the other server");
    }
}
