//! The process that the demo shows: one worker and one janitor, as `rollcall run` starts them.

use rollcall::config::{Config, ConfigError, Gathered, Http};
use rollcall::telemetry::http::HttpError;
use rollcall::telemetry::metrics;

use crate::run::{Process, Roles, RunError};

/// Short enough to see users disappear who left without a logout.
const PRESENCE_TTL: &str = "15s";

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The demo's own settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The metrics cannot be recorded.
    #[error("cannot start the metrics recorder")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The loops or the pages cannot be started.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Settings that show everything the state can do within a minute or two, independent of environment and file.
/// `tokens` is how many recent tokens are kept.
///
/// # Errors
/// If the settings contradict each other.
pub(super) fn settings(url: &str, tokens: u32, http: Option<Http>) -> Result<Config, ConfigError> {
    let (tokens, http) = (tokens.to_string(), http.unwrap_or(Http::Default).to_string());
    Config::resolve(&Gathered::from_flags([
        ("redis-url", url),
        ("http", &http),
        ("name", "demo"),
        ("presence-ttl", PRESENCE_TTL),
        ("session-ttl", "60s"),
        ("document-ttl", "30s"),
        ("thresholds", "3:1"),
        ("recent-cap", &tokens),
        ("janitor-interval", "500ms"),
        ("keep", "1m"),
        ("horizon", "10m"),
        ("log", "warn"),
    ])?)
}

/// Starts the process; without its pages if nobody `chose` their address and none of the default ports is free.
///
/// # Errors
/// If the chosen address is in use, or there is no recorder for metrics.
pub(super) async fn start(config: &Config, chose: bool) -> Result<Process, ProcessError> {
    let (roles, recorded) = (Roles::ALL, metrics::install()?);
    match Process::start(config, roles, recorded.clone()).await {
        Err(RunError::Http(HttpError::NoneFree)) if !chose => {
            let without = Config { http: Http::Off, ..config.clone() };
            Ok(Process::start(&without, roles, recorded).await?)
        }
        started => Ok(started?),
    }
}
