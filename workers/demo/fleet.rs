//! The fleet that the demo shows: one worker and one janitor, as `rollcall run` starts them.

use rollcall::config::{Config, ConfigError, Gathered};
use rollcall::telemetry::metrics;

use crate::run::{Fleet, Roles, RunError};

/// Short enough that one sees people who left without a word disappear.
const PRESENCE_TTL: &str = "15s";

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
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

/// Settings under which all that the state can do is seen within a minute or two; neither the
/// environment nor a file has a say. `tokens` is how many recent tokens are kept.
///
/// # Errors
/// If they contradict each other.
pub(super) fn settings(url: &str, tokens: u32) -> Result<Config, ConfigError> {
    let tokens = tokens.to_string();
    Config::resolve(&Gathered::from_flags([
        ("redis-url", url),
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

/// Starts the fleet.
///
/// # Errors
/// If there is no address for its pages or no recorder for its metrics.
pub(super) async fn start(config: &Config) -> Result<Fleet, FleetError> {
    Ok(Fleet::start(config, Roles::ALL, metrics::install()?).await?)
}
