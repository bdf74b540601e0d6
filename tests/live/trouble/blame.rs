//! Who is to blame: trouble that is not an entry's fault makes no dead letter of it; poison ends as one.

use std::time::UNIX_EPOCH;

use rollcall::entry::Field;

use super::{HTTP, command, deliver_to_ghost, pairs};
use crate::harness::wait_until;
use crate::scene::{SOON, Scene, add, in_parallel, metric};
use crate::support::dump;

/// A command that makes every try to apply an entry fail, and the one that ends it.
struct Trouble {
    wrong: String,
    right: String,
    entry: Vec<Field>,
}

impl Trouble {
    fn new(wrong: &str, right: &str, entry: &[(&str, &str)]) -> Self {
        Self { wrong: wrong.to_owned(), right: right.to_owned(), entry: pairs(entry) }
    }
}

fn troubles() -> Vec<Trouble> {
    const KEYS: &str =
        "~rollcall:* ~login: ~recent: ~presence:users ~sessions:* ~session:* ~user-activity/*";
    const ALL_KEYS: &str = "ACL SETUSER default allkeys";
    let login = [("type", "login"), ("user", "u"), ("token", "t")];
    let view = [("type", "view"), ("user", "u"), ("token", "t"), ("item", "i")];
    let join = [("type", "document"), ("user", "u"), ("doc", "d"), ("action", "join")];
    let heartbeat = [("type", "heartbeat"), ("user", "u")];
    let time = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 - 120_000;
    let minute = format!("online-users/{}", time / 60_000);
    let at = [heartbeat[0], heartbeat[1], ("time", &*time.to_string())];
    let rights = |keys: &str| format!("ACL SETUSER default resetkeys {KEYS} {keys}");
    vec![
        Trouble::new("ACL SETUSER default -zadd", "ACL SETUSER default +zadd", &login),
        Trouble::new("ACL SETUSER default -xadd", "ACL SETUSER default +xadd", &login),
        Trouble::new("ACL SETUSER default -hset", "ACL SETUSER default +hset", &login),
        Trouble::new("ACL SETUSER default -hincrby", "ACL SETUSER default +hincrby", &join),
        Trouble::new("ACL SETUSER default -sadd", "ACL SETUSER default +sadd", &join),
        Trouble::new(&rights("~viewed:*"), ALL_KEYS, &heartbeat),
        Trouble::new(&rights("~viewed: ~online-users/*"), ALL_KEYS, &view),
        Trouble::new("SET rollcall:changes:seq x", "SET rollcall:changes:seq 1", &heartbeat),
        Trouble::new(&format!("SET {minute} theirs"), &format!("DEL {minute}"), &at),
    ]
}

/// Good entries, and trouble that lasts longer than a poisonous entry would be given. Once it is over
/// they are applied as if nothing had been.
#[test]
fn trouble_that_is_not_the_entrys_fault_makes_no_dead_letter() {
    in_parallel(troubles(), |Trouble { wrong, right, entry }| {
        let scene = Scene::start(&[]);
        let run = |line: &str| command(&scene, &line.split(' ').collect::<Vec<_>>());
        let worker = scene.worker(&["--max-deliveries", "2"]);
        scene.add_heartbeat("before");
        scene.wait_finished(SOON, "works before");
        // Entries come from somebody who may.
        run("ACL SETUSER producer on nopass allkeys allcommands");
        run(&wrong);
        let mut producer = dump::connect(&scene.url().replace("//", "//producer:x@"));
        add(&mut producer, &scene.deployment.stream(0), &entry);
        wait_until(SOON, "the worker fails some times", || {
            worker.log().matches("not projecting").count() >= 5 || scene.is_finished()
        });
        run(&right);
        if let Some(key) = wrong.strip_prefix("SET ").and_then(|rest| rest.split(' ').next()) {
            assert!(worker.log().contains(key), "says that {key} is in the way:\n{}", worker.log());
        }
        scene.wait_finished(SOON, &wrong);
        let letters = scene.letters();
        assert!(letters.is_empty(), "{wrong}: {} {}", letters[0].reason, letters[0].detail);
        scene.verify(&wrong);
    });
}

/// Memory so short that a large entry cannot be sent, while small commands go through.
#[test]
fn a_large_entry_outlasts_short_memory() {
    let scene = Scene::start(&[]);
    let data = format!("\"{}\"", "x".repeat(900 << 10));
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", &data)]));
    let used: String = scene.command(&["INFO", "memory"]);
    let used: u64 = used
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok())
        .unwrap();
    command(&scene, &["CONFIG", "SET", "maxmemory", &(used + (600 << 10)).to_string()]);
    let worker = scene.worker(&["--max-deliveries", "2", "--claim-idle", "60s"]);
    wait_until(SOON, "the worker fails some times", || {
        worker.log().matches("kind=\"oom\"").count() >= 5 || scene.is_finished()
    });
    command(&scene, &["CONFIG", "SET", "maxmemory", "0"]);
    scene.wait_finished(SOON, "memory is there again");
    let letters = scene.letters();
    assert!(letters.is_empty(), "{} {}:\n{}", letters[0].reason, letters[0].detail, worker.log());
    scene.verify("short memory");
}

#[test]
fn poison_is_written_off_and_what_was_only_beside_it_is_applied_alone() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    let [poison, beside, fresh] =
        ["poison", "beside", "fresh"].map(|user| scene.add_heartbeat(user));
    deliver_to_ghost(&scene);
    for id in [poison, beside] {
        let id = id.to_string();
        command(
            &scene,
            &["XCLAIM", &stream, "rollcall", "ghost", "0", &id, "IDLE", "5000", "RETRYCOUNT", "20"],
        );
    }
    let suspects = scene.deployment.keys(0).suspects();
    command(&scene, &["HSET", &suspects, &poison.to_string(), "2"]);
    let worker = scene.worker(&HTTP);
    scene.wait_finished(SOON, "nothing sticks");
    let letters = scene.letters();
    let found: Vec<_> =
        letters.iter().map(|l| (l.entry, l.reason.as_str(), l.deliveries >= 20)).collect();
    assert_eq!(found, [(poison, "poison", true)], "{letters:?}");
    assert!(
        !scene.is_present("poison|") && scene.is_present("beside|") && scene.is_present("fresh|"),
        "{fresh}"
    );
    assert_eq!(metric(&worker, "rollcall_entries_tried_alone_total"), 2.0);
    assert_eq!(scene.command::<u64>(&["HLEN", &suspects]), 0, "no mark is left");
}

/// The first worker died for another reason, between counting that it tries the entry and applying it.
#[test]
fn a_worker_that_dies_with_a_trial_counted_condemns_no_entry() {
    let scene = Scene::start(&[]);
    let id = scene.add_heartbeat("tried").to_string();
    deliver_to_ghost(&scene);
    let claim = ["XCLAIM", "rollcall:events", "rollcall", "ghost", "0", &id];
    command(&scene, &[&claim[..], &["IDLE", "5000", "RETRYCOUNT", "20"]].concat());
    let suspects = scene.deployment.keys(0).suspects();
    scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", "after-trial:1")]).wait(SOON);
    assert_eq!(scene.command::<u64>(&["HGET", &suspects, &id]), 1, "the trial is counted");
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "the next one applies it");
    scene.verify("a trial that was none");
    assert!(scene.is_present("tried|"));
    assert_eq!(scene.command::<u64>(&["HLEN", &suspects]), 0, "no mark is left");
}

/// Workers really die on an entry: it is tried alone by two more, and then written off.
#[test]
fn an_entry_that_kills_its_workers_ends_as_poison() {
    let scene = Scene::start(&[]);
    let id = scene.add_heartbeat("deadly");
    let arguments = ["--max-deliveries", "2"];
    for _ in 0..4 {
        scene.worker_with(&arguments, &[("ROLLCALL_TEST_FAILPOINT", "after-fold:1")]).wait(SOON);
    }
    let _worker = scene.worker(&arguments);
    scene.wait_finished(SOON, "written off");
    let found: Vec<_> =
        scene.letters().iter().map(|l| (l.entry, l.reason.clone(), l.deliveries)).collect();
    assert_eq!(found, [(id, "poison".to_owned(), 5)]);
    assert_eq!(scene.command::<u64>(&["HLEN", &scene.deployment.keys(0).suspects()]), 0);
}
