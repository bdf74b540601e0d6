//! Three sentinels on private ports, and what a process reports when they do not lead to a master.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::FromRedisValue;
use rollcall::private_server::{Options, PrivateServer, find_server};
use tempfile::TempDir;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::try_command;
use crate::support::dump;

pub const MASTER: &str = "mymaster";
const SOON: Duration = Duration::from_secs(20);

pub struct Sentinels {
    sentinels: Vec<PrivateServer>,
    _folder: TempDir,
}

impl Sentinels {
    /// Three that watch the master on a port, once they know its replicas and each other.
    pub fn start(port: u16, replicas: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sentinels = (0..3).map(|n| start(folder.path(), n, &rules(port), &[])).collect();
        let all = Self { sentinels, _folder: folder };
        wait_until(SOON, "the sentinels know everyone", || {
            (0..3).all(|n| {
                let others: Vec<redis::Value> = all.ask(n, &["SENTINEL", "SENTINELS", MASTER]);
                let found: Vec<redis::Value> = all.ask(n, &["SENTINEL", "REPLICAS", MASTER]);
                (others.len(), found.len()) == (2, replicas)
            })
        });
        all
    }

    /// The URL of the master, with one sentinel in it that does not exist.
    pub fn url(&self) -> String {
        let ports: Vec<_> =
            self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        format!("redis+sentinel://127.0.0.1:1,{}/{MASTER}/0", ports.join(","))
    }

    pub fn ask<T: FromRedisValue>(&self, n: usize, words: &[&str]) -> T {
        let mut conn = dump::connect(&self.sentinels[n].url());
        try_command(&mut conn, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn ask_all(&self, words: &[&str]) {
        (0..3).for_each(|n| self.ask(n, words));
    }

    /// Makes one of them watch a master on another port.
    pub fn monitor(&self, n: usize, port: u16) {
        self.ask::<()>(n, &["SENTINEL", "MONITOR", MASTER, "127.0.0.1", &port.to_string(), "3"]);
    }

    /// Waits until all of them name the master on that port.
    pub fn wait_for_master(&self, port: u16, deadline: Duration) {
        wait_until(deadline, "the sentinels have a new master", || {
            (0..3).all(|n| {
                let (_, named): (String, u16) =
                    self.ask(n, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
                named == port
            })
        });
    }
}

fn rules(port: u16) -> String {
    format!(
        "sentinel monitor {MASTER} 127.0.0.1 {port} 2\n\
         sentinel down-after-milliseconds {MASTER} 1000\n\
         sentinel failover-timeout {MASTER} 5000\n"
    )
}

/// A sentinel is the server with another flag and a writable file of its own.
pub fn start(folder: &Path, n: usize, rules: &str, extra: &[&str]) -> PrivateServer {
    let (config, script) = (folder.join(format!("{n}.conf")), folder.join(format!("{n}.sh")));
    std::fs::write(&config, rules).unwrap();
    let server = find_server(None).unwrap();
    let line =
        format!("#!/bin/sh\nexec {} {} \"$@\" --sentinel\n", server.display(), config.display());
    std::fs::write(&script, line).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let extra_args = extra.iter().map(|&word| word.to_owned()).collect();
    PrivateServer::start(Options { binary: Some(script), extra_args, ..Options::default() })
        .unwrap()
}

/// One query; its exit code and output.
fn query(url: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    let output = command.args(["online", "--json", "--redis-url", url]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn sentinels_and_servers_have_logins_of_their_own_and_keep_them() {
    let extra_args = ["--requirepass", "d@ta"].map(str::to_owned).to_vec();
    let mut server = PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = format!("{}sentinel auth-pass {MASTER} d@ta\n", rules(server.port()));
    let sentinel = start(folder.path(), 0, &rules, &["--requirepass", "sentin&l"]);
    let port = sentinel.port();
    let url = |data: &str, rest: &str| {
        format!("redis+sentinel://{data}127.0.0.1:1,127.0.0.1:{port}/{MASTER}{rest}")
    };
    let (code, said) = query(&url(":d%40ta@", "?sentinel_password=sentin%26l"));
    assert_eq!(code, Some(0), "{said}");
    for (url, why) in [
        (url(":d%40ta@", ""), "NOAUTH"),
        (url(":d%40ta@", "?sentinel_password=wrong"), "uthentication"),
        (url(":wrong@", "?sentinel_password=sentin%26l"), "uthentication"),
        (url(":d%40ta@", "x?sentinel_password=sentin%26l"), "knows no master of that name"),
    ] {
        let (code, said) = query(&url);
        assert_eq!(code, Some(1), "{url}: {said}");
        assert!(said.contains(why), "{url}: {said}");
        assert!(said.contains("redis-url: no sentinel leads to a master mymaster"), "{said}");
        assert!(
            said.contains("connecting to 127.0.0.1:1 failed"),
            "the one that is not there: {said}"
        );
        let show = "redis-cli -p 1 --askpass SENTINEL MASTERS";
        assert!(said.trim_end().ends_with(show) || !url.contains("sentin%26l"), "{said}");
        for secret in ["d@ta", "d%40ta", "sentin&l", "sentin%26l", "wrong"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    // The error names the master that the sentinels name.
    server.kill();
    let (code, said) = query(&url(":d%40ta@", "?sentinel_password=sentin%26l"));
    let refused = format!("127.0.0.1:{port}: connecting to 127.0.0.1:{} failed: ", server.port());
    assert!(code == Some(1) && said.contains(&refused), "{said}");
}

#[test]
fn a_rotated_password_file_is_read_for_the_master_too() {
    let server = PrivateServer::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sentinel = start(folder.path(), 0, &rules(server.port()), &[]);
    let url = format!("redis+sentinel://127.0.0.1:{}/{MASTER}", sentinel.port());
    let file = folder.path().join("password");
    let mut conn = dump::connect(&server.url());
    let mut rotate = |password: &str| {
        std::fs::write(&file, password).unwrap();
        try_command::<()>(&mut conn, &["CONFIG", "SET", "requirepass", password]).unwrap();
        // Of the other connections, which have not logged in, the server keeps those of sentinels.
        try_command::<u64>(&mut conn, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .unwrap();
    };
    rotate("first");
    let flags = ["--redis-password-file", file.to_str().unwrap(), "--http", "127.0.0.1:0"];
    let mut process = Worker::start_as("run", &url, &flags, &[]);
    let pages = Pages::of(&process);
    let is_ready = || pages.get("/readyz").0 == 200;
    wait_until(SOON, "it works", is_ready);
    rotate("second");
    let connects = || pages.metric("rollcall_redis_connects_total{role=\"worker\"}");
    wait_until(SOON, "it connects again", || connects() >= Some(2.0));
    wait_until(SOON, "it is ready again", is_ready);
    assert_eq!(process.terminate(), 0, "{}", process.log());
}

/// If only sentinels know the master, the suggested command asks them, too.
#[test]
fn a_suggested_command_finds_the_master() {
    let server = PrivateServer::start(Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sentinel = start(folder.path(), 0, &rules(server.port()), &[]);
    let url = format!("redis+sentinel://127.0.0.1:{}/{MASTER}", sentinel.port());
    let mut conn = dump::connect(&server.url());
    try_command::<()>(&mut conn, &["SET", "rollcall:meta", "x"]).unwrap();
    let (code, said) = query(&url);
    assert_eq!(code, Some(1));
    let command = said.trim_end().split_once("out of the way: ").unwrap().1;
    crate::doctor::run_command(command);
    let moved: String = try_command(&mut conn, &["GET", "foreign:rollcall:meta"]).unwrap();
    assert_eq!(moved, "x", "{command}");
    let (code, said) = query(&url);
    assert_eq!(code, Some(0), "{said}");
}
