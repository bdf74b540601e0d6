//! `rollcall`: one binary, one file per role or family of commands.
//!
//! Exit status: 0 done or drained, 1 failed, 64 bad usage or configuration.

mod config;
mod dead;
mod demo;
mod descriptors;
mod doctor;
mod encrypt;
mod erase;
mod keyboard;
mod line;
mod load;
mod metrics;
mod out;
mod progress;
mod query;
mod rebuild;
mod reload;
mod repartition;
mod run;
mod schema;
mod screen;
mod serve;
mod signals;
mod status;
mod table;
mod verify;
mod width;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use rollcall::config::settings::{
    JanitorFlags, RoleFlags, ServeFlags, Settings, StreamFlags, WorkerFlags,
};
use rollcall::config::{Config, ConfigError, Flags, TraceConfig};
use rollcall::error::chain;
use rollcall::serve::ServeError;
use rollcall::telemetry::{lines, log, trace};

use run::{Roles, RunError};

/// Bad usage or configuration (`EX_USAGE`).
const USAGE: u8 = 64;
/// How long the process waits at its end for its last output to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Turns a Redis Stream of small events into live state: who is online, which tokens are recent, which
/// sessions are open, who is in which document.
#[derive(Parser)]
#[command(version, about, long_about = None, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show it at work: private Redis, worker, janitor, serve, synthetic traffic, live view
    Demo(demo::DemoOptions),
    /// Run worker, janitor, serve and, if targets are configured, notifier in one process
    Run(Flags<Settings>),
    /// Read events and keep the state
    Worker(Flags<WorkerFlags>),
    /// Keep every structure within its time and size limits
    Janitor(Flags<JanitorFlags>),
    /// Serve the state and a live feed to applications and browsers, and accept their events
    Serve(Flags<ServeFlags>),
    /// Send changes to other systems; the [[notify]] tables of the settings file are the targets
    Notifier(Flags<RoleFlags>),
    Doctor(doctor::Doctor),
    #[command(flatten)]
    Query(query::QueryCommand),
    /// Send synthetic events to any Redis
    Load {
        #[command(flatten)]
        flags: Flags<StreamFlags>,
        #[command(flatten)]
        options: load::LoadOptions,
    },
    /// Check or print the settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Query(query::QueryError),
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    #[error(transparent)]
    Load(#[from] rollcall::error::Error),
    #[error("{count} of the checks failed")]
    Unwell { count: usize },
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
    #[error("cannot start the metrics recorder")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error("cannot read the log filter")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Traces(#[from] trace::TraceError),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_)
            | Self::Query(
                query::QueryError::Unconfirmed(_)
                | query::QueryError::Keys(_)
                | query::QueryError::NoKeys,
            )
            | Self::Run(
                RunError::Keys(_) | RunError::Serve(ServeError::File(_) | ServeError::Nowhere),
            ) => ExitCode::from(USAGE),
            Self::Run(RunError::Loop(fatal)) if fatal.is_of_settings() => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<query::QueryError> for Failure {
    fn from(error: query::QueryError) -> Self {
        match error {
            query::QueryError::Config(error) => Self::Config(error),
            other => Self::Query(other),
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // If the terminal is gone, there is nobody to report this to.
            let _unwritable = error.print();
            return code;
        }
    };
    std::panic::set_hook(Box::new(say_panic));
    descriptors::raise();
    let code = match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lines::say(&format!("rollcall: {}", chain(&error)));
            error.exit_code()
        }
    };
    lines::flush(LAST_WORDS);
    code
}

/// Reports a panic like the standard library, but without waiting for a reader.
fn say_panic(panic: &std::panic::PanicHookInfo<'_>) {
    lines::say(&format!("rollcall: {panic}"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        lines::say(&backtrace.to_string());
    }
    lines::flush(LAST_WORDS);
}

fn execute(command: Command) -> Result<(), Failure> {
    // The program has to choose a provider of cryptography for TLS; an earlier choice stays.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Query(command) => Ok(query::run(&command)?),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Demo(options) => demonstrate(&options),
        Command::Load { flags, options } => make_traffic(&flags.load()?, &options),
        Command::Run(flags) => play(&flags, Roles::ALL),
        Command::Worker(flags) => play(&flags, Roles { worker: true, ..Roles::NONE }),
        Command::Janitor(flags) => play(&flags, Roles { janitor: true, ..Roles::NONE }),
        Command::Serve(flags) => play(&flags, Roles { serve: true, ..Roles::NONE }),
        Command::Notifier(flags) => play(&flags, Roles { notifier: true, ..Roles::NONE }),
        Command::Config(command) => Ok(table::print(&command.answer()?)?),
    }
}

#[tokio::main]
async fn play<G>(flags: &Flags<G>, roles: Roles) -> Result<(), Failure> {
    let gathered = flags.gather()?;
    let config = Config::resolve(&gathered)?;
    if roles == (Roles { notifier: true, ..Roles::NONE }) {
        config.check_targets()?;
    } else if roles.notifier {
        config.check_webhooks()?;
    }
    let traces = TraceConfig::from_variables(|name| std::env::var_os(name))?;
    let filter = log::install(&config.log)?;
    let metrics = rollcall::telemetry::metrics::install()?;
    let instance = format!("{}-{}", config.name, std::process::id());
    let traces = traces.map(|traces| trace::install(&traces, instance)).transpose()?;
    let mut reload = reload::Reload::new(flags, gathered, &config, &filter);
    let hangups = signals::at_hangup(|| reload.again());
    let played = tokio::select! {
        played = run::run(&config, roles, metrics) => played,
        never = hangups => match never {},
    };
    if let Some(traces) = traces {
        traces.flush().await;
    }
    Ok(played?)
}

#[tokio::main]
async fn demonstrate(options: &demo::DemoOptions) -> Result<(), Failure> {
    Ok(demo::run(options).await?)
}

#[tokio::main]
async fn make_traffic(config: &Config, options: &load::LoadOptions) -> Result<(), Failure> {
    log::install(&config.log)?;
    let deployment = &config.deployment;
    let target = load::Target {
        server: config.redis.server(),
        prefix: deployment.prefix.clone(),
        partitions: deployment.partitions,
        stream: deployment.stream.clone(),
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let signal = signals::stop_or_hangup();
    tokio::spawn(async move {
        signal.await;
        stop.send_replace(true);
    });
    load::run(options, &target, &stopped).await?;
    Ok(())
}
