//! Changing the number of partitions: the state is what the events say, whatever layout they were sent to.

mod ground;

use std::process::{Command, Stdio};
use std::time::Duration;

use rollcall::config::Deployment;
use rollcall::entry::EntryId;
use rollcall::forward::Forwarded;
use rollcall::key::{Keys, partition_of};
use rollcall::private_server::Options;
use rollcall::redis::scripts::forward::{Origin, add as forward_to};
use serde_json::Value;

use self::ground::{
    EVENTS, Fleet, Producers, check_leftovers, repartition, repartition_under_kills, verify,
    wait_settled,
};
use crate::harness::wait_until;
use crate::notifier::Stage;
use crate::scene::{SOON, Scene, add, block_on, heartbeat};
use crate::support::dump;
use crate::support::events::field;
use crate::support::{rounds, seed};

/// 1 → 4 → 3 → 2, with producers that go on sending to all layouts, and kills of the command, of workers and of the
/// server. Between four and three, a stream also gets events that belong to another partition of the same layout.
#[test]
fn a_deployment_grows_and_shrinks_with_its_state_whatever_is_killed() {
    let (seed, rounds) = (seed(), rounds(1));
    for round in 0..rounds {
        grow_and_shrink(seed + round);
        eprintln!("seed {}: the state is what the events say", seed + round);
    }
}

fn grow_and_shrink(seed: u64) {
    // Otherwise a slow disk may make a killed server forget what it said was added.
    let extra_args = ["--appendfsync", "always"].map(str::to_owned).into();
    let options = Options { appendonly: true, extra_args, ..Options::default() };
    let mut scene = Scene::start_with(&[("thresholds", "2:1")], options);
    let mut rng = fastrand::Rng::with_seed(seed);
    let producers = Producers::start(&scene, seed);
    let layouts = [1, 4, 3, 2];
    let mut fleet = Fleet::start(&scene, 1);
    // The fleet's settings are the deployment's, not the command's.
    wait_until(SOON, "the deployment has settings", || {
        scene.command::<bool>(&["HEXISTS", "rollcall:meta", "thresholds"])
    });
    std::thread::sleep(Duration::from_millis(600));
    for pair in layouts.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        repartition_under_kills(&mut scene, &producers, (from, to), &mut rng);
        let again = repartition(&scene, from, to).wait_with_output().unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        fleet.expect_to_be_sent_away(to);
        fleet = Fleet::start(&scene, to);
        // While waiting entries are forwarded. A third kill could write an entry off.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(rng.u64(20..150)));
            fleet.0.remove(0).kill();
            fleet.0.push(scene.worker(&["--partitions", &to.to_string()]));
        }
        producers.hear_of(to);
        std::thread::sleep(Duration::from_millis(300));
    }
    let sent = producers.stop();
    wait_settled(&scene, &layouts, &sent);
    drop(fleet);
    verify(&scene, 2, &sent);
    check_leftovers(&scene, &layouts);
}

/// Runs it with more arguments; returns its output.
fn run(scene: &Scene, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(["repartition", "--redis-url", &scene.url()]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_dry_run_says_how_much_would_move_and_nobody_begins_by_mistake() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.add_random(seed(), 200);
    scene.wait_finished(SOON, "all is applied");
    scene.drain(worker);
    let before = dump::dump(&mut scene.connection(), &scene.deployment.keys(0));
    let (fine, said) = run(&scene, &["--to", "3", "--dry-run"]);
    assert!(fine && said.starts_with("Of 1 to 3 partitions, "), "{said}");
    let (fine, said) = run(&scene, &["--to", "3"]);
    assert!(!fine && said.contains("--yes"), "{said}");
    assert_eq!(dump::dump(&mut scene.connection(), &scene.deployment.keys(0)), before);
    scene.command::<u64>(&["HSET", "rollcall:meta", "moving", "1:4"]);
    let (fine, said) = run(&scene, &["--to", "3", "--yes"]);
    assert!(!fine && said.contains("finish that first: --to 4"), "{said}");
    let (fine, said) = run(&scene, &["--to", "4", "--yes", "--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert!(fine && report["moved"].as_u64() > Some(0), "{said}");
    assert_eq!((&report["already"], &report["to"]), (&false.into(), &4.into()));
    let (fine, said) = run(&scene, &["--to", "4", "--yes"]);
    assert!(fine && said == "The deployment has 4 partitions.\n", "{said}");
}

#[test]
fn what_comes_too_late_is_a_dead_letter_and_loses_nothing() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.add_heartbeat("before");
    scene.wait_finished(SOON, "it works");
    scene.drain(worker);
    let (fine, said) = run(&scene, &["--to", "2", "--yes", "--forward-for", "1s"]);
    assert!(fine, "{said}");
    let forwarded: String = scene.command(&["HGET", "{p0}:rollcall:meta", "forwarded"]);
    let until_ms: u64 = forwarded.split_once(':').unwrap().1.parse().unwrap();
    let in_time = format!("{}-0", until_ms - 1);
    let late = format!("{until_ms}-0");
    for (id, user) in [(&in_time, "in time"), (&late, "late")] {
        let words = ["XADD", EVENTS, id, "type", "heartbeat", "user", user];
        scene.command::<String>(&words);
    }
    let _worker = scene.worker(&["--partitions", "2"]);
    let dead = Keys::new("", 2, 0).dead();
    wait_until(SOON, "a dead letter", || scene.command::<u64>(&["XLEN", &dead]) == 1);
    let letters = dump::dead_letters(&mut scene.connection(), &Keys::new("", 2, 0));
    assert_eq!(letters[0].entry, late.parse().unwrap());
    assert_eq!(letters[0].reason, "wrong_partition");
    assert_eq!(letters[0].stream, EVENTS);
    assert_eq!(letters[0].original, [field("type", "heartbeat"), field("user", "late")]);
    let keys = Keys::new("", 2, partition_of("in time", 2));
    wait_until(SOON, "what came in time is forwarded", || {
        scene.command(&["HEXISTS", &keys.presence(), "in time|"])
    });
}

#[test]
fn on_a_cluster_nothing_is_begun() {
    let options = Options {
        extra_args: ["--cluster-enabled", "yes"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let scene = Scene::start_with(&[("partitions", "2")], options);
    scene.command::<String>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_until(SOON, "the node has its slots", || {
        scene.command::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
    });
    let (fine, said) = run(&scene, &["--partitions", "2", "--to", "4", "--yes"]);
    assert!(
        !fine && said.contains("the number of partitions cannot be changed on a Redis Cluster"),
        "{said}"
    );
    assert!(!scene.command::<bool>(&["EXISTS", "{p0}:rollcall:meta"]));
}

#[test]
fn targets_hear_of_what_changes_after_a_move() {
    let plain = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n";
    let stage = Stage::start(&[], plain);
    stage.scene.add_heartbeat("before");
    stage.scene.wait_finished(SOON, "its change is of the old partition");
    let mut notifier = stage.notifier_of(&["plain"]);
    let mut serve = stage.scene.serve(&[]);
    wait_until(SOON, "it serves", || serve.log().contains("started"));
    let (fine, said) = run(&stage.scene, &["--to", "2", "--yes"]);
    assert!(fine, "{said}");
    for process in [&mut notifier, &mut serve] {
        let status = process.wait(SOON);
        assert_eq!(status.code(), Some(64), "{}", process.log());
    }
    let _worker = stage.scene.worker(&["--partitions", "2"]);
    let keys = [0, 1].map(|index| Keys::new("", 2, index));
    for n in 0..20 {
        let user = format!("u{n}");
        let keys = &keys[usize::from(partition_of(&user, 2))];
        add(&mut stage.scene.connection(), &keys.named(EVENTS), &heartbeat(&user));
    }
    let changes = |keys: &Keys| stage.scene.command::<Option<u64>>(&["GET", &keys.changes_seq()]);
    wait_until(SOON, "they came", || keys.iter().filter_map(changes).sum::<u64>() == 20);
    let _notifier = stage.notifier_for(2);
    wait_until(SOON, "the target is told of all", || {
        keys.iter().all(|keys| {
            let place: Option<String> = stage.scene.command(&["HGET", &keys.notifier(), "plain"]);
            let seq = place.and_then(|place| place.split(' ').nth(1)?.parse().ok());
            seq == changes(keys)
        })
    });
    let told = |keys: &Keys| stage.scene.command::<String>(&["HGET", &keys.notifier(), "plain"]);
    assert!(keys.iter().all(|keys| told(keys).split(' ').nth(1) > Some("0")), "from the first on");
}

#[test]
fn what_is_forwarded_twice_is_added_once() {
    let scene = Scene::start(&[]);
    let deployment: &Deployment = &scene.deployment.config.deployment;
    scene.command::<u64>(&["HSET", "rollcall:meta", "partitions", "1"]);
    let (keys, own) = (Keys::new("", 4, 3), Keys::new("", 1, 0));
    let forwarded = |n: u64| {
        let entries = [(0, vec![heartbeat(&format!("u{n}"))])].into();
        (EntryId { ms: 9 + n, seq: u64::MAX - 1 }, Forwarded { entries, letters: Vec::new() })
    };
    let all: Vec<_> = (0..4).map(forwarded).collect();
    let gone = |after: u64| {
        let after = if after == 0 { (0, 0) } else { (8 + after, u64::MAX - 1) };
        Some(EntryId { ms: after.0, seq: after.1 })
    };
    block_on(async {
        let mut connection = scene.deployment.async_connection(0).await;
        let stream = "{p3}:rollcall:events";
        for (sent, after, new) in
            [(0..2, 0, Some(2)), (0..2, 0, None), (1..4, 1, None), (2..4, 2, Some(2))]
        {
            let origin = Origin { keys: &keys, stream, after: gone(after) };
            let added = forward_to(&mut connection, deployment, 0, origin, &all[sent]).await;
            assert_eq!(added.unwrap(), new);
        }
        for (sent, new) in [(0..2, 2), (0..3, 1), (0..3, 0)] {
            let origin = Origin { keys: &own, stream: EVENTS, after: None };
            let added = forward_to(&mut connection, deployment, 0, origin, &all[sent]).await;
            assert_eq!(added.unwrap(), Some(new));
        }
    });
    assert_eq!(scene.command::<u64>(&["XLEN", EVENTS]), 7);
}

#[test]
fn a_token_that_had_ended_stays_ended_in_every_partition() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    for kind in ["login", "logout"] {
        scene.add(&[field("type", kind), field("user", "ann"), field("token", "t")]);
    }
    scene.wait_finished(SOON, "it has ended");
    scene.drain(worker);
    let (fine, said) = run(&scene, &["--to", "3", "--yes"]);
    assert!(fine, "{said}");
    let _worker = scene.worker(&["--partitions", "3"]);
    let users = (0..3).map(|index| {
        (0..).map(|n| format!("u{n}")).find(|user| partition_of(user, 3) == index).unwrap()
    });
    for (index, user) in users.enumerate() {
        let keys = Keys::new("", 3, index as u16);
        let view = [("type", "view"), ("user", &user), ("token", "t"), ("item", "i")];
        let view = view.map(|(name, value)| field(name, value));
        add(&mut scene.connection(), &keys.named(EVENTS), &view);
        wait_until(SOON, "it was seen", || {
            scene.command(&["EXISTS", &format!("{}{user}", keys.activity())])
        });
        assert!(!scene.command::<bool>(&["HEXISTS", &keys.login(), "t"]), "{user}");
    }
}

#[test]
fn a_minute_keeps_its_expiry_where_all_of_it_moves() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    let user = (0..).map(|n| format!("u{n}")).find(|user| partition_of(user, 2) == 1).unwrap();
    scene.add_heartbeat(&user);
    scene.wait_finished(SOON, "it was seen");
    scene.drain(worker);
    let minutes: Vec<String> = scene.command(&["KEYS", "online-users/*"]);
    let expires = |key: &str| scene.command::<i64>(&["PEXPIRETIME", key]);
    let before = expires(&minutes[0]);
    let (fine, said) = run(&scene, &["--to", "2", "--yes"]);
    assert!(fine && before > 0, "{said}");
    assert_eq!(expires(&format!("{{p1}}:{}", minutes[0])), before);
}
