//! `status --watch`: on a pipe, as JSON, and on a terminal that changes its size.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use super::ground::{Ground, command};
use crate::harness::wait_until;
use crate::scene::SOON;

/// A command that keeps running, and the lines it writes.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(SOON).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }

    /// Ctrl-C: exit code and standard error.
    fn stop(mut self) -> (Option<i32>, String) {
        self.signal("INT");
        let status = self.child.wait().unwrap();
        let mut error = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (status.code(), error)
    }
}

#[test]
fn a_watch_prints_one_object_a_line_with_rates() {
    let mut ground = Ground::new();
    ground.run("XADD rollcall:events 1-0 type x");
    let watch = Watch::start(command(&ground.url(), &["status", "--watch=100ms", "--json"]));
    assert_eq!(watch.json()["rates"], Value::Null);
    assert_eq!(watch.json()["rates"]["added_per_s"], 0.0);
    for n in 2..=9 {
        ground.run(&format!("XADD rollcall:events {n}-0 type x"));
    }
    let mut added = 0.0;
    let mut before = watch.json();
    wait_until(SOON, "what was added is in the rates", || {
        let answer = watch.json();
        let seconds =
            (answer["now_ms"].as_f64().unwrap() - before["now_ms"].as_f64().unwrap()) / 1000.0;
        added += answer["rates"]["added_per_s"].as_f64().unwrap() * seconds;
        before = answer;
        before["total"]["entries_added"] == 9
    });
    assert!(added <= 8.01, "{added}");
    assert_eq!(watch.stop(), (Some(0), String::new()));
}

#[test]
fn a_watch_outlives_a_server_that_is_away_and_ends_with_its_reader() {
    let mut ground = Ground::new();
    ground.run("XADD rollcall:events 1-0 type x");
    let watch = Watch::start(command(&ground.url(), &["status", "--watch=100ms"]));
    let mut seen = Vec::new();
    wait_until(SOON, "a second page, with rates", || {
        seen.push(watch.line());
        seen.last().is_some_and(|line| line.starts_with("rates "))
    });
    assert_eq!(seen.iter().filter(|line| line.starts_with("stream ")).count(), 2, "{seen:?}");
    assert!(!seen.concat().contains('\u{1b}'), "no terminal, no control sequences");
    ground.stop_server();
    while watch.lines.recv_timeout(Duration::from_secs(2)).is_ok() {}
    ground.restart_server();
    wait_until(SOON, "it goes on", || watch.line().starts_with("server "));
    let (code, error) = watch.stop();
    assert_eq!(code, Some(0));
    assert!(error.contains("rollcall: redis://127.0.0.1"), "{error}");
    // It ends when nobody reads any more.
    let mut watch = Watch::start(command(&ground.url(), &["status", "--watch=100ms"]));
    watch.line();
    drop(watch.lines);
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
    let (code, _, error) = super::ask_at("redis://127.0.0.1:1", &["status", "--watch"]);
    assert_eq!(code, 1, "a first look that fails ends it: {error}");
    let (code, _, error) = super::ask_at(&ground.url(), &["status", "--watch=1ms"]);
    assert!(code == 64 && error.contains("at least 100ms"), "{code} {error}");
}

/// `script` gives it a terminal of 80 columns and 24 rows.
#[test]
fn on_a_terminal_the_page_is_drawn_in_place_and_the_screen_given_back() {
    let mut ground = Ground::new();
    ground.run("XGROUP CREATE rollcall:events rollcall 0 MKSTREAM");
    for n in 0..40 {
        ground.run(&format!("HSET rollcall:workers worker-{n:02} 1"));
    }
    let watch = format!(
        "{} status --watch=100ms --redis-url {}",
        env!("CARGO_BIN_EXE_rollcall"),
        ground.url()
    );
    let inner =
        format!("stty rows 24 cols 80; timeout --foreground -s INT 2 {watch}; echo ended $?");
    let mut script = Command::new("script");
    script.args(["-qec", &inner, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    let output = script.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (drawn, after) = text.rsplit_once("\u{1b}[?1049l").unwrap();
    assert!(drawn.starts_with("\u{1b}[?1049h"), "{text}");
    // The exit code of timeout when it had to send its signal.
    assert_eq!(after.trim_end(), "ended 124", "{text}");
    let frames: Vec<&str> = drawn.split("\u{1b}[H").skip(1).collect();
    assert!(frames.len() >= 3, "{text}");
    let frame = frames[1].split("\u{1b}[J").next().unwrap().replace("\u{1b}[K", "");
    let rows: Vec<&str> = frame.split("\r\n").collect();
    assert!(rows.len() <= 24 && rows.iter().all(|row| row.chars().count() <= 80), "{frame}");
    assert!(frame.contains("worker-00") && frame.contains("more (--json has all)"), "{frame}");
}
