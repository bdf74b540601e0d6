//! Logins that change: a password file that is rotated while processes run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rollcall::private_server::{Options, PrivateServer};

use super::{Pages, SOON, add_heartbeats, presence};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::support::dump;

const USER: &str = "al";

/// A server whose user's password is in a file.
struct Rotating {
    server: PrivateServer,
    folder: tempfile::TempDir,
}

impl Rotating {
    fn start() -> Self {
        let options = Options { unix_socket: true, ..Options::default() };
        let server = PrivateServer::start(options).unwrap();
        let rotating = Self { server, folder: tempfile::tempdir().unwrap() };
        rotating.rotate("first");
        rotating
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// Changes the user's password, on the server and in the file, and ends all connections.
    fn rotate(&self, password: &str) {
        write(&self.file(), password);
        let mut conn = dump::connect(&self.server.url());
        let rights = ["on", "resetpass", &format!(">{password}"), "~*", "&*", "+@all"];
        redis::cmd("ACL").arg("SETUSER").arg(USER).arg(&rights).exec(&mut conn).unwrap();
        self.disconnect();
    }

    fn disconnect(&self) {
        let mut conn = dump::connect(&self.server.url());
        redis::cmd("CLIENT").arg(&["KILL", "USER", USER]).exec(&mut conn).unwrap();
    }

    fn process(&self, role: &str, url: &str) -> Worker {
        let file = self.file();
        let login = ["--redis-username", USER, "--redis-password-file", file.to_str().unwrap()];
        Worker::start_as(role, url, &[&login[..], &["--http", "127.0.0.1:0"]].concat(), &[])
    }

    /// Whether events are applied from now on.
    fn wait_until_applied(&self, what: &str) {
        let mut conn = dump::connect(&self.server.url());
        redis::cmd("DEL").arg("presence:users").exec(&mut conn).unwrap();
        add_heartbeats(&self.server.url(), 3);
        wait_until(SOON, what, || presence(&mut conn) == 3);
    }
}

/// Atomically, as secrets are usually rotated.
fn write(path: &Path, password: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, format!("{password}\n")).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[test]
fn a_rotated_password_file_is_read_for_the_next_connection() {
    let rotating = Rotating::start();
    for url in [rotating.server.url(), rotating.server.unix_url().unwrap()] {
        let mut process = rotating.process("run", &url);
        rotating.wait_until_applied("it works with the first password");
        for password in ["second", "third"] {
            rotating.rotate(password);
            rotating.wait_until_applied(password);
        }
        let pages = Pages::of(&process);
        wait_until(SOON, "worker and janitor are ready", || pages.get("/readyz").0 == 200);
        assert_eq!(process.terminate(), 0);
        for password in ["first", "second", "third"] {
            assert!(!process.log().contains(password), "{}", process.log());
        }
        rotating.rotate("first");
    }
}

#[test]
fn a_password_file_that_cannot_be_read_is_named_and_tried_again() {
    let rotating = Rotating::start();
    let mut process = rotating.process("run", &rotating.server.url());
    rotating.wait_until_applied("it works");
    let pages = Pages::of(&process);
    std::fs::remove_file(rotating.file()).unwrap();
    rotating.disconnect();
    let file = rotating.file().display().to_string();
    wait_until(SOON, "it names the file", || {
        let (status, body) = pages.get("/readyz");
        status == 503 && body.contains(&file) && body.contains("No such file")
    });
    let counted = || pages.metric(r#"rollcall_redis_errors_total{kind="password_file"}"#);
    assert!(counted() >= Some(1.0), "{:?}", counted());
    let hear = |words: &str| wait_until(SOON, words, || process.log().contains(words));
    process.signal("HUP");
    hear("cannot read the password file: No such file");
    write(&rotating.file(), "first");
    process.signal("HUP");
    hear("reread the password file");
    wait_until(SOON, "it is ready again", || pages.get("/readyz").0 == 200);
    rotating.wait_until_applied("it goes on");
    assert_eq!(process.terminate(), 0);
}

/// `<(pass show redis)` in a shell: what cannot be read twice is kept.
#[test]
fn a_password_from_a_pipe_is_read_once() {
    let rotating = Rotating::start();
    let line = format!(
        "exec {} worker --http off --redis-url {} --redis-username {USER} --redis-password-file <(echo first)",
        env!("CARGO_BIN_EXE_rollcall"),
        rotating.server.url()
    );
    let mut bash = Command::new("bash");
    let mut bash = bash.args(["-c", &line]).stderr(Stdio::null()).spawn().unwrap();
    rotating.wait_until_applied("it works");
    rotating.disconnect();
    rotating.wait_until_applied("it works over a second connection");
    bash.kill().unwrap();
    bash.wait().unwrap();
}

#[test]
fn a_plus_in_the_password_of_a_socket_is_a_plus() {
    let rotating = Rotating::start();
    rotating.rotate("one+two");
    let url = format!("{}?user={USER}&pass=one+two", rotating.server.unix_url().unwrap());
    let mut worker = Worker::start(&url, &[], &[]);
    rotating.wait_until_applied("it logs in");
    assert_eq!(worker.terminate(), 0);
}
