//! Real clients of Socket.IO, in JavaScript and in Python, as processes that take commands.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::clients::LIBRARIES;
use crate::scene::SOON;

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    JavaScript,
    Python,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::JavaScript, Self::Python];
}

/// How a client may connect.
pub const TRANSPORTS: [&[&str]; 3] = [&["polling"], &["websocket"], &["polling", "websocket"]];

/// A process with clients.
pub struct Sockets {
    child: Child,
    commands: ChildStdin,
    /// Lines, and when they came, in microseconds since the epoch.
    lines: Receiver<(Value, u64)>,
    /// Messages received but not requested yet.
    heard: VecDeque<(Value, u64)>,
}

impl Sockets {
    pub fn start(language: Language) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = match language {
            Language::JavaScript => {
                let mut command = Command::new("node");
                command.arg(here.join("sockets.mjs")).arg(&*LIBRARIES);
                command
            }
            Language::Python => {
                let mut command = Command::new(LIBRARIES.join("python/bin/python"));
                command.arg(here.join("sockets.py"));
                command
            }
        };
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/run");
        let (commands, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
                let _gone = sender.send((serde_json::from_str(&line).unwrap(), now));
            }
        });
        Self { child, commands, lines, heard: VecDeque::new() }
    }

    fn command(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Connects, without waiting for it.
    pub fn open(&mut self, name: &str, address: SocketAddr, transports: &[&str], auth: &Value) {
        let url = format!("http://{address}");
        self.command(&json!({
            "do": "connect", "name": name, "url": url, "transports": transports, "auth": auth
        }));
    }

    /// Connects; returns the transport that it began with.
    pub fn connect(&mut self, name: &str, address: SocketAddr, transports: &[&str]) -> Value {
        self.open(name, address, transports, &Value::Null);
        self.expect(name, "connect")
    }

    /// Connects and enters a room.
    pub fn join(&mut self, name: &str, address: SocketAddr, transports: &[&str], room: &str) {
        self.connect(name, address, transports);
        self.emit(name, "join-room", &json!({ "room": room }));
        assert_eq!(self.expect(name, "joined_room"), json!({ "room": room }));
    }

    pub fn emit(&mut self, name: &str, event: &str, data: &Value) {
        self.command(&json!({ "do": "emit", "name": name, "event": event, "data": data }));
    }

    /// Sends an event and returns its acknowledgement.
    pub fn ask(&mut self, name: &str, event: &str, data: &Value) -> Value {
        self.command(&json!({ "do": "ask", "name": name, "event": event, "data": data }));
        self.expect(name, "ack")
    }

    pub fn close(&mut self, name: &str) {
        self.command(&json!({ "do": "close", "name": name }));
        self.expect(name, "disconnect");
    }

    /// The data of the next such event to this client.
    pub fn expect(&mut self, name: &str, event: &str) -> Value {
        let found = self.expect_where(&format!("{event} to {name}"), |line| {
            line["name"] == name && line["event"] == event
        });
        found["data"].clone()
    }

    /// The data of the next such event of this type to this client.
    pub fn expect_type(&mut self, name: &str, event: &str, kind: &str) -> Value {
        let found = self.expect_where(&format!("{event} {kind} to {name}"), |line| {
            line["name"] == name && line["event"] == event && line["data"]["type"] == kind
        });
        found["data"].clone()
    }

    pub fn expect_where(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.heard.iter().position(|(line, _)| is_it(line)) {
            return self.heard.remove(place).unwrap().0;
        }
        let started = Instant::now();
        loop {
            let left = SOON.saturating_sub(started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok((line, _)) if is_it(&line) => return line,
                Ok(heard) => self.heard.push_back(heard),
                Err(_) => panic!("no {what}; heard {:#?}", self.heard),
            }
        }
    }

    /// Everything received within a time, and before without being requested.
    pub fn heard_within(&mut self, time: Duration) -> Vec<Value> {
        self.heard_at(time).into_iter().map(|(line, _)| line).collect()
    }

    /// The same, with the times of arrival in microseconds since the epoch.
    pub fn heard_at(&mut self, time: Duration) -> Vec<(Value, u64)> {
        let started = Instant::now();
        while let Ok(line) = self.lines.recv_timeout(time.saturating_sub(started.elapsed())) {
            self.heard.push_back(line);
        }
        self.heard.drain(..).collect()
    }

    /// Forgets what was received.
    pub fn forget(&mut self) {
        self.heard_within(Duration::ZERO);
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _ended = self.child.wait();
    }
}
