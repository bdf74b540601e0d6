//! The command dies at any moment, several run at the same time, and there are very many letters.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use redis::Connection;

use super::{Scene, count_letters, dead, start};
use crate::harness::read_stream;
use crate::scene::latencies;
use crate::support::dump;

/// Dead letters of heartbeats with a misspelt type, each of a different user.
fn fill(conn: &mut Connection, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let mut pipe = redis::pipe();
        for n in chunk {
            let entry = format!("{}-0", 1_700_000_000_000_u64 + *n as u64);
            let header = [
                ("entry_id", entry.as_str()),
                ("reason", "unknown_type"),
                ("detail", "type"),
                ("deliveries", "1"),
                ("index", ""),
                ("stream", "rollcall:events"),
            ];
            let add = pipe.cmd("XADD").arg("rollcall:dead").arg("*");
            header.iter().for_each(|(name, value)| {
                add.arg(name).arg(value);
            });
            add.arg("type").arg("hb").arg("user").arg(format!("u{n}"));
        }
        pipe.exec(conn).unwrap();
    }
}

/// How often each user's event is on the stream.
fn users(conn: &mut Connection) -> BTreeMap<Vec<u8>, u32> {
    let mut users = BTreeMap::new();
    for entry in read_stream(conn, "rollcall:events") {
        *users.entry(entry.get(b"user").unwrap().to_vec()).or_default() += 1;
    }
    users
}

#[test]
fn none_is_lost_and_none_comes_twice_where_commands_are_killed_and_run_side_by_side() {
    const LETTERS: usize = 4_000;
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    fill(&mut conn, LETTERS);
    let seed = 11;
    let mut rng = Rng::with_seed(seed);
    let words = ["retry", "--all", "--set", "type=heartbeat", "--rate", "20000"];
    let mut kills = 0;
    while count_letters(&scene) > 0 {
        let mut both =
            [start(&scene, &words).spawn().unwrap(), start(&scene, &words).spawn().unwrap()];
        // Longer and longer, for a machine on which starting takes as long.
        std::thread::sleep(Duration::from_millis(rng.u64(15..60 + kills)));
        for child in &mut both {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        kills += 1;
        assert!(kills < 400, "seed {seed}: it makes no progress");
    }
    let users = users(&mut conn);
    assert_eq!(users.len(), LETTERS, "seed {seed}, {kills} kills: none is lost");
    assert!(
        users.values().all(|count| *count == 1),
        "seed {seed}, {kills} kills: none comes twice"
    );
    assert!(kills > 2, "it was killed in the midst of it");
}

/// 100,000 letters with `ROLLCALL_TEST_LETTERS=100000`.
#[test]
fn others_do_not_wait_while_very_many_letters_are_tried_again_and_dropped() {
    let letters = std::env::var("ROLLCALL_TEST_LETTERS").map_or(5_000, |n| n.parse().unwrap());
    let scene = Scene::start(&[]);
    let mut conn = scene.connection();
    for words in [&["retry", "--all"][..], &["drop", "--all", "--yes"]] {
        fill(&mut conn, letters);
        let idle = latencies(&mut conn, |n| n < 2_000);
        let begun = Instant::now();
        let mut child = start(&scene, words).spawn().unwrap();
        let busy = latencies(&mut conn, |_| child.try_wait().unwrap().is_none());
        let took = begun.elapsed();
        assert_eq!(count_letters(&scene), 0);
        eprintln!("{letters} letters, {words:?}: {took:?}; p99.9 {busy:?}, idle {idle:?}");
        // Beside other tests the machine itself is sometimes slower than that.
        let most = if letters < 100_000 { 50 } else { 5 };
        assert!(busy < idle + Duration::from_millis(most), "{busy:?}, idle {idle:?}");
        assert_eq!(dead(&scene, &["list"])["count"], 0);
    }
    let entries: usize = scene.command(&["XLEN", "rollcall:events"]);
    assert_eq!(entries, letters);
    assert!(dump::server_now(&mut conn) > 0);
}
