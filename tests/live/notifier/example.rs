//! examples/snapshots: exactly one snapshot for each time a threshold is reached.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::Stage;
use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::roles::tls::free_port;
use crate::scene::SOON;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The example; killed when dropped.
struct Example(Child);

impl Example {
    fn start(port: u16, folder: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/snapshots/receiver.py");
        let mut command = Command::new(LIBRARIES.join("python/bin/python"));
        command.arg(script).arg(port.to_string()).current_dir(folder).stderr(Stdio::null());
        command.args(["documents", "snapshots"]).env("WEBHOOK_SECRET", SECRET);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn each_crossing_has_exactly_one_snapshot_whoever_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("documents")).unwrap();
    std::fs::create_dir(at("snapshots")).unwrap();
    std::fs::write(at("documents/a%2Fb"), "hello").unwrap();
    std::fs::write(at("secret"), SECRET).unwrap();
    let port = free_port();
    let file = format!(
        "[[notify]]\nname = \"snapshots\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n\
         secret-file = {:?}\nallow-private = true\nkinds = [\"threshold_reached\"]\n",
        at("secret")
    );
    let stage = Stage::start(&[("thresholds", "3:1")], &file);
    assert_eq!(stage.notifier_of(&["snapshots"]).terminate(), 0);
    let everybody = |action: &str| {
        for user in ["ann", "bob", "cy"] {
            let event = ["type", "document", "doc", "a/b", "user", user, "action", action];
            stage
                .scene
                .command::<String>(&[&["XADD", "rollcall:events", "*"], &event[..]].concat());
        }
        stage.scene.wait_finished(SOON, "they came, or went");
    };
    let mut example = Example::start(port, folder.path());
    for round in 0..5 {
        everybody("join");
        everybody("leave");
        // Dies after the call, before or while it records that the call was accepted.
        let mut doomed = stage.notifier(&[("ROLLCALL_TEST_FAILPOINT", "mid-call:1")]);
        doomed.wait(SOON);
        stage.expire("snapshots");
        if round == 2 {
            drop(example);
            example = Example::start(port, folder.path());
        }
    }
    let _last = stage.notifier(&[]);
    stage.wait_told("snapshots");
    let changes: Vec<(String, Vec<(String, String)>)> =
        stage.scene.command(&["XRANGE", "rollcall:changes", "-", "+"]);
    let kind = ("kind".to_owned(), "threshold_reached".to_owned());
    let reached = changes.iter().filter(|(_, fields)| fields.contains(&kind));
    let seq = |fields: &[(String, String)]| {
        fields.iter().find(|(name, _)| name == "seq").unwrap().1.clone()
    };
    let expected: BTreeSet<String> = reached.map(|(_, fields)| seq(fields)).collect();
    assert_eq!(expected.len(), 5);
    let snapshots = || -> Vec<String> {
        let names =
            std::fs::read_dir(at("snapshots")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    };
    wait_until(SOON, "all are there", || snapshots().len() == 5);
    let found: BTreeSet<String> =
        snapshots().iter().map(|name| name.rsplit('-').next().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
    assert!(snapshots().iter().all(|name| name.starts_with("a%2Fb.")));
}
