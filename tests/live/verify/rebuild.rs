//! `rollcall rebuild`: differences are repaired, under traffic, whenever it is killed; settings are changed.

use std::process::Stdio;
use std::time::Duration;

use fastrand::Rng;
use rollcall::config::{Config, Gathered};
use rollcall::key::{escape, join};
use serde_json::{Value, json};

use super::damage::damage;
use super::{assert_as_modelled, assert_no_shadow, first_entries, verify, wait_for_leases};
use crate::process::Worker;
use crate::query::ground::{ask_at, command};
use crate::scene::{SOON, Scene, Traffic, in_parallel};
use crate::support::events::{CONNECTIONS, DOCS, IPS, SIDS, TOKENS, USERS};

/// The output of `rollcall rebuild --json`, and its exit status.
fn rebuild(scene: &Scene, flags: &[&str]) -> (i32, Value) {
    let partitions = scene.deployment.partitions().to_string();
    let words = [&["rebuild", "--json", "--partitions", &partitions], flags].concat();
    let (code, out, error) = ask_at(&scene.url(), &words);
    assert!(!out.is_empty(), "{error}");
    (code, serde_json::from_str(&out).unwrap())
}

#[test]
fn every_damage_is_put_right_and_the_state_is_what_the_entries_say() {
    for partitions in ["1", "4"] {
        let scene =
            Scene::start(&[("partitions", partitions), ("thresholds", "2:1"), ("max-skew", "1s")]);
        let _worker = scene.worker(&[]);
        let expected = damage(&scene).len();
        let traffic = Traffic::start(&scene, 3, 300);
        let (code, report) = rebuild(&scene, &["--dry-run"]);
        assert_eq!((code, report["mended"].as_u64()), (0, Some(0)), "{report:#}");
        assert_eq!(report["differences"].as_array().unwrap().len(), expected);
        let (code, report) = rebuild(&scene, &["--yes"]);
        assert_eq!((code, &report["left"]), (0, &json!([])), "{report:#}");
        assert_eq!(report["mended"].as_u64(), Some(expected as u64));
        let (code, report) = verify(&scene, &[]);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
        traffic.stop();
        scene.wait_finished(SOON, "all is applied");
        assert_as_modelled(&scene, "rebuilt");
        assert_no_shadow(&scene);
    }
}

/// Removes whole structures, and members of others.
fn ravage(scene: &Scene, round: usize) {
    for partition in 0..scene.deployment.partitions() {
        let keys = scene.deployment.keys(partition);
        let all = [
            keys.presence(),
            keys.login(),
            keys.recent(),
            keys.viewed(),
            keys.tokens_ended(),
            keys.sessions(),
            keys.session_ttls(),
            keys.sessions_ended(),
            keys.session_data_versions(),
            keys.docs_joined(),
            keys.docs_levels(),
            keys.presence_ended(),
            keys.docs_left(),
        ];
        // The whole ranking must be seen, whatever comes meanwhile.
        for key in all.iter().skip(round % 3).step_by(3).chain([&keys.viewed()]) {
            let _: u64 = scene.command(&["DEL", key]);
        }
        let single: Vec<String> = scene.command(&["KEYS", &format!("{}*/*", keys.base())]);
        for key in single.iter().filter(|key| key.starts_with(&keys.activity())) {
            let _: u64 = scene.command(&["DEL", key]);
        }
    }
}

/// Writes what no entry says, at random.
fn corrupt(scene: &Scene, seed: u64) {
    let (mut rng, now) = (Rng::with_seed(seed), scene.now());
    let json = |first: &str, t: u64| format!("{{\"{first}\":{t},\"user\":\"x\"}}");
    for partition in 0..scene.deployment.partitions() {
        let keys = scene.deployment.keys(partition);
        for _ in 0..12 {
            let t = now - rng.u64(..20_000);
            let (seconds, t_text) = (format!("{}.{:03}", t / 1000, t % 1000), t.to_string());
            let user = rng.choice(USERS).unwrap();
            let field = join(&[user, rng.choice(IPS).unwrap()]);
            let (token, sid) = (rng.choice(TOKENS).unwrap(), rng.choice(SIDS).unwrap());
            let doc = rng.choice(DOCS).unwrap();
            let pair = join(&[doc, user]);
            let member = join(&[doc, user, rng.choice(CONNECTIONS).unwrap()]);
            let ttl = format!("{t}:0000060:{t}");
            let (seen, active) = (json("lastSeen", t), json("last_activity", t));
            let level = format!("2:1:{}", escape(doc));
            let all: [(&str, String, Vec<&str>); 18] = [
                ("HSET", keys.presence(), vec![&field, &seen]),
                ("HSET", keys.login(), vec![token, "somebody"]),
                ("ZADD", keys.recent(), vec![&seconds, token]),
                ("ZADD", format!("{}{token}", keys.viewed()), vec![&seconds, "item7"]),
                ("ZADD", keys.tokens_ended(), vec![&t_text, token]),
                ("ZADD", keys.presence_ended(), vec![&t_text, &field]),
                ("ZADD", keys.presence_ended(), vec![&t_text, user]),
                ("HSET", keys.sessions(), vec![sid, &active]),
                ("HSET", keys.session_ttls(), vec![sid, &ttl]),
                ("ZADD", keys.sessions_ended(), vec![&t_text, sid]),
                ("ZADD", keys.docs_joined(), vec![&t_text, &member]),
                ("ZADD", keys.docs_left(), vec![&t_text, &member]),
                ("ZREM", keys.docs_joined(), vec![&member]),
                ("HSET", keys.docs_connections(), vec![&pair, "2"]),
                ("HDEL", keys.docs_connections(), vec![&pair]),
                ("HSET", keys.docs_levels(), vec![&level, "1"]),
                ("SADD", keys.document_users(doc), vec!["nobody"]),
                ("SET", keys.document_count(doc), vec!["77"]),
            ];
            let (command, key, words) = &all[rng.usize(..all.len())];
            let _: redis::Value = scene.command(&[&[*command, key], &words[..]].concat());
        }
    }
}

#[test]
fn what_no_entry_says_is_gone() {
    let rounds = std::env::var("ROLLCALL_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let seed = std::env::var("ROLLCALL_TEST_SEED").map_or(7, |seed| seed.parse().unwrap());
    for seed in seed..seed + rounds {
        in_parallel(["1", "3"], |partitions| {
            let settings = [("partitions", partitions), ("thresholds", "2:1"), ("max-skew", "1s")];
            let scene = Scene::start(&settings);
            first_entries(&scene);
            scene.add_random(seed, 1_000);
            let _worker = scene.worker(&[]);
            scene.wait_finished(SOON, "all is applied");
            corrupt(&scene, seed);
            let traffic = Traffic::start(&scene, seed, 100);
            let (code, report) = rebuild(&scene, &["--yes"]);
            assert_eq!((code, &report["left"]), (0, &json!([])), "seed {seed}: {report:#}");
            traffic.stop();
            scene.wait_finished(SOON, "all is applied");
            assert_as_modelled(&scene, &format!("seed {seed}, {partitions} partitions"));
        });
    }
}

#[test]
fn what_was_taken_is_back_whenever_it_is_killed_and_begun_again() {
    let rounds = std::env::var("ROLLCALL_TEST_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let all = (0..rounds).flat_map(|n| [(2 * n, "1"), (2 * n + 1, "3")]);
    in_parallel(all, |(round, partitions)| {
        let settings = [("partitions", partitions), ("thresholds", "2:1"), ("max-skew", "1s")];
        let scene = Scene::start(&settings);
        first_entries(&scene);
        scene.add_random(11 + round as u64, 2_000);
        let _workers = [scene.worker(&[]), scene.worker(&[]), scene.janitor(&[])];
        scene.wait_finished(SOON, "all is applied");
        let traffic = Traffic::start(&scene, 12 + round as u64, 100);
        ravage(&scene, round);
        assert!(verify(&scene, &[]).0 == 1, "much is missing");
        for n in 0..5 {
            let name = format!("killed-{n}");
            let words = ["rebuild", "--yes", "--partitions", partitions, "--into", &name];
            let mut command = command(&scene.url(), &words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(150 + 90 * n));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        wait_for_leases(&scene);
        let (code, report) = rebuild(&scene, &["--yes"]);
        assert_eq!((code, &report["left"]), (0, &json!([])), "{report:#}");
        let (code, report) = verify(&scene, &[]);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
        traffic.stop();
        scene.wait_finished(SOON, "all is applied");
        assert_as_modelled(&scene, &format!("round {round}, rebuilt"));
        assert_no_shadow(&scene);
    });
}

#[test]
fn what_is_older_than_the_stream_is_kept_and_counts_are_no_less_than_what_is_held() {
    let scene = Scene::start(&[("max-skew", "1s")]);
    let _worker = scene.worker(&[]);
    let view = |n: usize, item: &str| {
        let fields = ["*", "type", "view", "user", "u", "token", &format!("t{n}"), "item", item];
        let _: String = scene.command(&[&["XADD", "rollcall:events"], &fields[..]].concat());
    };
    (0..20).for_each(|n| view(n, "item"));
    scene.wait_finished(SOON, "all is applied");
    let _: u64 = scene.command(&["XTRIM", "rollcall:events", "MAXLEN", "5"]);
    let _: u64 = scene.command(&["HDEL", "login:", "t19", "t2"]);
    let _: u64 = scene.command(&["ZREM", "recent:", "t19", "t2"]);
    let _: u64 = scene.command(&["ZADD", "viewed:", "3", "item"]);
    let (code, report) = rebuild(&scene, &["--yes"]);
    assert_eq!((code, report["mended"].as_u64()), (0, Some(3)), "{report:#}");
    let tokens: Vec<String> = scene.command(&["ZRANGE", "recent:", "0", "-1"]);
    assert_eq!(tokens.len(), 19, "what is held is back, what is older stays: {tokens:?}");
    assert!(tokens.contains(&"t19".to_owned()) && !tokens.contains(&"t2".to_owned()));
    let count: f64 = scene.command(&["ZSCORE", "viewed:", "item"]);
    assert_eq!(count, 5.0, "of its views five are held");
    (0..2).for_each(|n| view(n, "item"));
    scene.wait_finished(SOON, "all is applied");
    assert_eq!(rebuild(&scene, &["--yes"]).1["mended"], json!(0), "none is counted twice");
    let count: f64 = scene.command(&["ZSCORE", "viewed:", "item"]);
    assert_eq!(count, 7.0);
}

#[test]
fn changed_settings_become_the_deployments_and_the_state_follows() {
    in_parallel(["1", "2"], |partitions| {
        let old = [
            ("partitions", partitions),
            ("projections", "online,activity,documents"),
            ("presence-ttl", "100s"),
            ("max-skew", "60s"),
        ];
        let mut scene = Scene::start(&old);
        first_entries(&scene);
        scene.add_random(21, 1_500);
        let (mut worker, mut janitor) = (scene.worker(&[]), scene.janitor(&[]));
        scene.wait_finished(SOON, "all is applied");
        let new = [
            "--projections",
            "all",
            "--thresholds",
            "2:1",
            "--online-window",
            "10m",
            "--presence-ttl",
            "300s",
            "--max-skew",
            "1s",
        ];
        let (code, report) =
            rebuild(&scene, &[&["--change-settings", "--dry-run"], &new[..]].concat());
        assert_eq!(code, 0, "{report:#}");
        let names: Vec<&str> = report["settings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|s| s["name"].as_str())
            .collect();
        assert_eq!(
            names,
            ["max-skew", "online-window", "presence-ttl", "projections", "thresholds"]
        );
        assert_eq!(verify(&scene, &[]).0, 0, "a dry run changes nothing");
        let (code, report) = rebuild(&scene, &[&["--change-settings", "--yes"], &new[..]].concat());
        assert_eq!((code, &report["left"]), (0, &json!([])), "{report:#}");
        assert_ne!(worker.exit_code(SOON), 0, "the worker with the old settings ends");
        assert_ne!(janitor.exit_code(SOON), 0, "and so does the janitor");
        let log = worker.log();
        assert!(log.contains("this process has"), "{log}");
        let all = [&new[..], &["--partitions", partitions]].concat();
        let _worker = Worker::start(&scene.url(), &all, &[]);
        scene.add_random_later(22, 300);
        scene.wait_finished(SOON, "all is applied");
        let (code, report) = verify(&scene, &[]);
        assert_eq!((code, &report["differences"]), (0, &json!([])), "{report:#}");
        let flags = old.iter().copied().filter(|(name, _)| *name == "partitions");
        let new = new.chunks(2).map(|pair| (&pair[0][2..], pair[1]));
        let url = scene.url();
        let all = flags.chain(new).chain([("redis-url", url.as_str())]);
        scene.deployment.layout.config =
            Config::resolve(&Gathered::from_flags(all).unwrap()).unwrap();
        assert_as_modelled(&scene, "with new settings");
    });
}

#[test]
fn nothing_is_changed_unless_that_is_meant() {
    let scene = Scene::start(&[]);
    let (code, _, error) = ask_at(&scene.url(), &["rebuild"]);
    assert_eq!(code, 64, "{error}");
    assert!(error.contains("--yes") && error.contains("--dry-run"), "{error}");
}
