//! examples/sessions: sessions are found in the database after Redis has lost them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::address;
use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::scene::{SOON, Scene};

/// The example with its database.
struct Archive {
    folder: tempfile::TempDir,
    redis: String,
}

struct Keeping(Child);

impl Drop for Keeping {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Archive {
    fn database(&self) -> PathBuf {
        self.folder.path().join("sessions.db")
    }

    fn command(&self, words: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sessions/archive.py");
        let mut command = Command::new(LIBRARIES.join("python/bin/python"));
        command.arg(script).args(&words[..2]).arg(self.database()).args(&words[2..]);
        command.stderr(Stdio::null());
        command
    }

    fn keep(&self, url: &str) -> Keeping {
        Keeping(self.command(&["keep", url]).spawn().unwrap())
    }

    fn read(&self, redis: &str, sid: &str) -> Option<String> {
        let output = self.command(&["read", redis, sid]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Its content without any Redis.
    fn kept(&self, sid: &str) -> Option<String> {
        self.read("redis://127.0.0.1:1", sid)
    }
}

fn session(scene: &Scene, sid: &str, rest: &[&str]) {
    let words = ["XADD", "rollcall:events", "*", "type", "session", "sid", sid];
    scene.command::<String>(&[&words, rest].concat());
}

#[test]
fn sessions_outlive_an_emptied_redis_and_an_archive_that_is_killed() {
    let scene = Scene::start(&[]);
    let (_worker, serve) = (scene.worker(&[]), scene.serve(&[]));
    let url = format!("http://{}", address(&serve));
    let archive = Archive { folder: tempfile::tempdir().unwrap(), redis: scene.url() };
    let odd = "a/../b|%2F\n?";
    let keeping = archive.keep(&url);
    session(&scene, odd, &["user", "ann", "data", r#"{"n":1}"#]);
    session(&scene, "ended", &["data", "{}"]);
    wait_until(SOON, "both are kept", || {
        archive.kept(odd).as_deref() == Some(r#"{"n":1}"#) && archive.kept("ended").is_some()
    });
    drop(keeping);
    session(&scene, "ended", &["action", "terminate"]);
    session(&scene, "meanwhile", &["data", r#"{"m":1}"#]);
    session(&scene, odd, &["user", "ann", "data", r#"{"n":2}"#]);
    scene.wait_finished(SOON, "all is applied");
    assert_eq!(archive.read(&archive.redis, odd).as_deref(), Some(r#"{"n":2}"#), "from Redis");
    let _keeping = archive.keep(&url);
    wait_until(SOON, "what came meanwhile is kept, and what ended is not", || {
        archive.kept("meanwhile").is_some()
            && archive.kept(odd).as_deref() == Some(r#"{"n":2}"#)
            && archive.kept("ended").is_none()
    });
    scene.command::<()>(&["FLUSHALL"]);
    for (sid, data) in
        [(odd, Some(r#"{"n":2}"#)), ("meanwhile", Some(r#"{"m":1}"#)), ("ended", None)]
    {
        assert_eq!(archive.read(&archive.redis, sid).as_deref(), data, "{sid:?}");
    }
    // The next event restores it, and the archive continues.
    session(&scene, odd, &["user", "ann", "data", r#"{"n":3}"#]);
    wait_until(SOON, "it is kept", || archive.kept(odd).as_deref() == Some(r#"{"n":3}"#));
    assert_eq!(archive.kept("meanwhile").as_deref(), Some(r#"{"m":1}"#));
}
