//! `rollcall encrypt`: stored data is encrypted with the first key, once, whatever happens meanwhile.

use std::process::Stdio;
use std::time::Duration;

use redis::Commands as _;
use rollcall::key::partition_of;
use rollcall::seal::{Opened, SessionKeys};
use serde_json::{Value, json};

use super::{File, KEYS, Scene, ask_at, dump, stored, traffic};
use crate::query::ground::command;
use crate::scene::SOON;

fn encrypt(scene: &Scene, flags: &[&str]) -> Value {
    let partitions = scene.deployment.partitions().to_string();
    let words = [&["encrypt", "--json", "--partitions", &partitions], flags].concat();
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

/// How many tokens are under the first key; all others are under another, or plain.
fn of_first(scene: &Scene, keys: &SessionKeys) -> usize {
    let is_first = |token: &[u8]| matches!(keys.get().open(token), Opened::ByFirst(_));
    stored(scene).iter().filter(|(_, token)| is_first(token)).count()
}

#[test]
fn what_is_plain_or_of_another_key_comes_under_the_first_and_keeps_its_expiry() {
    for partitions in ["1", "2"] {
        let scene = Scene::start(&[("partitions", partitions)]);
        let (old, new) = (File::new(&KEYS[..1]), File::new(&[KEYS[1], KEYS[0]]));
        let now = dump::server_now(&mut scene.connection());
        let count = scene.deployment.partitions();
        let add_all = |prefix: &str| {
            for n in 0..50 {
                let sid = format!("{prefix}{n}");
                let stream = scene.deployment.stream(partition_of(&sid, count));
                let fields = ["*", "type", "session", "sid", &sid, "data", &format!("[{n}]")];
                redis::cmd("XADD").arg(stream).arg(&fields).exec(&mut scene.connection()).unwrap();
            }
            scene.wait_finished(SOON, "applied");
        };
        let worker = scene.worker(&[]);
        add_all("plain");
        scene.drain(worker);
        let worker = scene.worker(&[&old.flag()]);
        add_all("old");
        scene.drain(worker);
        let mut conn = scene.connection();
        let keys = scene.deployment.keys(partition_of("plain1", count));
        let big = format!("[{:?}]", "x".repeat(1_000_000));
        let name = format!("{}plain1", keys.session_data());
        redis::cmd("SET").arg(&name).arg(&big).arg("KEEPTTL").exec(&mut conn).unwrap();
        let base = scene.deployment.keys(0).named("session:");
        // Others' data, and a token whose key is missing.
        let _: () = conn.set(format!("{base}foreign"), "plain").unwrap();
        let lost = File::new(&KEYS[2..]).keys().get().seal(
            "lost",
            rollcall::time::EventTime::from_millis(now),
            b"[]",
        );
        let _: () = conn.set_ex(format!("{base}lost"), lost, 1_000).unwrap();
        let versions = scene.deployment.keys(0).session_data_versions();
        let _: () = conn.hset(&versions, "lost", now).unwrap();
        let _: () = conn.hset(&versions, "gone", now).unwrap();
        let before: Vec<(String, u64)> =
            stored(&scene).iter().map(|(name, _)| (name.clone(), expiry(&scene, name))).collect();
        let expected = |dry_run: bool| {
            json!({"dry_run": dry_run, "sessions": 102, "encrypted": 100, "current": 0, "gone": 1,
                "unknown_key": 1, "changed": 0})
        };
        assert_eq!(encrypt(&scene, &[&new.flag(), "--dry-run"]), expected(true));
        assert_eq!(of_first(&scene, &new.keys()), 0, "a dry run changes nothing");
        assert_eq!(encrypt(&scene, &[&new.flag()]), expected(false));
        assert_eq!(of_first(&scene, &new.keys()), 100);
        before.iter().for_each(|(name, at)| assert_eq!(expiry(&scene, name), *at, "{name}"));
        let again = encrypt(&scene, &[&new.flag()]);
        assert_eq!((&again["encrypted"], &again["current"]), (&json!(0), &json!(100)));
        // The token is the one that a worker with this key would have written.
        let (sid, token) = (
            "plain7",
            stored(&scene).into_iter().find(|(name, _)| name.ends_with("plain7")).unwrap().1,
        );
        let keys = scene.deployment.keys(partition_of(sid, count));
        let ms: u64 = conn.hget(keys.session_data_versions(), sid).unwrap();
        let time = rollcall::time::EventTime::from_millis(ms);
        assert_eq!(token, new.keys().get().seal(sid, time, b"[7]"));
    }
}

fn expiry(scene: &Scene, name: &str) -> u64 {
    scene.command::<i64>(&["PEXPIRETIME", name]).unsigned_abs()
}

#[test]
fn it_can_be_killed_under_traffic_and_no_session_is_ever_unreadable() {
    let scene = Scene::start(&[("max-skew", "1h")]);
    let (both, new) = (File::new(&[KEYS[1], KEYS[0]]), File::new(&KEYS[1..2]));
    let old = File::new(&KEYS[..1]);
    let worker = scene.worker(&["--batch", "500", &old.flag()]);
    let mut pipe = redis::pipe();
    for n in 0..1_500 {
        let fields = ["*", "type", "session", "sid", &format!("n{n}"), "data", &format!("[{n}]")];
        pipe.cmd("XADD").arg("rollcall:events").arg(&fields);
    }
    pipe.exec(&mut scene.connection()).unwrap();
    scene.wait_finished(SOON, "applied");
    scene.drain(worker);
    let worker = scene.worker(&[&both.flag()]);
    let traffic = traffic(&scene, 3);
    let (mut kills, keys) = (0, both.keys());
    loop {
        let mut command = command(&scene.url(), &["encrypt", &both.flag()]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 + 20 * kills));
        let done = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let readable = |token: &[u8]| keys.get().open(token).data().is_some();
        stored(&scene).iter().for_each(|(name, token)| assert!(readable(token), "{name}"));
        if done.is_some_and(|status| status.success()) {
            break;
        }
        kills += 1;
        assert!(kills < 100, "it makes no progress");
    }
    traffic.stop();
    scene.wait_finished(SOON, "applied");
    drop(worker);
    assert_eq!(of_first(&scene, &new.keys()), stored(&scene).len(), "the old key can go");
    super::unseal(&scene, &new.keys());
    scene.verify(&format!("{kills} kills"));
}
