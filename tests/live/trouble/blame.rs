//! Trouble that is not an entry's fault makes no dead letter, however many workers try.

use std::time::UNIX_EPOCH;

use rollcall::entry::Field;

use super::{command, pairs};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, add, in_parallel};
use crate::support::dump;

/// A command that makes every attempt to apply an entry fail, and the one that ends the trouble.
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
        Trouble::new(
            "ACL SETUSER default -xgroup|setid",
            "ACL SETUSER default +xgroup|setid",
            &login,
        ),
        Trouble::new("ACL SETUSER default -sadd", "ACL SETUSER default +sadd", &join),
        Trouble::new(&rights("~viewed:*"), ALL_KEYS, &heartbeat),
        Trouble::new(&rights("~viewed: ~online-users/*"), ALL_KEYS, &view),
        Trouble::new("SET rollcall:changes:seq x", "SET rollcall:changes:seq 1", &heartbeat),
        Trouble::new(&format!("SET {minute} theirs"), &format!("DEL {minute}"), &at),
    ]
}

/// How many failures these workers have logged.
fn failures(workers: &[Worker]) -> usize {
    workers.iter().map(|worker| worker.log().matches("not projecting").count()).sum()
}

/// Good entries, and trouble that lasts longer than a poisonous entry would be tried. Once it is over they are
/// applied as usual.
#[test]
fn trouble_that_is_not_the_entrys_fault_makes_no_dead_letter() {
    in_parallel(troubles().into_iter().zip([1, 3].into_iter().cycle()), |(trouble, count)| {
        let Trouble { wrong, right, entry } = trouble;
        let scene = Scene::start(&[]);
        let run = |line: &str| command(&scene, &line.split(' ').collect::<Vec<_>>());
        let workers: Vec<_> = (0..count).map(|_| scene.worker(&[])).collect();
        scene.add_heartbeat("before");
        scene.wait_finished(SOON, "works before");
        // A user with all rights adds the entries.
        run("ACL SETUSER producer on nopass allkeys allcommands");
        run(&wrong);
        let mut producer = dump::connect(&scene.url().replace("//", "//producer:x@"));
        add(&mut producer, &scene.deployment.stream(0), &entry);
        wait_until(SOON, "the workers fail some times", || {
            failures(&workers) >= 5 || scene.is_finished()
        });
        run(&right);
        if let Some(key) = wrong.strip_prefix("SET ").and_then(|rest| rest.split(' ').next()) {
            let says_so = |worker: &Worker| worker.log().contains(key);
            assert!(workers.iter().any(says_so), "a log says that {key} is in the way");
        }
        scene.wait_finished(SOON, &wrong);
        let letters = scene.letters();
        assert!(letters.is_empty(), "{wrong}: {} {}", letters[0].reason, letters[0].detail);
        scene.verify(&wrong);
    });
}

/// So little memory that a large entry cannot be sent, while small commands succeed.
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
    let workers: Vec<_> = (0..3).map(|_| scene.worker(&[])).collect();
    wait_until(SOON, "the workers fail some times", || {
        failures(&workers) >= 8 || scene.is_finished()
    });
    wait_until(SOON, "one says why", || {
        workers.iter().any(|worker| worker.log().contains("kind=\"oom\""))
    });
    command(&scene, &["CONFIG", "SET", "maxmemory", "0"]);
    scene.wait_finished(SOON, "memory is there again");
    let letters = scene.letters();
    assert!(letters.is_empty(), "{} {}", letters[0].reason, letters[0].detail);
    scene.verify("short memory");
}
