//! Trouble with the server: it forgets, refuses, stalls, dies, loses its keys to others. Nothing that is still in
//! the stream is lost, nothing sticks, and no good entry is written off for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis::Connection;
use rollcall::entry::Field;
use rollcall::redis::private_server::Options;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, Traffic, heartbeat, in_parallel, metric, page, try_command, wait_for_page};
use crate::support::dump;
use crate::support::events::field;

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

fn pairs(fields: &[(&str, &str)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| field(name, value)).collect()
}

/// Two workers under traffic while something is done to the server again and again; afterwards all is well.
fn survives(what: &str, scene: &mut Scene, times: u32, mut blow: impl FnMut(&mut Scene, &mut Rng)) {
    let mut rng = Rng::with_seed(23);
    let workers = [scene.worker(&[]), scene.worker(&[])];
    let traffic = Traffic::start(scene, 23, 250);
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(rng.u64(20..250)));
        blow(scene, &mut rng);
    }
    wait_until(SOON, "traffic goes on after it", || {
        let mut conn = scene.connection();
        try_command::<u64>(&mut conn, &["XLEN", &scene.deployment.stream(0)]).is_ok_and(|len| len > 0)
    });
    traffic.stop();
    // Entries that were delivered and dropped are claimed after a second; the longest pause is five.
    scene.wait_finished(SOON, what);
    scene.verify(what);
    drop(workers);
}

fn command(scene: &Scene, words: &[&str]) {
    try_command::<redis::Value>(&mut scene.connection(), words).unwrap();
}

// ---- what the server forgets

#[test]
fn lost_scripts_are_loaded_again() {
    survives("SCRIPT FLUSH", &mut Scene::start(&[]), 12, |scene, _| command(scene, &["SCRIPT", "FLUSH"]));
}

#[test]
fn a_flushed_server_is_begun_anew() {
    let mut scene = Scene::start(&[("thresholds", "2:1")]);
    let _janitor = scene.janitor(&[]);
    survives("FLUSHALL", &mut scene, 8, |scene, _| command(scene, &["FLUSHALL"]));
}

#[test]
fn bookkeeping_that_is_gone_is_made_anew() {
    survives("DEL of the bookkeeping", &mut Scene::start(&[]), 8, |scene, rng| {
        let keys = ["rollcall:meta", "rollcall:consumers", "rollcall:suspects", "rollcall:janitor"];
        command(scene, &["DEL", rng.choice(keys).unwrap()]);
    });
}

#[test]
fn a_removed_consumer_goes_on_reading() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    wait_until(SOON, "the worker joins", || scene.consumers().len() == 1);
    command(&scene, &["XGROUP", "DELCONSUMER", &scene.deployment.stream(0), "rollcall", &scene.consumers()[0]]);
    scene.add_random(1, 50);
    scene.wait_finished(SOON, "reads on");
    scene.verify("XGROUP DELCONSUMER");
    scene.drain(worker);
    assert_eq!(scene.consumers(), Vec::<String>::new());
}

fn wait_until_recorded(scene: &Scene) {
    let janitor = scene.deployment.keys(0).janitor();
    wait_until(SOON, "the janitor records the finished id", || {
        let last: Vec<(String, redis::Value)> =
            scene.command(&["XREVRANGE", &scene.deployment.stream(0), "+", "-", "COUNT", "1"]);
        let recorded: Option<String> = scene.command(&["HGET", &janitor, "finished:rollcall"]);
        recorded == last.first().map(|(id, _)| id.clone())
    });
}

#[test]
fn a_destroyed_group_is_made_anew_where_the_old_one_had_finished() {
    in_parallel([1, 2, 3], |seed| {
        println!("seed {seed}");
        let scene = Scene::start(&[]);
        let (_worker, _janitor) = (scene.worker(&[]), scene.janitor(&[]));
        for round in 0..3 {
            scene.add_random_later(seed * 10 + round, 60);
            scene.wait_finished(SOON, "finishes");
            wait_until_recorded(&scene);
            command(&scene, &["XGROUP", "DESTROY", &scene.deployment.stream(0), "rollcall"]);
        }
        scene.add_random_later(seed, 60);
        scene.wait_finished(SOON, "finishes in the new group");
        scene.verify("XGROUP DESTROY");
    });
}

#[test]
fn a_group_destroyed_or_a_stream_deleted_under_traffic_does_not_stick() {
    in_parallel([&["XGROUP", "DESTROY", "rollcall:events", "rollcall"][..], &["DEL", "rollcall:events"]], |blow| {
        let scene = Scene::start(&[]);
        let (_janitor, _workers) = (scene.janitor(&[]), [scene.worker(&[]), scene.worker(&[])]);
        let traffic = Traffic::start(&scene, 3, 250);
        let mut rng = Rng::with_seed(3);
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(rng.u64(50..300)));
            command(&scene, blow);
        }
        traffic.stop();
        scene.add_heartbeat("after");
        scene.wait_finished(SOON, "finishes in the new group");
        assert!(scene.is_present("after|"));
        let keys = scene.deployment.keys(0);
        let mut conn = scene.connection();
        let state = dump::dump(&mut conn, &keys);
        dump::check_changes(&dump::changes(&mut conn, &keys), &state, &keys).unwrap();
    });
}

// ---- what the server refuses, and when it stalls or dies

/// Runs under traffic: something is wrong for a while, and then no more.
fn outlasts(what: &str, wrong: impl Fn(&Scene), right: impl Fn(&Scene)) {
    let mut scene = Scene::start(&[]);
    survives(what, &mut scene, 2, |scene, rng| {
        wrong(scene);
        std::thread::sleep(Duration::from_millis(rng.u64(300..700)));
        right(scene);
    });
}

#[test]
fn refusals_of_the_server_lose_nothing() {
    let all: [(&str, &[&str], &[&str]); 4] = [
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("NOREPLICAS", &["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]),
        ("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        ("connections", &["CLIENT", "KILL", "TYPE", "normal"], &["CLIENT", "KILL", "TYPE", "normal"]),
    ];
    in_parallel(all, |(what, wrong, right)| outlasts(what, |scene| command(scene, wrong), |scene| command(scene, right)));
}

#[test]
fn a_stall_of_the_server_loses_nothing() {
    let server = |scene: &Scene, signal: &str| {
        let pid = scene.deployment.server.pid().unwrap();
        let kill = format!("kill -{signal} {pid}");
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    };
    in_parallel(["pause", "stop", "busy"], |what| match what {
        // Twice as long as a batch may take, and as long as it takes until others claim it.
        "pause" => outlasts(what, |scene| command(scene, &["CLIENT", "PAUSE", "1000", "ALL"]), |_| ()),
        "stop" => outlasts(what, |scene| server(scene, "STOP"), |scene| server(scene, "CONT")),
        _ => outlasts(
            what,
            |scene| {
                command(scene, &["CONFIG", "SET", "busy-reply-threshold", "10"]);
                let mut conn = scene.connection();
                std::thread::spawn(move || try_command::<redis::Value>(&mut conn, &["EVAL", "while true do end", "0"]));
                let client = redis::Client::open(scene.url()).unwrap();
                wait_until(SOON, "the server is busy", || {
                    let conn = client.get_connection();
                    conn.is_err() || try_command::<String>(&mut conn.unwrap(), &["PING"]).is_err()
                });
            },
            |scene| {
                let info = redis::Client::open(scene.url()).unwrap();
                wait_until(SOON, "the script is killed", || {
                    info.get_connection().is_ok_and(|mut conn: Connection| {
                        let _told = try_command::<String>(&mut conn, &["SCRIPT", "KILL"]);
                        try_command::<String>(&mut conn, &["PING"]).is_ok()
                    })
                });
            },
        ),
    });
}

#[test]
fn a_server_killed_and_restarted_has_everything() {
    let options = Options {
        appendonly: true,
        extra_args: ["--appendfsync", "always"].map(str::to_owned).to_vec(),
        ..Options::default()
    };
    let mut scene = Scene::start_with(&[], options);
    survives("SIGKILL of the server", &mut scene, 4, |scene, _| scene.deployment.server.restart().unwrap());
}

/// The server comes back with what it had some time ago: stream, pending entries and state together. What
/// workers still have in hand of the time after that must not have an effect.
#[test]
fn a_server_that_lost_its_last_moments_gets_no_effects_of_lost_entries() {
    let mut scene = Scene::start(&[]);
    survives("an older snapshot", &mut scene, 4, |scene, rng| {
        command(scene, &["SAVE"]);
        std::thread::sleep(Duration::from_millis(rng.u64(50..300)));
        scene.deployment.server.restart().unwrap();
    });
}

#[test]
fn a_server_that_is_away_does_not_flood_the_log() {
    in_parallel([("1", "worker"), ("1", "run"), ("8", "worker")], |(partitions, role)| {
        let mut scene = Scene::start(&[("partitions", partitions)]);
        let worker = Worker::start_as(role, &scene.url(), &["--partitions", partitions], &[]);
        let joined = partitions.parse::<usize>().unwrap();
        wait_until(SOON, "the worker joins", || worker.log().matches("created the consumer group").count() == joined);
        let before = worker.log().lines().count();
        scene.deployment.server.kill();
        let start = Instant::now();
        let count = |log: &str| log.lines().skip(before).filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
        wait_until(SOON, "three seconds pass", || start.elapsed() > Duration::from_secs(3));
        let lines = count(&worker.log());
        assert!((1..=30).contains(&lines), "{role}, {partitions} partitions: {lines} lines in 3 s");
        scene.deployment.server.restart().unwrap();
        scene.add_random(1, 20);
        scene.wait_finished(SOON, "goes on by itself");
    });
}

/// Only the connection that applies breaks. The other one still waits for new entries: what it gets must not
/// lie about until the claim time.
#[test]
fn a_broken_connection_delays_nothing_until_the_claim_time() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&["--claim-idle", "60s"]);
    for round in 0..3 {
        scene.add_heartbeat(&format!("before{round}"));
        scene.wait_finished(SOON, "works before");
        let clients: String = scene.command(&["CLIENT", "LIST"]);
        let applying = clients.lines().find(|line| line.contains("cmd=evalsha")).unwrap();
        let id = applying.split(' ').find_map(|part| part.strip_prefix("id=")).unwrap();
        command(&scene, &["CLIENT", "KILL", "ID", id]);
        scene.add_heartbeat(&format!("meets{round}"));
        wait_until(SOON, "connects again", || scene.is_present(&format!("meets{round}|")));
        scene.add_heartbeat(&format!("after{round}"));
        let what = format!("round {round}: nothing waits to be claimed:\n{}", worker.log());
        wait_until(Duration::from_secs(5), &what, || scene.is_finished());
    }
    scene.verify("CLIENT KILL of one connection");
}

// ---- what is not an entry's fault does not make it a dead letter

/// Good entries, and trouble that makes every try to apply them fail, longer than a poisonous entry would be
/// given. Once it is over they are applied as if nothing had been.
#[test]
fn trouble_that_is_not_the_entrys_fault_makes_no_dead_letter() {
    const KEYS: &str = "~rollcall:* ~login: ~recent: ~presence:users ~sessions:* ~session:* ~user-activity/*";
    let no_online = format!("ACL SETUSER default resetkeys {KEYS} ~viewed:*");
    let no_viewed = format!("ACL SETUSER default resetkeys {KEYS} ~viewed: ~online-users/*");
    let all: [(&str, &str, &[(&str, &str)]); 5] = [
        ("ACL SETUSER default -zadd", "ACL SETUSER default +zadd", &[("type", "login"), ("user", "u"), ("token", "t")]),
        ("ACL SETUSER default -xadd", "ACL SETUSER default +xadd", &[("type", "login"), ("user", "u"), ("token", "t")]),
        (&no_online, "ACL SETUSER default allkeys", &[("type", "heartbeat"), ("user", "u")]),
        (&no_viewed, "ACL SETUSER default allkeys", &[("type", "view"), ("user", "u"), ("token", "t"), ("item", "i")]),
        ("SET rollcall:changes:seq x", "DEL rollcall:changes:seq", &[("type", "heartbeat"), ("user", "u")]),
    ];
    in_parallel(all, |(wrong, right, entry)| {
        let scene = Scene::start(&[]);
        let worker = scene.worker(&["--max-deliveries", "2"]);
        wait_until(SOON, "the worker joins", || scene.consumers().len() == 1);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let run = |line: &str| command(&scene, &words(line).iter().map(String::as_str).collect::<Vec<_>>());
        let id = scene.add(&pairs(&[("type", "heartbeat"), ("user", "before")]));
        scene.wait_finished(SOON, "works before");
        if wrong.contains("xadd") {
            // The entry comes by another user, who may.
            run("ACL SETUSER producer on nopass allkeys allcommands");
        }
        run(wrong);
        let url = scene.url().replace("//", "//producer:x@");
        let mut producer = if wrong.contains("xadd") { dump::connect(&url) } else { scene.connection() };
        crate::scene::add(&mut producer, &scene.deployment.stream(0), &pairs(entry));
        wait_until(SOON, "the worker fails some times", || {
            worker.log().matches("not projecting").count() >= 6 || scene.is_finished()
        });
        run(right);
        scene.wait_finished(SOON, wrong);
        let letters = scene.letters();
        assert!(letters.is_empty(), "{wrong}, after {id}: {} {}", letters[0].reason, letters[0].detail);
        scene.verify(wrong);
    });
}

/// Memory so short that a large entry cannot be sent, while small commands go through.
#[test]
fn a_large_entry_outlasts_short_memory() {
    let scene = Scene::start(&[]);
    let data = format!("\"{}\"", "x".repeat(900 << 10));
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", &data)]));
    let used: String = scene.command(&["INFO", "memory"]);
    let used: u64 = used.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok()).unwrap();
    command(&scene, &["CONFIG", "SET", "maxmemory", &(used + (600 << 10)).to_string()]);
    let worker = scene.worker(&["--max-deliveries", "2", "--claim-idle", "60s"]);
    wait_until(SOON, "the worker fails some times", || {
        worker.log().matches("kind=\"oom\"").count() >= 6 || scene.is_finished()
    });
    command(&scene, &["CONFIG", "SET", "maxmemory", "0"]);
    scene.wait_finished(SOON, "memory is there again");
    let letters = scene.letters();
    assert!(letters.is_empty(), "{} {}:\n{}", letters[0].reason, letters[0].detail, worker.log());
    scene.verify("short memory");
}

// ---- keys that hold something else

#[test]
fn an_entry_whose_key_is_taken_becomes_a_dead_letter_and_the_key_stays() {
    in_parallel(["", "after-reply:1", "after-fold:2"], |failpoint| {
        let scene = Scene::start(&[]);
        let foreign: [&[&str]; 6] = [
            &["RPUSH", "user-activity/x", "theirs"],
            &["SET", "viewed:t", "theirs"],
            &["RPUSH", "session:s", "theirs"],
            &["SET", "sessions:doc:d:users", "theirs"],
            &["RPUSH", "sessions:doc:e:users:count", "theirs"],
            &["SET", "viewed:t%|", "theirs"],
        ];
        foreign.iter().for_each(|words| command(&scene, words));
        let hit: Vec<Vec<Field>> = vec![
            pairs(&[("type", "heartbeat"), ("user", "x")]),
            pairs(&[("type", "view"), ("user", "v"), ("token", "t"), ("item", "i")]),
            pairs(&[("type", "session"), ("sid", "s"), ("data", "{}")]),
            pairs(&[("type", "document"), ("doc", "d"), ("user", "y"), ("action", "join")]),
            pairs(&[("type", "document"), ("doc", "e:users"), ("user", "y"), ("action", "leave")]),
            pairs(&[("type", "view"), ("user", "v"), ("token", "t%|"), ("item", "i")]),
            pairs(&[("type", "heartbeat"), ("user", "x"), ("ip", "2")]),
            pairs(&[("data", r#"[{"type":"heartbeat","user":"packed"},{"type":"nonsense"},{"type":"view","user":"x","token":"u","item":"i"}]"#)]),
        ];
        let ids: BTreeSet<_> = hit
            .iter()
            .enumerate()
            .map(|(n, fields)| {
                scene.add_heartbeat(&format!("good{n}"));
                scene.add(fields)
            })
            .collect();
        if !failpoint.is_empty() {
            scene.worker_with(&[], &[("ROLLCALL_TEST_FAILPOINT", failpoint)]).wait(SOON);
        }
        let _worker = scene.worker(&[]);
        scene.wait_finished(SOON, "nothing sticks");
        let letters = scene.letters();
        assert!(letters.iter().all(|letter| letter.reason == "wrong_type" && letter.index.is_none()), "{letters:?}");
        assert_eq!(letters.len(), hit.len(), "each once: {letters:?}");
        assert_eq!(letters.iter().map(|letter| letter.entry).collect::<BTreeSet<_>>(), ids);
        for (letter, fields) in letters.iter().zip(&hit) {
            assert_eq!(letter.original, *fields);
        }
        // Their effects on other keys stand; neighbours never noticed.
        for user in (0..hit.len()).map(|n| format!("good{n}|")).chain(["x|", "x|2", "packed|"].map(str::to_owned)) {
            assert!(scene.is_present(&user), "{user}");
        }
        assert!(scene.command::<bool>(&["HEXISTS", "sessions:active", "s"]));
        assert_eq!(scene.command::<String>(&["HGET", "login:", "t"]), "v");
        assert!(!scene.command::<bool>(&["EXISTS", "viewed:"]), "views of dead letters are not counted");
        for words in foreign {
            assert_eq!(scene.command::<i64>(&["TTL", words[1]]), -1, "{}", words[1]);
            let kind = if words[0] == "SET" { "string" } else { "list" };
            assert_eq!(scene.command::<String>(&["TYPE", words[1]]), kind, "{}", words[1]);
        }
    });
}

/// Session data that was Rollcall's, and then another's list of the same name.
#[test]
fn a_key_taken_later_is_left_alone() {
    let scene = Scene::start(&[]);
    let _worker = scene.worker(&[]);
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", "{}")]));
    scene.wait_finished(SOON, "the data is there");
    command(&scene, &["DEL", "session:s"]);
    command(&scene, &["RPUSH", "session:s", "theirs"]);
    scene.add(&pairs(&[("type", "session"), ("sid", "s")]));
    scene.wait_finished(SOON, "touched");
    assert_eq!(scene.command::<i64>(&["TTL", "session:s"]), -1, "a touch gives it no expiry");
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("action", "terminate")]));
    scene.wait_finished(SOON, "terminated");
    assert_eq!(scene.command::<String>(&["TYPE", "session:s"]), "list", "an ending does not delete it");
}

#[test]
fn a_taken_key_of_a_document_does_not_stop_the_janitor() {
    let scene = Scene::start(&[("document-ttl", "1s")]);
    let _worker = scene.worker(&[]);
    for doc in ["d0", "d1", "d2"] {
        scene.add(&pairs(&[("type", "document"), ("doc", doc), ("user", "u"), ("action", "join")]));
    }
    scene.wait_finished(SOON, "joined");
    command(&scene, &["SET", "sessions:doc:d1:users", "theirs"]);
    let janitor = scene.janitor(&[]);
    let gone = |key: &str| !scene.command::<bool>(&["EXISTS", key]);
    wait_until(Duration::from_secs(5), "the users of the other documents go", || {
        ["d0", "d2"].iter().all(|doc| {
            gone(&format!("sessions:doc:{doc}:users")) && gone(&format!("sessions:doc:{doc}:count"))
        })
    });
    assert_eq!(scene.command::<String>(&["GET", "sessions:doc:d1:users"]), "theirs");
    let changes = dump::changes(&mut scene.connection(), &scene.deployment.keys(0));
    let left = changes.iter().filter(|change| change["kind"] == b"document_left").count();
    assert!(left >= 2, "the changes are recorded: {changes:?}");
    wait_until_recorded(&scene);
    assert!(!janitor.log().contains("not sweeping"), "{}", janitor.log());
}

#[test]
fn a_taken_shared_key_stops_the_worker_until_it_is_free() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[HTTP[0], HTTP[1], "--claim-idle", "60s"]);
    wait_for_page(&worker, "/readyz", |status, _| status == 200);
    for key in ["presence:users", "recent:", "rollcall:dead", "sessions:active", "rollcall:tokens:ended"] {
        command(&scene, &["DEL", key]);
        command(&scene, &["SET", key, "theirs"]);
        scene.add(&pairs(&[("type", "nonsense")]));
        scene.add(&pairs(&[("type", "login"), ("user", "u"), ("token", key)]));
        let body = wait_for_page(&worker, "/readyz", |status, _| status == 503);
        assert!(body.contains(key), "says which: {body}");
        assert_eq!(page(&worker, "/livez").0, 200, "waiting is no reason to be restarted");
        assert_eq!(scene.command::<String>(&["GET", key]), "theirs");
        command(&scene, &["DEL", key]);
        scene.wait_finished(SOON, "goes on once the key is free");
        wait_for_page(&worker, "/readyz", |status, _| status == 200);
    }
    let stream = scene.deployment.stream(0);
    command(&scene, &["SET", &stream, "theirs"]);
    wait_for_page(&worker, "/readyz", |status, body| status == 503 && body.contains(&stream));
    command(&scene, &["DEL", &stream]);
    scene.add_heartbeat("after");
    wait_until(SOON, "goes on with the new stream", || scene.is_present("after|"));
}

#[test]
fn a_giant_entry_is_written_off_once_even_if_a_shared_key_is_taken() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    wait_until(SOON, "the worker joins", || scene.consumers().len() == 1);
    command(&scene, &["SET", "presence:users", "theirs"]);
    let mut giant = heartbeat("giant");
    giant.extend((0..4_000).map(|n| field(&n.to_string(), "")));
    let id = scene.add(&giant);
    wait_until(SOON, "the worker stops", || worker.log().matches("not projecting").count() >= 2);
    command(&scene, &["DEL", "presence:users"]);
    scene.wait_finished(SOON, "goes on once the key is free");
    let letters = scene.letters();
    assert_eq!(letters.iter().map(|letter| letter.entry).collect::<Vec<_>>(), [id]);
    scene.verify("a giant");
}

// ---- entries that are gone, and entries that are poison

/// Delivers what there is to a consumer that never comes back.
fn deliver_to_ghost(scene: &Scene) {
    let stream = scene.deployment.stream(0);
    let mut conn = scene.connection();
    let _exists = try_command::<redis::Value>(&mut conn, &["XGROUP", "CREATE", &stream, "rollcall", "0"]);
    command(scene, &["XREADGROUP", "GROUP", "rollcall", "ghost", "COUNT", "1000", "STREAMS", &stream, ">"]);
}

#[test]
fn entries_trimmed_while_pending_are_counted_and_do_not_stick() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&HTTP);
    wait_until(SOON, "the worker joins", || scene.consumers().len() == 1);
    let stream = scene.deployment.stream(0);
    // First what others have, then what it has itself, which it reads again after a failure.
    command(&scene, &["CLIENT", "PAUSE", "300", "WRITE"]);
    let ids: Vec<_> = (0..5).map(|n| scene.add_heartbeat(&format!("u{n}"))).collect();
    scene.wait_finished(SOON, "applied after the pause");
    assert_eq!(ids.len(), 5);
    drop(worker);
    for n in 0..5 {
        scene.add_heartbeat(&format!("v{n}"));
    }
    deliver_to_ghost(&scene);
    command(&scene, &["XTRIM", &stream, "MAXLEN", "2"]);
    let worker = scene.worker(&HTTP);
    scene.wait_finished(SOON, "what is left is claimed");
    wait_until(SOON, "the loss is counted", || metric(&worker, "rollcall_entries_lost_total") == 3.0);
    assert!(worker.log().contains("entries were trimmed from the stream before they were applied"), "{}", worker.log());
    assert_eq!(scene.pending(None), 0);

    command(&scene, &["RENAME", "presence:users", "aside"]);
    command(&scene, &["SET", "presence:users", "theirs"]);
    for n in 0..4 {
        scene.add_heartbeat(&format!("w{n}"));
    }
    wait_until(SOON, "the worker has them", || scene.pending(None) == 4);
    wait_until(SOON, "it cannot apply them", || worker.log().contains("WRONGKEY"));
    command(&scene, &["XTRIM", &stream, "MAXLEN", "1"]);
    command(&scene, &["RENAME", "aside", "presence:users"]);
    scene.wait_finished(SOON, "goes on without what is gone");
    wait_until(SOON, "the loss is counted", || metric(&worker, "rollcall_entries_lost_total") == 6.0);
    assert_eq!(scene.pending(None), 0);
    assert!(scene.is_present("w3|"));
}

#[test]
fn poison_is_written_off_and_what_was_only_beside_it_is_applied_alone() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    let [poison, beside, fresh] = ["poison", "beside", "fresh"].map(|user| scene.add_heartbeat(user));
    deliver_to_ghost(&scene);
    for id in [poison, beside] {
        let id = id.to_string();
        command(&scene, &["XCLAIM", &stream, "rollcall", "ghost", "0", &id, "IDLE", "5000", "RETRYCOUNT", "20"]);
    }
    let suspects = scene.deployment.keys(0).suspects();
    command(&scene, &["HSET", &suspects, &poison.to_string(), "2"]);
    let worker = scene.worker(&HTTP);
    scene.wait_finished(SOON, "nothing sticks");
    let letters = scene.letters();
    let found: Vec<_> = letters.iter().map(|l| (l.entry, l.reason.as_str(), l.deliveries >= 20)).collect();
    assert_eq!(found, [(poison, "poison", true)], "{letters:?}");
    assert!(!scene.is_present("poison|") && scene.is_present("beside|") && scene.is_present("fresh|"), "{fresh}");
    assert_eq!(metric(&worker, "rollcall_entries_tried_alone_total"), 2.0);
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
    let found: Vec<_> = scene.letters().iter().map(|l| (l.entry, l.reason.clone(), l.deliveries)).collect();
    assert_eq!(found, [(id, "poison".to_owned(), 5)]);
    assert_eq!(scene.command::<u64>(&["HLEN", &scene.deployment.keys(0).suspects()]), 0);
}

// ---- endings, settings

/// The tombstone of a token or session stays while an older entry is unfinished, however long that takes.
#[test]
fn an_ending_outlives_every_entry_that_is_not_finished() {
    let scene = Scene::start(&[]);
    scene.add(&pairs(&[("type", "view"), ("user", "u"), ("token", "t"), ("item", "i"), ("time", "9999999999999")]));
    scene.add(&pairs(&[("type", "session"), ("sid", "s"), ("data", "{}"), ("time", "9999999999999")]));
    deliver_to_ghost(&scene);
    let patient = scene.worker(&["--claim-idle", "60s"]);
    scene.add(&pairs(&[("type", "logout"), ("user", "u"), ("token", "t"), ("sid", "s")]));
    let keys = scene.deployment.keys(0);
    wait_until(SOON, "the logout is applied", || scene.pending(None) == 2 && scene.command(&["EXISTS", &keys.tokens_ended()]));
    let applied = Instant::now();
    let _janitor = scene.janitor(&["--keep", "0s", "--horizon", "500ms"]);
    wait_until(SOON, "the horizon passes", || applied.elapsed() > Duration::from_millis(1_500));
    drop(patient);
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "the old entries are claimed");
    for (kind, key, name) in [("HEXISTS", keys.login(), "t"), ("HEXISTS", keys.sessions(), "s")] {
        assert!(!scene.command::<bool>(&[kind, &key, name]), "{key}{name} stays ended");
    }
    assert!(!scene.command::<bool>(&["EXISTS", "session:s"]));
    assert!(!scene.command::<bool>(&["EXISTS", "viewed:t"]));
    // Nothing older than this can still come.
    scene.add_heartbeat("later");
    wait_until(SOON, "then the tombstones go", || !scene.command::<bool>(&["EXISTS", &keys.tokens_ended()]));
}

#[test]
fn other_settings_are_refused_with_the_remedy() {
    let scene = Scene::start(&[]);
    let mut first = scene.worker(&[]);
    wait_until(SOON, "the first joins", || scene.consumers().len() == 1);
    for (role, other) in [("worker", ["--thresholds", "3:1"]), ("janitor", ["--recent-cap", "5"]), ("run", ["--presence-ttl", "10s"])] {
        let mut second = Worker::start_as(role, &scene.url(), &other, &[]);
        assert_eq!(second.exit_code(SOON), 1, "{role} {other:?}");
        let remedy = format!("redis-cli HDEL rollcall:meta {}", other[0].trim_start_matches("--"));
        assert!(second.log().contains(&remedy) && second.log().contains(other[1]), "{}", second.log());
    }
    assert!(first.runs());
    assert_eq!(scene.consumers().len(), 1, "who is refused leaves nothing behind");
    scene.add_random(1, 20);
    scene.wait_finished(SOON, "the first goes on");
    scene.verify("after refusals");
    scene.drain(first);
    scene.command::<u64>(&["HDEL", "rollcall:meta", "thresholds"]);
    let mut second = Worker::start(&scene.url(), &["--thresholds", "3:1"], &[]);
    wait_until(SOON, "the remedy helps", || scene.consumers().len() == 1);
    assert_eq!(second.terminate(), 0);
}

#[test]
fn another_number_of_partitions_is_refused() {
    in_parallel([("1", "4"), ("4", "1"), ("4", "8"), ("8", "4")], |(own, other)| {
        let scene = Scene::start(&[("partitions", own)]);
        let worker = scene.worker(&[]);
        wait_until(SOON, "the first joins", || scene.consumers().len() == 1);
        let mut second = Worker::start(&scene.url(), &["--partitions", other], &[]);
        assert_eq!(second.exit_code(Duration::from_secs(5)), 1, "{own} partitions, then {other}");
        drop(worker);
    });
}
