//! Encrypted session data: the same tokens whoever writes them, ties that no key decides, rotation.

mod encrypt;
mod secrets;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fastrand::Rng;
use redis::Commands as _;
use rollcall::key::partition_of;
use rollcall::seal::{Opened, SessionKeys};
use rollcall::time::EventTime;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::scene::{SOON, Scene, Traffic};
use crate::support::dump;
use crate::support::events::field;

pub const KEYS: [&str; 3] = [
    "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "Zm9yZ290dGVuLWtleS1vZi10aGlydHktdHdvLWJ5dGU=",
];

/// A file of keys.
pub struct File(TempDir);

impl File {
    pub fn new(keys: &[&str]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(keys);
        file
    }

    /// Replaces the file atomically, as keys are usually rotated.
    pub fn write(&self, keys: &[&str]) {
        let new = self.0.path().join("new");
        std::fs::write(&new, keys.join("\n")).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    pub fn flag(&self) -> String {
        format!("--session-key-file={}", self.path().display())
    }

    pub fn keys(&self) -> SessionKeys {
        open(&self.path())
    }
}

fn open(path: &Path) -> SessionKeys {
    SessionKeys::open(&Some(path.to_owned())).unwrap().unwrap()
}

/// The values of the keys of sessions.
pub fn stored(scene: &Scene) -> Vec<(String, Vec<u8>)> {
    let mut conn = scene.connection();
    let names: Vec<String> = redis::cmd("KEYS").arg("*session:*").query(&mut conn).unwrap();
    let value =
        |name: String| Some((name.clone(), conn.get::<_, Option<Vec<u8>>>(&name).unwrap()?));
    names.into_iter().filter_map(value).collect()
}

/// Adds an event with data at a time.
fn add(scene: &Scene, sid: &str, ms: u64, data: &str) {
    let fields = [("type", "session"), ("sid", sid), ("data", data), ("time", &ms.to_string())];
    scene.add(&fields.map(|(name, value)| field(name, value)));
}

/// Events of sessions, many of one instant, some that end, and some without data.
pub fn traffic(scene: &Scene, seed: u64) -> Traffic {
    let around = dump::server_now(&mut scene.connection());
    let (mut rng, partitions) = (Rng::with_seed(seed), scene.deployment.partitions());
    let source = move || {
        let sid = format!("s|{}", rng.u32(..60));
        let time = (around - rng.u64(..6) * 501).to_string();
        let mut fields = vec![field("type", "session"), field("sid", &sid), field("time", &time)];
        match rng.u32(..40) {
            0 => fields.push(field("action", "terminate")),
            1..10 => {}
            _ => fields.push(field("data", &format!("{{\"n\":{}}}", rng.u32(..1_000)))),
        }
        (partition_of(&sid, partitions), fields)
    };
    Traffic::start_from(scene, around, 300, Box::new(source))
}

/// Replaces tokens by their content, so that the state can be compared with the model's.
fn unseal(scene: &Scene, keys: &SessionKeys) -> usize {
    let all = stored(scene);
    for (name, token) in &all {
        let Opened::ByFirst(data) = keys.get().open(token) else { panic!("{name} is no token") };
        let mut set = redis::cmd("SET");
        set.arg(name).arg(data).arg("KEEPTTL").exec(&mut scene.connection()).unwrap();
    }
    all.len()
}

#[test]
fn what_is_encrypted_is_what_the_entries_say_whoever_is_killed() {
    for partitions in ["1", "3"] {
        let file = File::new(&KEYS[..1]);
        let scene = Scene::start(&[("max-skew", "1h"), ("partitions", partitions)]);
        let traffic = traffic(&scene, 5);
        let mut workers = [scene.worker(&[&file.flag()]), scene.worker(&[&file.flag()])];
        let mut kills = 0;
        for n in [0, 1, 0, 1] {
            std::thread::sleep(std::time::Duration::from_millis(250));
            workers[n].kill();
            workers[n] = scene.worker(&[&file.flag()]);
            kills += 1;
        }
        traffic.stop();
        scene.wait_finished(SOON, "the last workers finish");
        drop(workers);
        assert!(unseal(&scene, &file.keys()) > 0);
        scene.verify_after_kills(&format!("{partitions} partitions"), kills);
    }
}

#[test]
fn the_same_event_gives_the_same_token_and_python_reads_it() {
    let file = File::new(&KEYS);
    let now = dump::server_now(&mut Scene::start(&[]).connection()) - 10_000;
    let events = [("s1", r#"{"cart": ["item1", "é"]}"#), ("s|2", "[1]"), ("s3", r#""x""#)];
    let stores = [["7"], ["1"]].map(|batch| {
        let scene = Scene::start(&[]);
        events.iter().for_each(|(sid, data)| add(&scene, sid, now, data));
        let _worker = scene.worker(&["--batch", batch[0], &file.flag()]);
        scene.wait_finished(SOON, "applied");
        stored(&scene).into_iter().collect::<std::collections::BTreeMap<_, _>>()
    });
    assert_eq!(stores[0], stores[1]);
    let ring = file.keys().get();
    for (sid, data) in events {
        let token = ring.seal(sid, EventTime::from_millis(now), data.as_bytes());
        assert_eq!(stores[0][&format!("session:{sid}")], token);
    }
    let python = LIBRARIES.join("python/bin/python");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sessions.py");
    let mut python = Command::new(python);
    python.arg(script).args(KEYS).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let tokens: Vec<&[u8]> = stores[0].values().map(Vec::as_slice).collect();
    child.stdin.take().unwrap().write_all(&tokens.join(&b'\n')).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let datas: Vec<Value> = lines.iter().map(|line| line["data"].clone()).collect();
    assert_eq!(datas, [json!({"cart": ["item1", "é"]}), json!("x"), json!([1])]);
    assert!(lines.iter().all(|line| line["made"] == now / 1000));
    // And the other way round.
    let again = lines[0]["again"].as_str().unwrap().as_bytes();
    let data = ring.open(again).data().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&data).unwrap(), datas[0]);
}

/// Every pair in both orders, with the key changed in between, or encryption switched on.
#[test]
fn at_the_same_instant_the_greater_data_wins_whatever_the_keys() {
    let scene = Scene::start(&[]);
    let none = Vec::new();
    let (old, new) = (File::new(&KEYS[..1]), File::new(&[KEYS[1], KEYS[0]]));
    let (plain, with_old, with_new) = (none, vec![old.flag()], vec![new.flag()]);
    let now = dump::server_now(&mut scene.connection()) - 10_000;
    let datas = [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":10}"#, r#"["b"]"#, r#"{"a":1,"b":2}"#];
    for (case, [first, second]) in
        [[&with_old, &with_old], [&with_old, &with_new], [&plain, &with_new]]
            .into_iter()
            .enumerate()
    {
        let sid = |a: usize, b: usize| format!("{case}-{a}-{b}");
        let pairs = || (0..datas.len()).flat_map(|a| (0..datas.len()).map(move |b| (a, b)));
        for (flags, is_first) in [(first, true), (second, false)] {
            for (a, b) in pairs() {
                add(&scene, &sid(a, b), now, datas[if is_first { a } else { b }]);
            }
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let worker = scene.worker(&flags);
            scene.wait_finished(SOON, "applied");
            scene.drain(worker);
        }
        let keys = if case == 0 { old.keys() } else { new.keys() };
        for (a, b) in pairs() {
            let stored: Vec<u8> = scene.connection().get(format!("session:{}", sid(a, b))).unwrap();
            let data = keys.get().open(&stored).data().unwrap_or(stored);
            let expected = datas[a].max(datas[b]);
            assert_eq!(String::from_utf8(data).unwrap(), expected, "case {case}, {a} then {b}");
        }
    }
}

#[test]
fn a_key_in_front_of_the_others_counts_from_then_on_and_a_broken_file_changes_nothing() {
    let file = File::new(&KEYS[..1]);
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[&file.flag()]);
    let (first, second) =
        (open(&File::new(&KEYS[..1]).path()), open(&File::new(&KEYS[1..2]).path()));
    let now = dump::server_now(&mut scene.connection());
    let token_after = |sid: &str| {
        add(&scene, sid, now, "{}");
        scene.wait_finished(SOON, "applied");
        scene.connection().get::<_, Vec<u8>>(format!("session:{sid}")).unwrap()
    };
    assert!(matches!(first.get().open(&token_after("a")), Opened::ByFirst(_)));
    file.write(&["no key"]);
    let mut n = 0;
    wait_until(SOON, "the broken file is told", || {
        n += 1;
        assert!(matches!(first.get().open(&token_after(&format!("b{n}"))), Opened::ByFirst(_)));
        worker.log().contains("the previous content of the file stays in use")
    });
    file.write(&[KEYS[1], KEYS[0]]);
    wait_until(SOON, "the new key counts", || {
        n += 1;
        matches!(second.get().open(&token_after(&format!("b{n}"))), Opened::ByFirst(_))
    });
    let token = token_after("c");
    let data = |flags: &[&str]| -> Value {
        let (code, out, error) =
            ask_at(&scene.url(), &[&["sessions", "c", "--json"], flags].concat());
        assert_eq!((code, error.as_str()), (0, ""));
        serde_json::from_str(&out).unwrap()
    };
    let answer = data(&[&file.flag()]);
    assert_eq!((&answer["data"], &answer["data_encrypted"]), (&json!("{}"), &json!(false)));
    for flags in [&[][..], &[&*File::new(&KEYS[2..]).flag()]] {
        let answer = data(flags);
        let token = String::from_utf8(token.clone()).unwrap();
        assert_eq!((&answer["data"], &answer["data_encrypted"]), (&json!(token), &json!(true)));
    }
    let (_, page, _) = ask_at(&scene.url(), &["sessions", "c"]);
    assert!(page.contains("encrypted; --session-key-file"), "{page}");
}
