//! What is wrong with a deployment: settings, keys, the stream, its group, owners and janitors.

use super::Patient;
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::SOON;

fn now_ms(patient: &Patient) -> u64 {
    crate::support::dump::server_now(&mut crate::support::dump::connect(&patient.server.url()))
}

/// A server with a running worker and janitor.
fn at_work() -> (Patient, Worker) {
    let patient = Patient::with_args(&[]);
    let run = Worker::start_as("run", &patient.server.url(), &[], &[]);
    wait_until(SOON, "it works", || {
        patient.finding("owner").found().ends_with(", 1 at work")
            && patient.finding("janitor").found().starts_with("swept")
    });
    (patient, run)
}

#[test]
fn a_fresh_server_has_only_warnings_and_a_working_one_is_well() {
    let patient = Patient::with_args(&[]);
    for (check, words) in [("group", "no stream yet"), ("janitor", "no janitor has swept")] {
        let finding = patient.suffers(check, "warning", words);
        assert!(finding.commands()[0].starts_with("rollcall "), "{:?}", finding.commands());
    }
    patient.send("XADD rollcall:events * type heartbeat user a");
    let finding = patient.suffers("group", "warning", "has no group");
    // The remedy as printed.
    let words: Vec<&str> = finding.commands()[0].split(' ').collect();
    assert_eq!(words, ["rollcall", "worker", "--redis-url", &patient.server.url()]);
    let _worker = Worker::start_as(words[1], words[3], &[], &[]);
    wait_until(SOON, "it works", || patient.finding("owner").found().ends_with(", 1 at work"));
    patient.suffers("janitor", "failure", "no janitor has swept");
    let _janitor = Worker::start_as("janitor", words[3], &[], &[]);
    wait_until(SOON, "it sweeps", || patient.finding("janitor").level() == "ok");
    for check in ["group", "owner", "trouble", "trimming", "ids", "entries", "caps", "settings"] {
        patient.is_well(check);
    }
    let old = now_ms(&patient) - 120_000;
    drop(_janitor);
    patient.send(&format!("HSET rollcall:janitor last_run {old}"));
    patient.suffers("janitor", "failure", "the last sweep was 12");
}

#[test]
fn a_repartition_that_was_stopped_is_to_be_run_again() {
    let (mut patient, run) = at_work();
    drop(run);
    patient.send("HSET rollcall:meta moving 1:2");
    let finding = patient.suffers("repartition", "failure", "from 1 to 2 partitions");
    finding.run_remedy();
    patient.examined_with(&["--partitions", "2"]);
    patient.is_well("settings");
}

#[test]
fn settings_that_differ_are_named_with_both_remedies() {
    let (mut patient, run) = at_work();
    drop(run);
    patient.is_well("settings");
    patient.examined_with(&["--presence-ttl", "60s", "--recent-cap", "5"]);
    let finding =
        patient.suffers("settings", "failure", "presence-ttl is 1m here, 5m in the deployment");
    assert!(finding.found().contains("recent-cap is 5 here, 1000000"), "{}", finding.found());
    assert!(finding.advice().contains("--presence-ttl 5m --recent-cap 1000000"));
    finding.run_remedy();
    patient.is_well("settings");
    patient.examined_with(&["--partitions", "4"]);
    let finding =
        patient.suffers("partitions", "failure", "has partitions = 1, but this process has 4");
    assert!(finding.advice().contains("--partitions 1"));
    patient.examined_with(&[]);
    patient.is_well("partitions");
}

#[test]
fn keys_that_others_took_are_put_out_of_the_way() {
    let patient = Patient::with_args(&[]);
    for key in ["login:", "presence:users", "rollcall:meta", "rollcall:changes:seq", "viewed:"] {
        let fault = format!("RPUSH {key} x");
        patient.is_cured("shared keys", &[&fault], "failure", &format!("{key} holds a list"));
    }
    patient.send("SET user-activity/al 1 EX 300");
    patient.send("SADD sessions:doc:a:count:users u");
    patient.is_well("own keys");
    for key in
        ["user-activity/it's", "online-users/7", "viewed:*t", "session:s", "sessions:doc:d:users"]
    {
        let fault = format!("HSET {key} a b");
        patient.is_cured("own keys", &[&fault], "warning", &format!("{key} holds a hash"));
    }
    let many: Vec<String> = (0..9).map(|n| format!("RPUSH session:{n} x")).collect();
    many.iter().for_each(|command| drop(patient.send(command)));
    patient.suffers("own keys", "warning", "and 4 more").run_remedy();
    patient.suffers("own keys", "warning", "session:").run_remedy();
    patient.is_well("own keys");
}

/// An expiry that should not exist, one that is missing, and recent repairs.
#[test]
fn expiries_of_others_are_found() {
    let (patient, run) = at_work();
    patient.send("XADD rollcall:events * type heartbeat user al");
    wait_until(SOON, "applied", || patient.finding("own keys").found().starts_with("2 examined"));
    patient.is_well("expiries");
    patient.send("EXPIRE presence:users 60");
    let lately = "presence:users: another program set an expiry";
    wait_until(SOON, "it is put right", || patient.finding("expiries").found().contains(lately));
    patient.is_cured("expiries", &[], "warning", lately);
    // Without a running process it expires.
    drop(run);
    let words = "presence:users expires in 5";
    patient.is_cured("expiries", &["EXPIRE presence:users 60"], "failure", words);
    for (fault, words) in [
        ("PERSIST user-activity/al", "user-activity/al has no expiry"),
        ("SET sessions:doc:d:count 1 EX 60", "sessions:doc:d:count has an expiry"),
    ] {
        patient.is_cured("own keys", &[fault], "warning", words);
    }
}

/// A janitor's sign of life that is dated ahead of the clock is from before the clock went back, and proves nothing.
#[test]
fn a_sign_of_life_from_before_the_clock_went_back_is_none() {
    let (patient, run) = at_work();
    drop(run);
    let ahead = now_ms(&patient) + 300_000;
    patient.send(&format!("HSET rollcall:janitor last_run {ahead}"));
    patient.suffers("janitor", "failure", "s ahead of the server's clock");
}

#[test]
fn what_is_near_its_cap_is_found() {
    let mut patient = Patient::with_args(&[]);
    patient.examined_with(&["--dead-cap", "10", "--recent-cap", "10"]);
    let letter = "XADD rollcall:dead * entry_id 1-0";
    patient.is_cured("caps", &[letter; 9], "warning", "9 of 10 dead letters");
    patient.send("ZADD recent: 1 a 1 b 1 c 1 d 1 e 1 f 1 g 1 h 1 i");
    patient.suffers("caps", "warning", "9 of 10 tokens");
}

/// While a worker runs: what was applied is not applied again, and what comes is applied.
#[test]
fn ids_ahead_of_the_clock_are_found_and_set_back() {
    let (patient, _run) = at_work();
    patient.is_well("ids");
    let view = "type view user a token t item books";
    patient.send(&format!("XADD rollcall:events * {view}"));
    let soon = now_ms(&patient) + 30_000;
    patient.send(&format!("XADD rollcall:events {soon}-0 {view}"));
    patient.suffers("ids", "warning", "ahead of the server's clock");
    let last = u64::MAX;
    patient.send(&format!("XADD rollcall:events {last}-{last} {view}"));
    let views = |count: &str| {
        let score = redis::from_redis_value::<Option<String>>(patient.send("ZSCORE viewed: books"));
        score.unwrap().as_deref() == Some(count)
    };
    wait_until(SOON, "all are applied", || views("3"));
    patient.send(&format!("XDEL rollcall:events {soon}-0"));
    patient.is_cured("ids", &[], "failure", "ahead of the server's clock");
    patient.send(&format!("XADD rollcall:events * {view}"));
    wait_until(SOON, "new entries are applied", || views("4"));
    wait_until(SOON, "nothing waits", || {
        patient.finding("group").found() == "rollcall: 0 entries behind the cursor"
    });
    assert!(views("4"), "each once");
}

#[test]
fn entries_that_no_worker_can_read_are_found() {
    let patient = Patient::with_args(&[]);
    patient.send("XADD rollcall:events * type heartbeat user a");
    patient.is_well("entries");
    patient.send("XADD rollcall:events * type nonsense user a");
    patient.send("XADD rollcall:events * foreign field");
    let finding = patient.suffers("entries", "warning", "of the newest 3 entries");
    assert!(finding.found().contains("1 unknown_type"), "{}", finding.found());
}

#[test]
fn an_owner_that_is_gone_or_stands_still_is_found() {
    let (patient, mut run) = at_work();
    assert_eq!(run.terminate(), 0);
    let heartbeat = "XADD rollcall:events * type heartbeat user a";
    patient.suffers("owner", "warning", "no worker owns the partition");
    patient.send(heartbeat);
    patient.suffers("owner", "failure", "no worker owns the partition");
    // The remedy: a worker.
    let start = || Worker::start(&patient.server.url(), &[], &[]);
    let is_at_work = || {
        let (owner, group) = (patient.finding("owner"), patient.finding("group"));
        owner.level() == "ok" && group.found() == "rollcall: 0 entries behind the cursor"
    };
    let mut worker = start();
    wait_until(SOON, "it works", is_at_work);
    worker.kill();
    patient.suffers("owner", "warning", "is gone, and no worker has taken over");
    let worker = start();
    wait_until(SOON, "another one works", is_at_work);
    worker.signal("STOP");
    patient.is_well("owner");
    patient.send(heartbeat);
    patient.suffers("owner", "failure", "shows no sign of life");
    worker.signal("CONT");
    wait_until(SOON, "it goes on", is_at_work);
}

#[test]
fn what_workers_died_on_and_what_others_do_to_the_group_is_found() {
    let (mut patient, mut run) = at_work();
    assert_eq!(run.terminate(), 0);
    patient.send("XADD rollcall:events * type heartbeat user a");
    patient.send("XREADGROUP GROUP rollcall stranger STREAMS rollcall:events >");
    patient
        .suffers("trouble", "warning", "1 entries are pending in the group rollcall")
        .run_remedy();
    let cursor =
        redis::from_redis_value::<String>(patient.send("HGET rollcall:meta cursor")).unwrap();
    let mut conn = crate::support::dump::connect(&patient.server.url());
    let on_it = format!("{cursor} 7");
    redis::cmd("HSET").arg(&["rollcall:meta", "deaths", &on_it]).exec(&mut conn).unwrap();
    patient
        .suffers("trouble", "warning", "deaths of workers on the entry after 0-0: 1")
        .run_remedy();
    // The remedy of both: a worker.
    let _worker = Worker::start(&patient.server.url(), &[], &[]);
    wait_until(SOON, "all is well", || patient.finding("trouble").level() == "ok");
    patient.examined_with(&["--group", "another"]);
    patient.suffers("group", "warning", "has no group another");
}

#[test]
fn state_of_the_format_before_is_no_failure() {
    let (patient, mut run) = at_work();
    assert_eq!(run.terminate(), 0);
    patient.send("HSET rollcall:meta format 1");
    patient.suffers("settings", "warning", "format 1, that of the previous version").run_remedy();
    let _worker = Worker::start(&patient.server.url(), &[], &[]);
    wait_until(SOON, "it is taken over", || patient.finding("settings").level() == "ok");
    patient.send("HSET rollcall:meta format 9");
    patient.suffers("settings", "failure", "format is 2 here, 9 in the deployment");
}

#[test]
fn a_group_that_keeps_the_stream_from_being_trimmed_is_found() {
    let mut patient = Patient::with_args(&[]);
    patient.send("XGROUP CREATE rollcall:events rollcall 0 MKSTREAM");
    patient.send("XADD rollcall:events 1000-1 type heartbeat user a");
    patient.send("XADD rollcall:events * type heartbeat user a");
    patient.suffers("trimming", "warning", "group rollcall has not finished");
    patient.send("XGROUP SETID rollcall:events rollcall $");
    patient.is_well("trimming");
    // If others move the group, the cursor still counts.
    patient.send("HSET rollcall:meta cursor 0-0");
    patient.suffers("trimming", "warning", "group rollcall has not finished");
    patient.send("HSET rollcall:meta cursor 1000-1");
    patient.is_well("trimming");
    patient.send("XGROUP CREATE rollcall:events audit 0");
    patient.is_cured("trimming", &[], "warning", "group audit has not finished");
    patient.examined_with(&["--keep", "0s"]);
    patient.suffers("trimming", "warning", "group rollcall");
}
