//! Large entries: a worker's memory stays limited whatever their size, and none kills a worker.

use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, heartbeat, page};
use crate::support::events::field;

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
/// Address space of a worker, in KiB: what its threads reserve, and little more than an entry of 150 MiB.
const LIMIT_KIB: u64 = 700_000;
/// The maximum memory of a worker with the default limits, in KiB: three reads of 8 MiB and one entry each, the
/// largest call, and its basic need.
const MOST_KIB: u64 = 64 << 10;

/// A worker with little memory and batches of the usual size.
fn confined(scene: &Scene) -> Worker {
    Worker::start_after(&format!("ulimit -v {LIMIT_KIB}"), "worker", &scene.url(), &HTTP)
}

/// Adds an entry of this many MiB, which is not an event.
fn add_large(scene: &Scene, mib: usize) {
    let mut fields = heartbeat("large");
    fields.push(field("data", &"x".repeat(mib << 20)));
    scene.add(&fields);
}

fn check_memory(worker: &mut Worker, what: &str) {
    let most = worker.memory("VmHWM");
    eprintln!("{what}: at most {most} KiB");
    assert!(most < MOST_KIB, "{what}: {most} KiB");
    assert!(worker.runs());
}

#[test]
fn an_entry_of_any_size_becomes_a_stub_and_kills_nobody() {
    let scene = Scene::start(&[]);
    scene.add_heartbeat("first");
    let sizes = [64, 4, 150, 64];
    for (n, mib) in sizes.into_iter().enumerate() {
        add_large(&scene, mib);
        scene.add_heartbeat(&format!("good{n}"));
    }
    let mut worker = confined(&scene);
    wait_until(SOON * 2, "all is finished", || scene.is_finished());
    check_memory(&mut worker, "64 and 150 MiB");
    let letters = scene.letters();
    assert_eq!(letters.len(), sizes.len());
    for (letter, mib) in letters.iter().zip(sizes) {
        assert_eq!((letter.reason.as_str(), letter.deliveries), ("too_large", 1));
        assert_eq!(letter.original, []);
        let measures = format!("the entry has 3 fields with {} bytes", (mib << 20) + 26);
        assert!(letter.detail.starts_with(&measures), "{}", letter.detail);
    }
    // Nor does it kill workers that take over and try it alone.
    worker.kill();
    add_large(&scene, 64);
    scene.add_heartbeat("last");
    let mut worker = confined(&scene);
    wait_until(SOON, "the next one goes on", || scene.is_finished());
    check_memory(&mut worker, "64 MiB alone");
    assert_eq!(scene.letters().len(), sizes.len() + 1);
    for user in ["first", "good0", "good1", "good2", "good3", "last"] {
        assert!(scene.is_present(&format!("{user}|")), "{user}");
    }
}

#[test]
fn an_entry_of_very_many_fields_becomes_a_stub_and_kills_nobody() {
    let scene = Scene::start(&[]);
    let mut fields = heartbeat("many");
    fields.extend((0..500_000).map(|n| field(&n.to_string(), "")));
    scene.add(&fields);
    scene.add_heartbeat("good");
    let mut worker = confined(&scene);
    wait_until(SOON, "all is finished", || scene.is_finished());
    check_memory(&mut worker, "500,000 fields");
    let letters = scene.letters();
    assert_eq!((letters.len(), letters[0].reason.as_str()), (1, "too_large"));
    scene.verify("very many fields");
}

/// As large as events may be, and very many of them.
#[test]
fn many_large_entries_are_read_a_few_at_a_time() {
    let scene = Scene::start(&[]);
    for n in 0..200 {
        let mut event = format!(r#"{{"type":"heartbeat","user":"u{n}""#);
        event.push_str(&" ".repeat((1 << 20) - event.len() - 1));
        scene.add(&[field("data", &(event + "}"))]);
    }
    let mut worker = confined(&scene);
    let mut served = 0;
    wait_until(SOON * 3, "all is finished", || {
        let clients: String = scene.command(&["CLIENT", "LIST"]);
        served = served.max(clients.lines().map(output_bytes).max().unwrap_or(0));
        scene.is_finished()
    });
    check_memory(&mut worker, "200 entries of 1 MiB");
    assert!(served < 24 << 20, "the server holds {served} bytes for a reader");
    let reads = scene.calls("xread");
    assert!(reads >= 40, "{reads} reads of 200 MiB: more than a read may take was asked for");
    let (_, metrics) = page(&worker, "/metrics");
    let rejected = metrics.lines().filter(|line| line.contains("rejected_total{"));
    assert!(rejected.into_iter().all(|line| line.ends_with(" 0")));
    scene.verify("large entries");
}

/// The size of the server's output buffer for a client, from its line of `CLIENT LIST`.
fn output_bytes(client: &str) -> u64 {
    client.split(' ').find_map(|word| word.strip_prefix("omem=")?.parse().ok()).unwrap_or(0)
}
