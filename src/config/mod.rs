//! The configuration: every setting by flag, environment (`ROLLCALL_…`) and TOML file, checked, as plain typed values
//! in groups for the parts of the program.
//!
//! ```text
//! settings (definitions) → gather (flag > environment > file) → resolve (relations) → Config
//! ```
//!
//! Nothing here connects to anything, and nothing here can print a password.

mod cluster;
mod duration;
mod error;
mod flags;
mod gather;
mod hosts;
mod known;
mod live;
mod moment;
mod notify;
mod options;
mod resolve;
mod sentinel;
mod serve;
mod server;
pub mod settings;
mod shell;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod url;
mod values;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

pub use duration::{DurationError, Millis};
pub use error::{ConfigError, Origin};
pub use flags::Flags;
pub use gather::{Definition, Gathered, Kind, definitions};
pub use known::{Known, Place, Shard};
pub use live::{LIVE, Live, Tuned};
pub use moment::Moment;
pub use notify::{Sink, Target};
pub use sentinel::Sentinels;
pub use serve::{Buffer, Listen, Network, RateLimit, ServeConfig};
pub use server::{Address, RedisConfig, Server, ServerError};
pub use shell::Shell;
pub use tls::{TlsFileError, TlsFiles};
pub use traces::{Sampling, TraceConfig};
pub use url::{RedisUrl, Secret};
pub use values::{Http, LogFormat, Threshold, Thresholds, ValueError};
pub use webhook::Webhook;

pub use crate::projection::{Projection, Projections};

pub use crate::event::Limits;

use crate::decode::Rules;

/// All settings of a process, checked alone and against each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server.
    pub redis: RedisConfig,
    /// What is the same in the whole deployment.
    pub deployment: Deployment,
    /// How a worker reads and applies.
    pub worker: WorkerConfig,
    /// How a janitor sweeps.
    pub janitor: JanitorConfig,
    /// How applications and browsers are served.
    pub serve: ServeConfig,
    /// The file of the keys that encrypt session data.
    pub session_key_file: Option<PathBuf>,
    /// The targets of the notifier.
    pub notify: Vec<Target>,
    /// What this instance is called; not unique, the host's name by default.
    pub name: String,
    /// Where `/metrics` and the health pages are.
    pub http: Http,
    /// What is logged.
    pub log: LogConfig,
    /// The settings that take effect at once when they are reloaded.
    pub live: Live,
}

impl Config {
    /// Checks that there is a target to notify.
    ///
    /// # Errors
    /// If there is nobody.
    pub fn check_targets(&self) -> Result<(), ConfigError> {
        if self.notify.is_empty() { Err(notify::none()) } else { self.check_webhooks() }
    }

    /// Checks that calls of webhooks can be signed.
    ///
    /// # Errors
    /// If a webhook's secrets cannot be used.
    pub fn check_webhooks(&self) -> Result<(), ConfigError> {
        self.notify.iter().try_for_each(notify::check_secrets)
    }
}

/// Settings that must be the same in a whole deployment; otherwise its state would depend on who applied what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The beginning of every key. It tells deployments apart, so it also precedes `rollcall:meta`.
    pub prefix: String,
    /// The number of partitions, at least 1.
    pub partitions: u16,
    /// The stream of events, without prefix and partition.
    pub stream: String,
    /// The consumer group of the workers.
    pub group: String,
    /// Which state is kept.
    pub projections: Projections,
    /// Numbers of users in a document to report, by rising `up`.
    pub thresholds: Vec<Threshold>,
    /// How far an event's time may lie after its entry's, in milliseconds.
    pub max_skew_ms: u64,
    /// How long the sets of the minutes in which users were seen are kept, in milliseconds; whole minutes.
    pub online_window_ms: u64,
    /// How long presence lasts after the last sign of life, in milliseconds.
    pub presence_ttl_ms: u64,
    /// How long a session lasts after its last activity, in milliseconds.
    pub session_ttl_ms: u64,
    /// How long a user stays in a document after the last join, in milliseconds.
    pub document_ttl_ms: u64,
    /// Recent tokens kept per partition.
    pub recent_cap: u64,
    /// Viewed items kept per token.
    pub viewed_cap: u64,
    /// Items kept in the ranking per partition.
    pub ranking_cap: u64,
    /// Dead letters kept per partition.
    pub dead_cap: u64,
    /// Changes kept per partition.
    pub changes_cap: u64,
    /// How large entries may be.
    pub limits: Limits,
}

impl Deployment {
    /// Settings that select the state: another value means another state.
    pub const FIXED: [&str; 3] = ["partitions", "stream", "group"];

    /// How entries are decoded.
    pub fn rules(&self) -> Rules {
        Rules {
            limits: self.limits.clone(),
            max_skew_ms: self.max_skew_ms,
            partitions: self.partitions,
            moved_from: Vec::new(),
        }
    }

    /// The settings as in `rollcall:meta`: names with the canonical text of each value, always in this order. The
    /// prefix is not among them, since it leads to the key.
    pub fn meta_fields(&self) -> Vec<(&'static str, String)> {
        let length = |ms: u64| Millis::new(ms).to_string();
        vec![
            ("partitions", self.partitions.to_string()),
            ("stream", self.stream.clone()),
            ("group", self.group.clone()),
            ("projections", self.projections.to_string()),
            ("thresholds", Thresholds(self.thresholds.clone()).to_string()),
            ("max-skew", length(self.max_skew_ms)),
            ("online-window", length(self.online_window_ms)),
            ("presence-ttl", length(self.presence_ttl_ms)),
            ("session-ttl", length(self.session_ttl_ms)),
            ("document-ttl", length(self.document_ttl_ms)),
            ("recent-cap", self.recent_cap.to_string()),
            ("viewed-cap", self.viewed_cap.to_string()),
            ("ranking-cap", self.ranking_cap.to_string()),
            ("dead-cap", self.dead_cap.to_string()),
            ("changes-cap", self.changes_cap.to_string()),
            ("max-identifier-bytes", self.limits.max_identifier_bytes.to_string()),
            ("max-field-bytes", self.limits.max_field_bytes.to_string()),
            ("max-data-bytes", self.limits.max_data_bytes.to_string()),
            ("max-fields", self.limits.max_fields.to_string()),
            ("max-events", self.limits.max_events.to_string()),
        ]
    }
}

/// How a worker reads and applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Most entries in a batch.
    pub batch: usize,
    /// How long a partition's owner may show no progress before another worker takes over.
    pub takeover: Duration,
    /// Workers that watch each partition besides its owner.
    pub standbys: usize,
}

impl WorkerConfig {
    /// The time limit for a batch and for each call of it: three takeover times. A slow server then delays its
    /// partition without changing its owner again and again.
    pub fn batch_deadline(&self) -> Duration {
        self.takeover * 3
    }
}

/// How a janitor sweeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JanitorConfig {
    /// Pause between two rounds.
    pub interval: Duration,
    /// How long finished entries stay in the stream, in milliseconds.
    pub keep_ms: u64,
    /// How long endings are remembered, in milliseconds; at least `keep_ms`.
    pub horizon_ms: u64,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Levels and targets, as tracing's `EnvFilter` reads them.
    pub filter: String,
    /// How lines are written.
    pub format: LogFormat,
}
