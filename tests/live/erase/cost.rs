//! The effect of an erasure on other clients.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{erase, forms, places};
use crate::query::ground::command;
use crate::scene::{SOON, Scene, latencies};

/// `ROLLCALL_TEST_DOCUMENTS=10000` for a user in 10,000 documents.
#[test]
fn others_do_not_wait_while_a_user_of_very_many_documents_is_erased() {
    let documents = std::env::var("ROLLCALL_TEST_DOCUMENTS").map_or(1_000, |n| n.parse().unwrap());
    let scene = Scene::start(&[("thresholds", "2:1")]);
    let mut conn = scene.connection();
    let docs: Vec<_> = (0..documents).collect();
    for some in docs.chunks(500) {
        let mut pipe = redis::pipe();
        for n in some {
            for user in ["vic", "bob"] {
                let event = ["type", "document", "action", "join", "user", user, "doc"];
                pipe.cmd("XADD").arg("rollcall:events").arg("*").arg(&event).arg(format!("d{n}"));
            }
            let event =
                ["type", "login", "user", &format!("u{n}"), "sid", &format!("s{n}"), "token"];
            pipe.cmd("XADD").arg("rollcall:events").arg("*").arg(&event).arg(format!("t{n}"));
        }
        pipe.exec(&mut conn).unwrap();
    }
    let worker = scene.worker(&["--batch", "500"]);
    scene.wait_finished(SOON * 3, "applied");
    let idle = latencies(&mut conn, |n| n < 2_000);
    let begun = Instant::now();
    let mut command = command(&scene.url(), &["erase", "vic", "--yes"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let busy = latencies(&mut conn, |_| child.try_wait().unwrap().is_none());
    let took = begun.elapsed();
    eprintln!("{documents} documents: {took:?}; p99.9 {busy:?}, idle {idle:?}");
    // Beside other tests the machine itself is sometimes slower than that.
    let most = if documents < 10_000 { 50 } else { 5 };
    assert!(busy < idle + Duration::from_millis(most), "{busy:?}, idle {idle:?}");
    assert_eq!(places(&mut conn, &forms("vic")), [""; 0]);
    let counts: Vec<String> = docs
        .iter()
        .take(50)
        .map(|n| scene.command(&["GET", &format!("sessions:doc:d{n}:count")]))
        .collect();
    assert!(counts.iter().all(|count| count == "1"), "{counts:?}");
    let levels: u64 = scene.command(&["HLEN", "rollcall:docs:levels"]);
    assert_eq!(levels, 0, "thresholds follow");
    assert_eq!(erase(&scene, "vic", &["--yes"])["connections"], 0);
    drop(worker);
}
