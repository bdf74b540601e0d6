//! A server to fill with plain commands, and the binary to query it.

use std::process::{Command, Stdio};

use redis::{Commands as _, Connection};
use rollcall::private_server::{Options, PrivateServer};
use serde_json::Value;

/// Users whose names mean something to a pattern, a terminal or a joined name. (A NUL cannot be given on a command
/// line.)
pub const ODD: &[&str] = &[
    "alice",
    "alice|10.0.0.1",
    "a%7Cb",
    "a\nb\u{1b}[2J",
    "{}/",
    "*",
    "[a-z]*",
    "a\\*",
    "日本",
    "a?",
];

/// A server, and a connection to it.
pub struct Ground {
    server: PrivateServer,
    pub conn: Connection,
    /// The server's time when it started.
    pub now_ms: u64,
}

impl Ground {
    pub fn new() -> Self {
        let server = PrivateServer::start(Options::default()).unwrap();
        let mut conn = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut conn).unwrap();
        Self { server, conn, now_ms: seconds * 1000 + micros / 1000 }
    }

    /// Writes a presence entry according to the contract.
    pub fn present(&mut self, user: &str, ip: &str, at_ms: u64) {
        let field = rollcall::key::join(&[user, ip]);
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let (user, ip, ua) = (text(user), text(ip), text("u\u{1b}[1m"));
        let value =
            format!(r#"{{"lastSeen":{at_ms},"user":{user},"ip":{ip},"ua":{ua},"page":"/p"}}"#);
        let _: () = self.conn.hset("presence:users", field, value).unwrap();
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn stop_server(&mut self) {
        self.server.kill();
    }

    pub fn restart_server(&mut self) {
        self.server.restart().unwrap();
    }

    /// The page for people: safe to print, with nothing on standard error.
    pub fn page(&self, words: &[&str]) -> String {
        let (code, out, error) = ask_at(&self.server.url(), words);
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}: {out}");
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{words:?}: {out:?}");
        out
    }

    /// The JSON document for programs.
    pub fn json(&self, words: &[&str]) -> Value {
        let (code, out, error) = ask_at(&self.server.url(), &[words, &["--json"]].concat());
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}: {out}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
    }

    /// Compares some members of the answer, or the whole answer if it is not an object, with their expected values.
    pub fn json_has(&self, words: &[&str], expected: Value) {
        let answer = self.json(words);
        match &expected {
            Value::Object(members) => {
                for (name, value) in members {
                    assert_eq!(&answer[name], value, "{words:?}: {name} in {answer}");
                }
            }
            whole => assert_eq!(&answer, whole, "{words:?}"),
        }
    }

    /// The error message of a command that fails with this code, with nothing on standard output.
    pub fn error(&self, words: &[&str], code: i32) -> String {
        let (found, out, error) = ask_at(&self.server.url(), words);
        assert_eq!((found, out.as_str()), (code, ""), "{words:?}: {error}");
        error
    }

    /// A command that writes to a pipe whose reader is gone: exit code and standard error.
    pub fn closed(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = command(&self.server.url(), words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

pub fn command(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROLLCALL_") {
            command.env_remove(name);
        }
    }
    command.args(words).args(["--redis-url", url]).stdin(Stdio::null());
    command
}

/// Queries the server at `url`: exit code, standard output, standard error.
pub fn ask_at(url: &str, words: &[&str]) -> (i32, String, String) {
    let without_server = words.first() == Some(&"schema");
    let mut command = command(url, words);
    if without_server {
        command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(words);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}
