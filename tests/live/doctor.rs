//! The doctor against real servers: each fault is caused, found and named; if the remedy is a command, it is run as
//! printed, and the fault is gone.

mod missing;
mod rights;
mod server;
mod slow;
mod state;

use std::process::Command;

use rollcall::private_server::{Options, PrivateServer, in_path};
use serde_json::Value;

use crate::query::ground::ask_at;
use crate::scene::try_command;
use crate::support::dump;

/// The doctor's finding of one check.
pub struct Finding(Value);

impl Finding {
    pub fn level(&self) -> &str {
        self.0["level"].as_str().unwrap()
    }

    pub fn found(&self) -> &str {
        self.0["found"].as_str().unwrap()
    }

    fn steps(&self, kind: &str) -> Vec<&str> {
        let steps = self.0["remedy"].as_array().unwrap();
        steps.iter().filter_map(|step| step[kind].as_str()).collect()
    }

    pub fn advice(&self) -> String {
        self.steps("advice").join("\n")
    }

    /// Runs the commands of the remedy as printed; fails if the server refuses one.
    pub fn run_remedy(&self) {
        let commands = self.steps("run");
        assert!(!commands.is_empty(), "no command in {}", self.0);
        commands.into_iter().for_each(run_command);
    }

    /// The commands of the remedy.
    pub fn commands(&self) -> Vec<&str> {
        self.steps("run")
    }
}

/// Runs a suggested command as printed; fails if it, or the server, refuses.
pub fn run_command(command: &str) {
    let line = match command.strip_prefix("redis-cli ") {
        Some(rest) => {
            let program = if in_path("redis-cli").is_some() { "redis-cli" } else { "valkey-cli" };
            // With -e the exit code shows a refusal.
            format!("{program} -e {rest}")
        }
        None => command.replacen("rollcall", env!("CARGO_BIN_EXE_rollcall"), 1),
    };
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{line}: {said}");
}

/// A server to examine, and how.
pub struct Patient {
    pub server: PrivateServer,
    args: Vec<String>,
}

impl Patient {
    pub fn new(options: Options) -> Self {
        Self { server: PrivateServer::start(options).unwrap(), args: Vec::new() }
    }

    pub fn with_args(extra: &[&str]) -> Self {
        let extra_args = extra.iter().map(|arg| (*arg).to_owned()).collect();
        Self::new(Options { extra_args, ..Options::default() })
    }

    /// The arguments of the doctor from now on.
    pub fn examined_with(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Sends a command, given as words between spaces.
    pub fn send(&self, command: &str) -> redis::Value {
        let words: Vec<&str> = command.split(' ').collect();
        try_command(&mut dump::connect(&self.server.url()), &words)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn finding(&self, check: &str) -> Finding {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let (code, report) = examine(&self.server.url(), &args);
        let findings = report["findings"].as_array().unwrap();
        let failed = findings.iter().any(|finding| finding["level"] == "failure");
        assert_eq!(code, i32::from(failed), "{report}");
        let found = findings.iter().find(|finding| finding["check"] == check);
        Finding(found.unwrap_or_else(|| panic!("no check {check}: {report}")).clone())
    }

    /// Expects the fault to be found at this level, with these words.
    pub fn suffers(&self, check: &str, level: &str, words: &str) -> Finding {
        let finding = self.finding(check);
        assert_eq!(finding.level(), level, "{check}: {}", finding.0);
        assert!(finding.found().contains(words), "{check} does not say {words:?}: {}", finding.0);
        assert!(!finding.0["means"].as_str().unwrap().is_empty(), "{}", finding.0);
        assert!(!finding.0["remedy"].as_array().unwrap().is_empty(), "{}", finding.0);
        finding
    }

    pub fn is_well(&self, check: &str) {
        let finding = self.finding(check);
        assert_eq!(finding.level(), "ok", "{check}: {}", finding.0);
    }

    /// Causes the fault, which is found, and is gone once the remedy was run.
    pub fn is_cured(&self, check: &str, fault: &[&str], level: &str, words: &str) {
        for command in fault {
            self.send(command);
        }
        self.suffers(check, level, words).run_remedy();
        self.is_well(check);
    }
}

/// Runs `rollcall doctor --json`: exit code and report.
pub fn examine(url: &str, args: &[&str]) -> (i32, Value) {
    let (code, out, error) = ask_at(url, &[&["doctor", "--json"], args].concat());
    assert!(!error.contains("panicked"), "{error}");
    let report = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{error}"));
    (code, report)
}
