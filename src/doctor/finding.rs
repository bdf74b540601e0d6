//! What the doctor finds: a level, what it saw, what that means, and what to do about it.

use redis::{ConnectionAddr, ConnectionInfo};
use serde::Serialize;

use crate::error::chain;
use crate::state::AskError;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but look at it.
    Warning,
    /// It loses or delays something, or will not work.
    Failure,
}

/// One step of a remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Something to do.
    Advice(String),
    /// A command for a shell.
    Run(String),
    /// A line for `redis.conf`, so that a restart does not undo it.
    Configure(String),
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What that means; empty where all is well.
    pub means: String,
    /// What to do, in order.
    pub remedy: Vec<Step>,
}

impl Diagnosis {
    pub(super) fn ok(found: impl Into<String>) -> Self {
        Self { level: Level::Ok, found: found.into(), means: String::new(), remedy: Vec::new() }
    }

    pub(super) fn warning(found: impl Into<String>, means: impl Into<String>) -> Self {
        Self { level: Level::Warning, means: means.into(), ..Self::ok(found) }
    }

    pub(super) fn failure(found: impl Into<String>, means: impl Into<String>) -> Self {
        Self { level: Level::Failure, ..Self::warning(found, means) }
    }

    pub(super) fn advise(mut self, text: impl Into<String>) -> Self {
        self.remedy.push(Step::Advice(text.into()));
        self
    }

    pub(super) fn run(mut self, command: impl Into<String>) -> Self {
        self.remedy.push(Step::Run(command.into()));
        self
    }

    /// Sets a parameter of the server, now and for good.
    pub(super) fn set(mut self, cli: &Cli, parameter: &str, value: &str) -> Self {
        self.remedy.push(Step::Run(cli.command(&["CONFIG", "SET", parameter, value])));
        self.remedy.push(Step::Configure(format!("{parameter} {value}")));
        self
    }
}

/// A check and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// The partition it is about; for a node of a Cluster, its first one.
    pub partition: u16,
    /// What it says.
    #[serde(flatten)]
    pub diagnosis: Diagnosis,
}

/// What a check comes to: a diagnosis, or why it could not look.
pub(super) type Answer = Result<Diagnosis, Unseen>;

/// Why a check could not look.
#[derive(Clone, Debug)]
pub(super) struct Unseen {
    level: Level,
    why: String,
    /// The right that is missing, as `ACL SETUSER` takes it.
    right: Option<String>,
}

impl Unseen {
    /// The server leaves this out of what it says of itself.
    pub(super) fn unsaid(name: &str) -> Self {
        Self { level: Level::Warning, why: format!("the server does not tell {name}"), right: None }
    }

    /// The right that is missing, if it is one to a command.
    pub(super) fn into_right(self) -> Option<String> {
        self.right
    }

    pub(super) fn diagnosis(self, cli: &Cli, user: &str) -> Diagnosis {
        let Self { level, why, right } = self;
        let diagnosis =
            Diagnosis { level, ..Diagnosis::warning(why, "this could not be looked at") };
        match right {
            Some(right) => diagnosis
                .advise("run the doctor as the user of deploy/acl/doctor.acl, or allow this one to look:")
                .run(cli.command(&["ACL", "SETUSER", user, &right])),
            None => diagnosis,
        }
    }
}

impl From<AskError> for Unseen {
    fn from(error: AskError) -> Self {
        let why = chain(&error);
        if error.is_forbidden() {
            let right = why.split('\'').nth(1).map(|command| format!("+{command}"));
            return Self { level: Level::Warning, why: format!("not permitted: {why}"), right };
        }
        // Managed servers rename or remove commands.
        let level = if why.contains("unknown command") { Level::Warning } else { Level::Failure };
        Self { level, why, right: None }
    }
}

/// How `redis-cli` reaches a server; without user and password, which it takes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cli(String);

impl Cli {
    pub(super) fn of(info: &ConnectionInfo) -> Self {
        let mut text = "redis-cli".to_owned();
        let (host, port) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.as_str(), *port),
            ConnectionAddr::TcpTls { host, port, .. } => {
                text.push_str(" --tls");
                (host.as_str(), *port)
            }
            ConnectionAddr::Unix(path) => {
                text.push_str(&format!(" -s {}", quoted(&path.display().to_string())));
                ("127.0.0.1", 6379)
            }
            _ => ("127.0.0.1", 6379),
        };
        if host != "127.0.0.1" && host != "localhost" {
            text.push_str(&format!(" -h {}", quoted(host)));
        }
        if port != 6379 {
            text.push_str(&format!(" -p {port}"));
        }
        if info.redis_settings().db() != 0 {
            text.push_str(&format!(" -n {}", info.redis_settings().db()));
        }
        Self(text)
    }

    /// A command, as a shell takes it.
    pub(super) fn command(&self, words: &[&str]) -> String {
        let words = words.iter().map(|word| quoted(word));
        std::iter::once(self.0.clone()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// A word that a shell leaves as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:+=@,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo as _;

    use super::*;

    #[test]
    fn commands_can_be_copied_to_a_shell() {
        let cli = |url: &str| Cli::of(&url.into_connection_info().unwrap());
        assert_eq!(cli("redis://localhost").command(&["PING"]), "redis-cli PING");
        assert_eq!(
            cli("redis://al:secret@db.internal:7000/3").command(&["GET", "{p0}:it's *"]),
            "redis-cli -h db.internal -p 7000 -n 3 GET '{p0}:it'\\''s *'"
        );
        assert_eq!(
            cli("unix:/tmp/a b.sock").command(&["GET", ""]),
            "redis-cli -s '/tmp/a b.sock' GET ''"
        );
    }
}
