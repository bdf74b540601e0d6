//! The examples, and the source document's front end, with real libraries.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Language, Sockets, address};
use crate::clients::LIBRARIES;
use crate::crowd::crowd;
use crate::harness::{read_stream, wait_until};
use crate::replica::Replica;
use crate::scene::{SOON, Scene, Traffic};
use crate::support::seed;

/// A process that prints lines, of which the last is kept.
struct Printing {
    child: Child,
    last: Arc<Mutex<String>>,
}

impl Printing {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("tests/run");
        let (output, last) = (child.stdout.take().unwrap(), Arc::<Mutex<String>>::default());
        let shared = Arc::clone(&last);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                *shared.lock().unwrap() = line;
            }
        });
        Self { child, last }
    }

    fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The events on the stream.
fn events(scene: &Scene) -> Vec<Value> {
    let entries = read_stream(&mut scene.connection(), "rollcall:events");
    let events = entries.iter().flat_map(|entry| {
        serde_json::from_slice::<Vec<Value>>(entry.get(b"data").unwrap()).unwrap()
    });
    events.collect()
}

#[test]
fn the_examples_know_who_is_present_whatever_breaks() {
    let scene = Scene::start(&[("presence-ttl", "2s")]);
    let (worker, janitor) = (scene.worker(&[]), scene.janitor(&[]));
    let mut serve = scene.serve(&[]);
    let at = address(&serve);
    let url = format!("http://{at}");
    let browser = root().join("tests/clients/roster.mjs");
    let rosters = [
        Printing::start(Command::new("node").arg(browser).arg(&*LIBRARIES).arg(&url)),
        Printing::start(
            Command::new("python3").arg(root().join("examples/live/roster.py")).arg(&url),
        ),
    ];
    let traffic = Traffic::start_from(&scene, 0, 300, crowd(seed(), 1));
    wait_until(SOON, "both print", || rosters.iter().all(|roster| !roster.last().is_empty()));
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(500));
        serve.kill();
        serve = scene.serve(&["--listen", &at.to_string()]);
    }
    std::thread::sleep(Duration::from_millis(500));
    traffic.stop();
    scene.wait_finished(SOON, "the worker finishes the stream");
    scene.drain(janitor);
    scene.drain(worker);
    let state = Replica::of_server(&mut scene.connection(), &scene.deployment.keys(0));
    assert!(!state.presence.is_empty());
    for roster in rosters {
        let known =
            || -> BTreeSet<(String, String)> { serde_json::from_str(&roster.last()).unwrap() };
        wait_until(SOON, "it has what the server has", || known() == state.presence);
    }
}

#[test]
fn the_document_s_front_end_works_as_it_is() {
    let scene = Scene::start(&[]);
    let (_worker, serve) = (scene.worker(&[]), scene.serve(&[]));
    let mut admin = Sockets::start(Language::Python);
    admin.connect("admin", address(&serve), &["websocket"]);
    admin.emit("admin", "join-room", &json!({}));
    admin.expect("admin", "joined_room");
    let front_end = Printing::start(
        Command::new("node")
            .arg(root().join("tests/clients/front-end.mjs"))
            .arg(&*LIBRARIES)
            .arg(format!("http://{}", address(&serve)))
            .arg("зоя|1"),
    );
    let login = admin.expect_type("admin", "admin:presence:update", "user_login");
    assert_eq!((&login["user"], &login["page"]), (&"зоя|1".into(), &"/dashboard".into()));
    for _ in 0..3 {
        admin.expect_type("admin", "admin:presence:update", "user_activity");
    }
    assert_eq!(front_end.last(), "200");
    let events = events(&scene);
    for (way, agent) in [("HTTP", "node"), ("Socket.IO", "node-XMLHttpRequest")] {
        assert!(events.iter().any(|event| event["ua"] == agent), "by {way}: {events:?}");
    }
}

#[test]
fn a_page_says_that_it_is_looked_at_and_when_it_is_left() {
    let scene = Scene::start(&[]);
    let serve = scene.serve(&[]);
    let output = Command::new("node")
        .arg(root().join("tests/clients/page.mjs"))
        .arg(root().join("examples/browser/rollcall.js"))
        .args([&format!("http://{}", address(&serve)), "ann"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "0 true\n", "{}", String::from_utf8_lossy(&output.stderr));
    let events = events(&scene);
    assert!(events.iter().all(|event| event["user"] == "ann"), "{events:?}");
    let count = |page: &str| events.iter().filter(|event| event["page"] == page).count();
    assert!(count("/seen") >= 3, "{events:?}");
    assert_eq!((count("/hidden"), count("/left")), (0, 1), "{events:?}");
}
