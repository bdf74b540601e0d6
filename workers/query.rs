//! The commands that query the state, and what they have in common. Each family of commands has a file of its own.
//!
//! Each queries the library, and shows the answer as a page for people or as one JSON document.

mod documents;
mod sessions;
mod tokens;
mod users;

use std::io::{self, BufRead as _, IsTerminal as _};

use rollcall::config::{Config, ConfigError, Flags, Shell};
use rollcall::error::advised;
use rollcall::files::FileError;
use rollcall::seal::SessionKeys;
use rollcall::state::{AskError, State};
use rollcall::telemetry::log;
use serde::Serialize;

use crate::dead::DeadCommand;
use crate::encrypt::Encrypt;
use crate::erase::Erase;
use crate::metrics::Metrics;
use crate::rebuild::{self, RebuildCommand};
use crate::repartition::Repartition;
use crate::schema::Schema;
use crate::status::{self, Status};
use crate::table::{self, Page};
use crate::verify::{self, Verify};

/// The commands that query the state.
// Help shows the documentation of each variant's own type.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum QueryCommand {
    Online(users::Online),
    Seen(users::Seen),
    User(users::User),
    Presence(users::Presence),
    Sessions(sessions::Sessions),
    Recent(tokens::Recent),
    Viewed(tokens::Viewed),
    Document(documents::Document),
    Status(Status),
    #[command(subcommand)]
    Dead(DeadCommand),
    Encrypt(Encrypt),
    Repartition(Repartition),
    Erase(Erase),
    Verify(Verify),
    Rebuild(RebuildCommand),
    Schema(Schema),
    Metrics(Metrics),
}

/// Why a command that queries the state has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server cannot be asked.
    #[error("{url}: {}", advised(.error, .remedy.as_deref()))]
    Server {
        /// The server, without its password.
        url: String,
        error: Box<AskError>,
        /// What to do about it.
        remedy: Option<String>,
    },
    /// The keys of session data cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// No keys of session data are named.
    #[error("session-key-file: name a file with one key per line; the first encrypts")]
    NoKeys,
    /// The state has no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The program has no such schema.
    #[error("there is no schema {name:?}; `rollcall schema` lists them")]
    NoSchema { name: String },
    /// The state differs from what the entries say.
    #[error("the state differs from what the entries say in {count} {}", if *.count == 1 { "place" } else { "places" })]
    Differs { count: u64 },
    /// Confirmation is needed, but there is no terminal.
    #[error("this {0}; confirm with --yes, or use --dry-run")]
    Unconfirmed(&'static str),
    /// The answer to the confirmation was no.
    #[error("nothing was {0}")]
    Declined(&'static str),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    /// The answer cannot be written as JSON.
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
}

/// Runs a command.
pub(crate) fn run(command: &QueryCommand) -> Result<(), QueryError> {
    match command {
        QueryCommand::Online(query) => play(query),
        QueryCommand::Seen(query) => play(query),
        QueryCommand::User(query) => play(query),
        QueryCommand::Presence(query) => play(query),
        QueryCommand::Sessions(query) => play(query),
        QueryCommand::Recent(query) => play(query),
        QueryCommand::Viewed(query) => play(query),
        QueryCommand::Document(query) => play(query),
        QueryCommand::Status(query) => status::run(query),
        QueryCommand::Dead(DeadCommand::List(query)) => play(query),
        QueryCommand::Dead(DeadCommand::Show(query)) => play(query),
        QueryCommand::Dead(DeadCommand::Retry(order)) => play(order),
        QueryCommand::Dead(DeadCommand::Drop(order)) => {
            order.confirm()?;
            play(order)
        }
        QueryCommand::Encrypt(order) => {
            order.check()?;
            play(order)
        }
        QueryCommand::Repartition(order) => order.run(),
        QueryCommand::Erase(order) => {
            order.confirm()?;
            play(order)
        }
        QueryCommand::Verify(command) => verify::run(command),
        QueryCommand::Rebuild(command) => rebuild::run(command),
        QueryCommand::Schema(schema) => schema.run(),
        QueryCommand::Metrics(metrics) => metrics.run(),
    }
}

/// A query of the state.
pub(crate) trait Query {
    type Answer: Answer;

    /// The settings.
    fn config(&self) -> Result<Config, ConfigError>;

    /// How to show the answer.
    fn output(&self) -> &Output;

    /// Queries the state.
    async fn ask(&self, state: &mut State) -> Result<Self::Answer, AskError>;
}

/// An answer. Programs read its serialisation, so its names must not change.
pub(crate) trait Answer: Serialize {
    /// The message, with exit code 1, if the thing in question does not exist.
    fn not_found(&self) -> Option<String> {
        None
    }

    /// Shows it to people.
    fn show(&self, page: &mut Page);
}

/// How to show the answer.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Output {
    /// Print one JSON document, for programs; names ending in _ms are times in epoch milliseconds
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much of a list to show.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Limit {
    /// Show at most this many; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

impl Limit {
    pub(crate) fn get(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

/// Queries once, and prints the answer.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn play<Q: Query>(query: &Q) -> Result<(), QueryError> {
    let config = query.config()?;
    // The filter was checked together with the settings.
    let _checked = log::install(&config.log);
    let answer = ask(query, &config).await?;
    show(&answer, query.output())
}

/// Queries once.
///
/// # Errors
/// If the server cannot be queried; the error has the remedy.
pub(crate) async fn ask<Q: Query>(query: &Q, config: &Config) -> Result<Q::Answer, QueryError> {
    let failed = |error: AskError, shell: &Shell| {
        let (url, remedy) = (config.redis.url().to_string(), error.remedy(shell));
        QueryError::Server { url, error: Box::new(error), remedy }
    };
    let usual = Shell::of(&config.redis, &config.deployment);
    let session_keys = SessionKeys::open(&config.session_key_file)?;
    let mut state = State::open(config).await.map_err(|error| failed(error, &usual))?;
    state.session_keys = session_keys;
    query.ask(&mut state).await.map_err(|error| failed(error, &state.shell))
}

/// An answer as programs read it, on one line.
pub(crate) fn json(answer: &impl Answer) -> Result<String, QueryError> {
    Ok(serde_json::to_string(answer)? + "\n")
}

/// Prints an answer. If nothing was found, that is an error, but programs still get the document.
pub(crate) fn show(answer: &impl Answer, output: &Output) -> Result<(), QueryError> {
    let missing = answer.not_found();
    if output.json {
        table::print(&json(answer)?)?;
    } else if missing.is_none() {
        let mut page = Page::new();
        answer.show(&mut page);
        table::print(&page.into_text())?;
    }
    missing.map_or(Ok(()), |missing| Err(QueryError::NotFound(missing)))
}

/// Asks for confirmation on the terminal before something that cannot be undone: what it `does`, the question, and
/// what was not done if the answer is no.
///
/// # Errors
/// If the answer is no, or there is no terminal.
pub(crate) fn confirm(
    does: &'static str,
    question: &str,
    done: &'static str,
) -> Result<(), QueryError> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(QueryError::Unconfirmed(does));
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(QueryError::Declined(done)),
    }
}

/// Implements the settings part of [`Query`] for a command with the usual flags.
macro_rules! settings {
    () => {
        fn config(&self) -> Result<rollcall::config::Config, rollcall::config::ConfigError> {
            self.flags.load()
        }

        fn output(&self) -> &$crate::query::Output {
            &self.output
        }
    };
}
pub(crate) use settings;

/// The flags of a command that asks the state.
pub(crate) type QueryFlags = Flags<rollcall::config::settings::QueryFlags>;

/// The flags of a command that asks about sessions.
pub(crate) type SessionFlags = Flags<rollcall::config::settings::SessionFlags>;

/// The flags of the command that erases a user.
pub(crate) type EraseFlags = Flags<rollcall::config::settings::EraseFlags>;
/// The flags of a command that replays the stream.
pub(crate) type VerifyFlags = Flags<rollcall::config::settings::VerifyFlags>;

/// The flags of a command that replays the stream and may change the deployment's settings.
pub(crate) type RebuildFlags = Flags<rollcall::config::settings::RebuildFlags>;

/// The flags of a command that asks about the stream.
pub(crate) type StreamFlags = Flags<rollcall::config::settings::StreamFlags>;
