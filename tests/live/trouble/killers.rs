//! Entries that kill workers when they are decoded: each costs a few workers and ends as a dead letter, and nothing
//! else does.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rollcall::entry::EntryId;
use rollcall::redis::scripts::owner::{Cause, Joined, Ownership, fence};

use super::{command, pairs};
use crate::harness::{Deployment, wait_until};
use crate::process::Worker;
use crate::scene::{SOON, Scene, add, heartbeat};
use crate::support::dump::DeadLetter;

/// The content of an entry that kills.
const DEADLY: &str = "deadly";
const ABORTED: i32 = 6;
/// The most workers that one entry may cost.
const MOST_DEATHS: usize = 4;

/// A worker that dies on such an entry.
fn mortal(scene: &Scene) -> Worker {
    scene.worker_with(&[], &[("ROLLCALL_TEST_KILLER", DEADLY)])
}

/// Starts workers one after the other, like a supervisor, until it is `done`; returns how many died, and the last
/// one.
fn supervise(scene: &Scene, done: impl Fn() -> bool) -> (usize, Worker) {
    let (start, mut worker, mut deaths) = (Instant::now(), mortal(scene), 0);
    while !done() {
        if !worker.runs() {
            assert_eq!(worker.wait(SOON).signal(), Some(ABORTED), "{}", worker.log());
            deaths += 1;
            worker = mortal(scene);
        }
        assert!(start.elapsed() < SOON * 3, "{deaths} deaths, and no end:\n{}", worker.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    (deaths, worker)
}

/// Exactly these entries were written off, without content.
fn check_letters(mut letters: Vec<DeadLetter>, killers: &[EntryId]) {
    letters.retain(|letter| letter.reason == "poison");
    let of: Vec<_> = letters.iter().map(|letter| letter.entry).collect();
    assert_eq!(of, killers);
    for letter in letters {
        assert_eq!(letter.deliveries, 3);
        assert_eq!((letter.original.len(), letter.index), (0, None));
        let told = "2 workers did not survive trying it alone; it has 2 fields with 23 bytes";
        assert!(letter.detail.starts_with(told), "{}", letter.detail);
    }
}

#[test]
fn an_entry_that_kills_its_workers_ends_as_poison() {
    let scene = Scene::start(&[]);
    scene.add_random(1, 60);
    let killer = scene.add_heartbeat(DEADLY);
    scene.add_random_later(2, 60);
    let (deaths, worker) = supervise(&scene, || scene.is_finished());
    assert!((1..=MOST_DEATHS).contains(&deaths), "{deaths} deaths");
    check_letters(scene.letters(), &[killer]);
    assert_eq!(scene.verify_but("a killer"), [killer]);
    scene.drain(worker);
}

#[test]
fn three_killers_in_a_row_are_written_off_and_nothing_beside_them() {
    let scene = Scene::start(&[]);
    scene.add_random(3, 30);
    let killers = [(); 3].map(|()| scene.add_heartbeat(DEADLY));
    scene.add_random_later(4, 60);
    let (deaths, _worker) = supervise(&scene, || scene.is_finished());
    assert!((3..=3 * MOST_DEATHS).contains(&deaths), "{deaths} deaths");
    check_letters(scene.letters(), &killers);
    assert_eq!(scene.verify_but("three killers"), killers);
}

/// One of many users of this partition of eight.
fn user_of(partition: u16, n: u32) -> String {
    let names = (0..).map(|m| format!("u{n}-{m}"));
    let mut fitting = names.filter(|name| rollcall::key::partition_of(name, 8) == partition);
    fitting.next().unwrap()
}

/// One process owns all partitions, and dies repeatedly on entries of two of them.
#[test]
fn of_a_process_that_owns_many_partitions_only_the_killers_are_written_off() {
    let scene = Scene::start(&[("partitions", "8")]);
    let mut conn = scene.connection();
    let mut killers = Vec::new();
    for partition in 0..8 {
        let stream = scene.deployment.stream(partition);
        for n in 0..40 {
            add(&mut conn, &stream, &heartbeat(&user_of(partition, n)));
            if n == 20 && [2, 5].contains(&partition) {
                killers.push(add(&mut conn, &stream, &pairs(&[("type", DEADLY)])));
            }
        }
    }
    let (deaths, _worker) = supervise(&scene, || scene.is_finished());
    assert!((2..=2 * MOST_DEATHS).contains(&deaths), "{deaths} deaths");
    assert_eq!(scene.verify_but("one process"), killers);
}

/// An entry that fails for another reason is not blamed for deaths that happen meanwhile.
#[test]
fn an_entry_that_only_fails_is_not_blamed_for_a_killer_in_another_partition() {
    let scene = Scene::start(&[("partitions", "8")]);
    let mut conn = scene.connection();
    let seq = scene.deployment.keys(0).changes_seq();
    command(&scene, &["SET", &seq, "theirs"]);
    for n in 0..20 {
        add(&mut conn, &scene.deployment.stream(0), &heartbeat(&user_of(0, n)));
        add(&mut conn, &scene.deployment.stream(1), &heartbeat(&user_of(1, n)));
    }
    let killers =
        [(); 2].map(|()| add(&mut conn, &scene.deployment.stream(1), &pairs(&[("type", DEADLY)])));
    let letters = || scene.command::<usize>(&["XLEN", &scene.deployment.keys(1).dead()]);
    let (deaths, _worker) = supervise(&scene, || letters() == killers.len());
    assert!((2..=2 * MOST_DEATHS).contains(&deaths), "{deaths} deaths");
    command(&scene, &["DEL", &seq]);
    scene.wait_finished(SOON, "the other partition goes on");
    assert_eq!(scene.verify_but("a failure beside"), killers);
}

/// Kills that hit no named entry: during a batch, after entries were tried alone, and while nothing happens.
#[test]
fn kills_while_nothing_is_named_condemn_nobody() {
    let scene = Scene::start(&[]);
    scene.add_random(5, 200);
    for pass in [1, 20, 20] {
        let failpoint = format!("after-read:{pass}");
        let mut worker = scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", &failpoint)]);
        assert_eq!(worker.wait(SOON).signal(), Some(ABORTED), "{}", worker.log());
    }
    let mut worker = scene.worker(&[]);
    scene.wait_finished(SOON, "what they left");
    for n in 0..3 {
        worker.kill();
        worker = scene.worker(&[]);
        wait_until(SOON, "the next one is there", || worker.log().contains("took the partition"));
        if n == 1 {
            scene.add_random_later(6, 30);
            scene.wait_finished(SOON, "works");
        }
    }
    scene.add_random_later(7, 30);
    scene.wait_finished(SOON, "works");
    scene.verify("killed in between");
}

/// Workers whose every step the test makes.
struct Hands {
    deployment: Deployment,
    connection: MultiplexedConnection,
}

impl Hands {
    async fn new() -> Self {
        let deployment = Deployment::start(&[]);
        let connection = deployment.async_connection(0).await;
        add(&mut deployment.connection(), &deployment.stream(0), &heartbeat("first"));
        add(&mut deployment.connection(), &deployment.stream(0), &heartbeat("second"));
        Self { deployment, connection }
    }

    fn worker(&self, name: &str) -> Ownership {
        self.deployment.ownership(0, name)
    }

    /// A worker takes the partition, whoever owns it.
    async fn take(&mut self, name: &str, cause: Cause) -> Joined {
        let ownership = self.worker(name);
        let seen = ownership.look(&mut self.connection).await.unwrap();
        let joined = ownership.join(&mut self.connection, &seen, &fence(false), cause).await;
        joined.unwrap().expect("nobody else takes it")
    }

    /// The same, and names the next entry.
    async fn take_and_name(&mut self, name: &str, cause: Cause) -> Joined {
        let joined = self.take(name, cause).await;
        let ownership = self.worker(name);
        let named = ownership.name_next(&mut self.connection, &joined.tenure, joined.cursor);
        assert!(named.await.unwrap());
        joined
    }
}

#[tokio::test]
async fn only_a_death_counts_and_only_on_what_the_dead_had_named() {
    let mut hands = Hands::new().await;
    hands.take("a", Cause::Free).await;
    assert_eq!(hands.take_and_name("b", Cause::Death).await.deaths, 0, "nothing was named");
    assert_eq!(hands.take_and_name("c", Cause::Stall).await.deaths, 0, "a stall");
    assert_eq!(hands.take_and_name("c", Cause::Again).await.deaths, 0, "a failure");
    let last = hands.take_and_name("d", Cause::Stall).await;
    let release = hands.worker("d").release(&mut hands.connection.clone(), &last.tenure, "").await;
    release.unwrap();
    assert_eq!(hands.take_and_name("e", Cause::Free).await.deaths, 0, "a handover");
    let joined = hands.take_and_name("f", Cause::Stall).await;
    let unname = hands.worker("f").unname(&mut hands.connection.clone(), &joined.tenure).await;
    unname.unwrap();
    assert_eq!(hands.take_and_name("g", Cause::Death).await.deaths, 0, "it took its naming back");
    assert_eq!(hands.take_and_name("h", Cause::Death).await.deaths, 1, "a death");
    assert_eq!(hands.take("i", Cause::Stall).await.deaths, 1, "remembered");
    assert_eq!(hands.take_and_name("j", Cause::Death).await.deaths, 1, "nothing was named again");
    // The applied entries were not to blame, and the entry after them was not named.
    let mut script = hands.deployment.script(0).await;
    let entries = crate::harness::read_stream(
        &mut hands.deployment.connection(),
        &hands.deployment.stream(0),
    );
    script.apply(&entries[..1]).await;
    assert_eq!(hands.take("k", Cause::Death).await.deaths, 0, "another entry");
}

#[tokio::test]
async fn a_former_owner_that_lives_takes_its_death_back() {
    let mut hands = Hands::new().await;
    let first = hands.take_and_name("a", Cause::Free).await;
    let second = hands.take_and_name("b", Cause::Death).await;
    let third = hands.take_and_name("c", Cause::Death).await;
    assert_eq!((second.deaths, third.deaths), (1, 2));
    let connection = &mut hands.connection.clone();
    hands.worker("a").is_innocent(connection, &first.tenure.term).await.unwrap();
    // The owner knew of two deaths, of which one is withdrawn.
    let owner = hands.worker("c");
    let skipped = owner.skip_next(connection, &third.tenure, third.cursor, ("", 2));
    assert_eq!(skipped.await.unwrap(), None);
    hands.worker("a").is_innocent(connection, &first.tenure.term).await.unwrap();
    assert_eq!(hands.take_and_name("d", Cause::Death).await.deaths, 2, "b and c");
    hands.worker("b").is_innocent(connection, &second.tenure.term).await.unwrap();
    hands.worker("c").is_innocent(connection, &third.tenure.term).await.unwrap();
    assert_eq!(hands.take("e", Cause::Stall).await.deaths, 0);
}

/// If no subscription shows that workers are alive, those that are stopped seem to have died on the entry they had
/// named; they report that they are alive once they wake.
#[test]
fn workers_that_only_stood_still_on_an_entry_do_not_condemn_it() {
    let scene = Scene::start(&[]);
    scene.command::<()>(&["ACL", "SETUSER", "default", "-subscribe"]);
    scene.add_random(8, 50);
    let fails = |at: &str| scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", at)]);
    assert_eq!(fails("after-read:1").wait(SOON).signal(), Some(ABORTED));
    let sleepers = [fails("after-naming:1:stop"), fails("after-naming:1:stop")];
    wait_until(SOON, "both stand still", || sleepers.iter().all(Worker::is_stopped));
    let deaths = || scene.command::<Option<String>>(&["HGET", "rollcall:meta", "deaths"]);
    assert_eq!(deaths().unwrap().split(' ').count(), 2, "the first was taken for dead");
    let _heir = scene.worker(&["--takeover", "5s"]);
    wait_until(SOON, "so is the second", || {
        deaths().is_some_and(|deaths| deaths.split(' ').count() == 3)
    });
    sleepers.iter().for_each(|sleeper| sleeper.signal("CONT"));
    scene.wait_finished(SOON, "it is tried again");
    scene.verify("nobody died");
}

/// Two workers that seem to have died on an entry get the time to report that they are alive.
#[tokio::test(flavor = "multi_thread")]
async fn before_an_entry_is_written_off_its_accusers_are_heard() {
    for is_heard in [true, false] {
        let mut hands = Hands::new().await;
        hands.take_and_name("a", Cause::Free).await;
        let second = hands.take_and_name("b", Cause::Death).await;
        let worker = Worker::start(&hands.deployment.server.url(), &["--takeover", "1s"], &[]);
        let took = "took the partition";
        wait_until(SOON, "it takes over", || worker.log().contains(took));
        if is_heard {
            let accuser = hands.worker("b");
            accuser.is_innocent(&mut hands.connection, &second.tenure.term).await.unwrap();
        }
        let (mut conn, keys) = (hands.deployment.connection(), hands.deployment.keys(0));
        let stream = hands.deployment.stream(0);
        wait_until(SOON, "finished", || crate::harness::is_finished(&mut conn, &keys, &stream));
        let letters = crate::support::dump::dead_letters(&mut conn, &keys);
        assert_eq!(letters.len(), usize::from(!is_heard), "{letters:?}\n{}", worker.log());
    }
}
