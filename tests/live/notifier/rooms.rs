//! Rooms of other servers, in Node and in Python, with a real client in them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::Stage;
use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::scene::SOON;

/// A server of another library, and what a client in its rooms received.
struct Receiver {
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    fn start(stage: &Stage, script: &str, rooms: &[&str]) -> Self {
        let (url, here) = (stage.scene.url(), Path::new(env!("CARGO_MANIFEST_DIR")));
        let script = here.join("tests/clients").join(script);
        let mut command = if script.extension().is_some_and(|extension| extension == "py") {
            let mut python = Command::new(LIBRARIES.join("python/bin/python"));
            python.arg(&script);
            python
        } else {
            let mut node = Command::new("node");
            node.arg(&script).arg(&*LIBRARIES);
            node
        };
        command.arg(&url).args(rooms).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (heard, lines) = (Arc::default(), BufReader::new(child.stdout.take().unwrap()));
        let receiver = Self { child, heard: Arc::clone(&heard) };
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                // The server says where it listens.
                if let Ok(event) = serde_json::from_str(&line) {
                    heard.lock().unwrap().push(event);
                }
            }
        });
        receiver.wait_for("in_rooms");
        receiver
    }

    fn all(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    fn of(&self, event: &str) -> Vec<Value> {
        let all = self.all().into_iter();
        all.filter(|heard| heard["event"] == event).map(|heard| heard["data"].clone()).collect()
    }

    fn wait_for(&self, event: &str) {
        wait_until(SOON, event, || !self.of(event).is_empty());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What both receive in the same rooms.
fn rooms_hear(kind: &str, channel: &str, script: &str) {
    let file =
        format!("[[notify]]\nname = \"rooms\"\nkind = \"{kind}\"\nchannel = \"{channel}\"\n");
    let stage = Stage::start(&[("thresholds", "2:1"), ("changes-cap", "10")], &file);
    let receiver = Receiver::start(&stage, script, &["admin", "doc:d", "user:ann"]);
    let mut notifier = stage.notifier_of(&["rooms"]);
    let add = |event: &str| {
        let words: Vec<&str> = event.split(' ').collect();
        stage.scene.command::<String>(&[&["XADD", "rollcall:events", "*"], &words[..]].concat());
        stage.scene.wait_finished(SOON, "it is applied");
        stage.wait_told("rooms");
    };
    add("type heartbeat user ann ip 10.0.0.7 ua curl page /home sid s1");
    add("type document doc d user ann action join");
    add("type document doc d user bob action join");
    add("type document doc other user bob action join");
    add("type logout user ann ip 10.0.0.7 sid s1");
    for (event, count) in [
        ("document:update", 3),
        ("presence:update", 2),
        ("admin:presence:update", 2),
        ("admin:sessions:update", 2),
    ] {
        wait_until(SOON, event, || receiver.of(event).len() == count);
    }
    let came = receiver.of("presence:update");
    assert_eq!(came[0]["type"], "user_login");
    assert_eq!((&came[0]["page"], &came[0]["ua"]), (&json!("/home"), &json!("curl")));
    assert_eq!(
        came[1],
        json!({"type": "user_logout", "user": "ann", "ip": "10.0.0.7", "ua": "",
        "page": "", "lastSeen": ""})
    );
    assert_eq!(receiver.of("admin:presence:update"), came, "to admins the same");
    assert!(came[0]["lastSeen"].as_u64() > Some(1_700_000_000_000), "{came:?}");
    let update = |kind: &str, user: &str, count: u64, threshold: Value| json!({"type": kind, "doc": "d", "user": user, "count": count, "threshold": threshold});
    assert_eq!(
        receiver.of("document:update"),
        [
            update("joined", "ann", 1, json!("")),
            update("joined", "bob", 2, json!("")),
            update("threshold_reached", "", 2, json!(2)),
        ],
        "nothing of another document"
    );
    let sessions = receiver.of("admin:sessions:update");
    assert_eq!(
        (&sessions[0]["type"], &sessions[0]["ip"]),
        (&json!("session_activity"), &json!("10.0.0.7"))
    );
    assert_eq!(sessions[1]["type"], "session_terminated");
    // What it missed is reported to everybody.
    assert_eq!(notifier.terminate(), 0);
    stage.come(0..100);
    let _again = stage.notifier(&[]);
    receiver.wait_for("gap");
    wait_until(SOON, "all that is kept", || receiver.of("admin:presence:update").len() == 12);
    assert_eq!(receiver.of("gap").len(), 1);
}

#[test]
fn of_a_node_server_with_the_redis_adapter_hear_what_those_of_serve_hear() {
    rooms_hear("socketio-redis", "socket.io", "node-rooms.mjs");
}

#[test]
fn of_flask_with_a_message_queue_hear_what_those_of_serve_hear() {
    rooms_hear("socketio-python", "flask-socketio", "flask_rooms.py");
}
