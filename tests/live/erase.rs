//! One user erased everywhere: nothing is left on the server, and everybody else is as if the user had never been
//! there.

mod cost;
mod crowd;
mod killed;
mod readers;
mod refused;

use redis::Connection;
use rollcall::key::escape;
use serde_json::{Value, json};

use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::scene::{SOON, Scene};
use crate::support::dump;
use crowd::Crowd;

/// The JSON output of `rollcall erase`, which must succeed.
fn erase(scene: &Scene, user: &str, words: &[&str]) -> Value {
    let (code, out, error) = say(scene, user, words);
    assert_eq!((code, error.as_str()), (0, ""), "{words:?}: {out}");
    serde_json::from_str(&out).unwrap()
}

fn say(scene: &Scene, user: &str, words: &[&str]) -> (i32, String, String) {
    let partitions = scene.deployment.partitions().to_string();
    let end = ["--json", "--partitions", &partitions];
    ask_at(&scene.url(), &[&["erase", user], words, &end].concat())
}

/// Where these bytes occur on the server: names of keys and everything in them.
pub fn places(conn: &mut Connection, needles: &[Vec<u8>]) -> Vec<String> {
    let names: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(conn).unwrap();
    let mut found = Vec::new();
    for name in names {
        let kind: String = redis::cmd("TYPE").arg(&name).query(conn).unwrap();
        let read = match kind.as_str() {
            "string" => redis::cmd("GET").arg(&name).query(conn),
            "hash" => redis::cmd("HGETALL").arg(&name).query(conn),
            "set" => redis::cmd("SMEMBERS").arg(&name).query(conn),
            "zset" => redis::cmd("ZRANGE").arg(&name).arg(0).arg(-1).query(conn),
            "stream" => redis::cmd("XRANGE").arg(&name).arg("-").arg("+").query(conn),
            // It expired meanwhile.
            "none" => continue,
            other => panic!("a {other}"),
        };
        let mut bytes = name.clone();
        collect(&read.unwrap(), &mut bytes);
        for needle in needles {
            if let Some(at) = bytes.windows(needle.len()).position(|part| part == needle) {
                let around = &bytes[at.saturating_sub(80)..bytes.len().min(at + 80)];
                let (name, around) =
                    (String::from_utf8_lossy(&name), String::from_utf8_lossy(around));
                found.push(format!("{name:?} ({kind}): …{around:?}…"));
            }
        }
    }
    found
}

fn collect(value: &redis::Value, bytes: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(part) => {
            bytes.push(b'\n');
            bytes.extend(part);
        }
        redis::Value::SimpleString(part) => bytes.extend(part.as_bytes()),
        redis::Value::Array(parts) => parts.iter().for_each(|part| collect(part, bytes)),
        redis::Value::Map(pairs) => pairs.iter().for_each(|(name, value)| {
            collect(name, bytes);
            collect(value, bytes);
        }),
        _ => {}
    }
}

/// A user's forms in keys and values.
pub fn forms(user: &str) -> Vec<Vec<u8>> {
    let json = serde_json::to_string(user).unwrap();
    let debug = user.escape_debug().to_string();
    let all = [user, &*escape(user), json.trim_matches('"'), &debug];
    all.into_iter().map(|form| form.as_bytes().to_vec()).collect()
}

/// Other seeds with `ROLLCALL_TEST_SEED`, more of them with `ROLLCALL_TEST_ROUNDS`.
#[test]
fn nothing_of_a_user_is_left_and_others_are_as_if_they_had_never_been() {
    let variable =
        |name: &str, usual: u64| std::env::var(name).map_or(usual, |value| value.parse().unwrap());
    let (seed, rounds) = (variable("ROLLCALL_TEST_SEED", 3), variable("ROLLCALL_TEST_ROUNDS", 2));
    for seed in seed..seed + rounds {
        let partitions = if seed % 2 == 1 { "1" } else { "4" };
        let scene = Scene::start(&[("partitions", partitions), ("thresholds", "2:1,3:0")]);
        let mut crowd =
            Crowd::new(&scene, seed, "vic*|%7C[q]\n{p0}:", &["bob", "cy|d", "ann", "eve"]);
        // Half of it is applied, half is still ahead of the cursor.
        let worker = scene.worker(&["--batch", "20"]);
        crowd.add(&scene, 150);
        scene.wait_finished(SOON, "applied");
        scene.drain(worker);
        let applied = crowd.added.last().unwrap().1;
        crowd.add(&scene, 150);
        let mut conn = scene.connection();
        let before = places(&mut conn, &forms(&crowd.user)).len();
        assert!(before > 8, "the user is in many places: {before}");
        let dry = erase(&scene, &crowd.user, &["--dry-run"]);
        assert_eq!(places(&mut conn, &forms(&crowd.user)).len(), before, "a dry run takes nothing");
        let receipt = erase(&scene, &crowd.user, &["--yes"]);
        for what in ["entries", "entries_rewritten", "minutes", "presence", "sessions", "tokens"] {
            let is_sure = !what.starts_with("entries") || receipt[what].as_u64() > Some(0);
            assert!(is_sure, "{what}: {receipt}");
            assert_eq!(dry[what], receipt[what], "{what}: a dry run says how much");
        }
        assert!(receipt["changes"].as_u64() >= dry["changes"].as_u64(), "{receipt}");
        let text = receipt.to_string();
        assert!(!text.contains("vic") && receipt["still_active"] == false, "{text}");
        assert_eq!(places(&mut conn, &forms(&crowd.user)), [""; 0], "before the rest is applied");
        // Another user, whose events are in the rest of rewritten entries.
        crowd.gone.push("eve".to_owned());
        assert!(erase(&scene, "eve", &["--yes"])["entries_rewritten"].as_u64() > Some(0));
        let worker = scene.worker(&["--batch", "20"]);
        scene.wait_finished(SOON, "applied");
        assert_eq!(places(&mut conn, &forms(&crowd.user)), [""; 0]);
        for partition in 0..scene.deployment.partitions() {
            let stream = scene.deployment.stream(partition);
            wait_until(SOON, "no lag is left", || {
                let groups: Vec<redis::Value> = scene.command(&["XINFO", "GROUPS", &stream]);
                // Redis does not say if the last entry ever added is gone.
                let lag =
                    |text: &str| format!("{groups:?}").contains(&format!("'\"lag\"'), {text}"));
                lag("int(0)") || lag("nil")
            });
        }
        crowd.verify(&scene, applied, &format!("{partitions} partitions, seed {seed}"));
        crowd.verify_letters(&scene);
        crowd.verify_numbers(&scene);
        let again = erase(&scene, &crowd.user, &["--yes"]);
        let counts = again.as_object().unwrap().values();
        assert!(counts.filter_map(Value::as_u64).all(|count| count == 0), "{again}");
        scene.drain(worker);
    }
}

/// Users whose names are prefixes of others, and patterns that match them.
#[test]
fn others_whose_names_are_alike_keep_everything() {
    for (user, others) in [
        ("ann", ["anna", "an", "ann|1", "Ann"]),
        ("*", ["**", "a", "*|1", "\\*"]),
        ("a|b", ["a", "a%7Cb", "a|b|c", "b"]),
        ("[a-z]?", ["b", "[a-z]", "[a-z]?x", "ab"]),
    ] {
        let scene = Scene::start(&[("thresholds", "2:1")]);
        let mut crowd = Crowd::new(&scene, 5, user, &others);
        let worker = scene.worker(&["--batch", "50"]);
        crowd.add(&scene, 120);
        scene.wait_finished(SOON, "applied");
        let receipt = erase(&scene, user, &["--yes"]);
        assert!(receipt["entries"].as_u64() > Some(0), "{receipt}");
        scene.wait_finished(SOON, "applied");
        crowd.verify(&scene, crowd.added.last().unwrap().1, user);
        crowd.verify_letters(&scene);
        crowd.verify_numbers(&scene);
        scene.drain(worker);
    }
}

#[test]
fn it_asks_first_names_nobody_and_refuses_what_is_no_user() {
    let scene = Scene::start(&[]);
    let (code, out, error) = say(&scene, "ann", &[]);
    assert_eq!((code, out.as_str()), (64, ""));
    assert!(error.contains("--yes") && error.contains("--dry-run"), "{error}");
    assert_eq!(say(&scene, "", &["--yes"]).0, 64);
    let (code, out, error) = ask_at(&scene.url(), &["erase", "ann", "--yes"]);
    assert_eq!((code, out.trim(), error.as_str()), (0, "Nothing of this user was found.", ""));
    let worker = scene.worker(&[]);
    scene.add_heartbeat("ann");
    scene.wait_finished(SOON, "applied");
    let (code, out, error) = ask_at(&scene.url(), &["erase", "ann", "--yes"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        out.starts_with("Erased:") && out.contains("presence entries") && !out.contains("ann"),
        "{out}"
    );
    assert_eq!(erase(&scene, "ann", &["--dry-run"])["entries"], json!(0));
    drop(worker);
    assert!(dump::server_now(&mut scene.connection()) > 0);
}
