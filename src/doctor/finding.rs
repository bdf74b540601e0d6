//! What the doctor finds: a level, the finding, its consequence, and the remedy; or why it could not check.

use serde::Serialize;

use crate::error::{Error, chain};
use crate::state::AskError;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but deserves attention.
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
    /// A line for `redis.conf`, so that a restart does not undo the change.
    Configure(String),
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// The consequence; empty if all is well.
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

    pub(super) fn configure(mut self, line: impl Into<String>) -> Self {
        self.remedy.push(Step::Configure(line.into()));
        self
    }
}

/// A check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// The partition it is about; for a node of a Cluster, its first one.
    pub partition: u16,
    /// The result.
    #[serde(flatten)]
    pub diagnosis: Diagnosis,
}

/// The answer of a check: a diagnosis, or why it could not check.
pub(super) type Answer = Result<Diagnosis, Unseen>;

/// Why a check could not check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The user lacks the right to a command, named as `ACL SETUSER` does, or to a key.
    Forbidden(Option<String>),
    /// The server does not have this command.
    NoCommand(String),
    /// The server does not include this in its description of itself.
    Unsaid(String),
    /// Something else went wrong.
    Failed(String),
}

impl Unseen {
    pub(super) fn unsaid(name: &str) -> Self {
        Self::Unsaid(name.to_owned())
    }

    /// The missing right, if it is one to a command.
    pub(super) fn into_right(self) -> Option<String> {
        match self {
            Self::Forbidden(command) => command.map(|command| format!("+{command}")),
            _ => None,
        }
    }
}

impl From<AskError> for Unseen {
    fn from(error: AskError) -> Self {
        let said = chain(&error);
        if error.is_forbidden() {
            // NOPERM … has no permissions to run the 'config|get' command
            return Self::Forbidden(said.split('\'').nth(1).map(str::to_owned));
        }
        match error {
            AskError::Server(Error::NoCommand { command, .. }) => Self::NoCommand(command),
            _ => Self::Failed(said),
        }
    }
}
