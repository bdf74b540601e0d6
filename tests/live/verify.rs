//! `rollcall verify`: the state is compared with the entries under traffic, and every damage is named.

mod damage;
mod rebuild;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use rollcall::entry::Entry;
use serde_json::{Value, json};

use crate::harness::{id, read_stream, settle, take, wait_until};
use crate::query::ground::{ask_at, command};
use crate::scene::{SOON, Scene, Traffic, block_on, heartbeat, in_parallel};
use crate::sealed::{File, KEYS};

/// The output of `rollcall verify --json`, and its exit status.
pub fn verify(scene: &Scene, flags: &[&str]) -> (i32, Value) {
    let partitions = scene.deployment.partitions().to_string();
    let words = [&["verify", "--json", "--partitions", &partitions], flags].concat();
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert!(!out.is_empty(), "{error}");
    (code, serde_json::from_str(&out).unwrap())
}

/// Entries so old that from there on everything that can count is in the stream.
pub fn first_entries(scene: &Scene) {
    let first = id(scene.now() - 3_000_000, 0);
    for partition in 0..scene.deployment.partitions() {
        scene.deployment.add(partition, &[Entry::new(first, heartbeat("first"))]);
    }
}

/// Waits until the leases of killed runs have expired.
pub fn wait_for_leases(scene: &Scene) {
    wait_until(SOON, "leases of the dead end", || {
        let leases: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:killed*:lease"]);
        leases.is_empty()
    });
}

/// Nothing of a shadow is left.
pub fn assert_no_shadow(scene: &Scene) {
    let left: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:*"]);
    let left: Vec<_> = left.iter().filter(|key| !key.ends_with(":lease")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The state is what the entries say, by the model. (Changes are not checked, since state was removed by hand.)
pub fn assert_as_modelled(scene: &Scene, what: &str) {
    let deployment = &scene.deployment;
    for partition in 0..deployment.partitions() {
        let mut conn = scene.connection();
        let mut model = deployment.model(partition);
        let entries = read_stream(&mut conn, &deployment.stream(partition));
        entries.iter().for_each(|entry| model.apply_entry(entry, 0));
        block_on(async {
            let mut connection = deployment.async_connection(partition).await;
            let sweeper = deployment.sweeper(partition);
            let settled = settle(&mut connection, &mut conn, &sweeper, &model).await;
            settled.unwrap_or_else(|fault| panic!("{what}, partition {partition}:\n{fault}"));
        });
    }
}

/// Small caps and short lifetimes, so that everything that removes members does so all the time.
const TIGHT: [(&str, &str); 8] = [
    ("presence-ttl", "2s"),
    ("session-ttl", "2s"),
    ("document-ttl", "2s"),
    ("recent-cap", "7"),
    ("viewed-cap", "2"),
    ("ranking-cap", "3"),
    ("thresholds", "2:1"),
    ("max-skew", "1s"),
];

#[test]
fn the_same_state_gives_no_difference_under_traffic() {
    let seed = std::env::var("ROLLCALL_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    let rounds = std::env::var("ROLLCALL_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    for seed in seed..seed + rounds {
        let wide = [("thresholds", "2:1"), ("max-skew", "1s")];
        let cases = [("4", &wide[..]), ("1", &TIGHT)];
        in_parallel(cases, |(partitions, settings)| {
            let scene = Scene::start(&[&[("partitions", partitions)], settings].concat());
            first_entries(&scene);
            scene.add_random(seed, 2_000);
            let mut workers = [scene.worker(&[]), scene.worker(&[])];
            let _janitor = scene.janitor(&[]);
            scene.wait_finished(SOON, "what was there is applied");
            let traffic = Traffic::start(&scene, seed + 1, 300);
            for (n, held) in [1_000_000, 700, 100].into_iter().enumerate() {
                workers[n % 2].kill();
                for stream in scene.streams() {
                    let _: u64 = scene.command(&["XTRIM", &stream, "MAXLEN", &held.to_string()]);
                }
                let (code, report) = verify(&scene, &[]);
                assert_eq!(
                    (code, &report["differences"]),
                    (0, &json!([])),
                    "seed {seed}: {report:#}"
                );
                assert!(report["checked"].as_u64() > Some(50), "{report}");
                assert_no_shadow(&scene);
                workers[n % 2] = scene.worker(&[]);
            }
            traffic.stop();
        });
    }
}

#[test]
fn what_the_stream_no_longer_holds_is_told_apart() {
    for partitions in ["1", "4"] {
        let scene = Scene::start(&[("partitions", partitions)]);
        let _worker = scene.worker(&[]);
        scene.add_random(5, 2_000);
        scene.add(&heartbeat("first"));
        scene.wait_finished(SOON, "all is applied");
        let whole = verify(&scene, &[]).1;
        assert_eq!((&whole["differences"], &whole["older"]), (&json!([]), &json!(0)), "{whole}");
        let ranking = scene.deployment.keys(0).viewed();
        for stream in scene.streams() {
            let _: u64 = scene.command(&["XTRIM", &stream, "MAXLEN", "20"]);
        }
        // Neither views beyond those in the stream, nor what only older entries said, can be judged.
        let _: String = scene.command(&["ZINCRBY", &ranking, "5", "never viewed"]);
        let _: u64 = scene.command(&["HSET", &scene.deployment.keys(0).login(), "never used", "x"]);
        let (code, report) = verify(&scene, &[]);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
        assert!(report["older"].as_u64() > Some(20), "{report}");
        assert_no_shadow(&scene);
    }
}

#[test]
fn a_shadow_never_stays_and_never_takes_what_is_anothers() {
    let scene = Scene::start(&[("partitions", "2")]);
    let _worker = scene.worker(&["--batch", "500"]);
    scene.add_random(5, 4_000);
    scene.wait_finished(SOON, "all is applied");
    let before = dump(&scene);
    // Killed at any moment, under any name.
    for n in 0..8 {
        let name = format!("killed-{n}");
        let words = ["verify", "--partitions", "2", "--into", &name];
        let mut command = command(&scene.url(), &words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15 + 40 * n));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let left: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:*"]);
    assert!(!left.is_empty(), "some were killed in the midst");
    // A run that is told to stop removes its own.
    let words = ["verify", "--partitions", "2", "--into", "stopped"];
    let mut command = command(&scene.url(), &words);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let made = scene.deployment.keys(0).shadow("stopped").named("rollcall:meta");
    wait_until(SOON, "it is under way", || scene.command(&["EXISTS", &made]));
    let kill = format!("kill -TERM {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let left: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:stopped:*"]);
    assert!(left.is_empty(), "{left:?}");
    // Another running one is left alone, and so are keys that are not Rollcall's.
    let keys = scene.deployment.keys(0).shadow("other");
    for (name, value) in [("made", "rollcall"), ("lease", "x"), ("login:", "theirs")] {
        let _: () = scene.command(&["SET", &keys.named(name), value]);
    }
    let foreign = scene.deployment.keys(1).shadow("foreign").named("data");
    let _: () = scene.command(&["SET", &foreign, "x"]);
    wait_for_leases(&scene);
    assert_eq!(verify(&scene, &[]).0, 0);
    let words = ["verify", "--json", "--partitions", "2", "--into", "foreign"];
    let (code, _, error) = ask_at(&scene.url(), &words);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("is not Rollcall's") && error.contains("--into"), "{error}");
    let mut left: Vec<String> = scene.command(&["KEYS", "*rollcall:shadow:*"]);
    left.retain(|key| *key != foreign && !key.ends_with("foreign:lease"));
    left.sort();
    assert_eq!(left, ["lease", "login:", "made"].map(|name| keys.named(name)));
    for key in left.iter().chain([&foreign]) {
        let _: u64 = scene.command(&["DEL", key]);
    }
    let after = dump(&scene);
    let is_other = |key: &&String| before.get(*key) != after.get(*key);
    let written: Vec<_> = before.keys().chain(after.keys()).filter(is_other).collect();
    assert!(written.is_empty(), "nothing of the state was written: {written:?}");
    let (code, _, error) = ask_at(&scene.url(), &["verify", "--into", "a:b"]);
    assert_eq!(code, 64, "{error}");
}

/// All keys of the state and records, with their content.
fn dump(scene: &Scene) -> BTreeMap<String, String> {
    let mut conn = scene.connection();
    let mut keys: Vec<String> = scene.command(&["KEYS", "*"]);
    // What expires natively, and what shows that workers are alive.
    let others = [
        "rollcall:shadow:",
        "rollcall:meta",
        "rollcall:workers",
        "rollcall:janitor",
        "rollcall:events",
        "online-users/",
        "user-activity/",
        "session:",
    ];
    keys.retain(|key| !others.iter().any(|own| key.contains(own)));
    let commands = ["GET", "HGETALL", "SMEMBERS", "ZRANGE", "XRANGE"];
    let mut value = |key: String| {
        let read = |name: &&str| {
            let mut command = redis::cmd(name);
            command.arg(&key);
            match *name {
                "ZRANGE" => command.arg(&["0", "-1", "WITHSCORES"]),
                "XRANGE" => command.arg(&["-", "+"]),
                _ => &mut command,
            };
            command.query::<redis::Value>(&mut conn).ok()
        };
        let found = commands.iter().find_map(read).unwrap();
        let mut texts = format!("{found:?}");
        if let redis::Value::Array(members) = &found {
            let mut sorted: Vec<_> = members.iter().map(|member| format!("{member:?}")).collect();
            sorted.sort();
            texts = sorted.join("\n");
        }
        (key, texts)
    };
    keys.into_iter().map(&mut value).collect()
}

#[test]
fn what_workers_wrote_off_is_not_missed() {
    let scene = Scene::start(&[("max-skew", "1s")]);
    first_entries(&scene);
    // As if a worker had died on it twice.
    let poison = scene.add(&heartbeat("poison"));
    block_on(async {
        let deployment = &scene.deployment;
        let mut connection = deployment.async_connection(0).await;
        let ownership = deployment.ownership(0, "test");
        let joined = take(&mut connection, &ownership).await;
        let mut cursor = joined.cursor;
        for _ in 0..2 {
            let why = ("a worker died on it", 0);
            let skip = ownership.skip_next(&mut connection, &joined.tenure, cursor, why);
            cursor = skip.await.unwrap().unwrap();
        }
        assert_eq!(cursor, poison);
    });
    // A key of another type is in the way: everything but the view counts.
    let _: u64 = scene.command(&["RPUSH", "viewed:taken", "x"]);
    let view = ["type", "view", "user", "u", "token", "taken", "item", "i"];
    let taken: String = scene.command(&[&["XADD", "rollcall:events", "*"], &view[..]].concat());
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "all is applied");
    assert_eq!(scene.letters().len(), 3);
    let (code, report) = verify(&scene, &[]);
    let differences = report["differences"].as_array().unwrap();
    assert_eq!((code, differences.len()), (1, 1), "{report:#}");
    assert_eq!(
        (&differences[0]["key"], &differences[0]["entry"]),
        (&json!("viewed:taken"), &json!(taken))
    );
}

#[test]
fn encrypted_session_data_is_compared_with_keys_and_without() {
    let scene = Scene::start(&[("max-skew", "1s")]);
    first_entries(&scene);
    let (old, new) = (File::new(&KEYS[..1]), File::new(&[KEYS[1], KEYS[0]]));
    let worker = scene.worker(&[&old.flag()]);
    let add = |sid: &str, data: &str| {
        let session = ["type", "session", "sid", sid, "data", data];
        let _: String = scene.command(&[&["XADD", "rollcall:events", "*"], &session[..]].concat());
    };
    (0..20).for_each(|n| add(&format!("s|{n}"), &format!("[{n}]")));
    scene.wait_finished(SOON, "all is applied");
    scene.drain(worker);
    for keys in [&[][..], &[&old.flag()], &[&new.flag()]] {
        let keys: Vec<&str> = keys.iter().map(|flag| flag.as_str()).collect();
        let (code, report) = verify(&scene, &keys);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
    }
    let lost: Vec<u8> = scene.command(&["GET", "session:s|3"]);
    let _: u64 = scene.command(&["DEL", "session:s|3"]);
    let _: String = scene.command(&["SET", "session:s|4", "[0]", "KEEPTTL"]);
    assert_eq!(verify(&scene, &[&old.flag()]).1["differences"].as_array().unwrap().len(), 2);
    let (code, _, error) = ask_at(&scene.url(), &["rebuild", "--yes"]);
    assert!(code == 1 && error.contains("--session-key-file"), "{error}");
    let (code, out, error) = ask_at(&scene.url(), &["rebuild", "--yes", "--json", &old.flag()]);
    assert_eq!(code, 0, "{out} {error}");
    assert_eq!(scene.command::<Vec<u8>>(&["GET", "session:s|3"]), lost);
    assert_eq!(verify(&scene, &[&old.flag()]).0, 0);
}

#[test]
fn a_server_without_room_gets_no_shadow() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    scene.add_random(5, 300);
    scene.wait_finished(SOON, "all is applied");
    // Beside this, the buffers of connections are nothing.
    scene.command::<u64>(&["SETRANGE", "ballast", "20000000", "x"]);
    let info: String = scene.command(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() * 21 / 20;
    let _: () = scene.command(&["CONFIG", "SET", "maxmemory", &most.to_string()]);
    let (code, out, error) = ask_at(&scene.url(), &["verify", "--json"]);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    assert!(error.contains("no room for a shadow") && error.contains("raise maxmemory"), "{error}");
    assert_no_shadow(&scene);
}
